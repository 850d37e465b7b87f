"""What to look at when a device cannot be reached or believed."""

import re
import socket
from collections.abc import Iterator

from derms.errors import FieldError, TurnedAway

_OTHER_UNIT = re.compile(r"\bunit (\d+), expected \d+|\bunit (\d+) answered for unit")


def hint(error: FieldError) -> str:
    """A clause with what to look at, to stand behind the error; empty where nobody can say."""
    text = str(error)
    causes = tuple(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "; check the host name"
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return "; is it switched on? Check host, port and --transport"
    if any(isinstance(cause, (TurnedAway, ConnectionResetError)) for cause in causes):
        return "; another master may hold its only connection"
    if found := _OTHER_UNIT.search(text):
        unit = found[1] or found[2]
        return f"; if it always answers as unit {unit}, give it a profile with answers_as = {unit}"
    if "transaction id 0, expected" in text:
        return "; if it always answers with transaction 0, give it a profile with zero_transaction = true"
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__

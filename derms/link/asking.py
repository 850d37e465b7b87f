"""The asking end of the link: what both adapters, and all who ask, have in common."""

import itertools
from typing import Any, Protocol, TypeVar

from derms.errors import LinkError
from derms.link.messages import Answer, Envelope, NotDone, Stamp

Reply = TypeVar("Reply")


class Link(Protocol):
    """The way to the gateway."""

    async def ask(self, request: object, kind: type[Reply], *, within_s: float) -> Reply:
        """The reply to a request, which is of a kind.

        Raises
        ------
        LinkError
            None came in time, another kind did, or nothing was done; the message says why.
        """
        ...


class Envelopes:
    """Puts requests into envelopes, each with an id of its own, and takes replies out of answers."""

    def __init__(self, boot: str, sender: str) -> None:
        """`sender` is a name that nobody else on this link has."""
        self._boot = boot
        self._name = sender
        self._numbers = itertools.count(1)

    def sealed(self, request: object, now_s: float, within_s: float) -> Envelope:
        return Envelope(f"{self._name}-{next(self._numbers)}", Stamp(self._boot, now_s), within_s, request)


def opened(answer: Any, envelope: Envelope, kind: type[Reply]) -> Reply:
    """The reply in an answer; raises LinkError where it is none, or another one's."""
    what = type(envelope.request).__name__
    if not isinstance(answer, Answer) or answer.id != envelope.id:
        raise LinkError(f"{what}: what came back is not its answer")
    if isinstance(answer.reply, NotDone):
        raise LinkError(f"{what}: {answer.reply.why}")
    if not isinstance(answer.reply, kind):
        raise LinkError(f"{what}: answered with {type(answer.reply).__name__}")
    return answer.reply

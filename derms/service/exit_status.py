"""How commands end: 0 all is well, 1 failed or refused as things stand, 2 what was given is wrong, 130 after Ctrl-C."""

from derms.domain.refusal import Refused

OK, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130
"""The last is that of shells after Ctrl-C."""


def refused_status(refused: Refused) -> int:
    """How a command ends whose order is refused."""
    return WRONG_INPUT if refused.is_of_request else FAILED

"""How often a device is polled, and what that costs its link: a table of classes, the first that fits is taken."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from derms.domain.der import Device, Link
from derms.domain.settings import FieldSettings

LARGE_W = 1e6
"""A plant of this rating and more moves the feeder by itself [W]."""
STALE_POLLS = 3.5
"""Polls after which a value is stale however slow its plan is."""


@dataclass(frozen=True, slots=True)
class PollPlan:
    """The rings of one device."""

    name: str
    poll_s: float
    """Between two readings of its measurements [s]."""
    settings_s: float
    """Between two readings of its settings [s]."""
    stale_after_s: float
    """Age from which its values are stale [s]."""


def _is_large(device: Device) -> bool:
    return device.is_der and device.p_rated_w >= LARGE_W


_CLASSES: Sequence[tuple[str, Callable[[Device], bool], Callable[[FieldSettings], float]]] = (
    ("cellular", lambda device: device.link is Link.CELLULAR, lambda settings: settings.cellular_poll_s),
    ("large plant", _is_large, lambda settings: settings.large_poll_s),
    ("usual", lambda device: True, lambda settings: settings.poll_s),
)


def plan_for(device: Device, settings: FieldSettings) -> PollPlan:
    """The plan of a device by its class."""
    name, poll_s = next((name, poll_s(settings)) for name, fits, poll_s in _CLASSES if fits(device))
    return PollPlan(name, poll_s, settings.settings_s, max(settings.stale_after_s, STALE_POLLS * poll_s))


USUAL_READ = (123, 67)
"""Registers per request of a usual poll: 701 with its scale factors, and 704."""
USUAL_SETTINGS = (54, 67, 21, 75, 75, 24)
"""Registers per request of a usual reading of settings: 702, 704, 703, 705, 706 and 711."""
MONTH_S = 30 * 86400.0
_PACKET_BYTES = 52
"""IPv4 and TCP headers with time stamps."""
_QUESTION_BYTES, _ANSWER_BYTES, _REGISTER_BYTES = 12, 9, 2
_PACKETS = 3
"""Question, answer, and the acknowledgement of the answer."""


def bytes_per_month(
    plan: PollPlan, read: Sequence[int] = USUAL_READ, settings: Sequence[int] = USUAL_SETTINGS
) -> float:
    """Bytes over the link of one device in 30 days, both directions, IP headers included.

    Parameters
    ----------
    plan
        How often each ring is read.
    read, settings
        Registers per request of one reading of each ring.

    Returns
    -------
    float
        sum over rings of (30 days / period) * sum over requests of (3 * 52 + 12 + 9 + 2 * registers).

    Examples
    --------
    >>> plan = PollPlan("usual", poll_s=1.0, settings_s=1800.0, stale_after_s=35.0)
    >>> round(bytes_per_month(plan) / 1e9, 1)
    1.9
    """
    return MONTH_S * (_bytes(read) / plan.poll_s + _bytes(settings) / plan.settings_s)


def _bytes(requests: Sequence[int]) -> float:
    overhead = _PACKETS * _PACKET_BYTES + _QUESTION_BYTES + _ANSWER_BYTES
    return float(sum(overhead + _REGISTER_BYTES * registers for registers in requests))

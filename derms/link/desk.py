"""Requests of the dispatcher to the fleet as a whole. Powers in W, + = injection; times in s."""

from collections.abc import Mapping
from dataclasses import dataclass

from derms.domain.desk import DeskOrder, Headroom
from derms.domain.refusal import Reason


@dataclass(frozen=True, slots=True)
class AskFleet:
    """Have the batteries of a feeder do something for a time, in the place of what was asked before.

    Answered with Done or Refused.
    """

    feeder: str
    power_w: float | None
    """To be held by all together; None: all that limits allow, an emergency."""
    hold_s: float


@dataclass(frozen=True, slots=True)
class ReturnToSchedule:
    """Ask nothing any more; answered with Done or Refused."""


@dataclass(frozen=True, slots=True)
class ShowDesk:
    """What is asked of the fleet, and what could it do? Answered with ShownDesk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownDesk:
    """How things stand at the desk."""

    order: DeskOrder | None
    """None: the fleet follows the schedule."""
    planned: bool
    """The latest plan was made for it, or for none."""
    left_s: float
    """Time until it ends; NaN without one."""
    headroom: Headroom | None
    """Of the latest plan; None where there is none, or it is not the optimizer's."""
    age_s: float
    """Of that plan; NaN without one."""
    against: tuple[Reason, ...]
    """What keeps plans from all or some of the batteries."""


TYPES: Mapping[str, tuple[str, ...]] = {
    "derms.domain.desk": ("Answers", "DeskOrder", "Headroom", "Offer", "Reach"),
    "derms.domain.refusal": ("Reason",),
    "derms.link.desk": ("AskFleet", "ReturnToSchedule", "ShowDesk", "ShownDesk"),
}

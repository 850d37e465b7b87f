"""Requests of people about who may move what: tags, locks, modes, values by hand; and what they are shown.

A request that changes something is answered with Done or Refused, if nothing else is said. Powers in W, + = injection;
durations in s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from derms.control.modes import ControlMode
from derms.control.stopping import How
from derms.domain.certificate import ReversionClass
from derms.domain.dispatch import Quantity
from derms.domain.mode import Mode
from derms.domain.refusal import Reason
from derms.domain.scope import Scope
from derms.domain.tags import Tag, TagKind


@dataclass(frozen=True, slots=True)
class HangTag:
    """Hang a tag."""

    kind: TagKind
    scope: Scope
    text: str


@dataclass(frozen=True, slots=True)
class TakeOffTag:
    """Take a tag off."""

    number: int


@dataclass(frozen=True, slots=True)
class TakeLock:
    """Keep other people's commands out."""

    scope: Scope
    hold_s: float


@dataclass(frozen=True, slots=True)
class GiveBackLock:
    """Let other people's commands in again."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class SetMode:
    """Put a feeder, group or device into another mode."""

    scope: Scope
    mode: ControlMode
    why: str


@dataclass(frozen=True, slots=True)
class ApprovePlan:
    """Let the plan that is offered go out where the mode is ADVISE."""

    plan_id: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person wants of devices by hand."""

    scope: Scope
    quantity: Quantity
    value_w: float | None
    """For each device [W]; None gives up what people have set."""
    hold_s: float


@dataclass(frozen=True, slots=True)
class SelectCommand(Wanted):
    """Select a value by hand; answered with CommandSelected or Refused."""


@dataclass(frozen=True, slots=True)
class CommandSelected:
    """It goes out once it is operated, within its time."""

    number: int
    within_s: float
    devices: int
    notes: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class OperateCommand:
    """Have a selected value go out."""

    number: int


@dataclass(frozen=True, slots=True)
class CancelCommand:
    """Drop a selection."""

    number: int


@dataclass(frozen=True, slots=True)
class AskWhy(Wanted):
    """Why can't I, and why doesn't the plan? Answered with WhyNot, or Refused where there is no such device."""


@dataclass(frozen=True, slots=True)
class WhyNot:
    """Everything that stands in the way; empty where nothing does."""

    person: tuple[Reason, ...]
    """Of whoever asks, by hand."""
    plan: tuple[Reason, ...]
    """Of plans."""
    notes: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class PutSubstitute:
    """Put a value in the place of a measured one, for the estimate and screens; no guard sees it."""

    device: str
    column: str
    value: float
    """In the unit of the column, which is in its name."""
    text: str
    hold_s: float


@dataclass(frozen=True, slots=True)
class RemoveSubstitute:
    """Have the measured value again before the substitute ends."""

    device: str
    column: str


@dataclass(frozen=True, slots=True)
class Done:
    """It holds."""

    text: str


@dataclass(frozen=True, slots=True)
class Show:
    """How do things stand? Answered with Shown."""

    scope: Scope
    """Devices of which each is shown."""


@dataclass(frozen=True, slots=True)
class ShownLock:
    """A lock that holds."""

    scope: Scope
    owner: str
    left_s: float


@dataclass(frozen=True, slots=True)
class ShownMode:
    """A feeder, group or device with the mode that somebody gave it."""

    scope: Scope
    mode: ControlMode
    author: str
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class ShownMark:
    """One figure of a scorecard against what AUTO asks of it."""

    what: str
    value: float
    """NaN: it was not measured."""
    needed: str
    met: bool


@dataclass(frozen=True, slots=True)
class ShownScorecard:
    """What was shown of a feeder."""

    feeder: str
    age_s: float
    """Since it was last added to."""
    marks: tuple[ShownMark, ...]
    """Empty: nothing was shown yet."""


@dataclass(frozen=True, slots=True)
class ShownLatch:
    """A stop that holds."""

    number: int
    how: How
    scope: Scope
    author: str
    approved_by: str
    """The first of the two who release it; empty before."""


@dataclass(frozen=True, slots=True)
class ShownSubstitute:
    """A value in the place of a measured one."""

    device: str
    column: str
    value: float
    author: str
    text: str
    left_s: float


@dataclass(frozen=True, slots=True)
class ShownLoss:
    """What the fleet would do if control died now."""

    now_w: float
    soon_s: float
    soon_w: float
    end_w: float
    end_s: float
    """Time until every timer has ended what it can."""
    end_at: datetime
    largest_w: float
    """Farthest change on the way, + or -."""
    for_ever: tuple[str, ...]
    """Devices that hold a command which no timer ends."""
    unproven: tuple[str, ...]
    """Devices that take commands, and were not proven to let go of them: the first of them."""
    unproven_count: int

    def __str__(self) -> str:
        soon = f"{self.soon_w / 1e6:.3f} MW in {self.soon_s:.0f} s"
        end = f"{self.end_w / 1e6:.3f} MW by {self.end_at:%H:%M:%S} UTC"
        return f"if control died now, the fleet would be at {soon}, {end}; now {self.now_w / 1e6:.3f} MW"


@dataclass(frozen=True, slots=True)
class ShownDevice:
    """Who has one device."""

    id: str
    mode: ControlMode
    owner: str
    until_s: float
    """Time until the owner's claim ends; infinite for the device's default."""
    limited_by: str
    next_owner: str
    wanted_w: float
    """NaN: nobody wants anything."""
    held_w: float
    """NaN: it was not seen to hold anything of ours."""
    p_w: float
    quality: str
    tags: tuple[int, ...]
    locked_by: str
    stopped: bool
    service: str
    """How it stands without service, by a stop or without an order; empty while it is in service, as far as known."""
    foreign: bool
    """It holds a command that is not ours."""
    handed_over: bool
    """It is left to another master for now."""
    local: bool
    """It says that it is under local control."""
    reversion: ReversionClass
    """What commissioning has proven of it, with a certificate that counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """How things stand."""

    at: datetime
    site: Mode
    rung: str
    rung_text: str
    start: ControlMode
    """Mode of a feeder of which nobody has said anything."""
    modes: tuple[ShownMode, ...]
    scorecards: tuple[ShownScorecard, ...]
    plan_id: int | None
    """The plan that is offered."""
    approved_plan_id: int | None
    tags: tuple[Tag, ...]
    locks: tuple[ShownLock, ...]
    latches: tuple[ShownLatch, ...]
    substitutes: tuple[ShownSubstitute, ...]
    loss: ShownLoss
    unsaved: bool
    """Something holds that could not be saved."""
    devices: tuple[ShownDevice, ...]
    left_out: int
    """Devices of the scope that are not shown."""


TYPES: Mapping[str, tuple[str, ...]] = {
    "derms.control.modes": ("ControlMode",),
    "derms.control.stopping": ("How",),
    "derms.domain.certificate": ("ReversionClass",),
    "derms.domain.dispatch": ("Quantity",),
    "derms.domain.mode": ("Mode",),
    "derms.domain.refusal": ("Reason", "Refused"),
    "derms.domain.scope": ("Level", "Scope"),
    "derms.domain.tags": ("Tag", "TagKind"),
    "derms.link.orders": (
        *("ApprovePlan", "AskWhy", "CancelCommand", "CommandSelected", "Done", "GiveBackLock", "HangTag"),
        *("OperateCommand", "PutSubstitute", "RemoveSubstitute", "SelectCommand", "SetMode", "Show", "Shown"),
        *("ShownDevice", "ShownLatch", "ShownLock", "ShownLoss", "ShownMark", "ShownMode", "ShownScorecard"),
        *("ShownSubstitute", "TakeLock", "TakeOffTag", "WhyNot"),
    ),
}

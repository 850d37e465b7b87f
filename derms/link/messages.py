"""What travels on the link: requests, each with its reply, in envelopes that stand for themselves.

A message needs nothing that was said before it, may arrive twice, says its version, and is not acted on once it has
expired; so a broker could carry it as well. Times in s are of the monotonic clock of the machine named in the stamp.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from derms.control.authority import Ticket
from derms.control.modes import ControlMode, Scorecard
from derms.domain.arrays import BoolArray
from derms.domain.desk import DeskOrder, Headroom
from derms.domain.dispatch import Dispatch
from derms.domain.packing import Packer
from derms.domain.presence import BrainTold
from derms.domain.records import Position
from derms.domain.scada import ScadaReading
from derms.domain.scope import Scope
from derms.domain.telemetry import TelemetrySnapshot
from derms.link import desk, orders, stops

VERSION = 1


@dataclass(frozen=True, slots=True)
class Stamp:
    """When a message was sent, on which machine since which of its starts."""

    boot: str
    sent_s: float


@dataclass(frozen=True, slots=True)
class Envelope:
    """A request on its way."""

    id: str
    """The same when it is sent again: it is acted on once, and answered as often as it is asked."""
    stamp: Stamp
    valid_s: float
    """How long after it was sent it may be acted on."""
    request: object
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to the envelope with the same id."""

    id: str
    reply: object
    version: int = VERSION


@dataclass(frozen=True, slots=True)
class NotDone:
    """In place of a reply: nothing was done."""

    why: str


@dataclass(frozen=True, slots=True)
class Lead:
    """A brain asks to be the one whose plans count, from now on."""

    owner: str


@dataclass(frozen=True, slots=True)
class Led:
    """It is, under this fencing token; a brain with a smaller one is not any more."""

    token: int


@dataclass(frozen=True, slots=True)
class Tell:
    """A brain says how it is: often, so that its silence is noticed."""

    told: BrainTold
    scorecards: Mapping[Scope, Scorecard] = field(default_factory=dict)
    """What has been shown of feeders."""
    headroom: Headroom | None = None
    """What the fleet could do beside the latest plan; None where that is not the optimizer's."""
    planned_s: float = math.nan
    """When that plan was made; NaN before the first."""
    planned_for: DeskOrder | None = None
    """What the dispatcher asked for when it was made."""


@dataclass(frozen=True, slots=True)
class Heard:
    """It was."""

    desk: DeskOrder | None
    """What the dispatcher asks of the fleet now."""


@dataclass(frozen=True, slots=True)
class Observe:
    """What does the field say?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """The field at one moment."""

    snapshot: TelemetrySnapshot
    reading: ScadaReading
    commandable: BoolArray
    """Devices that take what their kind is told, and let go of it by themselves, shape (n,)."""
    modes: Mapping[str, ControlMode]
    """Of each feeder."""
    writes: int
    failed: int
    """Commands that did not end well."""
    alarms: int


@dataclass(frozen=True, slots=True)
class Inspect:
    """How is the gateway?"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the gateway is."""

    devices: int
    good: int
    """Devices with good values."""
    writes: int
    failed: int
    alarms: int
    brain_s: float | None
    """Since a brain was heard [s]; None: none was."""


@dataclass(frozen=True, slots=True)
class Hand:
    """A dispatch from a brain."""

    dispatch: Dispatch
    ticket: Ticket


@dataclass(frozen=True, slots=True)
class Taken:
    """It is followed from now on, as far as modes and guards let it."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What is there for the database behind a position? Answered with Records; asked again until none are left."""

    after: Position
    most: int


_OWN: Mapping[str, tuple[str, ...]] = {
    "derms.control.authority": ("Ticket",),
    "derms.control.modes": ("ControlMode", "Scorecard"),
    "derms.domain.alarm": ("Event", "Severity"),
    "derms.domain.der": ("Endpoint",),
    "derms.domain.dispatch": (
        *("Applied", "Clamped", "CommandRecord", "Dispatch", "Expired", "Failed", "Heads", "Leeway", "NotFollowing"),
        *("Quantity", "Rejected", "Superseded", "Trim", "Unknown"),
    ),
    "derms.domain.grid": ("SwitchState",),
    "derms.domain.presence": ("BrainTold",),
    "derms.domain.quality": ("Quality",),
    "derms.domain.records": ("Position", "Records"),
    "derms.domain.refusal": ("Reason", "Refused"),
    "derms.domain.scada": ("PointKind", "PointValue", "ScadaPoint", "ScadaReading"),
    "derms.domain.scope": ("Level", "Scope"),
    "derms.domain.telemetry": ("TelemetrySnapshot",),
    "derms.link.messages": (
        *(
            "Answer",
            "Condition",
            "Drain",
            "Envelope",
            "Hand",
            "Heard",
            "Tell",
            "Inspect",
            "Lead",
            "Led",
            "NotDone",
            "Observe",
            "Observed",
            "Stamp",
            "Taken",
        ),
    ),
}


def _joined(*tables: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    modules = sorted({module for table in tables for module in table})
    return {module: tuple(sorted({name for table in tables for name in table.get(module, ())})) for module in modules}


TYPES = _joined(_OWN, desk.TYPES, orders.TYPES, stops.TYPES)
"""All that may travel, by module."""
PACKER = Packer(TYPES, compression=1)

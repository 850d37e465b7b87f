"""Requests about stops, and all that travels with them.

Each stands for itself and may come twice: a stop has an id of the client's making, progress is asked for again and
again. Powers in W, times in s on the gateway's monotonic clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from derms.control.stop_report import Preview, Progress
from derms.control.stopping import How
from derms.domain.refusal import Refused
from derms.domain.scope import Scope


@dataclass(frozen=True, slots=True)
class StopPreview:
    """What would a stop do now?"""

    how: How
    scope: Scope


@dataclass(frozen=True, slots=True)
class StopRequest:
    """Stop."""

    id: str
    """Of the client's making: the same when it asks again, and it is stopped once."""
    how: How
    scope: Scope
    immediate: bool = False
    """All stages at once."""


@dataclass(frozen=True, slots=True)
class StopHurry:
    """Have the stages of a stop that is under way go out at once."""

    number: int


@dataclass(frozen=True, slots=True)
class StopStatus:
    """How far has a stop come?"""

    number: int | None = None
    """None: all that are latched, or whose devices are not let in yet."""
    detail: bool = False
    """Tell each device, and when it was confirmed."""


@dataclass(frozen=True, slots=True)
class StopRelease:
    """One of the two steps of a release."""

    number: int
    remote: bool = False
    """The person is not in the control room."""
    broken_glass: str = ""
    """Why one person does it alone; empty for one of two."""


@dataclass(frozen=True, slots=True)
class StopReply:
    """What any of these comes back with."""

    refused: Refused | None = None
    preview: Preview | None = None
    stops: tuple[Progress, ...] = ()
    """The stop that was asked about, or all of them."""
    text: str = ""
    """What has been done, where that is not told by the rest."""


TYPES: Mapping[str, tuple[str, ...]] = {
    "derms.control.stop_report": ("Preview", "Progress"),
    "derms.control.stopping": ("How", "Tally"),
    "derms.domain.refusal": ("Reason", "Refused"),
    "derms.domain.scope": ("Level", "Scope"),
    "derms.link.stops": (*("StopHurry", "StopPreview", "StopRelease", "StopReply", "StopRequest", "StopStatus"),),
}
"""Requests of this kind, and all that travels with them."""

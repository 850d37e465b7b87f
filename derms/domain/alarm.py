"""Events worth a line in the log: each once, at the transition."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Severity(StrEnum):
    """How loud an event is."""

    INFO = "info"
    WARNING = "warning"
    ALARM = "alarm"


@dataclass(frozen=True, slots=True)
class Event:
    """Something changed: a device was lost or came back, a plan fell back, a command failed."""

    at: datetime
    severity: Severity
    source: str
    """Device id or room (`brain`, `gateway`)."""
    kind: str
    """Stable word for programs (`device-lost`)."""
    text: str
    """A sentence for people."""

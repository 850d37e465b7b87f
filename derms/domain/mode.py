"""Operating modes of the service."""

from enum import StrEnum


class Mode(StrEnum):
    """What the service may do to devices."""

    OBSERVE = "observe"
    """Polls, estimates and plans; never writes."""
    AUTO = "auto"
    """Dispatches the verified plan."""

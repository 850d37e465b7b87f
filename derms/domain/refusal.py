"""Refusals: why something asked for is not done, with every reason at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that stands in the way, or that is worth knowing before going on."""

    by: str
    """Stable word for programs (`tag`, `lock`, `topology`)."""
    text: str
    """A sentence for people."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Nothing was changed; all reasons, not the first only."""

    reasons: tuple[Reason, ...]

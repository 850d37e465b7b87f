"""Refusals: why something asked for is not done, with every reason at once."""

from dataclasses import dataclass

OF_REQUEST = frozenset({"request", "scope", "number", "range", "expiry", "glass"})
"""Words of reasons that lie in what was asked for: asked again it is refused again, however things stand then."""


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

    @property
    def is_of_request(self) -> bool:
        """Whether what was asked for is wrong by itself; otherwise it is refused as things stand now."""
        return any(reason.by in OF_REQUEST for reason in self.reasons)

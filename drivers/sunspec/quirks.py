"""How a SunSpec device departs from the standard: what its maker's profile says, each with the standard as default."""

from dataclasses import dataclass

from drivers.sunspec.models import BASES


@dataclass(frozen=True, slots=True, kw_only=True)
class SunSpecQuirks:
    """Departures of one make; hashable, so that devices of one make share their layouts."""

    bases: tuple[int, ...] = BASES
    """Addresses at which 'SunS' is looked for, in order."""
    sentinels: tuple[tuple[str, int], ...] = ()
    """Further unscaled values that mean `not implemented`, each with the point type that it counts for."""
    value_first: bool = False
    """It refuses a block: value, then reversion, then enable, in a write each. Found by trying where not told."""
    enable_again: bool = False
    """Its limit and timer begin to count only when the enable point is written once more, by itself."""
    refresh_value: bool = False
    """Its reversion timer restarts only when the value is written with it."""


STANDARD = SunSpecQuirks()
"""A device as the standard says."""

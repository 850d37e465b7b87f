"""Connections: points of common coupling with a limit that all devices behind them keep to together.

Powers in W, all >= 0; what else is behind a connection counts the way that leaves its devices less.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One point of common coupling, with the limits of its interconnection agreement."""

    id: str
    export_max_w: float
    """Greatest power out of it into the grid."""
    import_max_w: float
    load_max_w: float = 0.0
    """Greatest load behind it that is no device of the fleet."""
    load_min_w: float = 0.0
    """Least such load."""

    @property
    def giving_max_w(self) -> float:
        """What its devices may inject together, whatever the other load is."""
        return self.export_max_w + self.load_min_w

    @property
    def taking_max_w(self) -> float:
        """What its devices may draw together, whatever the other load is."""
        return max(self.import_max_w - self.load_max_w, 0.0)

"""Pace: how far devices may move now, each by itself, those of one person together, and all together.

What was written in the last minute counts. Powers in W, + = injection; times in s on the monotonic clock.
"""

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from derms.control.guards import AUTHOR_RAMP, FLEET_RAMP, Moves, Quota
from derms.domain.arrays import FloatArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Quantity
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.holdings import Holdings
from derms.field.wants import Wants

MINUTE_S = 60.0
FLEET = ""
"""In place of a person: all devices together."""


@dataclass(slots=True)
class Pace:
    """Keeps account of what has moved; see the module's text."""

    fleet: Fleet
    settings: DispatchSettings
    _moved_s: FloatArray = field(init=False)
    """When each device was moved last."""
    _moved: defaultdict[str, deque[tuple[float, float]]] = field(default_factory=lambda: defaultdict(deque))
    """Time and power of the moves of the last minute, of the fleet and of each person."""

    def __post_init__(self) -> None:
        self._moved_s = np.full(len(self.fleet), -np.inf)

    @property
    def ramp_w_per_min(self) -> float:
        """Fastest change of all devices together."""
        return self.settings.ramp_frac_per_min * self.rated_w

    @property
    def rated_w(self) -> float:
        """Rated power of all that is commanded."""
        fleet = self.fleet
        return float(fleet.p_rated_w[fleet.is_battery | fleet.is_pv].sum())

    def moves(
        self, quantity: Quantity, holdings: Holdings, wants: Wants, snapshot: TelemetrySnapshot, rows: Collection[int]
    ) -> Moves:
        """From where devices move, and how far they and those who move them may go now.

        A setpoint moves a device from what it holds, else from what it does. A limit above both lets nothing move.
        What nobody wants is on its way back to its default, which has a pace of its own.
        """
        low_w, high_w = snapshot.p_w.copy(), snapshot.p_w.copy()
        if quantity is Quantity.P_LIMIT:
            high_w[:] = np.inf
        for row in rows:
            holding = holdings.get((row, quantity))
            if holding is not None and holding.held.value_w is not None:
                held_w = holding.held.value_w
                high_w[row] = max(held_w, low_w[row]) if quantity is Quantity.P_LIMIT else held_w
                low_w[row] = min(held_w, low_w[row]) if quantity is Quantity.P_LIMIT else held_w
        restored = np.isnan(wants.value_w)
        low_w[restored], high_w[restored] = -np.inf, np.inf
        now_s = snapshot.now_s
        share = np.minimum(now_s - self._moved_s, MINUTE_S) / MINUTE_S
        step_w = self.settings.device_ramp_frac_per_min * self.fleet.p_rated_w * share
        author_w = self.settings.author_ramp_frac_per_min * self.rated_w
        quotas = [Quota(AUTHOR_RAMP, own, self._left_w(name, author_w, now_s)) for name, own in wants.authors.items()]
        everyone = np.ones(len(self.fleet), dtype=np.bool_)
        left_w = self._left_w(FLEET, self.ramp_w_per_min, now_s)
        return Moves(low_w, high_w, step_w, (*quotas, Quota(FLEET_RAMP, everyone, left_w)))

    def moved(self, changes_w: Mapping[int, float], wants: Wants, now_s: float) -> None:
        """Count what is written."""
        for row, change_w in changes_w.items():
            if change_w > 0.0:
                self._moved_s[row] = now_s
                self._moved[FLEET].append((now_s, change_w))
                author = next((name for name, own in wants.authors.items() if own[row]), FLEET)
                if author != FLEET:
                    self._moved[author].append((now_s, change_w))

    def release_w(self, row: int, quantity: Quantity, held_w: float, p_w: float) -> float:
        """How far a device that is let go is expected to move [W], >= 0; `p_w` is what it was measured to do.

        A battery comes to rest. PV that its limit holds back may rise to its rating.
        """
        rated_w = float(self.fleet.p_rated_w[row])
        if self.fleet.is_battery[row]:
            return abs(held_w) if quantity is Quantity.P_SET else 0.0
        is_free = p_w < held_w - self.settings.tolerance_frac * rated_w
        return 0.0 if is_free else max(0.0, rated_w - held_w)

    def lets(self, change_w: float, moved_w: float, now_s: float) -> bool:
        """Whether all together may still move so far, when they move `moved_w` already; one that moves alone may."""
        most_w = self.ramp_w_per_min
        left_w = self._left_w(FLEET, most_w, now_s) - moved_w
        return change_w <= max(0.0, left_w) or left_w >= most_w

    def _left_w(self, name: str, most_w: float, now_s: float) -> float:
        moved = self._moved[name]
        while moved and moved[0][0] <= now_s - MINUTE_S:
            moved.popleft()
        if not moved:
            del self._moved[name]
        return max(0.0, most_w - sum(change_w for _, change_w in moved))

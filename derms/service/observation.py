"""What the brain remembers of the last hours: net load, gross load and PV, as means over quarter hours.

Net load + = import [W]. The utility's records seed the memory, so that a ramp across the start counts.
"""

from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
from derms.domain.telemetry import TelemetrySnapshot
from derms.forecast.netload import HOUR_S, Seen


class Observation:
    """A bounded memory of system totals, one entry per snapshot."""

    def __init__(self, fleet: Fleet, *, step_s: float, steps: int) -> None:
        self._fleet = fleet
        self._step_s = step_s
        self._steps = steps
        self._entries: deque[tuple[datetime, float, float, float]] = deque()

    def seed(self, ends: Sequence[datetime], net_w: FloatArray) -> None:
        """Start from the utility's records: ends of intervals and means [W]."""
        for end, value in zip(ends, net_w, strict=True):
            self._entries.append((end - timedelta(seconds=self._step_s / 2), float(value), np.nan, np.nan))

    def add(self, snapshot: TelemetrySnapshot, net_w: float, limited: BoolArray, *, sky_frac: float) -> None:
        """Enter one snapshot; `limited` marks PV that a command holds back, shape (n,).

        A DER without a good value counts as the others of its kind do: batteries at rest, PV with their mean output,
        or with `sky_frac` of nameplate where no inverter tells, as at night.
        """
        fleet = self._fleet
        good = snapshot.good("p_w")
        pv_frac = self._output_frac(snapshot, fleet.is_pv & good & ~limited)
        known_w = float(snapshot.p_w[good & (fleet.is_pv | fleet.is_battery)].sum())
        unseen_w = float(fleet.p_rated_w[fleet.is_pv & ~good].sum())
        output_frac = self._output_frac(snapshot, fleet.is_pv & good)
        gross_w = net_w + known_w + unseen_w * (output_frac if np.isfinite(output_frac) else sky_frac)
        self._entries.append((snapshot.at, net_w, gross_w, pv_frac))
        horizon = snapshot.at - timedelta(seconds=self._step_s * (self._steps + 1))
        while self._entries and self._entries[0][0] < horizon:
            self._entries.popleft()

    def _output_frac(self, snapshot: TelemetrySnapshot, rows: BoolArray) -> float:
        """Power of some DER per unit of their nameplate; NaN for none."""
        rated_w = float(self._fleet.p_rated_w[rows].sum())
        return float(snapshot.p_w[rows].sum()) / rated_w if rated_w > 0.0 else np.nan

    def seen(self, now: datetime) -> Seen:
        """What was measured in the last half hour."""
        recent = [entry for entry in self._entries if 0.0 <= (now - entry[0]).total_seconds() <= HOUR_S]
        return Seen(
            at=[entry[0] for entry in recent],
            gross_w=np.array([entry[2] for entry in recent]),
            pv_frac=np.array([entry[3] for entry in recent]),
        )

    def past_net_w(self, now: datetime, otherwise_w: float) -> FloatArray:
        """Means of net load over the last steps, oldest first, shape (steps,).

        A step without any value takes that of the next later step that has one, else of the last earlier one;
        `otherwise_w` stands for all where none has.
        """
        sums = np.zeros(self._steps)
        counts = np.zeros(self._steps)
        for at, net_w, _, _ in self._entries:
            step = self._steps - 1 - int((now - at).total_seconds() // self._step_s)
            if 0 <= step < self._steps and np.isfinite(net_w):
                sums[step] += net_w
                counts[step] += 1.0
        known = np.flatnonzero(counts)
        if not known.size:
            return np.full(self._steps, otherwise_w)
        source = known[np.minimum(np.searchsorted(known, np.arange(self._steps)), known.size - 1)]
        past_w: FloatArray = sums[source] / counts[source]
        return past_w

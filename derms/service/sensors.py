"""Voltages of a snapshot as measurements of the feeder model: the package's sensors, and what DER report.

The last good value of each counts, less and less as it grows old (`derms.grid.estimate.aged`), and not at all when it
is MISSING_AGES of its greatest ages old. What is doubted, or has grown stale, never replaces it. Volts and pu; seconds.
Sources: IEEE 1547-2018, table 3, for the accuracy of what DER report of their voltage.
"""

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.der import DeviceKind, Fleet
from derms.domain.grid import FeederPackage
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot
from derms.grid.estimate import Voltages, aged
from derms.grid.layout import FeederLayout

DER_SIGMA_FRAC = 0.01
DER_AGE_MAX_S = 60.0
MISSING_AGES = 15.0
"""Of a sensor that may be a minute old, after a quarter of an hour: a voltage has wandered off by 0.008 pu then."""


class Sensors:
    """Which value of the fleet stands for which voltage point of the feeder, resolved once, and what it was last."""

    def __init__(self, package: FeederPackage, fleet: Fleet, layout: FeederLayout) -> None:
        meters = [
            (fleet.index[meter.id], phase, point, meter.sigma_frac, meter.age_max_s, meter.id)
            for meter in package.meters
            if meter.kind == DeviceKind.VOLTAGE_SENSOR and meter.id in fleet.index
            for phase, point in enumerate(layout.bus_points(meter.bus).tolist())
            if point >= 0 and (not meter.phases or phase + 1 in meter.phases)
        ]
        ders = [
            (fleet.index[der.id], -1, int(layout.der_point[row]), DER_SIGMA_FRAC, DER_AGE_MAX_S, der.id)
            for row, der in enumerate(package.ders)
            if der.id in fleet.index
        ]
        placed = [*meters, *ders]
        self._rows, self._phases, self._points = (
            np.array([place[column] for place in placed], dtype=np.intp) for column in range(3)
        )
        self._sigma, self._age_max_s = (np.array([place[column] for place in placed]) for column in (3, 4))
        self._names = tuple(f"{place[5]} at {layout.points[place[2]]}" for place in placed)
        self._base_v = layout.v_base_v[self._points]
        self._v_pu, self._time_s = np.full((2, len(placed)), np.nan)
        self.fresh = np.zeros(len(placed), dtype=np.bool_)
        """Which voltages were new at the last reading, shape (k,)."""

    def read(self, snapshot: TelemetrySnapshot) -> Voltages:
        """Every voltage as it was last good, sigma grown with its age; NaN where that never was, or is too long ago."""
        v_pu = self._told_v(snapshot) / self._base_v
        self.fresh = fresh = (snapshot.quality[self._rows] == Quality.GOOD) & np.isfinite(v_pu)
        self._v_pu[fresh] = v_pu[fresh]
        self._time_s[fresh] = (snapshot.now_s - snapshot.age_s[self._rows])[fresh]
        age_s = snapshot.now_s - self._time_s
        v_pu = np.where(age_s <= MISSING_AGES * self._age_max_s, self._v_pu, np.nan)
        return Voltages(self._names, self._points, v_pu, aged(self._sigma, np.nan_to_num(np.maximum(age_s, 0.0))))

    def _told_v(self, snapshot: TelemetrySnapshot) -> FloatArray:
        own, phases = snapshot.columns.get("v_v"), snapshot.columns.get("v_phase_v")
        if own is None or phases is None:
            return np.full(len(self._rows), np.nan)
        return np.where(self._phases < 0, own[self._rows], phases[self._rows, np.maximum(self._phases, 0)])

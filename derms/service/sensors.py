"""Voltages of a snapshot as measurements of the feeder model: the package's sensors, and what DER report.

Sources: IEEE 1547-2018, table 3, for the accuracy of what DER report of their voltage.
"""

import numpy as np

from derms.domain.der import DeviceKind, Fleet
from derms.domain.grid import FeederPackage
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot
from derms.grid.estimate import Voltages, aged
from derms.grid.layout import FeederLayout

DER_SIGMA_FRAC = 0.01
DER_AGE_MAX_S = 60.0


class Sensors:
    """Which value of the fleet stands for which voltage point of the feeder; resolved once."""

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

    def read(self, snapshot: TelemetrySnapshot) -> Voltages:
        """Every voltage, NaN where it is not good; one that grows old counts less."""
        own, phases = snapshot.columns.get("v_v"), snapshot.columns.get("v_phase_v")
        v_v = np.full(len(self._rows), np.nan)
        if own is not None and phases is not None:
            v_v = np.where(self._phases < 0, own[self._rows], phases[self._rows, np.maximum(self._phases, 0)])
        v_pu = v_v / self._base_v
        good = snapshot.quality[self._rows] == Quality.GOOD
        sigma_pu = aged(self._sigma, snapshot.age_s[self._rows], self._age_max_s)
        return Voltages(self._names, self._points, np.where(good, v_pu, np.nan), sigma_pu)

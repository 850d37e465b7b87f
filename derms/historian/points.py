"""What is kept of a snapshot: the points of each kind of device, as one column of values."""

from collections.abc import Mapping

import numpy as np

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.der import DeviceKind, Fleet
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot

POINTS: Mapping[str, tuple[str, int | None]] = {
    "p_w": ("p_w", None),
    "q_var": ("q_var", None),
    "v_pu": ("v_pu", None),
    "soc_frac": ("soc_frac", None),
    "p_a_w": ("p_phase_w", 0),
    "p_b_w": ("p_phase_w", 1),
    "p_c_w": ("p_phase_w", 2),
    "q_a_var": ("q_phase_var", 0),
    "q_b_var": ("q_phase_var", 1),
    "q_c_var": ("q_phase_var", 2),
    "v_a_pu": ("v_phase_pu", 0),
    "v_b_pu": ("v_phase_pu", 1),
    "v_c_pu": ("v_phase_pu", 2),
}
"""Where in a snapshot the value of a point stands: column and phase."""

POINTS_OF: Mapping[DeviceKind, tuple[str, ...]] = {
    DeviceKind.PV: ("p_w", "q_var", "v_pu"),
    DeviceKind.BATTERY: ("p_w", "q_var", "v_pu", "soc_frac"),
    DeviceKind.HEAD_METER: tuple(point for point in POINTS if point != "soc_frac"),
    DeviceKind.VOLTAGE_SENSOR: ("v_pu", "v_a_pu", "v_b_pu", "v_c_pu"),
    DeviceKind.SYSTEM_METER: ("p_w", "q_var"),
}
"""What is kept of a device."""


class PointLayout:
    """The points of a fleet in a fixed order."""

    def __init__(self, fleet: Fleet) -> None:
        rows_of = {
            point: [row for row, device in enumerate(fleet.devices) if point in POINTS_OF[device.kind]]
            for point in POINTS
        }
        self.names = tuple((fleet.devices[row].id, point) for point, rows in rows_of.items() for row in rows)
        """Device id and point, in the order of `columns`."""
        self._takes = [(*POINTS[point], np.array(rows, dtype=np.intp)) for point, rows in rows_of.items()]
        self._rows = np.concatenate([rows for _, _, rows in self._takes])

    def columns(self, snapshot: TelemetrySnapshot) -> tuple[FloatArray, ByteArray]:
        """Values and qualities of all points, shape (points,), both copies.

        Where a good device has no value, the quality is NOT_IMPLEMENTED.
        """
        parts: list[FloatArray] = []
        for column, phase, rows in self._takes:
            values = getattr(snapshot, column)
            parts.append(values[rows] if phase is None else values[rows, phase])
        joined = np.concatenate(parts)
        quality = snapshot.quality[self._rows]
        quality[np.isnan(joined) & (quality == Quality.GOOD)] = Quality.NOT_IMPLEMENTED
        return joined, quality

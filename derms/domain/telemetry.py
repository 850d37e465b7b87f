"""What the field says: one device's reading as bytes, the whole fleet's as columns.

Signs: DER power + = injection; meter power + = import (load). Voltages in pu of the device's nominal.
Modbus has no source time, so the time of a value is the time of its request on the monotonic clock, with the
poll interval as its uncertainty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np

from derms.domain.arrays import BoolArray, ByteArray, FloatArray
from derms.domain.quality import Quality

COLUMNS = ("p_w", "q_var", "v_v", "soc_frac", "p_phase_w", "q_phase_var", "v_phase_v")
"""Columns that a layout decodes; those with `phase` in the name have shape (k, 3), the others (k,)."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device says it is, and the ratings it reports [W, VA, Wh, V]; NaN where it does not say."""

    manufacturer: str
    model: str
    version: str
    serial: str
    p_rated_w: float
    s_rated_va: float
    energy_wh: float
    v_nominal_v: float
    takes_setpoint: bool
    """Accepts an active-power setpoint (a battery's dispatch)."""
    takes_limit: bool
    """Accepts a limit on active-power injection."""

    @property
    def ratings(self) -> tuple[float, float, float]:
        """Nominal voltage [V], active power [W] and energy [Wh]."""
        return self.v_nominal_v, self.p_rated_w, self.energy_wh


@dataclass(frozen=True, slots=True)
class Reading:
    """One poll of one device: the checked bytes of its telemetry blocks, not decoded."""

    raw: bytes
    requested_s: float
    """Monotonic time of the first request [s]: the time of the values."""
    received_s: float


class TelemetryLayout(Protocol):
    """How the bytes of a reading become columns; devices of one layout are decoded together.

    Layouts are hashable and equal when their bytes mean the same.
    """

    @property
    def width(self) -> int:
        """Bytes of one reading."""
        ...

    def measured(self, raw: bytes) -> bytes:
        """The measurements in a reading, without the controls that move with every write and running timer."""
        ...

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        """Decode k readings, shape (k, width), to the names in COLUMNS; NaN is `not implemented`."""
        ...


@dataclass(frozen=True)
class TelemetrySnapshot:
    """The fleet at one moment, a row per device; what is missing is NaN with a quality, never 0."""

    at: datetime
    now_s: float
    p_w: FloatArray
    q_var: FloatArray
    v_pu: FloatArray
    soc_frac: FloatArray
    p_phase_w: FloatArray
    """Shape (n, 3), phases a, b, c; meters only."""
    q_phase_var: FloatArray
    v_phase_pu: FloatArray
    quality: ByteArray
    """Quality per device, shape (n,)."""
    age_s: FloatArray
    p_rated_w: FloatArray
    """Nameplate that the device itself reports [W], shape (n,); NaN where it does not."""
    energy_wh: FloatArray
    """Usable energy that the device itself reports [Wh], shape (n,); NaN where it does not."""

    def good(self, column: str) -> BoolArray:
        """Rows whose value of a column may enter control: quality GOOD and the value there, shape (n,)."""
        values: FloatArray = getattr(self, column)
        there = np.isfinite(values if values.ndim == 1 else values.sum(axis=1))
        good: BoolArray = (self.quality == Quality.GOOD) & there
        return good

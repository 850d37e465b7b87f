"""What the field says: one device's reading as bytes, the whole fleet's as columns.

Signs: DER power + = injection; meter power + = import (load). Voltages in pu of the device's nominal.
Modbus has no source time, so the time of a value is the time of its request on the monotonic clock, with the
poll interval as its uncertainty.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Protocol

import numpy as np

from derms.domain.arrays import BoolArray, ByteArray, FloatArray
from derms.domain.dispatch import Capabilities
from derms.domain.quality import Quality

COLUMNS = (
    *("p_w", "q_var", "v_v", "soc_frac", "p_phase_w", "q_phase_var", "v_phase_v"),
    *("s_va", "i_a", "f_hz", "pf", "temp_c", "state", "connected", "local", "alarms", "injected_wh", "absorbed_wh"),
    *("p_limit_frac", "limit_left_s", "p_set_w", "setpoint_left_s"),
)
"""Columns that a layout decodes; those with `phase` in the name have shape (k, 3), the others (k,). NaN is missing.

p_w, q_var        active and reactive power [W, var]: DER + = injection, meter + = import
v_v               voltage [V], line to neutral where there is one
soc_frac          state of charge [0..1]
p_phase_w, q_phase_var, v_phase_v   the same per phase a, b, c; meters only
s_va, i_a, f_hz   apparent power [VA], total current [A], frequency [Hz]; signs as the device gives them
pf                power factor [-1..1]; its sign is the device's own and says nothing about excitation
temp_c            temperature [deg C] of the cabinet, or of the next best place that is measured
state             operating state, a code of OPERATING_STATES
connected         1 connected to the grid, 0 not
local             1 under local control: what is sent to it has no effect; 0 under remote control
alarms            bit field as a number; what the bits mean is the measuring model's affair, 0 is none
injected_wh, absorbed_wh            energy counters [Wh]: out of and into a DER, exported and imported by a meter
p_limit_frac      limit on injection that the device holds [per unit of its greatest power]; NaN while it has none
limit_left_s      time until that limit reverts [s]
p_set_w           setpoint that the device holds [W], + = injection; NaN while it has none, or none in watts
setpoint_left_s   time until that setpoint reverts [s]
"""
OPERATING_STATES = ("off", "sleeping", "starting", "running", "throttled", "shutting down", "fault", "standby")
"""Operating states by their code, those of SunSpec 701 InvSt."""
LOCAL = 1.0
"""Of the column `local`: somebody at the device has it."""


def is_phase(name: str) -> bool:
    """Whether a column has a value per phase a, b, c: shape (k, 3)."""
    return "phase" in name


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a device says it is, and the ratings it reports [W, VA, Wh, V]; NaN where it does not say.

    `p_rated_w` is the smallest of its nameplate and of what it is set to give and take.
    """

    manufacturer: str
    model: str
    version: str
    serial: str
    p_rated_w: float
    s_rated_va: float
    energy_wh: float
    v_nominal_v: float
    capabilities: Capabilities

    @property
    def ratings(self) -> tuple[float, float, float]:
        """Nominal voltage [V], active power [W] and energy [Wh]."""
        return self.v_nominal_v, self.p_rated_w, self.energy_wh


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

    def scales(self, raw: ByteArray) -> ByteArray:
        """The bytes of k readings that say how values are scaled, shape (k, any); (k, 0) where nothing in them does."""
        ...

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        """Decode k readings, shape (k, width), to the names in COLUMNS; NaN is `not implemented`."""
        ...


class Reading(NamedTuple):
    """One poll of one device: the checked bytes of its telemetry blocks, not decoded, and whose they are."""

    raw: bytes
    requested_s: float
    """Monotonic time of the first request [s]: the time of the values."""
    layout: TelemetryLayout
    identity: Identity


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
    columns: Mapping[str, FloatArray] = field(default_factory=dict)
    """All COLUMNS as devices tell them, shape (n,) or (n, 3)."""

    @property
    def local(self) -> BoolArray:
        """Rows that said last that they are under local control, shape (n,); one that does not tell is not."""
        told = self.columns.get("local")
        under: BoolArray = np.zeros(len(self.p_w), dtype=np.bool_) if told is None else told == LOCAL
        return under

    def good(self, column: str) -> BoolArray:
        """Rows whose value of a column may enter control: quality GOOD and the value there, shape (n,)."""
        values: FloatArray = getattr(self, column)
        there = np.isfinite(values if values.ndim == 1 else values.sum(axis=1))
        good: BoolArray = (self.quality == Quality.GOOD) & there
        return good

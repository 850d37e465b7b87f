"""Device physics: inverters and batteries in columns, one row per DER, one pure step.

Powers + = injection [W, var]; state of charge 0..1; voltages in pu of nominal. A device keeps its own limits
(nameplate, apparent power, state of charge) whatever it is told.
Source: IEEE 1547-2018 clause 5.3.3 (volt-var, category B defaults); SunSpec 704 (limits, setpoints, reversion).
"""

from dataclasses import dataclass, replace

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray

EFFICIENCY_FRAC = 0.95
"""One way, battery with its inverter."""
SOC_FLOOR_FRAC = 0.05
SOC_CEILING_FRAC = 1.0
"""Limits that a battery keeps by itself."""
RAMP_PER_S = 0.2
"""Fastest change of active power, per unit of rating."""
VOLT_VAR_V_PU = (0.92, 0.98, 1.02, 1.08)
VOLT_VAR_Q_PU = (0.44, 0.0, 0.0, -0.44)
"""Reactive power per unit of the apparent-power rating."""
VOLT_VAR_RESPONSE_S = 10.0
"""Time constant of the volt-var answer; slower than a step, so that neighbours do not chase one another."""


@dataclass(frozen=True)
class Ratings:
    """What is written on the plates; all of shape (n,)."""

    is_battery: BoolArray
    p_rated_w: FloatArray
    s_rated_va: FloatArray
    energy_wh: FloatArray

    def __len__(self) -> int:
        return len(self.p_rated_w)

    def of(self, rows: IntArray) -> "Ratings":
        """The same for some rows."""
        return Ratings(self.is_battery[rows], self.p_rated_w[rows], self.s_rated_va[rows], self.energy_wh[rows])


@dataclass(frozen=True)
class Control:
    """One function that can be commanded, as every device holds it; all of shape (n,)."""

    enabled: BoolArray
    value_w: FloatArray
    rvrt_enabled: BoolArray
    rvrt_value_w: FloatArray
    left_s: FloatArray
    """Time to reversion [s]; infinite while no timer runs."""

    @staticmethod
    def off(count: int) -> "Control":
        """Disabled, and disabled again after reversion."""
        return Control(
            enabled=np.zeros(count, dtype=np.bool_),
            value_w=np.zeros(count),
            rvrt_enabled=np.zeros(count, dtype=np.bool_),
            rvrt_value_w=np.zeros(count),
            left_s=np.full(count, np.inf),
        )

    def set(
        self, row: int, *, enabled: bool, value_w: float, rvrt_enabled: bool, rvrt_value_w: float, left_s: float
    ) -> None:
        """Take a command for one device, in place."""
        self.enabled[row] = enabled
        self.value_w[row] = value_w
        self.rvrt_enabled[row] = rvrt_enabled
        self.rvrt_value_w[row] = rvrt_value_w
        self.left_s[row] = left_s

    def counted_down(self, dt_s: float | FloatArray) -> tuple["Control", BoolArray]:
        """The control `dt_s` later (one for all or shape (n,)), and the rows that reverted in that time, shape (n,)."""
        left_s = self.left_s - dt_s
        expired = left_s <= 0.0
        if not expired.any():
            return replace(self, left_s=left_s), expired
        return replace(
            self,
            enabled=np.where(expired, self.rvrt_enabled, self.enabled),
            value_w=np.where(expired, self.rvrt_value_w, self.value_w),
            left_s=np.where(expired, np.inf, left_s),
        ), expired


@dataclass(frozen=True)
class Commands:
    """Everything that devices have been told; all of shape (n,)."""

    limit: Control
    """Ceiling on injection."""
    setpoint: Control
    """Battery power."""
    permitted: BoolArray
    """Permission for service; without it a device is at zero."""
    volt_var: BoolArray
    """Volt-var is active."""


@dataclass(frozen=True)
class State:
    """What devices do; all of shape (n,)."""

    p_w: FloatArray
    q_var: FloatArray
    soc_frac: FloatArray
    """NaN for devices without a battery."""


def step(
    ratings: Ratings, state: State, commands: Commands, v_pu: FloatArray, available_w: FloatArray, dt_s: float
) -> State:
    """The state `dt_s` later.

    Parameters
    ----------
    ratings, state, commands
        Shape (n,) each.
    v_pu : FloatArray
        Voltage at the terminals in the step before [pu], shape (n,).
    available_w : FloatArray
        What the sun gives each photovoltaic inverter [W], shape (n,); not used for batteries.
    dt_s : float
        Length of the step [s].

    Returns
    -------
    State
        Reactive power first (reactive priority), then active power within the rest of the apparent-power rating, the
        ramp, the commanded limit, the sun, and the state of charge; the last two hold whatever the ramp says.
    """
    low_w, high_w = possible_w(ratings, state.soc_frac, available_w, dt_s)
    generating = ratings.is_battery | (available_w > 0.0)
    q_var = _volt_var(ratings, state.q_var, v_pu, dt_s, commands.volt_var & commands.permitted & generating)
    room_w = np.sqrt(ratings.s_rated_va**2 - q_var**2)
    ceiling_w = np.where(commands.limit.enabled, np.minimum(room_w, commands.limit.value_w), room_w)
    wanted_w = np.where(ratings.is_battery, 0.0, available_w)
    wanted_w = np.where(commands.setpoint.enabled, commands.setpoint.value_w, wanted_w)
    wanted_w = np.clip(np.where(commands.permitted, wanted_w, 0.0), -room_w, ceiling_w)
    ramp_w = RAMP_PER_S * dt_s * ratings.p_rated_w
    p_w = np.clip(np.clip(wanted_w, state.p_w - ramp_w, state.p_w + ramp_w), low_w, high_w)
    return State(p_w=p_w, q_var=q_var, soc_frac=_charged(ratings, state.soc_frac, p_w, dt_s))


def possible_w(
    ratings: Ratings, soc_frac: FloatArray, available_w: FloatArray, dt_s: float
) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest power that each device can hold for `dt_s` [W], shape (n,) each.

    Nameplate both ways for a battery, less where its energy would not last; zero to what the sun gives for the others.
    """
    per_frac_w = ratings.energy_wh * 3600.0 / dt_s
    discharge_w = np.maximum(soc_frac - SOC_FLOOR_FRAC, 0.0) * per_frac_w * EFFICIENCY_FRAC
    charge_w = np.maximum(SOC_CEILING_FRAC - soc_frac, 0.0) * per_frac_w / EFFICIENCY_FRAC
    low_w = np.where(ratings.is_battery, -np.minimum(ratings.p_rated_w, charge_w), 0.0)
    source_w = np.where(ratings.is_battery, discharge_w, available_w)
    return low_w, np.minimum(ratings.p_rated_w, source_w)


def _volt_var(ratings: Ratings, q_var: FloatArray, v_pu: FloatArray, dt_s: float, active: BoolArray) -> FloatArray:
    """Reactive power on its way to the curve's value; zero where volt-var is not active."""
    target_var = np.interp(v_pu, VOLT_VAR_V_PU, VOLT_VAR_Q_PU) * ratings.s_rated_va
    share = min(1.0, dt_s / VOLT_VAR_RESPONSE_S)
    return np.where(active, q_var + share * (target_var - q_var), 0.0)


def _charged(ratings: Ratings, soc_frac: FloatArray, p_w: FloatArray, dt_s: float) -> FloatArray:
    """State of charge after a step at a power."""
    loss = np.where(p_w > 0.0, 1.0 / EFFICIENCY_FRAC, EFFICIENCY_FRAC)
    spent_wh = p_w * loss * dt_s / 3600.0
    energy_wh = np.where(ratings.is_battery, ratings.energy_wh, np.nan)
    return np.clip(soc_frac - spent_wh / energy_wh, SOC_FLOOR_FRAC, SOC_CEILING_FRAC)

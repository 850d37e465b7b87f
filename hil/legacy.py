"""How older simulated inverters look from outside: SunSpec models 1, 103, 120, 121, 122, 123, 124.

A battery is commanded by the pair of rates in 124: charging at most `InWRte`, discharging at most `OutWRte`; a negative
rate forces the other direction, so a pair of opposite numbers pins the power.
"""

from collections.abc import Sequence

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from drivers.sunspec.models import layout
from hil.faces import HZ, V_NOMINAL_V, Measured, apparent_and_factor, identify, touched
from hil.physics import Commands, Control, Ratings
from hil.registers import Bank

_STATE_SHIFT = 1
"""States of model 103 count from one more than those of 701."""
_EMPTY, _DISCHARGING, _CHARGING, _FULL, _HOLDING = 2, 3, 4, 5, 6
_PV, _PV_WITH_STORAGE = 4, 82
_CHARGE_BIT, _DISCHARGE_BIT = 1, 2


_SCALES = {
    "103.A_SF": -1, "103.V_SF": -1, "103.W_SF": 1, "103.Hz_SF": -2, "103.VA_SF": 1, "103.VAr_SF": 1,
    "103.PF_SF": -1,
    "120.WRtg_SF": 1, "120.VARtg_SF": 1, "120.WHRtg_SF": 1, "120.MaxChaRte_SF": 1, "120.MaxDisChaRte_SF": 1,
    "121.WMax_SF": 1, "121.VRef_SF": -1, "121.VAMax_SF": 1, "123.WMaxLimPct_SF": -2,
    "124.WChaMax_SF": 1, "124.ChaState_SF": -2, "124.InOutWRte_SF": -2,
}  # fmt: skip


class LegacyFace:
    """Devices with models 1, 103, 120-124 in this order; without a battery, 124 is not implemented."""

    _LIMIT = range(5, 10)
    _SETPOINT = (range(5, 6), range(12, 17))
    """Registers of 123 and 124 whose writing is a command, and arms the timer afresh."""

    def __init__(self, rows: IntArray, ids: Sequence[str], ratings: Ratings) -> None:
        """`rows` are the face's rows among all DER; the rest has one entry per row of the face."""
        self.rows = rows
        self.ratings = ratings
        self.bank = Bank(len(rows), [layout(model) for model in (1, 103, 120, 121, 122, 123, 124)], _SCALES)
        identify(self.bank, ids, "Inverter 103")
        self._plates()
        self._controls()

    def _plates(self) -> None:
        ratings, battery = self.ratings, self.ratings.is_battery
        plates: Sequence[tuple[str, FloatArray | float]] = (
            ("120.DERTyp", np.where(battery, _PV_WITH_STORAGE, _PV).astype(np.float64)),
            ("120.WRtg", ratings.p_rated_w),
            ("120.VARtg", ratings.s_rated_va),
            ("120.WHRtg", np.where(battery, ratings.energy_wh, np.nan)),
            ("120.MaxChaRte", np.where(battery, ratings.p_rated_w, np.nan)),
            ("120.MaxDisChaRte", np.where(battery, ratings.p_rated_w, np.nan)),
            ("121.WMax", ratings.p_rated_w),
            ("121.VAMax", ratings.s_rated_va),
            ("121.VRef", V_NOMINAL_V),
            ("122.PVConn", np.where(battery, np.nan, 7.0)),  # connected, available, operating
            ("122.StorConn", np.where(battery, 7.0, np.nan)),
            ("122.ECPConn", 1),
            ("103.Hz", HZ),
            ("103.Evt1", 0),
        )
        for name, values in plates:
            self.bank.put(name, values)

    def _controls(self) -> None:
        put, battery = self.bank.put, self.ratings.is_battery
        put("123.Conn", 1)
        put("123.WMaxLimPct", 100.0)
        for name in ("WMaxLimPct_WinTms", "WMaxLimPct_RvrtTms", "WMaxLimPct_RmpTms", "WMaxLim_Ena"):
            put(f"123.{name}", 0)
        put("124.WChaMax", np.where(battery, self.ratings.p_rated_w, np.nan))
        for name in ("OutWRte", "InWRte", "WChaGra", "WDisChaGra"):
            put(f"124.{name}", np.where(battery, 100.0, np.nan))
        for name in ("StorCtl_Mod", "InOutWRte_WinTms", "InOutWRte_RvrtTms", "InOutWRte_RmpTms"):
            put(f"124.{name}", np.where(battery, 0.0, np.nan))
        put("124.ChaGriSet", np.where(battery, 1.0, np.nan))

    def publish(self, measured: Measured, commands: Commands) -> None:
        """Write one moment's measurements into the registers; these models show no running timers."""
        put, rows = self.bank.put, self.rows
        p_w, q_var, v_v = measured.p_w[rows], measured.q_var[rows], measured.v_v[rows]
        s_va, factor = apparent_and_factor(p_w, q_var)
        put("103.St", measured.state[rows] + _STATE_SHIFT)
        put("103.W", p_w)
        put("103.VAr", q_var)
        put("103.VA", s_va)
        put("103.PF", 100.0 * factor)
        put("103.A", s_va / v_v)
        put("103.AphA", s_va / v_v)
        put("103.PhVphA", v_v)
        put("103.WH", measured.injected_wh[rows])
        put("124.ChaState", 100.0 * measured.soc_frac[rows])
        put("124.ChaSt", self._charge_status(p_w, measured.soc_frac[rows]))

    def _charge_status(self, p_w: FloatArray, soc_frac: FloatArray) -> FloatArray:
        cases = [soc_frac <= 0.051, soc_frac >= 0.999, p_w > 0.0, p_w < 0.0]
        status = np.select(cases, [_EMPTY, _FULL, _DISCHARGING, _CHARGING], _HOLDING)
        return np.where(self.ratings.is_battery, status, np.nan)

    def obey(self, row: int, model: int, offset: int, data: bytes, commands: Commands) -> None:
        """Take over what was written to one device into the commands."""
        at = int(self.rows[row])
        if model == 123:
            commands.permitted[at] = self.bank["123.Conn"].raw[row] == 1
            if touched(self._LIMIT, offset, data):
                limit_w = self.bank.get("123.WMaxLimPct")[row] * self.ratings.p_rated_w[row] / 100.0
                enabled = self.bank["123.WMaxLim_Ena"].raw[row] == 1
                self._arm(commands.limit, at, enabled, limit_w, self.bank["123.WMaxLimPct_RvrtTms"].raw[row])
        elif model == 124 and any(touched(block, offset, data) for block in self._SETPOINT):
            mode = int(self.bank["124.StorCtl_Mod"].raw[row])
            timeout_s = self.bank["124.InOutWRte_RvrtTms"].raw[row]
            self._arm(commands.setpoint, at, mode != 0, self._rates_w(row, mode), timeout_s)

    def revert(self, limit_rows: IntArray, setpoint_rows: IntArray) -> None:
        """Show in the registers that timers ran out; rows among all DER."""
        self.bank["123.WMaxLim_Ena"].raw[np.isin(self.rows, limit_rows)] = 0
        self.bank["124.StorCtl_Mod"].raw[np.isin(self.rows, setpoint_rows)] = 0

    def _rates_w(self, row: int, mode: int) -> float:
        """Power nearest to rest that the pair of rates allows [W]."""
        per_pct_w = self.ratings.p_rated_w[row] / 100.0
        most_w = self.bank.get("124.OutWRte")[row] * per_pct_w if mode & _DISCHARGE_BIT else np.inf
        least_w = -self.bank.get("124.InWRte")[row] * per_pct_w if mode & _CHARGE_BIT else -np.inf
        return float(min(max(0.0, least_w), most_w))

    @staticmethod
    def _arm(control: Control, at: int, enabled: bool, value_w: float, timeout_s: int) -> None:
        control.set(
            at,
            enabled=enabled,
            value_w=float(value_w),
            rvrt_enabled=False,
            rvrt_value_w=0.0,
            left_s=float(timeout_s) if enabled and timeout_s else np.inf,
        )

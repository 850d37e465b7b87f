"""How simulated devices look from outside: inverters of the 701 family, older ones, and meters, as SunSpec registers.

A face keeps one bank: it publishes what is measured, and turns written registers into the commands physics obeys.
Source: SunSpec models 1, 103, 120-124, 203, 701-705, 713, 715; their reversion semantics.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from drivers.sunspec.models import layout
from hil.physics import VOLT_VAR_Q_PU, VOLT_VAR_RESPONSE_S, VOLT_VAR_V_PU, Commands, Control, Ratings
from hil.registers import Bank

V_NOMINAL_V = 240.0
HZ = 60.0
SLEEPING, RUNNING, THROTTLED = 1, 3, 4
"""Inverter states of model 701; those of 103 count from one more."""


@dataclass(frozen=True)
class Measured:
    """What all DER measure, noise included; shape (n,) each."""

    p_w: FloatArray
    q_var: FloatArray
    v_v: FloatArray
    soc_frac: FloatArray
    """NaN without a battery."""
    state: FloatArray
    injected_wh: FloatArray
    absorbed_wh: FloatArray
    """Counters since the start."""


def identify(bank: Bank, ids: Sequence[str], product: str) -> None:
    """Fill model 1."""
    for name, texts in (
        ("Mn", ["Simulated"] * len(ids)),
        ("Md", [product] * len(ids)),
        ("Vr", ["1.0"] * len(ids)),
        ("SN", [serial(device) for device in ids]),
    ):
        bank.text(f"1.{name}", texts)
    bank.put("1.DA", 1)


def serial(device_id: str) -> str:
    """Serial number that a simulated device reports."""
    return f"SIM-{device_id}"


def touched(block: range, offset: int, data: bytes) -> bool:
    return offset < block.stop and offset + len(data) // 2 > block.start


def apparent_and_factor(p_w: FloatArray, q_var: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Apparent power [VA] and power factor, whose sign is that of active power (SunSpec 701)."""
    s_va = np.hypot(p_w, q_var)
    return s_va, np.divide(p_w, s_va, out=np.ones_like(s_va), where=s_va > 0.0)


_SCALES = {
    "701.W_SF": 1, "701.VA_SF": 1, "701.Var_SF": 1, "701.PF_SF": -3, "701.A_SF": -1, "701.V_SF": -1,
    "701.Hz_SF": -2, "702.W_SF": 1, "702.VA_SF": 1, "702.Var_SF": 1, "702.V_SF": -1, "703.Hz_SF": -2,
    "704.WMaxLimPct_SF": -2, "704.WSetPct_SF": -2, "713.WH_SF": 1, "713.Pct_SF": -2,
    "705.V_SF": -2, "705.DeptRef_SF": -2, "705.RspTms_SF": 0,
}  # fmt: skip


class ModernFace:
    """Devices with models 1, 701, 702, 703, 704, 713, 715, 705 in this order (704 to 715 in one read)."""

    _LIMIT = range(14, 20)
    _SETPOINT = range(22, 33)
    """Registers of 704 whose writing is a command, and arms the timer afresh."""

    def __init__(self, rows: IntArray, ids: Sequence[str], ratings: Ratings, volt_var: Sequence[bool]) -> None:
        """`rows` are the face's rows among all DER; the rest has one entry per row of the face."""
        self.rows = rows
        self.ratings = ratings
        chain = [layout(model) for model in (1, 701, 702, 703, 704, 713, 715)]
        self.bank = Bank(len(rows), [*chain, layout(705, {"NCrv": 1, "NPt": len(VOLT_VAR_V_PU)})], _SCALES)
        identify(self.bank, ids, "Inverter 1547")
        self._plates()
        self._controls()
        self._curve(np.asarray(volt_var, dtype=np.float64))

    def _plates(self) -> None:
        ratings, battery = self.ratings, self.ratings.is_battery
        reactive_var = max(VOLT_VAR_Q_PU) * ratings.s_rated_va
        plates: Sequence[tuple[Sequence[str], FloatArray | float]] = (
            (("WMaxRtg", "WMax"), ratings.p_rated_w),
            (("VAMaxRtg", "VAMax"), ratings.s_rated_va),
            (("VarMaxInjRtg", "VarMaxAbsRtg", "VarMaxInj", "VarMaxAbs"), reactive_var),
            (("WChaRteMaxRtg", "WDisChaRteMaxRtg"), np.where(battery, ratings.p_rated_w, np.nan)),
            (("WChaRteMax", "WDisChaRteMax"), np.where(battery, ratings.p_rated_w, np.nan)),
            (("VNomRtg", "VNom"), V_NOMINAL_V),
            (("NorOpCatRtg",), 1),
            (("CtrlModes",), 1 << 0 | 1 << 1 | 1 << 4),  # MAX_W, FIXED_W, VOLT_VAR
        )
        for names, values in plates:
            for name in names:
                self.bank.put(f"702.{name}", values)
        for name, constant in (
            ("ACType", 0.0),
            ("St", 1.0),
            ("ConnSt", 1.0),
            ("Alrm", 0.0),
            ("DERMode", 1.0),
            ("Hz", HZ),
        ):
            self.bank.put(f"701.{name}", constant)
        self.bank.put("713.WHRtg", np.where(battery, ratings.energy_wh, np.nan))
        self.bank.put("713.Sta", np.where(battery, 0.0, np.nan))

    def _controls(self) -> None:
        put, battery = self.bank.put, self.ratings.is_battery
        put("703.ES", 1)
        put("715.LocRemCtl", 0)  # remote; it has no heartbeat and no other command there
        for name in ("Ena", "Rvrt", "EnaRvrt", "RvrtTms", "RvrtRem"):
            put(f"704.WMaxLimPct{name}", 0)
        put("704.WMaxLimPct", 100.0)
        for name in ("Ena", "", "Rvrt", "Pct", "PctRvrt", "EnaRvrt", "RvrtTms", "RvrtRem"):
            put(f"704.WSet{name}", np.where(battery, 0.0, np.nan))
        put("704.WSetMod", np.where(battery, 1.0, np.nan))

    def _curve(self, enabled: FloatArray) -> None:
        put = self.bank.put
        put("705.Ena", enabled)
        settings: Sequence[tuple[str, float]] = (
            ("NPt", len(VOLT_VAR_V_PU)),
            ("NCrv", 1),
            ("AdptCrvReq", 0),
            ("AdptCrvRslt", 1),  # COMPLETED
            ("Crv[0].ActPt", len(VOLT_VAR_V_PU)),
            ("Crv[0].DeptRef", 3),  # VA_MAX_PCT
            ("Crv[0].Pri", 1),  # REACTIVE
            ("Crv[0].ReadOnly", 1),
            ("Crv[0].RspTms", VOLT_VAR_RESPONSE_S),
        )
        for name, value in settings:
            put(f"705.{name}", value)
        for i, (v_pu, q_pu) in enumerate(zip(VOLT_VAR_V_PU, VOLT_VAR_Q_PU, strict=True)):
            put(f"705.Crv[0].Pt[{i}].V", 100.0 * v_pu)
            put(f"705.Crv[0].Pt[{i}].Var", 100.0 * q_pu)

    def publish(self, measured: Measured, commands: Commands) -> None:
        """Write one moment's measurements and running timers into the registers."""
        put, rows = self.bank.put, self.rows
        p_w, q_var, v_v = measured.p_w[rows], measured.q_var[rows], measured.v_v[rows]
        s_va, factor = apparent_and_factor(p_w, q_var)
        soc_pct = 100.0 * measured.soc_frac[rows]
        put("701.InvSt", measured.state[rows])
        put("701.W", p_w)
        put("701.Var", q_var)
        put("701.VA", s_va)
        put("701.PF", factor)
        put("701.A", s_va / v_v)
        put("701.LNV", v_v)
        put("701.TotWhInj", measured.injected_wh[rows])
        put("701.TotWhAbs", measured.absorbed_wh[rows])
        put("704.WMaxLimPctRvrtRem", _left(commands.limit, rows))
        put("704.WSetRvrtRem", np.where(self.ratings.is_battery, _left(commands.setpoint, rows), np.nan))
        put("713.SoC", soc_pct)
        put("713.WHAvail", soc_pct / 100.0 * self.ratings.energy_wh)

    def obey(self, row: int, model: int, offset: int, data: bytes, commands: Commands) -> None:
        """Take over what was written to one device into the commands."""
        at = int(self.rows[row])
        if model == 703:
            commands.permitted[at] = self.bank["703.ES"].raw[row] == 1
        elif model == 705:
            commands.volt_var[at] = self.bank["705.Ena"].raw[row] == 1
        elif model == 704 and touched(self._LIMIT, offset, data):
            self._arm("704.WMaxLimPct", row, commands.limit, self._percent("704.WMaxLimPct", "Rvrt", row))
        elif model == 704 and touched(self._SETPOINT, offset, data):
            watts = self.bank["704.WSetMod"].raw[row] == 1
            values_w = self._watts(row) if watts else self._percent("704.WSetPct", "Rvrt", row)
            self._arm("704.WSet", row, commands.setpoint, values_w)

    def revert(self, limit_rows: IntArray, setpoint_rows: IntArray) -> None:
        """Show in the registers that timers ran out; rows among all DER."""
        for function, values, expired in (
            ("704.WMaxLimPct", ("",), limit_rows),
            ("704.WSet", ("", "Pct"), setpoint_rows),
        ):
            mine = np.isin(self.rows, expired)
            self.bank[f"{function}Ena"].raw[mine] = self.bank[f"{function}EnaRvrt"].raw[mine]
            for value in values:
                self.bank[f"{function}{value}"].raw[mine] = self.bank[f"{function}{value}Rvrt"].raw[mine]

    def _arm(self, function: str, row: int, control: Control, values_w: tuple[float, float]) -> None:
        raw = {name: int(self.bank[f"{function}{name}"].raw[row]) for name in ("Ena", "EnaRvrt", "RvrtTms")}
        control.set(
            int(self.rows[row]),
            enabled=raw["Ena"] == 1,
            value_w=values_w[0],
            rvrt_enabled=raw["EnaRvrt"] == 1,
            rvrt_value_w=values_w[1],
            left_s=float(raw["RvrtTms"]) if raw["Ena"] == 1 and raw["RvrtTms"] else np.inf,
        )
        self.bank[f"{function}RvrtRem"].raw[row] = raw["RvrtTms"] if raw["Ena"] == 1 else 0

    def _watts(self, row: int) -> tuple[float, float]:
        return float(self.bank.get("704.WSet")[row]), float(self.bank.get("704.WSetRvrt")[row])

    def _percent(self, name: str, reverted: str, row: int) -> tuple[float, float]:
        per_pct_w = self.ratings.p_rated_w[row] / 100.0
        return (
            float(self.bank.get(name)[row] * per_pct_w),
            float(self.bank.get(name + reverted)[row] * per_pct_w),
        )


def _left(control: Control, rows: IntArray) -> FloatArray:
    """Seconds to reversion as registers show them: 0 while no timer runs."""
    left_s = control.left_s[rows]
    return np.where(np.isfinite(left_s), np.ceil(left_s), 0.0)

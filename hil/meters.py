"""How simulated meters and voltage sensors look from outside: SunSpec models 1 and 203; power + = import."""

from collections.abc import Sequence

import numpy as np

from derms.domain.arrays import FloatArray
from drivers.sunspec.models import layout
from hil.faces import HZ, identify
from hil.registers import Bank

_SCALES = {"203.W_SF": 3, "203.VAR_SF": 3, "203.V_SF": -1, "203.Hz_SF": -2, "203.VA_SF": 3, "203.PF_SF": -1}
_PHASES = ("phA", "phB", "phC")


class MeterFace:
    """Meters in one bank; a value that a meter does not measure is `not implemented`."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.bank = Bank(len(ids), [layout(1), layout(203)], _SCALES)
        identify(self.bank, ids, "Meter 203")
        self.bank.put("203.Hz", HZ)
        self.bank.put("203.Evt", 0)

    def publish(self, v_phase_v: FloatArray, p_phase_w: FloatArray, q_phase_var: FloatArray) -> None:
        """Write phase voltages (line to neutral), powers and totals; shape (n, 3) each, NaN where not measured."""
        put = self.bank.put
        for name, values, total in (
            ("PhV", v_phase_v, _mean(v_phase_v)),
            ("W", p_phase_w, p_phase_w.sum(axis=1)),
            ("VAR", q_phase_var, q_phase_var.sum(axis=1)),
        ):
            put(f"203.{name}", total)
            for phase, suffix in enumerate(_PHASES):
                put(f"203.{name}{suffix}", values[:, phase])


def _mean(v_phase_v: FloatArray) -> FloatArray:
    """Mean of the phases that are there, shape (n,)."""
    there = np.isfinite(v_phase_v)
    mean: FloatArray = np.where(there, v_phase_v, 0.0).sum(axis=1) / there.sum(axis=1)
    return mean

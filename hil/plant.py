"""The true feeder: an OpenDSS circuit that differs on purpose from the one the control room believes in.

Line lengths are off by a lognormal 10 %, one regulator keeps its voltage one tap off; loads are the world's own.
Powers in W and var, DER + = injection, head + = import.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import FeederPackage
from derms.grid.open import open_engine

LINE_SIGMA = 0.1
TAP_V = 0.75
"""One tap of 5/8 % on the regulators' base of 120 V."""


@dataclass(frozen=True)
class Solved:
    """The true state of the feeder after a step."""

    v_pu: FloatArray
    """Every point, shape (points,)."""
    der_v_pu: FloatArray
    """At each DER, shape (ders,)."""
    meter_v_v: FloatArray
    """Voltages at the meters [V], between phases where theirs are, NaN where the bus lacks one, shape (meters, 3)."""
    head_w: FloatArray
    """Shape (3,)."""
    head_var: FloatArray


@cache
def _lines(package: FeederPackage) -> tuple[str, ...]:
    """Lines of a circuit, in OpenDSS's own order."""
    return open_engine(package).layout.lines


class Plant:
    """The feeder under its loads and DER; its regulators act in every step."""

    def __init__(self, package: FeederPackage, rng: np.random.Generator) -> None:
        lines = _lines(package)
        factors = rng.lognormal(0.0, LINE_SIGMA, len(lines))
        self.engine = open_engine(package, line_scale=dict(zip(lines, factors.tolist(), strict=True)))
        self.regulator_off = ""
        """The regulator that is one tap off; empty on a feeder without any."""
        layout = self.engine.layout
        if layout.regulators:
            self.regulator_off = str(rng.choice(layout.regulators))
            target_v = self.engine.regulator_targets_v()[self.regulator_off]
            self.engine.set_regulator_target(self.regulator_off, target_v + TAP_V)
        points = [layout.bus_points(meter.bus) for meter in package.meters]
        self._meter_points: IntArray = np.array(points, dtype=np.intp).reshape(-1, 3)
        self._meter_base_v = np.where(self._meter_points >= 0, layout.v_base_v[self._meter_points], np.nan)

    def step(self, load_factors: FloatArray, der_w: FloatArray, der_var: FloatArray) -> Solved:
        """Solve with factors on the nominal loads, shape (loads,), and DER powers, shape (ders,).

        Raises NotConverged when the feeder has no solution.
        """
        engine = self.engine
        engine.set_loads(load_factors * engine.layout.nominal_load_w, load_factors * engine.layout.nominal_load_var)
        engine.set_der(der_w, der_var)
        flow = engine.solve()
        return Solved(
            v_pu=flow.v_pu,
            der_v_pu=flow.v_pu[engine.layout.der_point],
            meter_v_v=flow.v_pu[self._meter_points] * self._meter_base_v,
            head_w=flow.head_w,
            head_var=flow.head_var,
        )

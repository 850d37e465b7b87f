"""How well the estimator knows a feeder: IEEE 123 behind service transformers, 60 DER, 28, 3 and 0 voltage sensors.

The plant differs from the model: every load by a lognormal 30 %, every line's impedance by a lognormal 10 %, two
regulators by one tap; voltages are measured with 0.3 %, the head with 1 %, P and Q of DER with 5 % of their ratings.
`rmse_pu` is over all points; `prior` is the allocation to the head alone. With 28 sensors one is also made 0.03 pu
wrong, and counts as found when it, and nothing else, is named. The last line is one JSON object.
"""

import json
import statistics
import time
from datetime import UTC, datetime

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import GridState
from derms.grid.allocation import Allocation
from derms.grid.engine import PowerFlow
from derms.grid.estimate import Voltages, estimate
from derms.grid.opendss import FeederEngine
from feeders.catalog import load

SEEDS = 20
SENSORS = (28, 3, 0)
LOAD_SIGMA, LINE_SIGMA, V_SIGMA, HEAD_SIGMA, DER_SIGMA = 0.3, 0.1, 0.003, 0.01, 0.05
PLANTED_PU = 0.03
AT = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
PACKAGE = load("ieee123")
RATED_W = np.array([der.p_rated_w for der in PACKAGE.ders])
RATED_VA = np.array([der.s_rated_va for der in PACKAGE.ders])
IS_PV = np.array([der.kind == "pv" for der in PACKAGE.ders])


class Case:
    """A true feeder and what is measured of it."""

    def __init__(self, seed: int, model: FeederEngine) -> None:
        rng = np.random.default_rng(seed)
        layout = model.layout
        scale = rng.lognormal(0.0, LINE_SIGMA, len(layout.lines))
        plant = FeederEngine(PACKAGE, line_scale=dict(zip(layout.lines, scale.tolist(), strict=True)))
        factors = rng.lognormal(0.0, LOAD_SIGMA, len(layout.loads))
        self.der_w = np.where(IS_PV, rng.uniform(0.3, 0.9), rng.uniform(-0.5, 0.5)) * RATED_W
        plant.set_loads(factors * layout.nominal_load_w, factors * layout.nominal_load_var)
        plant.set_der(self.der_w, 0.0 * self.der_w)
        plant.solve()
        plant.freeze_controls(True)
        self.taps = plant.taps()
        moved = {name: self.taps[name] + int(rng.choice((-1, 1))) for name in rng.choice(layout.regulators, 2, False)}
        plant.set_taps(moved)
        self.truth: PowerFlow = plant.solve()
        plant.close()
        primary = np.flatnonzero(layout.v_base_v > 2000.0)
        self.order: IntArray = primary[np.argsort(rng.random(len(primary)))]
        self.noise: FloatArray = rng.standard_normal(len(primary)) * V_SIGMA
        self.head = np.array([self.truth.head_w, self.truth.head_var]) * (
            1.0 + HEAD_SIGMA * rng.standard_normal((2, 3))
        )
        self.seen_w, self.seen_var = DER_SIGMA * RATED_VA * rng.standard_normal((2, len(RATED_VA)))
        self.seen_w += self.der_w
        self.planted = int(rng.integers(SENSORS[0]))
        self.planted_pu = PLANTED_PU * float(rng.choice((-1, 1)))

    def voltages(self, model: FeederEngine, sensors: int, *, planted: bool = False) -> Voltages:
        points = self.order[:sensors]
        v_pu = self.truth.v_pu[points] * (1.0 + self.noise[:sensors])
        if planted:
            v_pu[self.planted] += self.planted_pu
        names = tuple(model.layout.points[point] for point in points)
        return Voltages(names, points, v_pu, np.full(sensors, V_SIGMA))

    def estimate(self, model: FeederEngine, voltages: Voltages) -> GridState:
        model.set_taps(self.taps)
        return estimate(
            model,
            PACKAGE,
            at=AT,
            head_w=self.head[0],
            head_var=self.head[1],
            der_w=self.seen_w,
            der_var=self.seen_var,
            previous=None,
            voltages=voltages,
            regulators_act=False,
            head_sigma_frac=HEAD_SIGMA,
        )

    def allocated(self, model: FeederEngine) -> FloatArray:
        """Voltages by allocation to the head alone."""
        model.freeze_controls(True)
        model.set_taps(self.taps)
        model.set_der(self.seen_w, self.seen_var)
        return Allocation.of(model, PACKAGE, 0.0).met(model, np.ones((2, 3)), self.head)[1].v_pu


def rmse(apart: FloatArray) -> float:
    return float(np.sqrt(np.mean(np.square(apart))))


def measured(cases: list[Case], model: FeederEngine, sensors: int) -> dict[str, float]:
    """Figures with so many sensors, over all cases."""
    errors, priors, covered, sigmas, cpu_ms = [], [], [], [], []
    found = alarms = 0
    for case in cases:
        voltages = case.voltages(model, sensors)
        began_s = time.process_time()
        state = case.estimate(model, voltages)
        cpu_ms.append(1e3 * (time.process_time() - began_s))
        apart = state.v_pu - case.truth.v_pu
        errors.append(rmse(apart))
        priors.append(rmse(case.allocated(model) - case.truth.v_pu))
        covered.append(float(np.mean(np.abs(apart) <= 1.96 * state.v_sigma_pu)))
        sigmas.append(float(np.mean(state.v_sigma_pu)))
        alarms += bool(state.bad)
        if sensors > case.planted:
            wrong = case.estimate(model, case.voltages(model, sensors, planted=True))
            found += wrong.bad == (voltages.names[case.planted],)
    return {
        "rmse_pu_prior": round(float(np.sqrt(np.mean(np.square(priors)))), 5),
        "rmse_pu_estimated": round(float(np.sqrt(np.mean(np.square(errors)))), 5),
        "bad_data_found": found,
        "false_alarms": alarms,
        "coverage_95": round(statistics.mean(covered), 3),
        "sigma_over_rmse": round(float(np.mean(sigmas) / np.sqrt(np.mean(np.square(errors)))), 2),
        "cpu_ms": round(statistics.median(cpu_ms), 1),
    }


def main(first_seed: int = 0) -> None:
    """Measure and print."""
    model = FeederEngine(PACKAGE)
    cases = [Case(seed, model) for seed in range(first_seed, first_seed + SEEDS)]
    print(f"{SEEDS} feeders made", flush=True)
    result: dict[str, object] = {"bench": "estimate", "seeds": SEEDS}
    for sensors in SENSORS:
        suffix = "" if sensors == SENSORS[0] else f"_{sensors}"
        result |= {name + suffix: value for name, value in measured(cases, model, sensors).items()}
    print(json.dumps(result))


if __name__ == "__main__":
    main()

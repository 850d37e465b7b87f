"""Estimation against a plant that differs from the model on purpose."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.domain.quality import Quality
from derms.errors import GridError
from derms.grid.engine import FeederEngine, PowerFlow
from derms.grid.estimate import estimate
from derms.grid.look_ahead import look_ahead
from feeders.catalog import load

PACKAGE = load("ieee123")
RATED_W = np.array([der.p_rated_w for der in PACKAGE.ders])
NO_VAR = np.zeros(len(PACKAGE.ders))
IS_PV = np.array([der.kind == "pv" for der in PACKAGE.ders])
NOON_W = np.where(IS_PV, 0.8 * RATED_W, -0.5 * RATED_W)
AT = datetime(2026, 4, 15, 19, tzinfo=UTC)
UNKNOWN = np.full(3, np.nan)


@dataclass
class Bench:
    """A model, and a plant with other impedances whose regulators stand where the model's do."""

    model: FeederEngine
    plant: FeederEngine

    def truth(self, der_w: FloatArray, *, load: float, seed: int) -> PowerFlow:
        """Solve the plant with loads that scatter by a lognormal 20 %."""
        rng = np.random.default_rng(seed)
        scatter = load * rng.lognormal(0.0, 0.2, len(self.plant.loads))
        self.plant.set_loads(self.plant.nominal_load_w * scatter, self.plant.nominal_load_var * scatter)
        self.plant.set_der(der_w, NO_VAR)
        flow = self.plant.solve()
        self.model.set_taps(self.plant.taps())
        return flow

    def estimate(
        self, head: PowerFlow | None, der_w: FloatArray = NOON_W, previous: GridState | None = None
    ) -> GridState:
        return estimate(
            self.model,
            PACKAGE,
            at=AT,
            head_w=UNKNOWN if head is None else head.head_w,
            head_var=UNKNOWN if head is None else head.head_var,
            der_w=der_w,
            der_var=NO_VAR,
            previous=previous,
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    rng = np.random.default_rng(7)
    model = FeederEngine(PACKAGE)
    plant = FeederEngine(PACKAGE, line_scale={line: rng.uniform(0.9, 1.1) for line in model.lines})
    model.freeze_controls(True)
    return Bench(model, plant)


@pytest.mark.parametrize("seed", range(4))
def test_estimate_meets_the_head_of_a_perturbed_plant_and_its_voltages(bench: Bench, seed: int) -> None:
    truth = bench.truth(NOON_W, load=0.9, seed=seed)
    state = bench.estimate(truth)
    assert state.head_w == pytest.approx(truth.head_w, rel=0.005)
    assert state.head_var == pytest.approx(truth.head_var, rel=0.02)
    assert state.v_pu == pytest.approx(truth.v_pu, abs=0.01)
    assert state.residual_w == pytest.approx(truth.head_w.sum() - state.head_w.sum())
    assert state.quality is Quality.GOOD
    assert state.violations == np.count_nonzero(bench.model.violating(state.v_pu))


def test_exporting_feeder_is_estimated_too(bench: Bench) -> None:
    full_sun_w = np.where(IS_PV, RATED_W, 0.0)
    truth = bench.truth(full_sun_w, load=0.4, seed=11)
    state = bench.estimate(truth, full_sun_w)
    assert truth.head_w.sum() < 0.0
    assert state.quality is Quality.GOOD
    assert state.head_w.sum() == pytest.approx(truth.head_w.sum(), rel=0.01)


def test_factors_tell_the_phase_that_carries_more(bench: Bench) -> None:
    on_b = bench.plant.load_phase == 1
    factor = np.where(on_b, 1.4, 0.8)
    bench.plant.set_loads(bench.plant.nominal_load_w * factor, bench.plant.nominal_load_var * factor)
    bench.plant.set_der(NOON_W, NO_VAR)
    truth = bench.plant.solve()
    bench.model.set_taps(bench.plant.taps())
    state = bench.estimate(truth)
    assert np.argmax(state.load_scale) == 1
    assert state.load_scale[1] > state.load_scale[0] + 0.3
    several = bench.model.load_phase < 0
    assert state.load_w[several] == pytest.approx(bench.model.nominal_load_w[several] * state.load_scale.mean())


def test_without_head_the_last_factors_stay_and_the_state_is_stale(bench: Bench) -> None:
    known = bench.estimate(bench.truth(NOON_W, load=0.7, seed=3))
    state = bench.estimate(None, previous=known)
    assert state.quality is Quality.STALE
    assert state.load_w == pytest.approx(known.load_w)
    assert state.load_var == pytest.approx(known.load_var)
    assert state.head_w == pytest.approx(known.head_w, rel=1e-4)
    assert np.isnan(state.residual_w)


def test_without_anything_the_nominal_loads_stand(bench: Bench) -> None:
    state = bench.estimate(None)
    assert state.quality is Quality.STALE
    assert state.load_w == pytest.approx(bench.model.nominal_load_w)


def test_unknown_der_counts_as_zero_and_makes_the_state_suspect(bench: Bench) -> None:
    der_w = NOON_W.copy()
    der_w[5] = 0.0
    truth = bench.truth(der_w, load=0.9, seed=5)
    der_w[5] = np.nan
    state = bench.estimate(truth, der_w)
    assert state.quality is Quality.SUSPECT
    assert state.head_w == pytest.approx(truth.head_w, rel=0.005)


def test_head_beyond_all_loads_is_suspect_and_the_factors_keep_their_bounds(bench: Bench) -> None:
    truth = bench.truth(NOON_W, load=0.9, seed=5)
    impossible = PowerFlow(truth.v_pu, truth.head_w * 6.0, truth.head_var, truth.losses_w, truth.iterations)
    state = bench.estimate(impossible)
    assert state.quality is Quality.SUSPECT
    assert state.load_scale.max() <= 3.0
    reversed_head = PowerFlow(truth.v_pu, truth.head_w - 9e6, truth.head_var, truth.losses_w, truth.iterations)
    state = bench.estimate(reversed_head)
    assert state.quality is Quality.SUSPECT
    assert state.load_scale == pytest.approx(0.05)


def test_look_ahead_solves_the_plan_and_leaves_the_present_alone(bench: Bench) -> None:
    state = bench.estimate(bench.truth(NOON_W, load=0.8, seed=9))
    bench.model.freeze_controls(False)
    taps = bench.model.taps()
    evening_w = np.where(IS_PV, 0.0, RATED_W)
    first = look_ahead(bench.model, state, evening_w, NO_VAR, 1.1)
    with pytest.raises(GridError):
        look_ahead(bench.model, state, np.full_like(evening_w, np.nan), NO_VAR, 1.1)
    again = look_ahead(bench.model, state, evening_w, NO_VAR, 1.1)
    assert bench.model.taps() == taps
    bench.model.freeze_controls(True)
    assert again.v_pu == pytest.approx(first.v_pu, abs=1e-6)
    expected_w = 1.1 * state.load_w.sum() - RATED_W[~IS_PV].sum()
    assert first.head_w.sum() == pytest.approx(expected_w, rel=0.06)

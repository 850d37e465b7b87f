"""Estimation against a plant that differs from the model on purpose, on real OpenDSS."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState, InvisiblePv
from derms.domain.quality import Quality
from derms.grid.engine import PowerFlow
from derms.grid.estimate import NO_VOLTAGES, Voltages, aged, estimate
from derms.grid.opendss import FeederEngine
from derms.grid.posterior import updated
from feeders.catalog import load

PACKAGE = load("ieee123")
RATED_W = np.array([der.p_rated_w for der in PACKAGE.ders])
NO_VAR = np.zeros(len(PACKAGE.ders))
IS_PV = np.array([der.kind == "pv" for der in PACKAGE.ders])
NOON_W = np.where(IS_PV, 0.8 * RATED_W, -0.5 * RATED_W)
AT = datetime(2026, 4, 15, 19, tzinfo=UTC)
UNKNOWN = np.full(3, np.nan)
SPREAD = (
    "8.1",
    "18.2",
    "25.3",
    "36.1",
    "49.2",
    "57.3",
    "67.1",
    "76.2",
    "87.3",
    "100.1",
    "108.2",
    "110.1",
    "65.3",
    "52.1",
)


@dataclass
class Bench:
    """A model, and a plant with other impedances whose regulators stand where the model's do."""

    model: FeederEngine
    plant: FeederEngine

    def truth(self, der_w: FloatArray = NOON_W, *, load: float = 0.9, seed: int = 5) -> PowerFlow:
        """Solve the plant with loads that scatter by a lognormal 20 %."""
        rng = np.random.default_rng(seed)
        layout = self.plant.layout
        scatter = load * rng.lognormal(0.0, 0.2, len(layout.loads))
        self.plant.freeze_controls(False)
        self.plant.set_loads(layout.nominal_load_w * scatter, layout.nominal_load_var * scatter)
        self.plant.set_der(der_w, NO_VAR)
        self.plant.solve()
        self.plant.freeze_controls(True)
        self.model.set_taps(self.plant.taps())
        return self.plant.solve()

    def sensors(self, truth: PowerFlow, sigma_pu: float = 0.003) -> Voltages:
        points = np.array([self.model.layout.points.index(point) for point in SPREAD])
        return Voltages(SPREAD, points, truth.v_pu[points].copy(), np.full(len(points), sigma_pu))

    def estimate(
        self,
        head: PowerFlow | None,
        der_w: FloatArray = NOON_W,
        voltages: Voltages = NO_VOLTAGES,
        **more: Any,
    ) -> GridState:
        given = {"previous": None, "regulators_act": False, **more}
        return estimate(
            self.model,
            given.pop("package", PACKAGE),
            at=AT,
            head_w=UNKNOWN if head is None else head.head_w,
            head_var=UNKNOWN if head is None else head.head_var,
            der_w=der_w,
            der_var=NO_VAR,
            voltages=voltages,
            **given,
        )


@pytest.fixture(scope="module")
def bench() -> Bench:
    model = FeederEngine(PACKAGE)
    scale = np.random.default_rng(1).lognormal(0.0, 0.1, len(model.layout.lines))
    plant = FeederEngine(PACKAGE, line_scale=dict(zip(model.layout.lines, scale.tolist(), strict=True)))
    return Bench(model, plant)


def rmse(state: GridState, truth: PowerFlow) -> float:
    return float(np.sqrt(np.mean(np.square(state.v_pu - truth.v_pu))))


def test_head_alone_gives_a_state_that_meets_it_and_says_how_sure_it_is(bench: Bench) -> None:
    truth = bench.truth()
    state = bench.estimate(truth)
    assert state.quality is Quality.GOOD
    assert state.head_w == pytest.approx(truth.head_w, rel=0.01, abs=5e3)
    assert abs(state.residual_w) < 0.01 * np.abs(truth.head_w).sum()
    apart = np.abs(state.v_pu - truth.v_pu)
    assert (apart <= 1.96 * state.v_sigma_pu).mean() > 0.85
    assert 0.001 < state.v_sigma_pu.mean() < 0.01


def test_voltage_sensors_bring_the_state_nearer_to_the_truth_and_make_it_surer(bench: Bench) -> None:
    truth = bench.truth(seed=8)
    alone, sensed = bench.estimate(truth), bench.estimate(truth, voltages=bench.sensors(truth))
    assert rmse(sensed, truth) < 0.8 * rmse(alone, truth)
    assert sensed.v_sigma_pu.mean() < 0.8 * alone.v_sigma_pu.mean()
    assert sensed.bad == ()


def test_stale_sensors_count_less_and_missing_ones_not_at_all(bench: Bench) -> None:
    truth = bench.truth(seed=8)
    fresh = bench.sensors(truth)
    old = replace(fresh, sigma_pu=aged(fresh.sigma_pu, np.full(14, 900.0)))
    none = replace(fresh, v_pu=np.full(14, np.nan))
    assert old.sigma_pu == pytest.approx(np.hypot(0.003, 0.002 * np.sqrt(15.0)))
    sigmas = [bench.estimate(truth, voltages=v).v_sigma_pu.mean() for v in (fresh, old, none, NO_VOLTAGES)]
    assert sigmas[0] < sigmas[1] < sigmas[2]
    assert sigmas[2] == pytest.approx(sigmas[3], rel=1e-3)


def test_sensor_that_is_far_off_is_named_and_left_out(bench: Bench) -> None:
    truth = bench.truth(seed=9)
    voltages = bench.sensors(truth)
    good = bench.estimate(truth, voltages=voltages)
    voltages.v_pu[6] += 0.03
    state = bench.estimate(truth, voltages=voltages)
    assert state.bad == (SPREAD[6],)
    assert state.quality is Quality.SUSPECT
    assert rmse(state, truth) < 1.3 * rmse(good, truth)


def test_regulator_a_step_off_is_found_and_put_where_it_is(bench: Bench) -> None:
    truth = bench.truth(seed=10)
    taps = bench.plant.taps()
    bench.model.set_taps({"creg1a": taps["creg1a"] - 1})
    state = bench.estimate(truth, voltages=bench.sensors(truth))
    assert bench.model.taps() == taps
    assert state.quality is Quality.GOOD


def test_told_regulator_stays_where_it_is_told_to_be(bench: Bench) -> None:
    truth = bench.truth(seed=10)
    bench.model.set_taps({"creg1a": bench.plant.taps()["creg1a"] - 1})
    told = bench.model.taps()
    bench.estimate(truth, voltages=bench.sensors(truth), told_regulators=bench.model.layout.regulators)
    assert bench.model.taps() == told


def test_without_a_head_the_loads_stay_as_they_were_and_the_state_is_stale(bench: Bench) -> None:
    truth = bench.truth(load=0.6)
    before = bench.estimate(truth)
    state = bench.estimate(None, previous=before)
    assert state.quality is Quality.STALE
    assert state.load_w.sum() == pytest.approx(before.load_w.sum(), rel=0.02)
    assert bench.estimate(None).load_w == pytest.approx(bench.model.layout.nominal_load_w)


def test_der_that_does_not_answer_makes_the_state_suspect_and_less_sure_at_its_own_point(bench: Bench) -> None:
    truth = bench.truth()
    known = bench.estimate(truth)
    seen_w = NOON_W.copy()
    seen_w[5] = np.nan
    state = bench.estimate(truth, seen_w)
    point = bench.model.layout.der_point[5]
    assert state.quality is Quality.SUSPECT
    assert state.v_sigma_pu[point] > 1.5 * known.v_sigma_pu[point]
    assert state.head_w == pytest.approx(truth.head_w, rel=0.02, abs=5e3)


def test_head_beyond_all_loads_is_suspect_and_the_factors_keep_their_bounds(bench: Bench) -> None:
    truth = bench.truth()
    impossible = replace(truth, head_w=truth.head_w * 6.0)
    state = bench.estimate(impossible)
    assert state.quality is Quality.SUSPECT
    assert state.load_scale.max() <= 3.0


def test_hidden_pv_masks_load_and_never_makes_customers_into_sources(bench: Bench) -> None:
    """The head sees net load: without the nameplates the gross load of a sunny noon would be far too low."""
    layout = bench.model.layout
    hidden = tuple(InvisiblePv(f"Load.{name}", 30e3) for name in layout.loads[:30])
    package = replace(PACKAGE, invisible_pv=hidden)
    rng = np.random.default_rng(3)
    gross_w = layout.nominal_load_w * 0.8 * rng.lognormal(0.0, 0.1, len(layout.loads))
    net_w = gross_w.copy()
    net_w[:30] -= 0.8 * 30e3
    bench.plant.set_loads(net_w, 0.8 * layout.nominal_load_var)
    bench.plant.set_der(0.0 * NOON_W, NO_VAR)
    truth = bench.plant.solve()
    bench.model.set_taps(bench.plant.taps())
    state = bench.estimate(truth, 0.0 * NOON_W, package=package, sun_pu=0.8)
    assert state.gross_w == pytest.approx(gross_w.sum(), rel=0.05)
    assert state.hidden_w == pytest.approx(30 * 0.8 * 30e3, rel=0.2)
    assert state.load_w.sum() == pytest.approx(net_w.sum(), rel=0.03)
    assert (state.load_w[30:] > 0.0).all()
    assert (state.load_w[:30] < layout.nominal_load_w[:30]).all()


def test_regulators_that_nobody_tells_follow_the_load_in_the_model(bench: Bench) -> None:
    light = bench.truth(0.0 * NOON_W, load=0.4)
    taps = bench.plant.taps()
    bench.model.set_taps(dict.fromkeys(taps, 0))
    bench.estimate(light, 0.0 * NOON_W, regulators_act=True)
    assert abs(bench.model.taps()["creg1a"] - taps["creg1a"]) <= 1


def test_three_wire_feeder_is_estimated_between_its_phases() -> None:
    package = load("ieee37")
    model = FeederEngine(package)
    layout = model.layout
    none = np.zeros(len(package.ders))
    model.set_loads(0.7 * layout.nominal_load_w, 0.7 * layout.nominal_load_var)
    truth = model.solve()
    state = estimate(
        model,
        package,
        at=AT,
        head_w=truth.head_w,
        head_var=truth.head_var,
        der_w=none,
        der_var=none,
        previous=None,
        regulators_act=False,
    )
    assert state.load_w.sum() == pytest.approx(0.7 * layout.nominal_load_w.sum(), rel=0.02)
    assert rmse(state, truth) < 0.004
    assert state.points == layout.points


def test_update_without_measurements_is_the_prior() -> None:
    sigma = np.array([1.0, 2.0])
    nothing = updated(np.zeros((0, 2)), sigma, np.zeros(0), np.zeros(0))
    assert nothing.deviation.tolist() == [0.0, 0.0]
    assert nothing.variance(np.eye(2), sigma).tolist() == [1.0, 4.0]


def test_update_weighs_prior_and_measurement_by_their_variances() -> None:
    one = updated(np.array([[1.0]]), np.array([2.0]), np.array([3.0]), np.array([1.0]))
    assert one.deviation == pytest.approx([3.0 * 4.0 / 5.0])
    assert one.variance(np.eye(1), np.array([2.0])) == pytest.approx([4.0 / 5.0])
    assert one.chi2 == pytest.approx(9.0 / 5.0)

"""Estimates at the corners: values missing one by one, a regulator at its end, hidden PV at noon, three wires."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import Between, FeederPackage, GridState, InvisiblePv, MeterBinding
from derms.domain.quality import Quality
from derms.grid.engine import Engine, PowerFlow
from derms.grid.estimate import NO_VOLTAGES, Voltages, estimate
from derms.grid.opendss import FeederEngine
from derms.grid.posterior import updated
from tests.grid.operating_point import small
from tests.grid.village import village

AT = datetime(2026, 4, 15, 19, tzinfo=UTC)


def estimated(
    engine: Engine,
    head: PowerFlow,
    der_w: FloatArray,
    *,
    package: FeederPackage | None = None,
    voltages: Voltages = NO_VOLTAGES,
    sun_pu: float = 0.0,
) -> GridState:
    """The state from a head and DER without reactive power, regulators where they are or a step beside."""
    return estimate(
        engine,
        package or engine.package,
        at=AT,
        head_w=head.head_w,
        head_var=head.head_var,
        der_w=der_w,
        der_var=0.0 * der_w,
        previous=None,
        voltages=voltages,
        regulators_act=False,
        sun_pu=sun_pu,
    )


def solved(engine: Engine, load: float, der_w: FloatArray) -> PowerFlow:
    """A true state with a part of the nominal load; controls stand still."""
    engine.freeze_controls(True)
    engine.set_loads(load * engine.layout.nominal_load_w, load * engine.layout.nominal_load_var)
    engine.set_der(der_w, 0.0 * der_w)
    return engine.solve()


def every_point(engine: Engine, flow: PowerFlow) -> Voltages:
    points = np.flatnonzero(flow.v_pu > 0.5)
    names = tuple(engine.layout.points[point] for point in points)
    return Voltages(names, points, flow.v_pu[points].copy(), np.full(len(points), 0.003))


@pytest.fixture
def engine(tmp_path: Path) -> FeederEngine:
    return FeederEngine(replace(village(tmp_path), own=True))


def test_one_missing_voltage_among_many_counts_for_nothing(engine: FeederEngine) -> None:
    sun_w = np.array([1e5])
    truth = solved(engine, 0.8, sun_w)
    voltages = every_point(engine, truth)
    without = Voltages(voltages.names[1:], voltages.points[1:], voltages.v_pu[1:].copy(), voltages.sigma_pu[1:])
    voltages.v_pu[0] = np.nan
    states = [estimated(engine, truth, sun_w, voltages=given) for given in (voltages, without)]
    assert states[0].v_pu == pytest.approx(states[1].v_pu, abs=1e-6)
    assert states[0].v_sigma_pu == pytest.approx(states[1].v_sigma_pu, rel=1e-6)
    assert states[0].bad == ()


def test_one_missing_phase_of_the_head_leaves_the_nominal_loads(engine: FeederEngine) -> None:
    truth = solved(engine, 0.8, np.zeros(1))
    head_w = truth.head_w.copy()
    head_w[1] = np.nan
    state = estimated(engine, replace(truth, head_w=head_w), np.zeros(1))
    assert state.quality is Quality.STALE
    assert state.load_w == pytest.approx(engine.layout.nominal_load_w)
    assert np.isfinite(state.v_pu).all()
    assert np.isnan(state.residual_w)


def test_regulator_at_its_upper_end_goes_no_farther_and_what_is_left_is_kept_beside(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    engine.set_taps({"reg": 16})
    truth = solved(engine, 0.8, np.zeros(1))
    voltages = every_point(engine, truth)
    behind = np.array([not name.startswith(("source", "green")) for name in voltages.names])
    voltages.v_pu[behind] += 0.00625
    state = estimated(engine, truth, np.zeros(1), voltages=voltages)
    assert engine.taps() == {"reg": 16}
    there = solved(engine, 1.0, np.zeros(1))
    engine.set_loads(state.load_w, state.load_var)
    there = engine.solve()
    seen = voltages.points[behind]
    assert state.v_pu[seen] == pytest.approx(voltages.v_pu[behind], abs=0.003)
    assert there.v_pu + state.v_bias_pu == pytest.approx(state.v_pu, abs=1e-3)


def test_regulator_a_step_below_is_moved_and_the_engine_then_has_the_voltages(engine: FeederEngine) -> None:
    engine.freeze_controls(True)
    engine.set_taps({"reg": 5})
    truth = solved(engine, 0.8, np.zeros(1))
    voltages = every_point(engine, truth)
    engine.set_taps({"reg": 4})
    state = estimated(engine, truth, np.zeros(1), voltages=voltages)
    assert engine.taps() == {"reg": 5}
    assert state.quality is Quality.GOOD
    engine.freeze_controls(True)
    engine.set_loads(state.load_w, state.load_var)
    assert engine.solve().v_pu + state.v_bias_pu == pytest.approx(state.v_pu, abs=5e-4)


@pytest.mark.parametrize("sun_pu", [0.2, 0.6, 1.0])
@pytest.mark.parametrize("hidden_w", [1e5, 4e5])
def test_masked_load_of_a_noon_never_makes_gross_load_negative(
    engine: FeederEngine, sun_pu: float, hidden_w: float
) -> None:
    package = replace(engine.package, invisible_pv=(InvisiblePv("Load.mill", hidden_w),))
    layout = engine.layout
    gross_w = 0.5 * layout.nominal_load_w
    net_w = gross_w - np.where(np.array(layout.loads) == "mill", sun_pu * hidden_w, 0.0)
    engine.freeze_controls(True)
    engine.set_loads(net_w, 0.5 * layout.nominal_load_var)
    engine.set_der(np.zeros(1), np.zeros(1))
    truth = engine.solve()
    state = estimated(engine, truth, np.zeros(1), package=package, sun_pu=sun_pu)
    assert state.gross_w == pytest.approx(gross_w.sum(), rel=0.05)
    assert state.hidden_w == pytest.approx(sun_pu * hidden_w, rel=0.05)
    assert state.gross_w - state.hidden_w == pytest.approx(state.load_w.sum())
    asleep = estimated(engine, truth, np.zeros(1), package=package, sun_pu=0.0)  # the sun is said to be down: too few
    assert asleep.gross_w > 0.0
    assert asleep.hidden_w == 0.0


def test_head_is_as_sure_as_the_package_says_its_meter_is(engine: FeederEngine) -> None:
    sun_w = np.array([1e5])
    truth = solved(engine, 0.8, sun_w)
    sigmas = []
    for sigma_frac in (0.002, 0.2):
        meter = MeterBinding("head", "head-meter", "source", "Line.head", 1, sigma_frac, 60.0)
        package = replace(engine.package, meters=(meter,))
        sigmas.append(estimated(engine, truth, sun_w, package=package).v_sigma_pu.mean())
    assert sigmas[0] < 0.8 * sigmas[1]


def test_exporting_feeder_is_estimated_too(engine: FeederEngine) -> None:
    sun_w = np.array([4e5])
    truth = solved(engine, 0.3, sun_w)
    assert truth.head_w.sum() < 0.0
    state = estimated(engine, truth, sun_w)
    assert state.quality is Quality.GOOD
    assert state.head_w.sum() == pytest.approx(truth.head_w.sum(), rel=0.02)


def test_bad_sensor_between_the_phases_of_a_delta_feeder_is_named(tmp_path: Path) -> None:
    engine = FeederEngine(small(tmp_path, between=Between.PHASES))
    der_w = np.array([3e5, 5e4])
    truth = solved(engine, 0.8, der_w)
    voltages = every_point(engine, truth)
    good = estimated(engine, truth, der_w, voltages=voltages)
    assert good.bad == ()
    assert np.abs(good.v_pu - truth.v_pu).max() < 0.002
    row = voltages.names.index("b.2-3")
    voltages.v_pu[row] -= 0.03
    state = estimated(engine, truth, der_w, voltages=voltages)
    assert state.bad == ("b.2-3",)
    assert state.quality is Quality.SUSPECT
    assert np.abs(state.v_pu - truth.v_pu).max() < 0.002


def test_estimate_lets_the_regulators_act_again_afterwards_whatever_happened(engine: FeederEngine) -> None:
    estimated(engine, solved(engine, 1.0, np.zeros(1)), np.zeros(1))
    engine.set_taps({"reg": -10})
    engine.solve()
    assert engine.taps()["reg"] > -10


def test_two_measurements_that_contradict_all_others_are_left_out_one_after_the_other() -> None:
    jacobian, sigma = np.ones((8, 1)), np.array([1.0])
    innovation = np.zeros(8)
    innovation[[2, 5]] = 4.0, -6.0
    update = updated(jacobian, sigma, innovation, np.full(8, 0.1))
    assert np.flatnonzero(~update.used).tolist() == [2, 5]
    assert update.deviation == pytest.approx([0.0], abs=1e-9)
    assert (update.residual_sigma[[2, 5]] > 3.5).all()

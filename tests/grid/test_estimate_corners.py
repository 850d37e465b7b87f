"""Estimates at the corners: values missing one by one, a regulator at its end, hidden PV at noon, three wires."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import Between, FeederPackage, GridState, InvisiblePv, MeterBinding
from derms.domain.quality import Quality
from derms.errors import NotConverged
from derms.grid.engine import Engine, PowerFlow
from derms.grid.estimate import NO_VOLTAGES, Voltages, estimate
from derms.grid.opendss import FeederEngine
from derms.grid.posterior import updated
from derms.grid.unknowns import TAP_SIGMA, Operating, level_slopes
from tests.grid.operating_point import small
from tests.grid.village import village

AT = datetime(2026, 4, 15, 19, tzinfo=UTC)
LANE = """\
New Circuit.lane bus1=source basekv=4.16 pu=1.0
New Line.head bus1=source.1 bus2=end.1 phases=1 r1=0.3 x1=0.5 r0=0.3 x0=0.5 c1=0 c0=0
New Load.house bus1=end.1 phases=1 kv=2.4 kw=200 kvar=50
Set voltagebases=[4.16]
Calcvoltagebases
"""
"""A feeder of one phase."""
BEHIND = slice(6, 12)
"""Points of the village behind its regulator."""


class Stubborn(FeederEngine):
    """Has a solution only while its regulator stands at one tap."""

    only_at: int | None = None

    def solve(self) -> PowerFlow:
        flow = super().solve()
        if self.only_at is not None and self.taps() != {"reg": self.only_at}:
            raise NotConverged("village: no finite power flow")
        return flow


def estimated(
    engine: Engine,
    head: PowerFlow,
    der_w: FloatArray,
    *,
    package: FeederPackage | None = None,
    voltages: Voltages = NO_VOLTAGES,
    sun_pu: float = 0.0,
    told: tuple[str, ...] = (),
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
        told_regulators=told,
        regulators_act=False,
        sun_pu=sun_pu,
    )


def solved(engine: Engine, load: float, der_w: FloatArray) -> PowerFlow:
    """A true state with a part of the nominal load; controls stand still."""
    engine.freeze_controls(True)
    engine.set_loads(load * engine.layout.nominal_load_w, load * engine.layout.nominal_load_var)
    engine.set_der(der_w, 0.0 * der_w)
    return engine.solve()


def operating(engine: Engine) -> Operating:
    """The nominal loads, of which no head tells anything."""
    layout = engine.layout
    gross, nothing = np.array([layout.nominal_load_w, layout.nominal_load_var]), np.zeros(len(layout.loads))
    return Operating(gross, nothing, gross, np.zeros((2, 1)), np.zeros((2, 1)), np.ones_like(gross))


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


def test_the_step_of_a_regulator_without_a_solution_leaves_taps_and_controls_as_they_were(tmp_path: Path) -> None:
    engine = Stubborn(replace(village(tmp_path), own=True))
    truth = solved(engine, 0.8, np.zeros(1))
    engine.freeze_controls(False)
    engine.set_taps({"reg": -10})
    engine.only_at = -10
    with pytest.raises(NotConverged):
        estimated(engine, truth, np.zeros(1))
    assert engine.taps() == {"reg": -10}
    engine.only_at = None
    engine.solve()
    assert engine.taps()["reg"] > -10, "the regulator acts again"


def test_a_lower_level_without_a_solution_leaves_taps_and_loads_as_they_were(tmp_path: Path) -> None:
    engine = Stubborn(replace(village(tmp_path), own=True))
    prior = operating(engine)
    before = solved(engine, 1.0, np.zeros(1))
    engine.set_taps({"reg": 3})
    engine.only_at = 4
    with pytest.raises(NotConverged):
        level_slopes(engine, prior)
    assert engine.taps() == {"reg": 3}
    engine.only_at = None
    assert engine.solve().head_w == pytest.approx(before.head_w, rel=0.01)


def test_a_phase_that_the_head_lacks_need_not_be_told(tmp_path: Path) -> None:
    circuit = tmp_path / "lane.dss"
    circuit.write_text(LANE, encoding="utf8")
    lane = replace(village(tmp_path), circuit=circuit, sites=(), ders=(), switches=(), regulators=(), capacitors=())
    engine = FeederEngine(replace(lane, buses=frozenset({"source", "end"}), own=True))
    truth = solved(engine, 0.7, np.zeros(0))
    assert truth.head_w.tolist()[1:] == [0.0, 0.0]
    meter = np.where([True, False, False], [truth.head_w, truth.head_var], np.nan)
    state = estimated(engine, replace(truth, head_w=meter[0], head_var=meter[1]), np.zeros(0))
    assert state.quality is Quality.GOOD
    assert state.head_w == pytest.approx(truth.head_w, rel=0.01)
    assert np.isfinite(state.residual_w)


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

    def sigma_pu(sigma_frac: float, told: tuple[str, ...]) -> float:
        meter = MeterBinding("head", "head-meter", "source", "Line.head", 1, sigma_frac, 60.0)
        package = replace(engine.package, meters=(meter,))
        return float(estimated(engine, truth, sun_w, package=package, told=told).v_sigma_pu[BEHIND].mean())

    good, poor = sigma_pu(0.002, ("reg",)), sigma_pu(0.2, ("reg",))
    assert good < 0.3 * poor
    # Loads are of constant power: the head does not show at all where the regulator stands.
    for told, untold in ((good, sigma_pu(0.002, ())), (poor, sigma_pu(0.2, ()))):
        assert untold == pytest.approx(np.hypot(told, TAP_SIGMA * 0.00625), rel=0.05)


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


@pytest.mark.parametrize("frozen", [False, True])
def test_estimate_leaves_the_controls_free_or_held_as_it_found_them(engine: FeederEngine, frozen: bool) -> None:
    truth = solved(engine, 1.0, np.zeros(1))
    engine.freeze_controls(frozen)
    estimated(engine, truth, np.zeros(1))
    assert engine.frozen() is frozen
    engine.set_taps({"reg": -10})
    engine.solve()
    assert (engine.taps()["reg"] == -10) is frozen


def test_two_measurements_that_contradict_all_others_are_left_out_one_after_the_other() -> None:
    jacobian, sigma = np.ones((8, 1)), np.array([1.0])
    innovation = np.zeros(8)
    innovation[[2, 5]] = 4.0, -6.0
    update = updated(jacobian, sigma, innovation, np.full(8, 0.1))
    assert np.flatnonzero(~update.used).tolist() == [2, 5]
    assert update.deviation == pytest.approx([0.0], abs=1e-9)
    assert (update.residual_sigma[[2, 5]] > 3.5).all()

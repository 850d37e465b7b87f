"""Which rows the optimizer gets, what they predict, and how long they hold."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.errors import GridError
from derms.grid.layout import V_DEAD_PU
from derms.grid.sensitivities import (
    Kind,
    Linearised,
    Margins,
    Reach,
    Sensitivities,
    curve_slope,
    linearised,
    sensitivities,
)
from feeders.catalog import load
from tests.grid.operating_point import OperatingPoint, small


@pytest.fixture(scope="module")
def ieee123() -> Iterator[OperatingPoint]:
    feeder = OperatingPoint(load("ieee123"), 15e3, 3e3)
    yield feeder
    feeder.engine.close()


def box(ders: int, w: float, var: float) -> Reach:
    p_w, q_var = np.full(ders, w), np.full(ders, var)
    return Reach(-p_w, p_w, -q_var, q_var)


def der_powers(feeder: OperatingPoint) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    loads = feeder.loads
    return feeder.p_w[:loads], feeder.q_var[:loads], feeder.p_w[loads:], feeder.q_var[loads:]


def of_kind(found: Sensitivities, kind: Kind) -> dict[str, int]:
    return {name: row for row, (name, its) in enumerate(zip(found.names, found.kinds, strict=True)) if its is kind}


def test_the_less_der_can_do_the_fewer_rows_are_carried_and_none_is_lost_uncounted(ieee123: OperatingPoint) -> None:
    rated = int(np.isfinite(ieee123.tangent.network.rating_a).sum())
    carried = []
    for w in (0.0, 5e3, 50e3):
        found = sensitivities(ieee123.tangent, box(ieee123.ders, w, 0.3 * w))
        assert len(of_kind(found, Kind.VOLTAGE)) + found.dropped[Kind.VOLTAGE] == len(ieee123.layout.points)
        assert len(of_kind(found, Kind.CURRENT)) + found.dropped[Kind.CURRENT] == rated
        assert len(of_kind(found, Kind.HEAD_W)) == len(of_kind(found, Kind.HEAD_VAR)) == 3
        assert found.d_dp.shape == found.d_dq.shape == (len(found.names), ieee123.ders)
        carried.append(len(found.names))
    assert carried == sorted(carried)
    assert carried[0] < 0.5 * (len(ieee123.layout.points) + rated) < carried[2]


def test_no_dropped_row_leaves_its_limits_wherever_the_der_go(ieee123: OperatingPoint) -> None:
    reach_w = 10e3
    found = sensitivities(ieee123.tangent, box(ieee123.ders, reach_w, 0.3 * reach_w))
    network, layout = ieee123.tangent.network, ieee123.layout
    quiet = np.array([name not in of_kind(found, Kind.VOLTAGE) for name in layout.points])
    idle = np.array([name not in of_kind(found, Kind.CURRENT) for name in network.current_names])
    idle &= np.isfinite(network.rating_a)
    assert quiet.any()
    assert idle.any()
    rng = np.random.default_rng(4)
    corners = [np.full(2 * ieee123.ders, side) for side in (1.0, -1.0)]
    for way in [*corners, *rng.choice([-1.0, 1.0], (6, 2 * ieee123.ders))]:
        move = reach_w * way
        p_w, q_var = ieee123.p_w.copy(), ieee123.q_var.copy()
        p_w[ieee123.loads :] += move[: ieee123.ders]
        q_var[ieee123.loads :] += 0.3 * move[ieee123.ders :]
        flow = ieee123.at(p_w, q_var)
        assert not layout.violating(flow.v_pu)[quiet].any()
        assert (network.loading(flow.v_v)[idle] < 1.0).all()
    ieee123.at(ieee123.p_w, ieee123.q_var)


def test_rows_predict_what_the_full_solution_says(ieee123: OperatingPoint) -> None:
    found = sensitivities(ieee123.tangent, box(ieee123.ders, 30e3, 10e3))
    dp_w, dq_var = np.random.default_rng(5).uniform(-4e3, 4e3, (2, ieee123.ders))
    p_w, q_var = ieee123.p_w.copy(), ieee123.q_var.copy()
    p_w[ieee123.loads :] += dp_w
    q_var[ieee123.loads :] += dq_var
    flow = ieee123.at(p_w, q_var)
    ieee123.at(ieee123.p_w, ieee123.q_var)
    predicted = found.predicted(dp_w, dq_var)
    for name, row in of_kind(found, Kind.VOLTAGE).items():
        assert predicted[row] == pytest.approx(flow.v_pu[ieee123.layout.points.index(name)], abs=2e-4)
    for phase, row in of_kind(found, Kind.HEAD_W).items():
        assert predicted[row] == pytest.approx(flow.head_w["abc".index(phase)], abs=200.0)
    for phase, row in of_kind(found, Kind.HEAD_VAR).items():
        assert predicted[row] == pytest.approx(flow.head_var["abc".index(phase)], abs=200.0)


def test_head_power_keeps_the_limits_that_it_is_given(ieee123: OperatingPoint) -> None:
    reach = box(ieee123.ders, 0.0, 0.0)
    low_w = np.array([0.0, -1e5, -2e5])
    found = sensitivities(ieee123.tangent, reach, head_low_w=low_w)
    rows = list(of_kind(found, Kind.HEAD_W).values())
    assert found.low[rows].tolist() == low_w.tolist()
    assert np.isinf(found.high[rows]).all()
    assert found.values[rows] == pytest.approx(ieee123.flow.head_w, rel=1e-6)


def test_import_that_turns_into_export_reaches_the_rating_from_the_other_side(tmp_path: Path) -> None:
    """The magnitude of a current has a corner at zero; its row has none and counts on below it."""
    feeder = OperatingPoint(small(tmp_path), 0.0, 0.0)
    found = sensitivities(feeder.tangent, Reach(np.zeros(2), np.array([2e6, 0.0]), np.zeros(2), np.zeros(2)))
    row = of_kind(found, Kind.CURRENT)["line.tie.1"]
    assert (found.low[row], found.high[row]) == (-200.0, 200.0)
    assert found.values[row] > 0.0
    export_w = 1.5e6
    p_w = feeder.p_w.copy()
    p_w[feeder.loads] = export_w
    flow = feeder.at(p_w, feeder.q_var)
    index = feeder.tangent.network.current_names.index("line.tie.1")
    exported_a = np.abs(feeder.tangent.network.current[[index]] @ flow.v_v)[0]
    assert found.predicted(np.array([export_w, 0.0]), np.zeros(2))[row] == pytest.approx(-exported_a, rel=0.1)


def test_idle_line_is_followed_in_the_direction_in_which_der_can_load_it(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path), 0.0, 0.0)
    feeder.p_w[:] = feeder.q_var[:] = 0.0
    tangent = feeder.touching(feeder.at(feeder.p_w, feeder.q_var))
    found = sensitivities(tangent, Reach(np.zeros(2), np.array([2e6, 0.0]), np.zeros(2), np.zeros(2)))
    row = of_kind(found, Kind.CURRENT)["line.tie.2"]
    assert abs(found.values[row]) < 1.0
    assert abs(found.d_dp[row, 0]) * 1e6 == pytest.approx(1e6 / (np.sqrt(3.0) * 4160.0), rel=0.05)


def test_point_that_is_dead_is_never_critical(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path), 50e3, 0.0)
    feeder.engine.set_switches({"line.tie": False})
    flow = feeder.at(feeder.p_w, feeder.q_var)
    found = sensitivities(feeder.touching(flow), box(2, 1e6, 1e6), Margins(voltage_pu=1.0))
    dead = {name for name, v_pu in zip(feeder.layout.points, flow.v_pu, strict=True) if v_pu < V_DEAD_PU}
    assert dead == {"b.1", "b.2", "b.3"}
    assert not dead & set(of_kind(found, Kind.VOLTAGE))
    assert found.dropped[Kind.VOLTAGE] == 3


def test_feeder_without_der_still_shows_its_strained_rows(tmp_path: Path) -> None:
    feeder = OperatingPoint(small(tmp_path, without_der=True), 0.0, 0.0)
    found = sensitivities(feeder.tangent, box(0, 0.0, 0.0), Margins(voltage_pu=0.1))
    assert found.d_dp.shape == (len(found.names), 0)
    assert len(of_kind(found, Kind.VOLTAGE)) == len(feeder.layout.points)


@pytest.mark.parametrize(
    ("reach", "words"),
    [
        (Reach(np.zeros(3), np.zeros(2), np.zeros(2), np.zeros(2)), "2 values expected"),
        (Reach(np.full(2, np.nan), np.zeros(2), np.zeros(2), np.zeros(2)), "2 values are not finite"),
        (Reach(np.ones(2), np.zeros(2), np.zeros(2), np.zeros(2)), "2 of 4 low ends are above their high ends"),
    ],
)
def test_reach_that_makes_no_sense_is_refused(tmp_path: Path, reach: Reach, words: str) -> None:
    feeder = OperatingPoint(small(tmp_path), 0.0, 0.0)
    with pytest.raises(GridError, match=words):
        sensitivities(feeder.tangent, reach)


def at_rest(feeder: OperatingPoint) -> Linearised:
    return linearised(feeder.engine, feeder.at(feeder.p_w, feeder.q_var), *der_powers(feeder))


def test_tangent_holds_until_something_is_switched_or_voltages_have_gone(tmp_path: Path) -> None:
    extra = "New Capacitor.bank bus1=b phases=3 kv=4.16 kvar=300 numsteps=2"
    feeder = OperatingPoint(small(tmp_path, extra=extra), 50e3, 0.0)
    engine = feeder.engine
    engine.set_capacitors({"bank": 1})
    kept = at_rest(feeder)
    assert kept.outdated(engine, engine.solve()) == ""
    engine.set_der(np.array([60e3, 40e3]), np.zeros(2))
    assert kept.outdated(engine, engine.solve()) == ""
    engine.set_der(np.array([900e3, 300e3]), np.zeros(2))
    assert kept.outdated(engine, engine.solve()).startswith("voltage at b.2 moved by 0.")
    assert kept.outdated(engine, engine.solve(), moved_max_pu=0.2) == ""
    engine.set_capacitors({"bank": 2})
    assert kept.outdated(engine, engine.solve()) == "capacitor changed: bank"
    kept = at_rest(feeder)
    engine.set_switches({"line.tie": False})
    assert kept.outdated(engine, engine.solve()) == "switch changed: line.tie"
    kept = at_rest(feeder)
    assert kept.outdated(engine, engine.solve()) == ""


def test_tangent_is_outdated_by_one_tap(ieee123: OperatingPoint) -> None:
    engine = ieee123.engine
    kept = at_rest(ieee123)
    before = engine.taps()
    engine.set_taps({"creg2a": before["creg2a"] + 1})
    assert kept.outdated(engine, engine.solve()) == "tap changed: creg2a"
    engine.set_taps(before)
    assert kept.outdated(engine, engine.solve()) == ""


CURVE_PU, CURVE_VAR = np.array([0.92, 0.98, 1.02, 1.08]), np.array([6e3, 0.0, 0.0, -6e3])


@pytest.mark.parametrize(
    ("v_pu", "slope"),
    [
        (0.90, 0.0),
        (0.92, -0.5e5),
        (0.95, -1e5),
        (0.98, -0.5e5),
        (1.00, 0.0),
        (1.05, -1e5),
        (1.10, 0.0),
    ],
)
def test_slope_of_a_volt_var_curve_is_that_of_its_segment(v_pu: float, slope: float) -> None:
    assert curve_slope(CURVE_PU, CURVE_VAR, np.array([v_pu]))[0] == pytest.approx(slope)


@pytest.mark.parametrize("curve_pu", [np.array([1.0]), np.array([1.0, 1.0]), np.array([1.0, np.nan])])
def test_curve_whose_voltages_do_not_rise_is_refused(curve_pu: FloatArray) -> None:
    with pytest.raises(GridError, match="rising voltages"):
        curve_slope(curve_pu, np.zeros(len(curve_pu)), np.array([1.0]))

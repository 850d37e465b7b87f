"""Hosting capacity: of one line by its formula, and of real feeders against what the engine solves around it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import FeederPackage, VoltageLimits
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.engine import PowerFlow
from derms.grid.hosting import (
    Criteria,
    Criterion,
    Hosting,
    Hour,
    Limit,
    hosting_capacity,
    representative_hours,
    with_candidates,
)
from derms.grid.open import open_engine
from derms.grid.opendss import FeederEngine
from feeders.catalog import load

R_OHM, X_OHM, V_LL = 2.0, 1.0, 4160.0
LOAD_W = 300e3
LINE = f"""\
New Circuit.line bus1=source basekv=4.16 pu=1.0 r1=0 x1=0.0001 r0=0 x0=0.0001
New Line.head bus1=source bus2=end r1={R_OHM} x1={X_OHM} r0={R_OHM} x0={X_OHM} c1=0 c0=0 normamps=120 emergamps=150
New Load.end bus1=end kv=4.16 kw={LOAD_W / 1e3} kvar=0 vminpu=0.6 vmaxpu=1.4
New Line.stub bus1=end.2 bus2=shed.2 phases=1 r1=0.01 x1=0.01 c1=0 length=1
Set voltagebases=[4.16]
Calcvoltagebases
"""
FINE = Criteria(p_max_w=2e6, resolution_w=100.0)


def line(folder: Path, *, v_max_pu: float = 1.05) -> FeederPackage:
    circuit = folder / "line.dss"
    circuit.write_text(LINE, encoding="utf8")
    limits = (VoltageLimits(1e4, 0.95, v_max_pu),)
    return FeederPackage(
        "line", circuit, "source", "Line.head", 3e5, (), (), (), limits, frozenset({"source", "end", "shed"}), own=True
    )


def hours_of(engine: FeederEngine, levels: Sequence[tuple[float, float]]) -> list[Hour]:
    """Hours with loads at a part of nominal and PV at a part of its rating."""
    layout = engine.layout
    ders = [der for der in engine.package.ders if der.kind != "candidate"]
    pv_w = np.array([der.p_rated_w if der.kind == "pv" else 0.0 for der in ders])
    return [
        Hour(f"h{row}", layout.nominal_load_w * load, layout.nominal_load_var * load, sun * pv_w, 0.0 * pv_w)
        for row, (load, sun) in enumerate(levels)
    ]


def by(found: Hosting, criterion: Criterion) -> Limit:
    return next(limit for limit in found.limits if limit.criterion is criterion)


def sent_v(p_w: float) -> float:
    """Voltage at the end of the line [pu] with so much injected there: v^4 - (1 + 2 r p) v^2 + p^2 |z|^2 = 0."""
    r, x = R_OHM / V_LL**2, X_OHM / V_LL**2
    half = 0.5 + r * p_w
    return sqrt(half + sqrt(half**2 - p_w**2 * (r**2 + x**2)))


def test_capacity_of_a_line_is_what_its_formula_says(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    found = hosting_capacity(engine, "host_end", hours_of(engine, [(1.0, 0.0)]), FINE)
    step_w = FINE.resolution_w
    voltage = by(found, Criterion.VOLTAGE)
    assert sent_v(voltage.capacity_w - LOAD_W) <= 1.05 + 2e-5
    assert sent_v(voltage.capacity_w + step_w - LOAD_W) > 1.05 - 2e-5
    assert voltage.where.startswith("end.")
    assert voltage.limit == 1.05
    fluctuation = by(found, Criterion.FLUCTUATION)
    assert sent_v(fluctuation.capacity_w - LOAD_W) - sent_v(-LOAD_W) == pytest.approx(0.03, abs=2e-5)
    thermal = by(found, Criterion.THERMAL)
    net_w = thermal.capacity_w - LOAD_W
    assert net_w / (sqrt(3.0) * V_LL * sent_v(net_w)) == pytest.approx(120.0, rel=1e-3)
    assert thermal.where.startswith("line.head.")


def test_head_does_not_run_backwards_until_the_load_is_met(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    hours = hours_of(engine, [(1.0, 0.0), (0.25, 0.0), (0.7, 0.0)])
    strict = by(hosting_capacity(engine, "host_end", hours, FINE), Criterion.REVERSE_FLOW)
    assert strict.capacity_w == pytest.approx(0.25 * LOAD_W, abs=2 * FINE.resolution_w)
    assert (strict.hour, strict.where) == ("h1", "head")
    lenient = replace(FINE, reverse_max_w=100e3, wanted=(Criterion.REVERSE_FLOW,))
    allowed = hosting_capacity(engine, "host_end", hours, lenient).tightest
    assert allowed.capacity_w > strict.capacity_w + 100e3
    assert allowed.value == pytest.approx(100e3, abs=200.0)


def test_nothing_binds_where_all_that_is_tried_holds(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    few = replace(FINE, p_max_w=50e3)
    found = hosting_capacity(engine, "host_end", hours_of(engine, [(1.0, 0.0)]), few)
    assert not any(limit.binds for limit in found.limits)
    assert found.tightest.capacity_w == 50e3


def test_lagging_power_leaves_more_room_under_the_ceiling(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    hours, voltage = hours_of(engine, [(1.0, 0.0)]), replace(FINE, wanted=(Criterion.VOLTAGE,))
    plain = hosting_capacity(engine, "host_end", hours, voltage).tightest
    absorbing = hosting_capacity(engine, "host_end", hours, replace(voltage, var_per_w=-0.4)).tightest
    assert absorbing.capacity_w > 1.1 * plain.capacity_w


def test_what_is_too_low_already_does_not_count_unless_it_gets_worse(tmp_path: Path) -> None:
    """Twice the load pulls the end below 0.95: generation there lifts it and is no reason for a capacity of nothing."""
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    hours = hours_of(engine, [(2.0, 0.0)])
    assert sent_v(-2.0 * LOAD_W) < 0.95
    found = hosting_capacity(engine, "host_end", hours, replace(FINE, wanted=(Criterion.VOLTAGE,))).tightest
    assert found.value > 1.05
    assert found.capacity_w > 2.0 * LOAD_W


def test_without_a_power_flow_nothing_more_can_be_hosted(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path, v_max_pu=1.9), ["end"]))
    far = Criteria(p_max_w=50e6, resolution_w=50e3, wanted=(Criterion.VOLTAGE,))
    found = hosting_capacity(engine, "host_end", hours_of(engine, [(1.0, 0.0)]), far).tightest
    assert found.where == "no power flow"
    assert 0.0 < found.capacity_w < 50e6


def test_hour_without_a_solution_is_named(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    with pytest.raises(NotConverged, match="hour h1, with nothing added"):
        hosting_capacity(engine, "host_end", hours_of(engine, [(1.0, 0.0), (60.0, 0.0)]), FINE)


def test_bus_that_is_not_there_and_phase_that_it_lacks_are_named(tmp_path: Path) -> None:
    package = line(tmp_path)
    with pytest.raises(ModelError, match="line: no bus 'nowhere' for DER host_nowhere"):
        FeederEngine(with_candidates(package, ["nowhere"]))
    with pytest.raises(ModelError, match=r"bus shed has phases 2; DER host_shed asks for \[1, 2\]"):
        FeederEngine(with_candidates(package, ["shed"], phases=(1, 2)))


@pytest.mark.slow
def test_circuit_of_somebody_else_is_asked_in_its_confined_process(tmp_path: Path) -> None:
    package = with_candidates(line(tmp_path), ["end"])
    coarse = replace(FINE, resolution_w=20e3)
    here = FeederEngine(package)
    confined = open_engine(replace(package, own=False))
    try:
        hours = hours_of(here, [(1.0, 0.0)])
        found = hosting_capacity(confined, "host_end", hours, coarse)
        assert [limit.capacity_w for limit in found.limits] == [
            limit.capacity_w for limit in hosting_capacity(here, "host_end", hours, coarse).limits
        ]
    finally:
        confined.close()


def test_wrong_questions_are_refused(tmp_path: Path) -> None:
    engine = FeederEngine(with_candidates(line(tmp_path), ["end"]))
    hours = hours_of(engine, [(1.0, 0.0)])
    with pytest.raises(GridError, match="no DER 'host_shed'"):
        hosting_capacity(engine, "host_shed", hours)
    with pytest.raises(GridError, match="one representative hour"):
        hosting_capacity(engine, "host_end", [])
    with pytest.raises(GridError, match=r"hour h0: 0 powers of DER expected, shape \(1,\) given"):
        hosting_capacity(engine, "host_end", [replace(hours[0], der_w=np.zeros(1))])
    with pytest.raises(GridError, match=r"resolution_w of 0\.0, var_per_w of nan"):
        Criteria(resolution_w=0.0, var_per_w=np.nan)


def test_year_is_represented_by_light_and_heavy_hours_of_every_month() -> None:
    hour = np.arange(8760)
    month, day_hour = np.minimum(hour // 730, 11) + 1, hour % 24
    load_w = np.random.default_rng(1).uniform(1e6, 3e6, 8760)
    load_w[load_w > 2.9e6] = np.nan
    found = representative_hours(load_w, month, day_hour)
    assert len(found) == 576
    assert np.isfinite(load_w[found]).all()
    assert np.nanargmin(load_w) in found
    assert np.nanargmax(load_w) in found
    assert len(set(zip(month[found].tolist(), day_hour[found].tolist(), strict=True))) == 288


# --- real feeders ----------------------------------------------------------------------------------------------------

LEVELS = [(0.4, 0.0), (0.4, 0.8), (0.95, 0.1), (0.6, 0.4)]


@pytest.fixture(scope="module")
def feeder() -> Iterator[FeederEngine]:
    engine = FeederEngine(with_candidates(load("ieee123"), ["114", "65", "150"]))
    yield engine
    engine.close()


def solved(engine: FeederEngine, hour: Hour, row: int, added_w: float) -> tuple[PowerFlow, FloatArray]:
    """The feeder with so much added, from the taps where it settles without; and the step when that drops out."""
    der_w = np.r_[hour.der_w, np.zeros(len(engine.layout.ders) - len(hour.der_w))]
    none = np.zeros(len(der_w))
    engine.set_loads(hour.load_w, hour.load_var)
    engine.set_der(der_w, none)
    engine.solve()
    engine.set_der(der_w + added_w * np.eye(len(der_w))[row], none)
    flow = engine.solve()
    engine.freeze_controls(True)
    engine.set_der(der_w, none)
    step_pu = np.abs(flow.v_pu - engine.solve().v_pu)
    engine.freeze_controls(False)
    return flow, step_pu


def test_capacity_on_ieee_123_holds_in_all_hours_and_one_step_more_does_not(feeder: FeederEngine) -> None:
    criteria = Criteria(p_max_w=4e6, resolution_w=10e3, reverse_max_w=inf)
    hours, taps = hours_of(feeder, LEVELS), feeder.taps()
    row = feeder.layout.ders.index("host_114")
    found = hosting_capacity(feeder, "host_114", hours, criteria)
    assert feeder.taps() == taps
    points = feeder.layout.bus_points("114")

    def beyond(hour: Hour, added_w: float) -> dict[Criterion, bool]:
        feeder.set_taps(taps)
        flow, step_pu = solved(feeder, hour, row, added_w)
        return {
            Criterion.VOLTAGE: bool(feeder.layout.excess_pu(flow.v_pu).max() > 1e-5),
            Criterion.FLUCTUATION: bool(step_pu[points[points >= 0]].max() > criteria.fluctuation_max_pu),
        }

    for criterion in (Criterion.VOLTAGE, Criterion.FLUCTUATION):
        limit = by(found, criterion)
        assert not any(beyond(hour, limit.capacity_w)[criterion] for hour in hours)
        binding = next(hour for hour in hours if hour.name == limit.hour)
        assert beyond(binding, limit.capacity_w + criteria.resolution_w)[criterion]
    feeder.set_taps(taps)


def test_stiff_bus_hosts_more_than_one_at_the_end_of_a_lateral(feeder: FeederEngine) -> None:
    criteria = Criteria(p_max_w=4e6, resolution_w=20e3, reverse_max_w=inf, wanted=(Criterion.FLUCTUATION,))
    hours = hours_of(feeder, LEVELS[:2])
    lateral, trunk, head = (
        hosting_capacity(feeder, f"host_{bus}", hours, criteria).tightest for bus in ("114", "65", "150")
    )
    assert lateral.capacity_w < trunk.capacity_w < head.capacity_w
    assert not head.binds
    assert lateral.where.startswith("114.")


def test_result_does_not_depend_on_what_was_asked_before_or_in_which_order(feeder: FeederEngine) -> None:
    criteria = Criteria(p_max_w=4e6, resolution_w=50e3)
    hours = hours_of(feeder, LEVELS)
    first = hosting_capacity(feeder, "host_65", hours, criteria)
    hosting_capacity(feeder, "host_114", hours, criteria)
    again = hosting_capacity(feeder, "host_65", hours[::-1], criteria)
    assert [limit.capacity_w for limit in again.limits] == [limit.capacity_w for limit in first.limits]


def test_on_three_wires_generation_is_added_between_phases() -> None:
    engine = FeederEngine(with_candidates(load("ieee37"), ["740"], phases=(1, 2)))
    row = engine.layout.ders.index("host_740")
    assert engine.layout.points[engine.layout.der_point[row]] == "740.1-2"
    criteria = Criteria(p_max_w=2e6, resolution_w=20e3, wanted=(Criterion.FLUCTUATION,))
    found = hosting_capacity(engine, "host_740", hours_of(engine, LEVELS[:1]), criteria).tightest
    assert found.where == "740.1-2"
    assert found.value == pytest.approx(0.03, abs=0.003)


def test_service_of_a_customer_hosts_a_few_kilowatts_on_top_of_what_is_there() -> None:
    package = load("ieee13")
    engine = FeederEngine(package)
    criteria = Criteria(p_max_w=200e3, resolution_w=500.0, wanted=(Criterion.THERMAL,))
    hours = hours_of(engine, [(0.6, 0.8)])
    found = hosting_capacity(engine, "pv01", hours, criteria).tightest
    site = next(site for site in package.sites if site.id == package.ders[0].site)
    assert found.where.startswith(site.transformer.lower())
    room_w = site.s_rated_va - 0.8 * package.ders[0].p_rated_w
    assert found.capacity_w == pytest.approx(room_w, rel=0.15)

"""Feeders behind a station: its voltage follows what they draw, and its power is theirs and its losses."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.errors import GridError, ModelError, NotConverged
from derms.grid.engine import PowerFlow
from derms.grid.opendss import FeederEngine
from derms.grid.territory import MISMATCH_MAX_PU, PASSES_MAX, Station, Territory
from feeders.catalog import load

STATION = Station("s1", ("a", "b"), 8e6, 0.005, 0.08, 0.002, 0.02, source_pu=1.0, ratio=1.03, no_load_w=8e3)

Columns = tuple[FloatArray, FloatArray]


@pytest.fixture(scope="module")
def engines() -> Iterator[dict[str, FeederEngine]]:
    package = load("ieee13")
    made = {name: FeederEngine(package) for name in ("a", "b")}
    for engine in made.values():
        engine.freeze_controls(True)
    yield made
    for engine in made.values():
        engine.close()


def columns(territory: Territory, engines: dict[str, FeederEngine], load: float) -> tuple[Columns, Columns]:
    """All loads at a part of nominal, DER at nothing."""
    loads = [engine.layout for engine in engines.values()]
    p_w, q_var = (np.concatenate([getattr(one, f"nominal_load_{unit}") for one in loads]) for unit in ("w", "var"))
    return (p_w * load, q_var * load), (np.zeros(territory.der_count), np.zeros(territory.der_count))


def test_voltage_of_a_station_is_that_of_its_equivalent_circuit() -> None:
    p_w, q_var = 5e6, 2e6
    v_pu = STATION.bus_pu(p_w, q_var)
    current = np.conj(complex(p_w, q_var) / STATION.s_rated_va / v_pu)
    z = complex(STATION.r_pu + STATION.source_r_pu, STATION.x_pu + STATION.source_x_pu)
    assert abs(v_pu + z * current) == pytest.approx(STATION.source_pu * STATION.ratio, abs=1e-12)


def test_more_than_a_station_can_carry_is_said_with_its_name() -> None:
    with pytest.raises(NotConverged, match=r"station s1: 90\.0 MW"):
        STATION.bus_pu(90e6, 0.0)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_feeders_and_station_agree_within_three_passes(engines: dict[str, FeederEngine], part: float) -> None:
    territory = Territory(engines, [STATION])
    loads, ders = columns(territory, engines, part)
    flow = territory.step(loads, ders)
    assert flow.converged
    assert flow.passes <= PASSES_MAX
    assert flow.mismatch_pu[0] <= MISMATCH_MAX_PU
    drawn = flow.head_w.sum(), flow.head_var.sum()
    assert STATION.bus_pu(*drawn) == pytest.approx(flow.bus_pu[0], abs=MISMATCH_MAX_PU)


def test_power_of_a_station_is_that_of_its_feeders_and_its_losses(engines: dict[str, FeederEngine]) -> None:
    territory = Territory(engines, [STATION])
    flow = territory.step(*columns(territory, engines, 0.7))
    drawn_w, drawn_var = flow.head_w.sum(), flow.head_var.sum()
    # By currents: what the source gives, less what its own impedance and the transformer lose.
    current = np.conj(complex(drawn_w, drawn_var) / STATION.s_rated_va / flow.bus_pu[0])
    z_source = complex(STATION.source_r_pu, STATION.source_x_pu)
    behind = flow.bus_pu[0] + (z_source + complex(STATION.r_pu, STATION.x_pu)) * current
    given = (behind * np.conj(current) - z_source * abs(current) ** 2) * STATION.s_rated_va
    assert flow.station_w[0] == pytest.approx(given.real + STATION.no_load_w, rel=1e-9)
    assert flow.station_var[0] == pytest.approx(given.imag, rel=1e-9)
    lost = sum(engine.losses_w() for engine in engines.values())
    served_w = flow.head_w.sum() - lost
    assert STATION.no_load_w < flow.station_w[0] - drawn_w < 0.02 * drawn_w
    assert 0.9 < served_w / drawn_w < 1.0


def test_heavier_load_lowers_the_station_and_generation_lifts_it(engines: dict[str, FeederEngine]) -> None:
    territory = Territory(engines, [STATION])
    light, heavy = (territory.step(*columns(territory, engines, part)).bus_pu[0] for part in (0.3, 0.9))
    loads, _ = columns(territory, engines, 0.3)
    ratings_w = np.array([der.p_rated_w for engine in engines.values() for der in engine.package.ders])
    lifted = territory.step(loads, (0.8 * ratings_w, np.zeros(ratings_w.size))).bus_pu[0]
    assert heavy < light < lifted


def test_columns_go_to_their_own_feeder(engines: dict[str, FeederEngine]) -> None:
    territory = Territory(engines)
    (load_w, load_var), ders = columns(territory, engines, 0.5)
    first = len(engines["a"].layout.loads)
    load_w[:first], load_var[:first] = 0.0, 0.0
    flow = territory.step((load_w, load_var), ders)
    assert flow.head_w[0].sum() < 0.1 * flow.head_w[1].sum()
    assert flow.v_pu[territory.points_of("a")].min() > flow.v_pu[territory.points_of("b")].min()
    assert flow.passes == 1


class Failing:
    """An engine whose feeder has no solution."""

    def __init__(self, engine: FeederEngine) -> None:
        self.package, self.layout = engine.package, engine.layout
        self.set_loads, self.set_der, self.set_source_pu = engine.set_loads, engine.set_der, engine.set_source_pu

    def solve(self) -> PowerFlow:
        raise NotConverged("no finite power flow")


def test_a_feeder_without_solution_is_named_and_is_not_zero(engines: dict[str, FeederEngine]) -> None:
    parts = {"a": Failing(engines["a"]), "b": engines["b"]}
    territory = Territory(parts, [STATION])  # type: ignore[arg-type]
    flow = territory.step(*columns(territory, engines, 0.5))
    assert flow.failed == ("a: no finite power flow",)
    assert not flow.converged
    assert np.isnan(flow.v_pu[territory.points_of("a")]).all()
    assert np.isfinite(flow.v_pu[territory.points_of("b")]).all()
    assert np.isnan(flow.station_w[0])


def test_a_column_of_another_length_is_refused(engines: dict[str, FeederEngine]) -> None:
    territory = Territory(engines, [STATION])
    loads, ders = columns(territory, engines, 0.5)
    with pytest.raises(GridError, match="DER of the territory"):
        territory.step(loads, (ders[0][1:], ders[1]))


def test_stations_that_do_not_fit_the_feeders_are_told_all_at_once(engines: dict[str, FeederEngine]) -> None:
    wrong = [STATION, replace(STATION, id="s2", feeders=("b", "c"), s_rated_va=0.0)]
    with pytest.raises(ModelError, match=r"s2 has no rating; feeder b belongs .* s2; station s2 names feeder 'c'"):
        Territory(engines, wrong)

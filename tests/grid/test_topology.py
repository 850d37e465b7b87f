"""The feeder as it is operated: switches and taps told by the utility, islands, and which DER is on the feeder."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from derms.domain.grid import SwitchBinding, SwitchState, Topology
from derms.domain.membership import NOWHERE, Membership
from derms.grid.opendss import FeederEngine
from derms.grid.topology import follow, islands
from feeders.catalog import load

SWITCHES = tuple(SwitchBinding(f"sw{n}", f"Line.sw{n}", SwitchState.CLOSED, age_max_s=3600.0) for n in (2, 4))
PACKAGE = replace(load("ieee123"), switches=SWITCHES)
MORNING = datetime(2026, 4, 15, 15, 0, tzinfo=UTC)


@pytest.fixture
def engine() -> FeederEngine:
    return FeederEngine(PACKAGE)


def test_feeder_in_its_normal_state_has_no_islands(engine: FeederEngine) -> None:
    seen = follow(engine, Topology())
    assert (seen.islands, seen.dark_ders, seen.unbound) == ((), (), ())


def test_two_open_switches_make_an_island_with_the_der_in_it(engine: FeederEngine) -> None:
    opened = {"line.sw2": SwitchState.OPEN, "line.sw4": SwitchState.OPEN}
    seen = follow(engine, Topology(switches=opened))
    assert len(seen.islands) >= 1
    lost = {bus for island in seen.islands for bus in island}
    assert {"152", "160"} <= lost
    assert "30" not in lost
    assert seen.dark_ders
    assert all(f"site_{der}" in lost for der in seen.dark_ders)
    assert engine.solve().head_w.sum() < 0.7 * PACKAGE.peak_w
    again = follow(engine, Topology(switches=dict.fromkeys(opened, SwitchState.CLOSED)))
    assert again.islands == islands(engine) == ()


def test_switch_that_is_not_known_stays_as_it_is_in_the_model(engine: FeederEngine) -> None:
    follow(engine, Topology(switches={"line.sw4": SwitchState.OPEN}))
    for state in (SwitchState.UNKNOWN, SwitchState.INTERMEDIATE):
        follow(engine, Topology(switches={"line.sw4": state}))
        assert engine.switches()["line.sw4"] is False


def test_told_taps_are_taken_by_control_or_by_transformer_and_unknown_ones_left(engine: FeederEngine) -> None:
    before = engine.taps()
    told = {"regcontrol.creg4a": 3.0, "transformer.reg1a": -2.0, "regcontrol.creg3a": float("nan")}
    assert follow(engine, Topology(taps=told)).unbound == ()
    assert engine.taps() == {**before, "creg4a": 3, "creg1a": -2}


def test_what_the_package_does_not_know_is_named(engine: FeederEngine) -> None:
    told = Topology(switches={"line.sw9": SwitchState.OPEN}, taps={"regcontrol.nope": 1.0})
    assert follow(engine, told).unbound == ("line.sw9", "regcontrol.nope")


def test_membership_remembers_where_each_der_was() -> None:
    noon, night = MORNING + timedelta(hours=4), MORNING + timedelta(hours=9)
    start = Membership().moved({"pv01": "f1", "bat01": "f1"}, MORNING)
    moved = start.moved({"pv01": NOWHERE, "bat01": "f1"}, noon).moved({"pv01": "f2", "bat01": "f1"}, night)
    assert moved.feeder("pv01", MORNING - timedelta(seconds=1)) is None
    assert moved.feeder("pv01", MORNING) == "f1"
    assert moved.feeder("pv01", night - timedelta(seconds=1)) == NOWHERE
    assert moved.feeder("pv01", night) == "f2"
    assert moved.on("f1", night) == ("bat01",)
    assert len(moved.spans) == 4
    assert moved.moved({"pv01": "f2"}, night) is moved
    assert moved.moved({"pv01": "f1"}, noon).spans[-1].since == night, "a clock put back does not change the past"


def test_dark_der_are_nowhere_in_the_relation(engine: FeederEngine) -> None:
    seen = follow(engine, Topology(switches={"line.sw4": SwitchState.OPEN, "line.sw2": SwitchState.OPEN}))
    places = seen.feeder_of("ieee123", engine.layout.ders)
    assert {der for der, place in places.items() if place == NOWHERE} == set(seen.dark_ders)

"""Circuits that OpenDSS would solve without a word, and wrongly: parts not fed, missing phases, loops, wrong kV."""

from pathlib import Path

import pytest

from feeders.catalog import load
from tests.feeders.packages import CIRCUIT, MANIFEST, changed, package, problem, problems

END = "Set VoltageBases=[4.16]"


def with_lines(text: str) -> str:
    return changed(CIRCUIT, END, f"{text}\n{END}")


def test_the_street_is_sound(tmp_path: Path) -> None:
    assert load(str(package(tmp_path))).id == "street"


@pytest.mark.parametrize(
    ("text", "elements"),
    [
        ("New Line.twin bus1=corner bus2=sub phases=3", "line.trunk, line.twin"),
        ("New Line.twin bus1=corner.2 bus2=sub.2 phases=1", "line.trunk, line.twin"),
        ("New Line.ring bus1=beyond.1 bus2=east.1 phases=1", "line.ring, line.east, line.back"),
        (
            "New Transformer.t2 phases=1 buses=[corner.1 home.1] kvs=[2.4 .24]",
            "transformer.t2, transformer.t1, line.east",
        ),
        ("New Reactor.r bus1=sub bus2=corner x=1", "line.trunk, reactor.r"),
    ],
)
def test_loops_are_told_with_their_elements(tmp_path: Path, text: str, elements: str) -> None:
    told = problem(package(tmp_path, with_lines(text)))
    assert told.startswith("master.dss: circuit: a loop of ")
    named = told.partition("a loop of ")[2].partition(";")[0]
    assert set(named.split(", ")) == set(elements.split(", "))


REGULATORS = """
New Transformer.ra phases=1 buses=[beyond.1 far.1] kvs=[2.402 2.402]
New Transformer.rb phases=1 buses=[beyond.2 far.2] kvs=[2.402 2.402]
New Transformer.rc phases=1 buses=[beyond.3 far.3] kvs=[2.402 2.402]
"""
OPEN_DELTA = """
New Transformer.ra phases=1 buses=[beyond.1.2 far.1.2] conns=[delta delta] kvs=[4.16 4.16]
New Transformer.rc phases=1 buses=[beyond.3.2 far.3.2] conns=[delta delta] kvs=[4.16 4.16]
New Line.jumper bus1=beyond.2 bus2=far.2 phases=1
"""
CLOSED_DELTA = """
New Transformer.ra phases=1 buses=[beyond.1.2 far.1.2] conns=[delta delta] kvs=[4.16 4.16]
New Transformer.rb phases=1 buses=[beyond.2.3 far.2.3] conns=[delta delta] kvs=[4.16 4.16]
New Transformer.rc phases=1 buses=[beyond.3.1 far.3.1] conns=[delta delta] kvs=[4.16 4.16]
"""
PHASES_APART = """
New Line.a bus1=beyond.1 bus2=far.1 phases=1
New Line.b bus1=beyond.2 bus2=way.2 phases=1
New Line.c bus1=way.2 bus2=far.2 phases=1
"""


@pytest.mark.parametrize("text", [REGULATORS, OPEN_DELTA, CLOSED_DELTA, PHASES_APART])
def test_banks_of_single_phases_are_no_loops(tmp_path: Path, text: str) -> None:
    load(str(package(tmp_path, with_lines(text))))


@pytest.mark.parametrize("bank", [REGULATORS, OPEN_DELTA, CLOSED_DELTA])
def test_a_closed_bypass_around_a_bank_is_a_loop(tmp_path: Path, bank: str) -> None:
    told = problem(package(tmp_path, with_lines(f"{bank}New Line.bypass bus1=beyond bus2=far")))
    assert "a loop of" in told
    assert "line.bypass" in told


def test_a_tie_that_is_listed_as_closed_makes_the_loop(tmp_path: Path) -> None:
    circuit = changed(CIRCUIT, "Open Line.tie 1", "")
    assert "a loop of line.tie, line.back" in problem(
        package(tmp_path, circuit, changed(MANIFEST, '"open"', '"closed"'))
    )


def test_a_bus_that_one_element_names_is_told_with_it_and_its_line(tmp_path: Path) -> None:
    told = problem(package(tmp_path, with_lines("New Load.lost bus1=cornor kv=4.16 phases=3")))
    assert told.startswith("master.dss: line ")
    assert "load.lost is at bus cornor, which is not connected to the source; name a bus" in told


def test_a_part_that_nothing_feeds_is_told_with_the_element_at_its_loose_end(tmp_path: Path) -> None:
    island = "New Line.island bus1=a bus2=b\nNew Load.lost bus1=b kv=4.16 phases=3"
    told = problem(package(tmp_path, with_lines(island)))
    assert "line.island is at bus a, which is not connected to the source, nor is b; " in told


def test_buses_behind_an_open_end_are_told_once(tmp_path: Path) -> None:
    text = "New Line.out bus1=corner bus2=off\nOpen Line.out 2\nNew Load.one bus1=off kv=4.16 phases=3"
    told = problem(package(tmp_path, with_lines(text)))
    assert told.startswith("master.dss: circuit: a bus is not connected to the source: off; join them by")


def test_what_is_disabled_is_not_there(tmp_path: Path) -> None:
    text = "New Line.ring bus1=beyond bus2=corner enabled=no\nNew Line.planned bus1=corner bus2=estate enabled=no"
    assert "estate" not in load(str(package(tmp_path, with_lines(text)))).buses


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (
            "bus1=home.1 phases=1 kv=0.24 kw=0",
            "bus1=home.2 phases=1 kv=0.24 kw=0",
            "generator.roof is on phase 2 of bus home, which has 1",
        ),
        (
            "bus1=corner.1 bus2=east.1",
            "bus1=corner.1 bus2=east.2",
            "transformer.t1 is on phase 1 of bus east, which has 2",
        ),
        ("bus=east.1 kv=2.402", "bus=east.1.3 kv=4.16", "transformer.t1 is on phase 3 of bus east, which has 1"),
        (
            "bus1=home.1 phases=1 kv=0.24 kw=4",
            "bus1=home.1 phases=3 kv=0.416 kw=4",
            "load.home is on phase 2 and 3 of bus home, which has 1",
        ),
    ],
)
def test_phases_that_a_bus_lacks_are_told_at_the_element(tmp_path: Path, good: str, bad: str, told: str) -> None:
    folder = package(tmp_path, changed(CIRCUIT, good, bad))
    element = told.partition(" ")[0]
    line = next(n for n, text in enumerate(CIRCUIT.splitlines(), 1) if f"new {element} " in text.lower())
    found = [str(one) for one in problems(folder)]
    assert f"master.dss: line {line}: {told}; put it on phases that its bus has" in found


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        (
            "bus1=corner kv=4.16 kw",
            "bus1=corner kv=2.4 kw",
            "load.corner is rated 2.4 kV at bus corner of 4.16 kV between phases",
        ),
        ("bus1=corner kv=4.16 kw", "bus1=corner kw", "load.corner is rated 12.47 kV"),
        (
            "kv=0.24 kw=0",
            "kv=0.48 kw=0",
            "generator.roof is rated 0.48 kV at bus home of 0.4157 kV between phases, 0.24 kV to neutral; give 0.24 kV",
        ),
        ("bus=east.1 kv=2.402", "bus=east.1 kv=4.16", "transformer.t1, winding 1, is rated 4.16 kV at bus east"),
        ("kv=4.16 kvar=100", "kv=2.4 kvar=100", "capacitor.bank is rated 2.4 kV"),
        ("kv=0.24 kw=4", "kv=0.416 conn=delta kw=4", "give 0.24 kV, or connect it between two phases"),
    ],
)
def test_voltages_that_do_not_fit_their_bus_are_told(tmp_path: Path, good: str, bad: str, told: str) -> None:
    assert told in problem(package(tmp_path, changed(CIRCUIT, good, bad)))


def test_voltages_between_two_phases_and_across_a_split_phase_are_right(tmp_path: Path) -> None:
    text = """
    New Load.ab bus1=corner.1.2 phases=1 conn=delta kv=4.16 kw=1
    New Transformer.t3 phases=1 windings=3 buses=[corner.2 split.1.0 split.0.2] kvs=[2.4 .12 .12]
    New Load.plug bus1=split.1 phases=1 kv=0.12 kw=1
    New Load.oven bus1=split.1.2 phases=1 kv=0.24 kw=3
    New PVSystem.roof bus1=split.1.2 phases=1 kv=0.208 pmpp=5
    """
    load(str(package(tmp_path, with_lines(text))))


def test_everything_is_told_at_once(tmp_path: Path) -> None:
    circuit = with_lines("Show Voltages\nNew Line.twin bus1=corner bus2=sub\nNew Line.island bus1=a bus2=b")
    manifest = changed(changed(MANIFEST, "Line.trunk", "Line.trank"), "p_rated_kw = 7", 'p_rated_kw = "7"')
    told = [(one.file, one.where) for one in problems(package(tmp_path, circuit, manifest))]
    assert told == [
        ("manifest.toml", "[[der]] 1 (roof), p_rated_kw"),
        ("master.dss", "line 17"),
        ("manifest.toml", "file, head_element"),
        ("master.dss", "line 19"),
        ("master.dss", "circuit"),
    ]

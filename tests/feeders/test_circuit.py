"""Elements read out of OpenDSS text: what was given, in whichever way it was given."""

from pathlib import Path

import pytest

from feeders.circuit import CircuitText, Element, Terminal, read

HEAD = "Clear\nNew Circuit.test bus1=source basekv=4.16\nSet VoltageBases=[4.16]\nCalcVoltageBases\n"


def circuit(folder: Path, text: str, head: str = HEAD) -> CircuitText:
    master = folder / "master.dss"
    master.write_text(head + text, encoding="utf8")
    return read(master)


def line(folder: Path, text: str) -> Element:
    found = circuit(folder, text)
    assert found.problems == []
    return found.elements["line.l1"]


def test_buses_are_found_in_every_way_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "lines.dss").write_text("new line.L1 Bus1=A.1.2.3 bus2 = b.1.2.3 ! bus1=ghost\n", encoding="utf8")
    found = circuit(
        tmp_path,
        "Redirect lines.dss\n"
        "New Transformer.T1 windings=2 Buses=[b.1, Low.1]\n"
        "New Transformer.T2 windings=2\n"
        "~ wdg=1 bus=source kv=4.16\n"
        "~ wdg=2 bus=a kv=4.16\n"
        "New RegControl.r1 transformer=T2 bus=b.1\n"
        "New Linecode.cable nphases=1\n"
        "~ bus=ghost\n",
    )
    assert found.problems == []
    assert found.buses == {"source", "a", "b", "low"}
    assert [terminal.bus for terminal in found.elements["transformer.t2"].terminals] == ["source", "a"]
    assert found.elements["regcontrol.r1"].terminals == ()


@pytest.mark.parametrize(
    "text",
    [
        "New Line.l1 bus1=a.1 bus2=b.1 phases=1",
        "New Line.l1 a.1 b.1 phases=1",
        "New Line.l1 bu=a.1 b.1 ph=1",
        "New Line.l1 bus1=a.1\nMore bus2=b.1\nm phases=1",
        "New Line.l1\nNew Line.l2 bus1=x bus2=y\nEdit Line.L1 bus1=a.1 bus2=b.1 phases=1",
        "New Line.l1\nNew Line.l2 bus1=x bus2=y\nSelect Line.l1\nphases=1 bus1=a.1\n~ bus2=b.1",
        "New Line.l1 bus1=a.1\nLine.l1.bus2=b.1\nLine.l1.phases=1",
        "New LineCode.one nphases=1\nNew Line.l1 bus1=a.1 bus2=b.1 phases=3 linecode=ONE",
        "New Line.l0 x y phases=1 enabled=no\nNew Line.l1 like=l0 bus1=a.1 bus2=b.1",
        "New Line.l1 bus1=a.1 bus2=b.1\nBatchEdit Line..* phases=1",
    ],
)
def test_the_same_line_is_read_from_each_way_to_write_it(tmp_path: Path, text: str) -> None:
    found = line(tmp_path, text)
    assert found.phases == 1
    assert found.terminals == (Terminal("a", (1,), None, False), Terminal("b", (1,), None, False))
    assert found.closed


@pytest.mark.parametrize(
    ("terminal", "phases", "nodes"),
    [("b", 3, (1, 2, 3)), ("b.2", 1, (2,)), ("b.2.3", 1, (2, 3)), ("b.3.2", 2, (3, 2)), ("b.2", 3, (2, 2, 3))],
)
def test_nodes_not_given_are_those_that_opendss_takes(
    tmp_path: Path, terminal: str, phases: int, nodes: tuple[int, ...]
) -> None:
    found = circuit(tmp_path, f"New Load.l1 bus1={terminal} phases={phases} kv=2.4\n")
    assert found.elements["load.l1"].terminals == (Terminal("b", nodes, 2.4, False),)


@pytest.mark.parametrize(
    ("code", "phases"),
    [
        ("LineGeometry.g nconds=4 nphases=3\nNew Line.l1 a b geometry=g", 4),
        ("LineGeometry.g nconds=4 nphases=3 reduce=yes\nNew Line.l1 a b geometry=g", 3),
        ("LineSpacing.g nconds=4 nphases=2\nNew Line.l1 a b spacing=g", 2),
    ],
)
def test_phases_come_from_geometries_too(tmp_path: Path, code: str, phases: int) -> None:
    assert line(tmp_path, f"New {code}\n").phases == phases


def test_split_phase_transformers_have_three_windings(tmp_path: Path) -> None:
    text = (
        "New XfmrCode.ct25 phases=1 windings=3 kvs=[2.4 .12 .12] kvas=[25 25 25]\n"
        "New Transformer.t1 xfmrcode=ct25 buses=[source.1 low.1.0 low.0.2]\n"
        "New Transformer.t2 like=t1 wdg=1 bus=source.2\n~ wdg=2 bus=low2.1.0 wdg=3 bus=low2.0.2\n"
    )
    found = circuit(tmp_path, text)
    assert found.problems == []
    assert found.elements["transformer.t2"].terminals == (
        Terminal("source", (2,), 2.4, False),
        Terminal("low2", (1, 0), 0.12, False),
        Terminal("low2", (0, 2), 0.12, False),
    )


def test_voltages_written_as_expressions_are_not_guessed(tmp_path: Path) -> None:
    text = "New Transformer.t1 phases=3 buses=[source low] kvs=[(4.16 1 *) 0.48]\nNew Load.l1 bus1=low kv=(0.48 1 *)\n"
    found = circuit(tmp_path, text)
    assert [terminal.kv for terminal in found.elements["transformer.t1"].terminals] == [None, None]
    assert found.elements["load.l1"].terminals[0].kv is None


@pytest.mark.parametrize(
    ("text", "closed"),
    [
        ("", True),
        ("Open Line.l1 1", False),
        ("Open object=Line.l1 term=2", False),
        ("Open Line.l1", False),
        ("Open Line.l1 1 2", True),
        ("Open Line.l1 1 1\nOpen Line.l1 1 2\nOpen Line.l1 1 3", False),
        ("Open Line.l1 1\nClose Line.l1 1", True),
        ("Open Line.l1 1\nClose Line.l1 2", False),
        ("Open Line.l1 2 3\nClose Line.l1 2 3", True),
        ("Line.l1.enabled=no", False),
        ("Disable Line.l1", False),
        ("Disable Line.l1\nEnable Line.l1", True),
        ("New SwtControl.s switchedobj=Line.l1 normal=open", False),
        ("New SwtControl.s switchedobj=Line.l1 normal=open state=closed", True),
        ("New SwtControl.s switchedobj=Line.l1 state=closed action=open", False),
        ("New SwtControl.s switchedobj=Line.l1 action=open state=closed", True),
    ],
)
def test_lines_are_open_when_something_opens_them(tmp_path: Path, text: str, closed: bool) -> None:
    assert line(tmp_path, f"New Line.l1 bus1=source bus2=b\n{text}\n").closed is closed


def test_names_that_opendss_lets_pass_in_silence_are_told(tmp_path: Path) -> None:
    text = (
        "New Line.l1 bus1=source bus2=b\n"
        "Edit Load.nobody kw=1\n"
        "Disable Line.l9\n"
        "SetkVBase bus=ghost kvln=1\n"
        "New Line.l2 bus1=b linecode=thick\n"
        "New Transformer.t1 windings=3 buses=[b c]\n"
        "New RegControl.r1 transformer=t9\n"
        "New RegControl.r2 transformer=t1 bus=far.1\n"
        "New Monitor.m element=Line.l8\n"
        "~phases=1\n"
    )
    assert {(problem.where, problem.wrong) for problem in circuit(tmp_path, text).problems} == {
        ("line 6", "no element 'load.nobody' in the circuit"),
        ("line 7", "no element 'line.l9' in the circuit"),
        ("line 8", "no bus 'ghost' in the circuit"),
        ("line 9", "line.l2 names 1 of the 2 buses it connects to"),
        ("line 9", "line.l2: no linecode.thick in the circuit"),
        ("line 10", "transformer.t1 names 2 of the 3 buses it connects to"),
        ("line 11", "regcontrol.r1: no transformer.t9 in the circuit"),
        ("line 12", "regcontrol.r2: no bus 'far'"),
        ("line 13", "monitor.m: no line.l8 in the circuit"),
        ("line 14", "'~phases' is no property"),
    }


def test_an_element_that_is_defined_twice_is_told_with_both_places(tmp_path: Path) -> None:
    (tmp_path / "more.dss").write_text("New line.L1 bus1=source bus2=c\n", encoding="utf8")
    (problem,) = circuit(tmp_path, "New Line.l1 bus1=source bus2=b\nRedirect more.dss\n").problems
    assert str(problem).startswith("more.dss: line 1: line.l1 is defined already in master.dss, line 5; ")


def test_a_second_circuit_is_an_element_defined_twice(tmp_path: Path) -> None:
    (problem,) = circuit(tmp_path, "New Circuit.other bus1=x\n").problems
    assert "vsource.source is defined already in master.dss, line 2" in problem.wrong


def test_clear_makes_what_stood_before_forgotten(tmp_path: Path) -> None:
    found = circuit(tmp_path, HEAD.replace("source", "other"), "New Line.ghost bus1=a bus2=b\n")
    assert found.problems == []
    assert found.buses == {"other"}


def test_a_text_without_a_circuit_or_without_voltage_bases_is_told(tmp_path: Path) -> None:
    assert [problem.wrong for problem in circuit(tmp_path, "New Line.l1 a b\n", "").problems] == ["no circuit is made"]
    bare = circuit(tmp_path, "", "New Circuit.test bus1=source\nCalcVoltageBases\n")
    assert [problem.wrong for problem in bare.problems] == ["no voltage bases are given"]


def test_lines_that_continue_or_make_nothing_are_told(tmp_path: Path) -> None:
    text = "~ bus1=a\nNew\nBatchEdit Line.( x=1\n"
    assert [(problem.where, problem.wrong) for problem in circuit(tmp_path, text, "").problems][:3] == [
        ("line 1", "continues no element"),
        ("line 2", "New without class and name"),
        ("line 3", "pattern '(' is not followed here"),
    ]

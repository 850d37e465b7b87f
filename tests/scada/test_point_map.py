"""Point map, quality map and [scada]: what is right is read into SI, every mistake is named with place and remedy."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.der import DeviceKind
from derms.domain.grid import SwitchState
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, ScadaPoint
from derms.errors import ConfigError, Problem
from derms.ports import DriverInfo
from derms.service.config import Site, load_site
from derms.service.point_map import Places, read_points
from derms.service.quality_map import read_qualities
from feeders.catalog import load

PACKAGE = load("ieee123")
HEADER = "id,kind,element,phase,where,scale,offset,unit,invert"
GOOD = (
    "load,net_load,,,load,,,MW,",
    "pa,head_p,,a,pa,,,kW,",
    "pb,head_p,,b,pb,,,kW,",
    "pc,head_p,,c,pc,,,kW,yes",
    "q,head_q,ieee123,,q,2,1,kvar,no",
    "sw1,switch,Line.sw1,,sw1,,,double,",
    "tap1,tap,RegControl.creg1a,,tap1,,,,",
    "v83,voltage,83,a,v83,,,kV,",
)


def write(path: Path, rows: tuple[str, ...], header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows, ""]))
    return path


def points_of(tmp_path: Path, *rows: str, header: str = HEADER) -> dict[str, ScadaPoint]:
    table = read_points(write(tmp_path / "points.csv", rows, header), places=Places.NAMES, package=PACKAGE)
    assert [str(problem) for problem in table.report.problems] == []
    return {point.id: point for point in table.points}


def mistakes(
    tmp_path: Path, *rows: str, header: str = HEADER, places: Places = Places.NAMES
) -> list[tuple[str, str, str]]:
    table = read_points(write(tmp_path / "points.csv", rows, header), places=places, package=PACKAGE)
    assert table.points == ()
    return [(problem.where, problem.wrong, problem.right) for problem in table.report.problems]


def test_units_scale_and_sign_of_a_good_map_are_in_si(tmp_path: Path) -> None:
    points = points_of(tmp_path, *GOOD)
    assert (points["load"].kind, points["load"].element, points["load"].scale) == (PointKind.NET_LOAD, "system", 1e6)
    assert [points[id_].phase for id_ in ("pa", "pb", "pc")] == ["a", "b", "c"]
    assert (points["pc"].invert, points["pa"].invert) == (True, False)
    assert (points["q"].scale, points["q"].offset) == (2e3, 1e3)
    assert (points["sw1"].element, points["sw1"].double, points["sw1"].normal) == ("line.sw1", True, SwitchState.CLOSED)
    assert (points["v83"].scale, points["tap1"].element) == (1e3, "regcontrol.creg1a")


def test_what_is_plausible_follows_from_the_feeders_peak_unless_the_row_says(tmp_path: Path) -> None:
    header = f"{HEADER},low,high,normal"
    points = points_of(
        tmp_path,
        "load,net_load,,,load,,,kW,,,,",
        "p,head_p,,,p,,,kW,,-100,5000,",
        "sw7,switch,line.sw7,,sw7,,,,,,,open",
        header=header,
    )
    load_ = points["load"]
    assert load_.floor == pytest.approx(0.002 * PACKAGE.peak_w)
    assert load_.high == pytest.approx(100 * PACKAGE.peak_w)
    assert (points["p"].low, points["p"].high, points["p"].floor) == (-1e5, 5e6, 0.0)
    assert points["sw7"].normal is SwitchState.OPEN


def test_ten_mistakes_in_a_point_map_give_ten_messages(tmp_path: Path) -> None:
    rows = (
        "load,netload,,,load,,,kW,",
        "load,net_load,feeder,,l,x,,kWh,",
        "sw1,switch,line.sw99,,sw1,,,,maybe",
        "s w,switch,line.sw2,,sw2,0,,,",
        "t,tap,,,t,,,,",
        "v,voltage,8333,d,v,,,V,",
        "short,net_load",
    )
    found = mistakes(tmp_path, *rows)
    assert [where for where, _, _ in found] == [
        "row 2, column kind",
        "row 3, column scale",
        "row 3, column id",
        "row 3, column element",
        "row 3, column unit",
        "row 4, column invert",
        "row 4, column element",
        "row 5, column scale",
        "row 5, column id",
        "row 6, column element",
        "row 7, column element",
        "row 7, column phase",
        "row 8",
    ]
    rights = {where: right for where, _, right in found}
    assert rights["row 2, column kind"] == "did you mean 'net_load'?"
    assert rights["row 3, column unit"] == "did you mean 'kW'?"
    assert rights["row 3, column element"] == "name system"
    assert rights["row 6, column element"].startswith("name a regcontrol or transformer")


def test_a_head_is_a_total_or_three_phases_and_each_thing_is_told_once(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "p,head_p,,,p,,,kW,", "pa,head_p,,a,pa,,,kW,", "p2,head_p,,,p2,,,kW,")
    assert [(where, right) for where, _, right in found] == [
        ("row 4, column element", "keep one of them"),
        ("row 2, column phase", "tell the total alone, or phases a, b and c"),
    ]


def test_misspelt_and_missing_columns_are_named(tmp_path: Path) -> None:
    found = mistakes(tmp_path, "load,net_load,load", header="id,kind,elemnt")
    assert ("row 1, column elemnt", "unknown column 'elemnt'", "did you mean 'element'?") in found
    assert any(where == "row 1, column where" for where, _, _ in found)


@pytest.mark.parametrize(
    ("places", "where"),
    [
        (Places.POINTERS, "load"),
        (Places.REGISTERS, "load"),
        (Places.REGISTERS, "1/coil/3/int16"),
        (Places.REGISTERS, "1/holding/65535/float32"),
    ],
)
def test_a_place_has_to_be_one_that_the_source_can_have(tmp_path: Path, places: Places, where: str) -> None:
    ((place, wrong, right),) = mistakes(tmp_path, f"load,net_load,,,{where},,,kW,", places=places)
    assert (place, where in wrong, "write it like" in right) == ("row 2, column where", True, True)


def test_a_quality_map_has_words_and_bits_beside_the_usual_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", ("Telemetered,good", "bit 3,missing"), "word,quality")
    found = read_qualities(path)
    assert (found("telemetered"), found("8"), found("0"), found("4")) == (
        Quality.GOOD,
        Quality.MISSING,
        Quality.GOOD,
        None,
    )
    assert found("invalid") is Quality.MISSING


def test_every_mistake_of_a_quality_map_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", ("a,goood", "b,good", "B,stale", "c"), "word,quality")
    with pytest.raises(ConfigError) as caught:
        read_qualities(path)
    assert [(problem.where, problem.right) for problem in caught.value.problems] == [
        ("row 2, column quality", "did you mean 'good'?"),
        ("row 4, column word", "keep one of them"),
        ("row 5", "give a word and a quality"),
    ]


SITE = """\
[site]
name = "Harbour"
feeder = "ieee123"
latitude = 34.05
longitude = -118.24
timezone = "America/Los_Angeles"
[fleet]
file = "fleet.csv"
[scada]
"""
FLEET_HEADER = "id,kind,driver,host,port,unit,bus,p_rated_kw,s_rated_kva,energy_kwh,soc_min_pct,soc_max_pct,serial"
HEAD = "head,head-meter,sunspec,10.0.0.3,502,1,150,,,,,,"
PV01 = "pv01,pv,sunspec,10.0.0.1,502,1,{bus},30,33,,,,"


def site(tmp_path: Path, scada: str, *, meter: bool = True) -> Site:
    (tmp_path / "site.toml").write_text(SITE + scada)
    home = next(bound.bus for bound in PACKAGE.sites if bound.id == PACKAGE.ders[0].site)
    rows = (PV01.format(bus=home), HEAD) if meter else (PV01.format(bus=home),)
    write(tmp_path / "fleet.csv", rows, FLEET_HEADER)
    return load_site(tmp_path / "site.toml", drivers={"sunspec": DriverInfo(frozenset(DeviceKind))}, feeder=load)


def problems(tmp_path: Path, scada: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        site(tmp_path, scada)
    return caught.value.problems


def test_without_a_word_the_meter_is_the_source_and_nothing_is_published(tmp_path: Path) -> None:
    found = site(tmp_path, "")
    assert (found.scada.source, found.scada.publish, found.net_load_id) == ("meter", None, "head")


def test_a_map_that_tells_net_load_needs_no_meter_and_one_without_it_does(tmp_path: Path) -> None:
    write(tmp_path / "points.csv", GOOD)
    text = 'source = "file"\npoints = "points.csv"\npath = "ems.csv"\npublish = "plan.json"\n'
    found = site(tmp_path, text, meter=False)
    assert found.net_load_id is None
    assert (found.scada.path, found.scada.publish) == (tmp_path / "ems.csv", tmp_path / "plan.json")
    write(tmp_path / "points.csv", GOOD[5:6])
    assert site(tmp_path, text).net_load_id == "head"
    with pytest.raises(ConfigError, match="net_load is missing"):
        site(tmp_path, text, meter=False)


@pytest.mark.parametrize(
    ("scada", "where", "wrong"),
    [
        ('source = "fil"\n', "line 10", "source = 'fil'"),
        ('source = "file"\n', "line 10", "points is missing"),
        ('source = "rest"\npoints = "points.csv"\n', "line 10", "url is missing"),
        ('source = "rest"\npoints = "points.csv"\nurl = "ftp://x/y"\n', "line 12", "is not such an address"),
        ('source = "rest"\npoints = "points.csv"\nurl = "http://[x/y"\n', "line 12", "is not such an address"),
        ('source = "file"\npoints = "points.csv"\npath = "ems.json"\n', "row 2, column where", "not a JSON pointer"),
        ('source = "modbus"\npoints = "points.csv"\nurl = "modbus://h:99999"\n', "line 12", "is not such an address"),
        ('publish = "modbus://h:502"\n', "line 10", "is not such an address"),
        ('publish = "http://ems.example.org/p"\ntoken_variable = "T"\n', "line 10", "in clear text"),
        ('publish = "plan.xlsx"\n', "line 10", "neither CSV nor JSON"),
        ('publish = "nowhere/plan.csv"\n', "line 10", "there is no folder"),
        ('qualities = "q.csv"\n', "line 10", "there is no file"),
        ("every_s = 40\nstale_after_s = 60\n", "line 10", "too long for stale_after_s"),
    ],
)
def test_a_mistake_in_the_scada_table_is_named_with_its_line(
    tmp_path: Path, scada: str, where: str, wrong: str
) -> None:
    write(tmp_path / "points.csv", (GOOD[0].replace(",load,,", ",/load,,") if "rest" in scada else GOOD[0],))
    found = problems(tmp_path, scada)
    assert any(problem.where == where and wrong in problem.wrong for problem in found), found


def test_elements_are_not_checked_against_a_feeder_that_nobody_has_read(tmp_path: Path) -> None:
    path = write(tmp_path / "points.csv", ("sw,switch,line.anything,,sw,,,,",))
    blind = replace(PACKAGE, elements=frozenset())
    (point,) = read_points(path, places=Places.NAMES, package=blind).points
    assert (point.element, math.isinf(point.high)) == ("line.anything", False)

"""Connections in a site's files: what is read of them, and every mistake at once with its place."""

from pathlib import Path

import pytest

from derms.domain.connection import Connection
from derms.domain.der import ChargeFrom
from derms.errors import ConfigError
from derms.service.config import Site
from tests.service.test_config import BAT01, HEAD, HEADER, PV01, SITE, SYSTEM, load

NAMED = SITE + 'connections = "connections.csv"\n'
SHARED = f"{HEADER},connection,inverter,backup_pct,charge_from"
FARM = "farm,30,60,20,5"


def loaded(folder: Path, *points: str, pv: str = "farm,,,", bat: str = "farm,,,", head: str = ",,,") -> Site:
    (folder / "connections.csv").write_text(
        "\n".join(["id,export_max_kw,import_max_kw,load_max_kw,load_min_kw", *points, ""])
    )
    rows = (f"{PV01},{pv}", f"{BAT01},{bat}", f"{HEAD},{head}", f"{SYSTEM},,,,")
    return load(folder, NAMED, rows, SHARED)


def mistakes(folder: Path, *points: str, **cells: str) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, *points, **cells)
    return [(problem.where, problem.wrong) for problem in caught.value.problems]


def test_devices_behind_a_connection_have_its_limits_in_watts(tmp_path: Path) -> None:
    fleet = loaded(tmp_path, "shop,0,10,,", FARM, pv="farm,hybrid,,", bat="farm,hybrid,40,solar").fleet
    assert fleet.connections[1] == Connection(
        id="farm", export_max_w=30e3, import_max_w=60e3, load_max_w=20e3, load_min_w=5e3
    )
    assert fleet.connection.tolist() == [1, 1, -1, -1]
    assert (fleet.giving_max_w.tolist(), fleet.taking_max_w.tolist()) == ([0.0, 35e3], [10e3, 40e3])
    assert (fleet.inverters, fleet.inverter.tolist()) == (("hybrid",), [0, 0, -1, -1])
    assert (fleet.backup_frac[1], fleet.reserve_frac[1]) == (0.4, 0.4)
    assert fleet.devices[1].charge_from is ChargeFrom.SOLAR


def test_a_fleet_without_connections_has_none(tmp_path: Path) -> None:
    fleet = load(tmp_path).fleet
    assert fleet.connections == ()
    assert set(fleet.connection.tolist()) == {-1}
    assert fleet.reserve_frac[1] == 0.2


def test_every_mistake_of_the_connections_is_told_at_once(tmp_path: Path) -> None:
    points = ("farm,-1,60,,", "farm,30,60,,", ",30,,,", "mill,30,20,25,26")
    assert mistakes(tmp_path, *points) == [
        ("row 2, column export_max_kw", "-1 is out of range"),
        ("row 3, column id", "'farm' is already the id of row 2"),
        ("row 4, column id", "the cell is empty"),
        ("row 4, column import_max_kw", "the cell is empty"),
        ("row 5, column load_min_kw", "26 kW is more than load_max_kw = 25"),
        ("row 5, column load_max_kw", "25 kW is more than import_max_kw = 20"),
    ]


@pytest.mark.parametrize(
    ("cells", "where", "wrong"),
    [
        ({"pv": "farm,hybrid,,", "bat": "frm,hybrid,,solar"}, "row 3, column connection", "unknown connection 'frm'"),
        ({"head": "farm,,,"}, "row 4, column connection", "'farm' for a head-meter"),
        ({"head": ",hybrid,,"}, "row 4, column inverter", "'hybrid' for a head-meter"),
        ({"bat": "farm,hybrid,,"}, "row 3, column inverter", "no PV at its connection has the inverter 'hybrid'"),
        (
            {"bat": "farm,,15,"},
            "row 3, column backup_pct",
            "15 % is outside of soc_min_pct = 20 to soc_max_pct = 90 %",
        ),
        ({"pv": "farm,,50,"}, "row 2, column backup_pct", "50 % for a pv"),
        ({"bat": "farm,,,sun"}, "row 3, column charge_from", "unknown charge_from 'sun'"),
        ({"pv": "farm,,,solar"}, "row 2, column charge_from", "'solar' for a pv"),
        (
            {"pv": ",,,", "bat": "farm,,,solar"},
            "row 3, column charge_from",
            "'solar' at connection 'farm', which has no PV",
        ),
        ({"bat": ",,,solar"}, "row 3, column charge_from", "'solar' without a connection"),
    ],
)
def test_a_row_that_does_not_fit_its_connection_is_told(
    tmp_path: Path, cells: dict[str, str], where: str, wrong: str
) -> None:
    assert mistakes(tmp_path, FARM, **cells) == [(where, wrong)]


def test_a_connection_needs_a_file_that_has_it(tmp_path: Path) -> None:
    rows = (f"{PV01},farm", f"{BAT01},", f"{HEAD},", f"{SYSTEM},")
    with pytest.raises(ConfigError, match=r"unknown connection 'farm'; name a CSV with it as .fleet. connections"):
        load(tmp_path, SITE, rows, f"{HEADER},connection")
    with pytest.raises(ConfigError, match=r"line 10.*there is no file .*connections.csv"):
        load(tmp_path, NAMED)


def test_it_is_worth_a_word_where_pv_alone_gives_more_than_may_go_out(tmp_path: Path) -> None:
    assert loaded(tmp_path, "farm,50,60,20,").notes == ()
    (note,) = loaded(tmp_path, FARM).notes
    assert note.startswith(
        "connection farm: its PV can give 50 kW, and 35 kW may go out: set that limit in its inverters"
    )


def test_a_file_of_connections_that_is_not_there_is_one_mistake(tmp_path: Path) -> None:
    rows = (f"{PV01},farm,,,", f"{BAT01},farm,,,", f"{HEAD},,,,", f"{SYSTEM},,,,")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, NAMED, rows, SHARED)
    (problem,) = caught.value.problems
    assert "there is no file" in problem.wrong

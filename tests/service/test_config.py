"""Site and fleet files: what is right is read whole, what is wrong is named with place and remedy."""

from pathlib import Path

import pytest

from derms.domain.der import DeviceKind
from derms.domain.grid import DerBinding, FeederPackage, MeterBinding, SiteBinding, VoltageLimits
from derms.domain.mode import Mode
from derms.domain.settings import FieldSettings, PlanSettings
from derms.errors import ConfigError, Problem
from derms.ports import DriverInfo
from derms.service.config import Site, describe, load_site

SITE = """\
[site]
name = "Harbour"
feeder = "toy"
latitude = 34.05
longitude = -118.24
timezone = "America/Los_Angeles"

[fleet]
file = "fleet.csv"
"""

HEADER = "id,kind,driver,host,port,unit,bus,p_rated_kw,s_rated_kva,energy_kwh,soc_min_pct,soc_max_pct,serial"
PV01 = "pv01,pv,sunspec,10.0.0.1,502,1,site_pv01,50,55,,,,SN1"
BAT01 = "bat01,battery,sunspec,10.0.0.2,502,,site_bat01,25,,100,20,90,"
HEAD = "head,head-meter,sunspec,meters.example.org,502,1,150,,,,,,"
SYSTEM = "system,system-meter,sunspec,meters.example.org,502,2,150,,,,,,"
GOOD_ROWS = (PV01, BAT01, HEAD, SYSTEM)
DRIVERS = dict.fromkeys(("sunspec", "memory"), DriverInfo(frozenset(DeviceKind)))


def toy_feeder(name: str = "toy") -> FeederPackage:
    if name != "toy":
        raise ConfigError([Problem(f"{name}/manifest.toml", "file", "cannot be read", "name a feeder")])
    ids = ("pv01", "pv02", "pv03", "bat01")
    return FeederPackage(
        id="toy",
        circuit=Path("toy.dss"),
        source_bus="150",
        head_element="Line.head",
        peak_w=1e6,
        sites=tuple(SiteBinding(f"site-{id_}", f"site_{id_}", f"Transformer.{id_}", 75e3) for id_ in ids),
        ders=tuple(
            DerBinding(id_, f"site-{id_}", f"Generator.{id_}", "battery" if "bat" in id_ else "pv", 5e4, 5e4, 0.0)
            for id_ in ids
        ),
        meters=(MeterBinding("head", "head-meter", "150", "Line.head", 1, 0.005, 30),),
        limits=(VoltageLimits(600, 0.95, 1.05),),
        buses=frozenset({"150", "149", *(f"site_{id_}" for id_ in ids)}),
    )


def load(tmp_path: Path, site: str = SITE, rows: tuple[str, ...] = GOOD_ROWS, header: str = HEADER) -> Site:
    (tmp_path / "fleet.csv").write_text("\n".join([header, *rows, ""]))
    (tmp_path / "site.toml").write_text(site)
    return load_site(tmp_path / "site.toml", drivers=DRIVERS, feeder=toy_feeder)


def mistakes(
    tmp_path: Path, site: str = SITE, rows: tuple[str, ...] = GOOD_ROWS, header: str = HEADER
) -> list[tuple[str, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, site, rows, header)
    return [(problem.where, problem.wrong, problem.right) for problem in caught.value.problems]


def test_a_minimal_site_gets_the_defaults_and_only_observes(tmp_path: Path) -> None:
    site = load(tmp_path)
    assert site.mode is Mode.OBSERVE
    assert site.field == FieldSettings()
    assert site.plan == PlanSettings()
    assert (site.plan.hours.size, site.plan.hours.sum(), site.plan.period_h) == (152, pytest.approx(36.0), 0.25)
    assert site.timezone.key == "America/Los_Angeles"
    assert site.storage == tmp_path / "data"
    assert site.package.id == "toy"
    assert site.history is None


def test_the_fleet_is_in_si_units_with_defaults_filled_in(tmp_path: Path) -> None:
    fleet = load(tmp_path).fleet
    pv, battery, head, _ = fleet.devices
    assert (pv.p_rated_w, pv.s_rated_va, pv.serial, pv.energy_wh) == (50e3, 55e3, "SN1", 0)
    assert (battery.s_rated_va, battery.energy_wh, battery.soc_min_frac, battery.soc_max_frac) == (25e3, 1e5, 0.2, 0.9)
    assert (battery.endpoint.unit, head.soc_min_frac, head.soc_max_frac) == (1, 0.1, 0.95)
    assert head.kind is DeviceKind.HEAD_METER


def test_every_setting_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "past.csv").write_text("time_utc,net_load_kw\n2026-04-14T00:15:00Z,812.5\n")
    site = SITE.replace("[fleet]", 'mode = "auto"\n[fleet]') + (
        '[scada]\nnet_load = "head"\nhistory = "past.csv"\n[field]\npoll_s = 5\n[dispatch]\nsettle_s = 30.5\n'
        "[plan]\nhorizon_h = 12\nfirst = 'ramp_3h, peak'\n[plan.weights]\nramp_3h = 4\n[estimate]\nevery_s = 30\n"
        '[storage]\ndirectory = "/var/lib/derms"\n'
    )
    read = load(tmp_path, site)
    assert (read.mode, read.net_load_id, read.history) == (Mode.AUTO, "head", tmp_path / "past.csv")
    assert (read.field.poll_s, read.dispatch.settle_s, read.estimate.every_s) == (5, 30.5, 30)
    assert (read.plan.horizon_h, read.plan.weights.ramp_3h, read.plan.weights.peak) == (12, 4, 1)
    assert read.plan.order == ("ramp_3h", "peak")
    assert read.storage == Path("/var/lib/derms")


NETWORKS = '[field]\nnetworks = "10.0.0.0/30, 2001:db8::/64"\n'
INSIDE = ("head,head-meter,sunspec,10.0.0.3,502,1,150,,,,,,", "m1,voltage-sensor,sunspec,2001:db8::7,502,1,149,,,,,,")


def test_devices_in_the_networks_of_the_site_are_taken(tmp_path: Path) -> None:
    assert len(load(tmp_path, SITE + NETWORKS, (PV01, BAT01, *INSIDE)).fleet) == 4


def test_a_host_outside_the_networks_of_the_site_and_one_that_is_a_name_are_refused(tmp_path: Path) -> None:
    outside = ("m2,head-meter,sunspec,10.0.0.4,502,1,149,,,,,,", "m3,head-meter,sunspec,169.254.169.254,80,1,149,,,,,,")
    found = mistakes(tmp_path, SITE + NETWORKS, (PV01, BAT01, *INSIDE, *outside, SYSTEM))
    assert [where for where, _, _ in found] == [f"row {row}, column host" for row in (6, 7, 8)]
    assert found[0][1] == "'10.0.0.4' is in none of the networks of the site (10.0.0.0/30, 2001:db8::/64)"
    assert "is a name" in found[2][1]


def test_networks_that_are_none_are_told_with_their_line(tmp_path: Path) -> None:
    found = mistakes(tmp_path, SITE + '[field]\nnetworks = "10.0.0.5/8, office, 10.0.0.0/24"\n')
    assert [where for where, _, _ in found[:2]] == ["line 11", "line 11"]
    assert "'10.0.0.5/8' is no network" in found[0][1]
    assert "'office' is no network" in found[1][1]


def test_a_history_in_watts_is_refused_once_with_what_it_should_have_been(tmp_path: Path) -> None:
    rows = "".join(f"2026-04-14T{hour:02}:00:00Z,812500\n" for hour in range(3))
    (tmp_path / "past.csv").write_text(f"time_utc,net_load_kw\n{rows}")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, SITE + '[scada]\nhistory = "past.csv"\n')
    (problem,) = caught.value.problems
    assert (problem.where, problem.right) == ("row 2, column net_load_kw", "was W meant? 812.5 kW")


def test_net_load_is_the_system_meter_else_the_head_meter(tmp_path: Path) -> None:
    assert load(tmp_path).net_load_id == "system"
    assert load(tmp_path, rows=(PV01, BAT01, HEAD)).net_load_id == "head"


DAMAGED_ROWS = (
    "m1,head-meter,sunspec,10.0.0.6,502,1,149,-5,,,,,",
    "m2,head-meter,sunspek,10.0.0.7,502,1,149,,,,,,",
    "m3,head-meter,sunspec,10.0.0.300,502,1,149,,,,,,",
    "m4,head-meter,sunspec,10.0.0.8,70000,1,149,,,,,,",
    "m5,voltage-sensr,sunspec,10.0.0.9,502,1,149,,,,,,",
    "m6,head-meter,sunspec,10.0.0.1,502,1,149,,,,,,",
    "m7,head-meter",
)


def test_ten_mistakes_in_a_fleet_file_give_ten_messages(tmp_path: Path) -> None:
    rows = (
        *GOOD_ROWS,
        "pv01,pv,sunspec,10.0.0.3,502,1,site_pv02,50,,,,,",
        "pv02,pv,sunspec,10.0.0.4,502,1,site_pv99,50,,,,,",
        "pv03,pv,sunspec,10.0.0.5,502,1,site_pv03,50000,,,,,",
    )
    found = mistakes(tmp_path, rows=(*rows, *DAMAGED_ROWS))
    assert found == [
        ("row 6, column id", "'pv01' is already the id of row 2", "give every device an id of its own"),
        ("row 7, column bus", "unknown bus 'site_pv99'", "the manifest binds 'pv02' to 'site_pv02'"),
        (
            "row 8, column p_rated_kw",
            "50000 kW at bus site_pv03, whose service transformer is 75 kVA",
            "was W meant? 50 kW",
        ),
        ("row 9, column p_rated_kw", "-5 is not a rating", "give a number greater than 0"),
        ("row 10, column driver", "unknown driver 'sunspek'", "did you mean 'sunspec'?"),
        (
            "row 11, column host",
            "'10.0.0.300' is neither an IP address nor a host name",
            "write it like 10.0.0.17 or pv01.example.org",
        ),
        ("row 12, column port", "70000 is out of range", "give a whole number from 1 to 65535"),
        ("row 13, column kind", "unknown kind 'voltage-sensr'", "did you mean 'voltage-sensor'?"),
        ("row 14, column host", "10.0.0.1:502/1 is already the endpoint of row 2", "change host, port or unit"),
        ("row 15", "2 cells under a header of 13", "give one cell per column, empty where there is nothing to say"),
    ]


ROW_MISTAKES = [
    ("pv2,pv,sunspec,h,502,1,site_pv02,50,,,,,", "id", "'pv2' is not a DER of feeder toy", "did you mean 'pv02'?"),
    ("pv02,pv,sunspec,h,502,1,150,50,,,,,", "bus", "'pv02' at bus '150'", "binds it to 'site_pv02'"),
    ("pv02,battery,sunspec,h,502,1,site_pv02,50,,100,,,", "kind", "'pv02' as battery", "has it as pv"),
    (",head-meter,sunspec,h,502,1,150,,,,,,", "id", "the cell is empty", "name of the device"),
    ("a b,head-meter,sunspec,h,502,1,150,,,,,,", "id", "'a b' has characters", "letters, digits"),
    ("m,,sunspec,h,502,1,150,,,,,,", "kind", "the cell is empty", "one of pv, battery"),
    ("m,head-meter,sunspec,h,502,1,15O,,,,,,", "bus", "unknown bus '15O'", "did you mean '150'?"),
    ("m,head-meter,sunspec,-h-,502,1,150,,,,,,", "host", "'-h-' is neither", "10.0.0.17"),
    ("m,head-meter,sunspec,0.0.0.0,502,1,150,,,,,,", "host", "'0.0.0.0' is neither", "10.0.0.17"),
    ("m,head-meter,sunspec,h,502,0,150,,,,,,", "unit", "0 is out of range", "from 1 to 255"),
    ("m,head-meter,sunspec,h,50.5,1,150,,,,,,", "port", "50.5 is out of range", "whole number"),
    ("m,head-meter,sunspec,h,,1,150,,,,,,", "port", "the cell is empty", "TCP port"),
    ("m,head-meter,sunspec,h,502,1,150,,6e6,,,,", "s_rated_kva", "6e6 is out of range", "to 1e+06"),
    ("m,head-meter,sunspec,h,502,1,150,6000,,,,,", "p_rated_kw", "6000 kW is more than 5000 kW", "6 kW"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,nan,,,,,", "p_rated_kw", "'nan' is not a number", "from 0.001"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,1e999,,,,,", "p_rated_kw", "'1e999' is not a number", "from 0.001"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,1_0,,,,,", "p_rated_kw", "'1_0' is not a number", "from 0.001"),
    ('pv02,pv,sunspec,h,502,1,site_pv02,"5,5",,,,,', "p_rated_kw", "'5,5' is not a number", "was 5.5 meant?"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,0,,,,,", "p_rated_kw", "0 is not a rating", "greater than 0"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,,,,,,", "p_rated_kw", "the cell is empty", "nameplate active power"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,50,40,,,,", "s_rated_kva", "40 kVA is less than p_rated_kw = 50", "50"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,50,,100,,,", "energy_kwh", "100 kWh for a pv", "leave it empty"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,50,,,96,,", "soc_min_pct", "96 % is not below soc_max_pct = 95 %", "reserve"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,50,,,,0.9,", "soc_max_pct", "0.9 is out of range", "from 2 to 100"),
    ("bat01,battery,sunspec,h,502,1,site_bat01,25,,,,,", "energy_kwh", "the cell is empty", "usable energy"),
    ("bat01,battery,sunspec,h,502,1,site_bat01,25,,100000,,,", "energy_kwh", "lasts 4000 h", "0.1 to 24 hours"),
    ("pv02,pv,sunspec,h,502,1,site_pv02,50,,,,,,,x", "", "15 cells under a header of 13", "one cell per column"),
]


@pytest.mark.parametrize(("row", "column", "wrong", "right"), ROW_MISTAKES, ids=[row[0] for row in ROW_MISTAKES])
def test_a_mistake_in_a_row_is_named_once_with_its_remedy(
    tmp_path: Path, row: str, column: str, wrong: str, right: str
) -> None:
    [(where, what, remedy)] = mistakes(tmp_path, rows=(row, SYSTEM))
    assert where == ("row 2" + f", column {column}" * bool(column))
    assert wrong in what
    assert right in remedy


def test_one_bad_cell_never_hides_another(tmp_path: Path) -> None:
    found = mistakes(tmp_path, rows=(",pw,modbus,10.0.0.300,x,999,nowhere,-1,nan,-2,200,1,", SYSTEM))
    places = [where.removeprefix("row 2, column ") for where, _, _ in found]
    names = "id kind driver host port unit bus p_rated_kw s_rated_kva energy_kwh soc_min_pct soc_max_pct"
    assert sorted(places) == sorted(names.split())


def test_an_id_given_twice_is_one_mistake_whichever_row_is_the_wrong_one(tmp_path: Path) -> None:
    wrong_first = "pv02,pv,sunspec,10.0.0.8,502,1,site_pv03,50,,,,,"
    right_second = "pv02,pv,sunspec,10.0.0.9,502,1,site_pv02,50,,,,,"
    [(where, wrong, _)] = mistakes(tmp_path, rows=(wrong_first, right_second, SYSTEM))
    assert (where, wrong) == ("row 3, column id", "'pv02' is already the id of row 2")


def test_a_misspelt_column_is_one_mistake_and_its_cells_are_still_checked(tmp_path: Path) -> None:
    found = mistakes(tmp_path, header=HEADER.replace("p_rated_kw", "p_ratd_kw"), rows=(PV01.replace(",50,", ",-50,"),))
    assert [(where, right) for where, _, right in found if where.startswith("row")][:2] == [
        ("row 1, column p_ratd_kw", "did you mean 'p_rated_kw'?"),
        ("row 2, column p_rated_kw", "give a number greater than 0"),
    ]


def test_missing_double_and_unknown_columns_are_named(tmp_path: Path) -> None:
    header = HEADER.replace("host,", "").replace("serial", "port,colour")
    rows = ("head,head-meter,sunspec,502,1,150,,,,,,502,red",)
    assert [(where, wrong) for where, wrong, _ in mistakes(tmp_path, rows=rows, header=header)] == [
        ("row 1, column port", "column 'port' is there twice"),
        ("row 1, column colour", "unknown column 'colour'"),
        ("row 1, column host", "column 'host' is missing"),
    ]


def test_a_column_that_only_batteries_need_may_be_left_out_without_batteries(tmp_path: Path) -> None:
    header = "id,kind,driver,host,port,bus,p_rated_kw"
    pv, head = "pv01,pv,sunspec,10.0.0.1,502,site_pv01,50", "head,head-meter,sunspec,10.0.0.2,502,150,0"
    battery = "bat01,battery,sunspec,10.0.0.3,502,site_bat01,50"
    assert len(load(tmp_path, header=header, rows=(pv, head)).fleet) == 2
    [(where, _, _)] = mistakes(tmp_path, header=header, rows=(pv, head, battery))
    assert where == "row 1, column energy_kwh"


def test_bom_crlf_blank_rows_and_trailing_commas_are_no_mistakes(tmp_path: Path) -> None:
    load(tmp_path)
    rows = "\r\n".join([HEADER, *GOOD_ROWS[:2], "", *(row + ",," for row in GOOD_ROWS[2:]), ""])
    (tmp_path / "fleet.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    site = load_site(tmp_path / "site.toml", drivers=DRIVERS, feeder=toy_feeder)
    assert [device.id for device in site.fleet.devices] == ["pv01", "bat01", "head", "system"]


@pytest.mark.parametrize(
    ("content", "where", "wrong"),
    [
        (b"", "row 1", "the file is empty"),
        (b"\n\n", "row 1", "the file is empty"),
        (HEADER.encode(), "row 2", "there is no device"),
        (HEADER.encode() + b"\npv\xfc,", "row 2", "byte 0xfc is not UTF-8"),
        (HEADER.encode("utf-16"), "row 1", "byte 0xff is not UTF-8"),
        (HEADER.replace(",", ";").encode(), "row 1", "columns are separated by ';'"),
        (b"id," + b"x" * 200_000, "file", "is not CSV (field larger than field limit (131072))"),
    ],
)
def test_a_file_that_is_no_fleet_file_says_why(tmp_path: Path, content: bytes, where: str, wrong: str) -> None:
    load(tmp_path)
    (tmp_path / "fleet.csv").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_site(tmp_path / "site.toml", drivers=DRIVERS, feeder=toy_feeder)
    [problem] = caught.value.problems
    assert (problem.file, problem.where, problem.wrong) == (str(tmp_path / "fleet.csv"), where, wrong)


def test_mistakes_of_the_site_file_name_their_lines(tmp_path: Path) -> None:
    site = """\
[site]
name = ""
feeder = "toy"
latitude = 134.05
timezone = "America/Los_Angles"
mode = "automatic"

[fleet]
file = "flet.csv"

[feild]
poll_s = 3

[field]
poll = 5
timeout_s = true
stale_after_s = nan

[scada]
history = "gone.csv"

[plan.weights]
peak = "high"
"""
    assert [(where, wrong, right) for where, wrong, right in mistakes(tmp_path, site)] == [
        ("line 1", "[site] longitude is missing", "give a number from -180 to 180 deg"),
        ("line 2", "[site] name = ''", "give a text: what operators call the site"),
        ("line 4", "[site] latitude = 134.05", "give a number from -90 to 90 deg"),
        ("line 5", "unknown time zone 'America/Los_Angles'", "did you mean 'America/Los_Angeles'?"),
        ("line 6", "[site] mode = 'automatic'", 'give "observe" or "auto"'),
        ("line 9", f"there is no file '{tmp_path}/flet.csv'", "give its path relative to the site file"),
        ("line 11", "unknown table 'feild'", "did you mean 'field'?"),
        ("line 15", "unknown key 'poll' in [field]", "did you mean 'poll_s'?"),
        ("line 16", "[field] timeout_s = True", "give a number from 0.05 to 60 s"),
        ("line 17", "[field] stale_after_s = nan", "give a number from 2 to 7200 s"),
        ("line 20", f"there is no file '{tmp_path}/gone.csv'", "give its path relative to the site file"),
        ("line 23", "[plan.weights] peak = 'high'", "give a number from 0 to 1e+06"),
    ]


@pytest.mark.parametrize(
    ("lines", "where", "wrong"),
    [
        ("[dispatch]\nreversion_s = 600", "line 10", "interval_s = 300 is too long for reversion_s = 600"),
        ("[field]\nfrozen_after_s = 20", "line 10", "stale_after_s = 35 is too long for frozen_after_s"),
        ("[plan]\nstep_min = 20", "line 11", "[plan] step_min = 20"),
        ('[plan]\nfirst = "peek"', "line 11", "[plan] first = 'peek'"),
        ('[plan]\nfirst = "peak, peak"', "line 11", "[plan] first = 'peak, peak'"),
        ("[plan]\nhorizon_h = 12.5", "line 11", "horizon_h = 12.5 is not a whole number of hours"),
        ('[scada]\nnet_load = "pv01"', "line 11", "net_load = 'pv01' is not a meter of the fleet"),
        ("plan = 3", "line 10", "unknown key 'plan' in [fleet]"),
        ('storage = {directory = "fleet.csv"}', "line 10", "unknown key 'storage' in [fleet]"),
        ('[storage]\ndirectory = "fleet.csv"', "line 11", "is not a folder"),
        ("[plan]\nreserve_up_kw = 26", "line 11", "reserve_up_kw = 26; the fleet's batteries give 25 kW at most"),
        (
            "[plan]\nreserve_down_kw = 5e4",
            "line 11",
            "reserve_down_kw = 50000; the fleet's batteries take 25 kW at most",
        ),
        ("[site.extra]", "line 10", "unknown key 'extra' in [site]"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(tmp_path: Path, lines: str, where: str, wrong: str) -> None:
    [(place, what, _)] = mistakes(tmp_path, SITE + lines)
    assert place == where
    assert wrong in what


def test_a_table_written_as_a_value_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "plan = 3\n" + SITE) == [("line 1", "'plan' is a value", "make it a table: [plan]")]


def test_two_system_meters_need_a_choice(tmp_path: Path) -> None:
    second = SYSTEM.replace("system,", "system2,").replace(",2,150", ",3,150")
    [(where, wrong, _)] = mistakes(tmp_path, rows=(*GOOD_ROWS, second))
    assert (where, wrong) == ("line 1", "[scada] net_load is missing, and the fleet has 2 meters that it could be")


def test_mistakes_of_feeder_site_and_fleet_come_together(tmp_path: Path) -> None:
    found = mistakes(tmp_path, SITE.replace('"toy"', '"../no/feeder"').replace("34.05", "340.5"), (PV01, PV01, SYSTEM))
    assert [where for where, _, _ in found] == ["line 3", "line 4", "row 3, column id", "row 3, column host"]


def test_a_site_file_that_is_not_toml_names_the_line(tmp_path: Path) -> None:
    [(where, wrong, _)] = mistakes(tmp_path, "[site]\nname = Harbour\n")
    assert where == "line 2"
    assert "is not TOML" in wrong


@pytest.mark.parametrize(
    ("text", "line", "right"),
    [
        ("[site]\n[plan", 2, "close the bracket: a table begins with [name]"),
        ("[[site]\n", 1, "write [name]: a table has one bracket on each side"),
        ("[site]\n[site]\n", 2, "keep one of the two tables of that name"),
        ('[site]\nname = "Harbour\n', 2, "close the quotation mark"),
        ("[site]\nlatitude = 34,05\n", 2, "and 1.5 for 1,5"),
        ("[site]\nname = Harbour\n", 2, 'write a text as `key = "value"`'),
        ("[site]\nname\n", 2, 'write `key = "value"`'),
    ],
)
def test_what_is_not_toml_is_told_with_a_remedy_that_fits(tmp_path: Path, text: str, line: int, right: str) -> None:
    [(where, _, remedy)] = mistakes(tmp_path, text)
    assert where == f"line {line}"
    assert right in remedy


def test_a_reserve_of_all_that_batteries_have_may_be_held(tmp_path: Path) -> None:
    assert load(tmp_path, SITE + "[plan]\nreserve_up_kw = 25\nreserve_down_kw = 25\n").plan.reserve_up_kw == 25


def test_a_missing_site_file_is_a_mistake_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: file: cannot be read"):
        load_site(tmp_path / "none.toml", drivers={}, feeder=toy_feeder)


def test_the_reference_describes_every_key_and_column() -> None:
    text = describe()
    assert "| `poll_s` | `10` | 1 to 3600 | s | time between two polls of a device |" in text
    assert "| `unit` | none | 1 to 255 | Modbus unit; the driver's usual one when empty, mostly 1 |" in text


def test_a_weather_forecast_is_read_from_beside_the_site_file_and_need_not_be_there_yet(tmp_path: Path) -> None:
    assert load(tmp_path).weather is None
    site = load(tmp_path, SITE + '[forecast]\nweather = "sky.csv"\n')
    assert site.weather == tmp_path / "sky.csv"
    assert site.notes[0].startswith(f"[forecast] weather: there is no file '{tmp_path}/sky.csv' yet")
    header, row = "made_at_utc,time_utc,cloud_index", "2026-04-15T12:00Z,2026-04-15T13:00Z,0.5"
    (tmp_path / "sky.csv").write_text(f"{header}\n{row}\n")
    assert load(tmp_path, SITE + '[forecast]\nweather = "sky.csv"\n').notes == ()


def test_prices_are_read_from_beside_the_site_file_and_weighed_against_a_peak_that_costs_something(
    tmp_path: Path,
) -> None:
    text = SITE + '[forecast]\nprices = "prices.csv"\n'
    assert load(tmp_path, text).notes[0].startswith(f"[forecast] prices: there is no file '{tmp_path}/prices.csv' yet")
    (tmp_path / "prices.csv").write_text("from_utc,usd_per_mwh\n2026-04-14T00:00Z,-12.5\n2026-04-14T01:00Z,1e9\n")
    found = mistakes(tmp_path, text + "[plan]\npeak_price = 0\n")
    assert [wrong for _, wrong, _ in found] == [
        "[plan] peak_price = 0 with [forecast] prices",
        "1e+09 is more than energy can cost",
    ]


def test_every_mistake_of_a_weather_forecast_is_named_beside_those_of_the_other_files(tmp_path: Path) -> None:
    rows = ("2026-04-15T12:00Z,2026-04-15T11:00Z,0.5", "2026-04-15T12:00Z,2026-04-15T13:00Z,80", "12:00,,nan")
    (tmp_path / "sky.csv").write_text("\n".join(["made_at_utc,time_utc,cloud_index", *rows]))
    found = mistakes(tmp_path, SITE.replace("34.05", "340.5") + '[forecast]\nweather = "sky.csv"\n')
    assert [where for where, _, _ in found] == [
        "line 4",
        "row 2, column time_utc",
        "row 3, column cloud_index",
        "row 4, column made_at_utc",
        "row 4, column time_utc",
        "row 4, column cloud_index",
    ]
    (tmp_path / "sky.csv").write_text("time,sky\n")
    [(where, wrong, _)] = mistakes(tmp_path, SITE + '[forecast]\nweather = "sky.csv"\n')
    assert (where, wrong) == ("row 1", "the header is time, sky")

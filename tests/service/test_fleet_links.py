"""The fleet file on drivers and ways to devices: kinds, transports, serial lines, usual units."""

from pathlib import Path

import pytest

from derms.domain.der import Device, DeviceKind, Endpoint, Link, Transport
from derms.service.fleet_file import FleetFile, read_fleet
from drivers.registry import drivers

HEADER = "id,kind,driver,host,port,transport,unit,bus,p_rated_kw,energy_kwh,link"


def read(folder: Path, *rows: str) -> FleetFile:
    path = folder / "fleet.csv"
    path.write_text("\n".join([HEADER, *rows]), encoding="utf8")
    return read_fleet(path, drivers=drivers().names, package=None)


def devices(folder: Path, *rows: str) -> tuple[Device, ...]:
    found = read(folder, *rows)
    assert found.report.problems == []
    return found.devices


def mistakes(folder: Path, *rows: str) -> list[tuple[str, str]]:
    return [(problem.where, problem.wrong) for problem in read(folder, *rows).report.problems]


def test_every_profile_may_stand_in_the_driver_column(tmp_path: Path) -> None:
    rows = (
        "pv1,pv,solaredge,10.0.0.1,1502,,,b1,10,,",
        "pv2,pv,sma,10.0.0.2,502,tcp,,b1,10,,",
        "bat,battery,site-battery,10.0.0.3,802,tls,7,b1,10,20,cellular",
        "car,ev-charger,ev-charger,10.0.0.4,502,,,b1,11,,",
        "pump,load,load-switch,/dev/ttyUSB0,19200,serial,3,b1,5,,fixed",
        "head,head-meter,meter,10.0.0.5,4001,rtu-tcp,2,b1,,,",
    )
    found = devices(tmp_path, *rows)
    assert [device.endpoint for device in found] == [
        Endpoint("10.0.0.1", 1502, 1),
        Endpoint("10.0.0.2", 502, 126),
        Endpoint("10.0.0.3", 802, 7, Transport.TLS),
        Endpoint("10.0.0.4", 502, 255),
        Endpoint("/dev/ttyUSB0", 19200, 3, Transport.SERIAL),
        Endpoint("10.0.0.5", 4001, 2, Transport.RTU_TCP),
    ]
    assert [device.link for device in found].count(Link.CELLULAR) == 1
    assert [device.kind for device in found if device.is_der and not device.is_dispatched] == [
        DeviceKind.EV_CHARGER,
        DeviceKind.LOAD,
    ]


@pytest.mark.parametrize(
    ("row", "column", "wrong"),
    [
        ("x,pv,ev-charger,10.0.0.1,502,,,b1,10,,", "driver", "driver 'ev-charger' for the kind pv"),
        ("x,battery,meter,10.0.0.1,502,,,b1,10,20,", "driver", "driver 'meter' for the kind battery"),
        ("x,load,sunspec,10.0.0.1,502,,,b1,10,,", "driver", "driver 'sunspec' for the kind load"),
        ("x,pv,solar-edge,10.0.0.1,502,,,b1,10,,", "driver", "unknown driver 'solar-edge'"),
        ("x,ev-charger,ev-charger,10.0.0.1,502,,,b1,,,", "p_rated_kw", "the cell is empty"),
        ("x,pv,sunspec,10.0.0.1,502,udp,,b1,10,,", "transport", "unknown transport 'udp'"),
        ("x,pv,sunspec,10.0.0.1,502,,,b1,10,,satellite", "link", "unknown link 'satellite'"),
        ("x,pv,sunspec,10.0.0.1,115200,,,b1,10,,", "port", "115200 is out of range"),
        ("x,pv,sunspec,ttyUSB0,9600,serial,,b1,10,,", "host", "'ttyUSB0' is no serial port"),
        ("x,pv,sunspec,/dev/ttyUSB0,502,,,b1,10,,", "host", "'/dev/ttyUSB0' is neither an IP address nor a host name"),
        ("x,pv,sunspec,COM3,9600,serial,250,b1,10,,", "unit", "250 on an RTU line"),
    ],
)
def test_what_does_not_fit_the_driver_or_the_way_to_it_is_told(
    tmp_path: Path, row: str, column: str, wrong: str
) -> None:
    assert mistakes(tmp_path, row) == [(f"row 2, column {column}", wrong)]


def test_units_share_an_endpoint_which_has_one_transport(tmp_path: Path) -> None:
    rows = [f"m{unit},head-meter,meter,10.0.0.5,4001,{way},{unit},b1,,," for unit, way in ((1, "rtu-tcp"), (2, "tcp"))]
    assert mistakes(tmp_path, *rows) == [("row 3, column transport", "tcp at 10.0.0.5:4001, where row 2 has rtu-tcp")]
    assert len(devices(tmp_path, rows[0], rows[1].replace(",tcp,", ",rtu-tcp,"))) == 2


def test_a_serial_line_runs_at_one_speed(tmp_path: Path) -> None:
    rows = [f"m{unit},head-meter,meter,/dev/ttyS1,{baud},serial,{unit},b1,,," for unit, baud in ((1, 9600), (2, 19200))]
    assert mistakes(tmp_path, *rows) == [
        ("row 3, column port", "19200 baud on the line that row 2 runs at 9600"),
    ]


def test_one_unit_is_one_device(tmp_path: Path) -> None:
    rows = [f"car{n},ev-charger,ev-charger,10.0.0.4,502,,{unit},b1,11,," for n, unit in enumerate(("", "255"))]
    assert mistakes(tmp_path, *rows) == [("row 3, column host", "10.0.0.4:502/255 is already the endpoint of row 2")]

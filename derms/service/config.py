"""The configuration of a site: the site file and the fleet file it names, with every mistake at once."""

import csv
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, TypeVar, runtime_checkable
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.der import DeviceKind, Fleet
from derms.domain.grid import FeederPackage
from derms.domain.mode import Mode
from derms.domain.settings import DispatchSettings, EstimateSettings, FieldSettings, PlanSettings, PlanWeights
from derms.errors import ConfigError, Problem
from derms.field.shards import refuses
from derms.forecast.weather import read_weather, told
from derms.ports import DriverInfo, DriverKit
from derms.service.connections import ConnectionFile, read_connections
from derms.service.files import Report, did_you_mean, in_order, read_csv, read_text
from derms.service.fleet_columns import COLUMNS, CONNECTION_COLUMNS, describe_columns
from derms.service.fleet_file import FleetFile, read_fleet
from derms.service.networks import Networks, read_networks
from derms.service.point_map import describe_points
from derms.service.scada_site import ScadaSite, read_scada
from derms.service.series import read_history, read_prices
from derms.service.settings import SiteFile, WebTable, describe_keys, read_tables

T = TypeVar("T")

HISTORY_MAX_PEAKS = 100.0
"""Past net load beyond this many times the feeder's peak is another unit."""
FEEDERS = ("ieee13", "ieee37", "ieee123")
"""Feeders that come with the product."""
END_MARK = "\x1f"
_NOT_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Broken = Mapping[str, Sequence[Problem]]
"""Mistakes by driver, of drivers that cannot be had."""
NOT_BROKEN: Broken = MappingProxyType({})


@runtime_checkable
class TellsBroken(Protocol):
    """A kit of drivers that says what is wrong with those it cannot have."""

    problems: Broken


def broken_drivers(kit: DriverKit) -> Broken:
    """What is wrong with the drivers that a kit cannot have."""
    return kit.problems if isinstance(kit, TellsBroken) else NOT_BROKEN


@dataclass(frozen=True, kw_only=True)
class Site:
    """Everything that the service was told, checked."""

    name: str
    mode: Mode
    latitude: float
    """[deg], + = north."""
    longitude: float
    """[deg], + = east."""
    timezone: ZoneInfo
    fleet: Fleet
    package: FeederPackage
    net_load_id: str | None
    """Device that measures the system net load; None where the utility's system tells it."""
    history: Path | None
    """CSV of past net load, see `read_history`."""
    weather: Path | None
    """CSV of weather forecasts; it need not exist yet."""
    prices: Path | None
    """CSV of prices of energy, likewise."""
    scada: ScadaSite
    storage: Path
    """Folder of journal and database; it need not exist yet."""
    field: FieldSettings
    dispatch: DispatchSettings
    plan: PlanSettings
    estimate: EstimateSettings
    web: WebTable
    notes: tuple[str, ...] = ()
    """What is no mistake, and still worth a word."""


def load_site(
    path: Path,
    *,
    drivers: Mapping[str, DriverInfo],
    feeder: Callable[[str], FeederPackage],
    broken: Broken = NOT_BROKEN,
) -> Site:
    """Read a site file and what it names; paths in it are relative to it.

    `drivers` are the names that the fleet file may use, `broken` those that it could if they had no mistakes,
    `feeder` loads a package by id or path. Raises ConfigError with every mistake of every file.
    """
    file = SiteFile(path)
    report, values = file.report, read_tables(file)
    site, scada = values["site"], values["scada"]
    zone = _timezone(file, site["timezone"])
    package = _package(file, path, site["feeder"], feeder) if site["feeder"] else None
    fleet_path = _named_file(file, path, "fleet.file", values["fleet"]["file"])
    networks = read_networks(file, values["field"]["networks"])
    points = _connections(file, path, values["fleet"]["connections"])
    # Of a file that cannot be read nobody knows what it names.
    unread = points is None and values["fleet"]["connections"] is not None
    known = None if unread else frozenset[str]() if points is None else points.ids
    load = partial(load_fleet, drivers=drivers, package=package, broken=broken, networks=networks, connections=known)
    fleet = _collect(report, partial(load, fleet_path)) if fleet_path else None
    if fleet is not None:
        report.problems += fleet.report.problems
    utility = read_scada(file, path.parent, scada, package)
    net_load_id = _net_load_id(file, scada["net_load"], fleet) if fleet and not utility.tells_net_load else None
    history = _named_file(file, path, "scada.history", scada["history"])
    if history is not None:
        past = _collect(report, lambda: read_history(history))
        if past is not None and package is not None:
            report.problems += _implausible_history(history, past[1], package.peak_w)
    if site["mode"] is not None and refuses(Mode(site["mode"]), values["field"]["processes"]):
        wrong = f'[field] processes = {values["field"]["processes"]:g} with [site] mode = "auto"'
        report.add(file.where("field.processes"), wrong, "give 1: worker processes only observe")
    weather, prices = (
        None if values["forecast"][key] is None else path.parent / values["forecast"][key]
        for key in ("weather", "prices")
    )
    if prices is not None:
        _priced(file, values)
        if prices.exists():
            _collect(report, lambda: read_prices(prices))
    if weather is not None and weather.exists():
        sky = read_weather(weather)
        report.problems += told((*sky.left_out, *sky.doubtful))
    if fleet is not None:
        _held_reserve(file, values["plan"], fleet)
    for key in ("tls_ca", "tls_certificate", "tls_key"):
        named = _named_file(file, path, f"field.{key}", values["field"][key])
        values["field"][key] = None if named is None else str(named)
    storage = path.parent / (values["storage"]["directory"] or "")
    if storage.exists() and not storage.is_dir():
        report.add(file.where("storage.directory"), f"'{storage}' is not a folder", "name a folder")
    if report.problems or fleet is None or package is None or zone is None:
        raise ConfigError(in_order(report.problems, first=report.file))
    return Site(
        name=site["name"],
        mode=Mode(site["mode"]),
        latitude=site["latitude"],
        longitude=site["longitude"],
        timezone=zone,
        fleet=Fleet(fleet.devices, () if points is None else points.connections),
        package=package,
        net_load_id=net_load_id,
        history=history,
        weather=weather,
        prices=prices,
        scada=utility,
        storage=storage,
        field=FieldSettings(**values["field"]),
        dispatch=DispatchSettings(**values["dispatch"]),
        plan=PlanSettings(**values["plan"], weights=PlanWeights(**values["plan.weights"])),
        estimate=EstimateSettings(**values["estimate"]),
        web=WebTable(**values["web"]),
        notes=(
            *_unheld(fleet, points),
            *_notes("weather", weather, "the sky is forecast"),
            *_notes("prices", prices, "plans are made"),
        ),
    )


def _unheld(fleet: FleetFile, points: ConnectionFile | None) -> tuple[str, ...]:
    """Connections whose PV alone can give more than may go out: a limit of ours ends when control is lost."""
    found = []
    for point in () if points is None else points.connections:
        behind = (device for device in fleet.devices if device.connection == point.id and device.kind is DeviceKind.PV)
        rated_w = sum(device.p_rated_w for device in behind)
        if rated_w > point.giving_max_w:
            found.append(
                f"connection {point.id}: its PV can give {rated_w / 1e3:g} kW, and {point.giving_max_w / 1e3:g} kW may "
                "go out: set that limit in its inverters too, for ours ends with their timers when control is lost"
            )
    return tuple(found)


def _notes(key: str, path: Path | None, does: str) -> tuple[str, ...]:
    if path is None or path.exists():
        return ()
    return (f"[forecast] {key}: there is no file '{path}' yet; {does} without it until there is",)


def _priced(file: SiteFile, values: Mapping[str, Mapping[str, float]]) -> None:
    """Refuse prices of energy where nothing says what they are to be weighed against."""
    for table, key, worth in (("plan", "peak_price", "a kW of peak"), ("plan.weights", "peak", "the peak")):
        if values[table][key] == 0.0:
            wrong = f"[{table}] {key} = 0 with [forecast] prices"
            file.report.add(file.where(f"{table}.{key}"), wrong, f"give what {worth} is worth beside energy")


def _held_reserve(file: SiteFile, plan: Mapping[str, float], fleet: FleetFile) -> None:
    """Refuse to hold more in reserve than all batteries together have as power."""
    power_kw = sum(device.p_rated_w for device in fleet.devices if device.kind is DeviceKind.BATTERY) / 1e3
    for key, does in (("reserve_up_kw", "give"), ("reserve_down_kw", "take")):
        if not fleet.report.problems and plan[key] > power_kw:
            wrong = f"[plan] {key} = {plan[key]:g}; the fleet's batteries {does} {power_kw:.0f} kW at most"
            file.report.add(file.where(f"plan.{key}"), wrong, f"give at most {math.floor(power_kw)}")


def load_fleet(
    path: Path,
    drivers: Mapping[str, DriverInfo],
    package: FeederPackage | None,
    broken: Broken = NOT_BROKEN,
    networks: Networks = (),
    connections: Collection[str] | None = None,
) -> FleetFile:
    """The fleet file with its mistakes, and with those of the broken drivers that it names.

    Raises ConfigError for a file that is no CSV.
    """
    _require_csv(path)
    known = {**dict.fromkeys(broken, DriverInfo(frozenset(DeviceKind))), **drivers}
    found = read_fleet(path, drivers=known, package=package, networks=networks, connections=connections)
    found.report.problems += _broken_uses(path, broken)
    return found


def _require_csv(path: Path) -> None:
    """Raises ConfigError for what is no text, and for a quotation mark that takes the rest of the file with it."""
    source, report = read_text(path, row="row"), Report(str(path))
    if found := _NOT_TEXT.search(source):
        place = f"row {source.count(chr(10), 0, found.start()) + 1}"
        wrong = f"byte 0x{ord(found[0]):02x} is in no text file"
        raise report.error(place, wrong, "save it as comma-separated CSV, as plain text")
    try:
        rows = list(csv.reader(StringIO(f"{source}\n{END_MARK}", newline="")))
    except csv.Error as error:
        raise report.error("file", f"is not CSV ({error})", "save it as comma-separated CSV") from error
    if rows[-1] != [END_MARK]:
        right = 'close it, or write "" for one in a text'
        raise report.error(f"row {len(rows)}", "a quotation mark is not closed", right)


def _broken_uses(path: Path, broken: Broken) -> Iterator[Problem]:
    """A problem for every row that names a broken driver, and the mistakes of each such driver."""
    table = read_csv(path) if broken else None
    if table is None or "driver" not in table.header:
        return
    column = table.header.index("driver")
    uses = [(row, cells[column]) for row, cells in table.rows if len(cells) > column and cells[column] in broken]
    for row, name in uses:
        wrong = f"the profile of driver '{name}' has mistakes"
        yield Problem(str(path), f"row {row}, column driver", wrong, "correct the profile, as is said below")
    for name in dict.fromkeys(name for _, name in uses):
        yield from broken[name]


def describe() -> str:
    """The reference of site file and fleet file as Markdown: every key and column with default and bounds."""
    return (
        f"## Site file\n\n{describe_keys()}\n## Fleet file\n\n{describe_columns(COLUMNS)}\n"
        f"## Connections\n\n{describe_columns(CONNECTION_COLUMNS)}\n## Point map\n\n{describe_points()}"
    )


def _collect(report: Report, load: Callable[[], T]) -> T | None:
    """What a loader gives, or None after its problems have joined ours."""
    try:
        return load()
    except ConfigError as error:
        report.problems += error.problems
        return None


def _package(file: SiteFile, path: Path, name: str, load: Callable[[str], FeederPackage]) -> FeederPackage | None:
    """The feeder that the site file names, or None after its problems have joined those of the site file."""
    try:
        return load(_feeder_path(path, name))
    except ConfigError as error:
        if all(not Path(problem.file).parent.exists() for problem in error.problems):
            wrong = f"[site] feeder = '{name}': there is no such feeder"
            right = did_you_mean(name, FEEDERS, f"it is {' or '.join(FEEDERS)}, or the path of a feeder's folder")
            file.report.add(file.where("site.feeder"), wrong, right)
        else:
            file.report.problems += error.problems
        return None


def _connections(file: SiteFile, path: Path, name: str | None) -> ConnectionFile | None:
    """The connections that the site file names, after their problems have joined those of the site file."""
    named = _named_file(file, path, "fleet.connections", name)
    found = None if named is None else _collect(file.report, partial(read_connections, named))
    if found is not None:
        file.report.problems += found.report.problems
    return found


def _timezone(file: SiteFile, name: str | None) -> ZoneInfo | None:
    known = available_timezones()
    if name is None or name in known:
        return ZoneInfo(name) if name else None
    right = did_you_mean(name, known, "give an IANA name such as America/Los_Angeles")
    file.report.add(file.where("site.timezone"), f"unknown time zone '{name}'", right)
    return None


def _feeder_path(path: Path, feeder: str) -> str:
    """An id as it is; what has a slash is a path, relative to the site file."""
    return str(path.parent / feeder) if "/" in feeder else feeder


def _named_file(file: SiteFile, path: Path, key: str, name: str | None) -> Path | None:
    """The path of a file that the site file names, or None when there is none."""
    if name is None:
        return None
    found = path.parent / name
    if found.is_file():
        return found
    file.report.add(file.where(key), f"there is no file '{found}'", "give its path relative to the site file")
    return None


def _net_load_id(file: SiteFile, name: str | None, fleet: FleetFile) -> str | None:
    """The meter of system net load: the one named, else the only system meter, else the only head meter."""
    meters = {
        kind: [device for device, its_kind in fleet.kinds.items() if its_kind is kind]
        for kind in (DeviceKind.SYSTEM_METER, DeviceKind.HEAD_METER)
    }
    allowed = [device for devices in meters.values() for device in devices]
    if name in allowed:
        return name
    where = file.where("scada.net_load")
    if name is not None:
        right = did_you_mean(name, allowed, "name a device of kind system-meter or head-meter")
        wrong = f"[scada] net_load = '{name}' is not a meter of the fleet"
    else:
        candidates = meters[DeviceKind.SYSTEM_METER] or meters[DeviceKind.HEAD_METER]
        if len(candidates) == 1:
            return candidates[0]
        wrong = f"[scada] net_load is missing, and the fleet has {len(candidates)} meters that it could be"
        right = "name a device of kind system-meter or head-meter"
    if None not in fleet.kinds.values() and fleet.kinds:
        file.report.add(where, wrong, right)
    return None


def _implausible_history(path: Path, net_w: FloatArray, peak_w: float) -> list[Problem]:
    """The first value beyond any use for a feeder of this peak, with the count of them; none when all are plausible."""
    beyond = np.flatnonzero(np.abs(net_w) > HISTORY_MAX_PEAKS * peak_w)
    if not beyond.size:
        return []
    first_kw = net_w[beyond[0]] / 1e3
    wrong = f"{first_kw:g} kW for a feeder whose peak is {peak_w / 1e3:.0f} kW ({beyond.size} such rows)"
    right = f"was W meant? {first_kw / 1e3:g} kW"
    return [Problem(str(path), f"row {beyond[0] + 2}, column net_load_kw", wrong, right)]

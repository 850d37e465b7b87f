"""The fleet file: a CSV with a row per device, read with every mistake in it.

In the file kW, kVA, kWh and percent; inside W, VA, Wh and 0..1.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from derms.domain.der import DER_KINDS, Device, DeviceKind, Endpoint, Link, Transport
from derms.domain.grid import FeederPackage
from derms.ports import DriverInfo
from derms.service.connections import backup_frac, charge_from, check_company, check_connection
from derms.service.files import Report, column_names, did_you_mean, parse_number, read_csv
from derms.service.fleet_columns import COLUMNS, RATINGS
from derms.service.fleet_row import Row, check_place, choice
from derms.service.networks import Networks, check_network
from derms.service.point_map import HEAD_MAX_PEAKS, SYSTEM_MAX_PEAKS

P_MAX_KW = 5000.0
"""Nameplate above which W were written for kW, whatever the bus."""
TRANSFORMER_RATIO_MAX = 4.0
"""The same, against the service transformer of the bus."""
DURATION_MIN_H, DURATION_MAX_H = 0.1, 24.0

_ID = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class FleetFile:
    """What was read, and what is wrong with it."""

    devices: tuple[Device, ...]
    """All devices when nothing is wrong."""
    kinds: dict[str, DeviceKind | None]
    """Kind of every id in the file, None where it is not a kind."""
    report: Report


def read_fleet(
    path: Path,
    *,
    drivers: Mapping[str, DriverInfo],
    package: FeederPackage | None,
    networks: Networks = (),
    connections: Collection[str] | None = None,
) -> FleetFile:
    """Read the fleet file and find every mistake in it; without `networks` devices may be anywhere.

    `connections` are the ids of those that there are; None takes any. Without a feeder package (when that is wrong
    itself) buses and bindings are not checked. Raises ConfigError only when the file is no CSV at all.
    """
    table, report = read_csv(path), Report(str(path))
    columns = column_names(table.header, COLUMNS, report)
    rows = [Row(number, dict(zip(columns, cells, strict=False)), report) for number, cells in table.rows]
    _find_missing_columns(columns, {_kind(row) for row in rows}, report)
    if not rows:
        report.add("row 2", "there is no device", "add a row per device")
    checker = _Checker(drivers, package, Counter(row.cells.get("id", "") for row in rows), networks, connections)
    devices = []
    for row, (number, cells) in zip(rows, table.rows, strict=True):
        if len(cells) < len(columns) or any(cells[len(columns) :]):
            wrong = f"{len(cells)} cells under a header of {len(columns)}"
            report.add(f"row {number}", wrong, "give one cell per column, empty where there is nothing to say")
        elif device := checker.device(row):
            devices.append(device)
    check_company(rows, [_kind(row) for row in rows])
    kinds = {row.cells["id"]: _kind(row) for row in rows if row.cells.get("id")}
    return FleetFile(tuple(devices), kinds, report)


def _find_missing_columns(columns: list[str], kinds: set[DeviceKind | None], report: Report) -> None:
    for name, column in COLUMNS.items():
        if name not in columns and any(column.is_needed_by(kind) for kind in kinds | {None}):
            report.add(f"row 1, column {name}", f"column '{name}' is missing", f"add it: {column.meaning}")


def _kind(row: Row) -> DeviceKind | None:
    cell = row.cells.get("kind", "")
    return DeviceKind(cell) if cell in set(DeviceKind) else None


class _Checker:
    """The checks of rows, in file order: what stands in earlier rows may not stand in later ones."""

    def __init__(
        self,
        drivers: Mapping[str, DriverInfo],
        package: FeederPackage | None,
        uses: Mapping[str, int],
        networks: Networks,
        connections: Collection[str] | None,
    ) -> None:
        self._drivers = drivers
        self._networks = networks
        self._connections = connections
        self._uses = uses
        self._package = package
        self._ids: dict[str, int] = {}
        self._endpoints: dict[Endpoint, int] = {}
        self._links: dict[tuple[str, int], tuple[Transport, int]] = {}
        self._bauds: dict[str, tuple[int, int]] = {}
        sites = package.sites if package else ()
        self._transformer_va = {site.bus.lower(): site.s_rated_va for site in sites}
        self._site_bus = {site.id: site.bus for site in sites}
        self._bindings = {der.id: der for der in package.ders} if package else {}

    def device(self, row: Row) -> Device | None:
        """The device of a row, or None once the file has a mistake; reports every mistake of the row."""
        kind = _kind(row)
        for name, kinds in RATINGS.items():
            if kind is not None and kind not in kinds and parse_number(row.cells.get(name, "")) == 0:
                row.cells[name] = ""
        for name, column in COLUMNS.items():
            if column.is_needed_by(kind) and row.cells.get(name) == "":
                row.wrong(name, "the cell is empty", f"give it: {column.meaning}")
        self._check_names(row, kind)
        endpoint = self._endpoint(row)
        link = choice(row, "link", Link, Link.FIXED)
        self._check_bus(row, kind)
        p_kw, s_kva = self._power(row, "p_rated_kw"), self._power(row, "s_rated_kva")
        if p_kw is not None and s_kva is not None and s_kva < p_kw:
            row.wrong("s_rated_kva", f"{s_kva:g} kVA is less than p_rated_kw = {p_kw:g}", f"give at least {p_kw:g}")
        energy_kwh = _energy_kwh(row, kind, p_kw)
        soc_min_frac, soc_max_frac = _soc_range(row)
        check_connection(row, kind, self._connections)
        kept_frac, source = backup_frac(row, kind, soc_min_frac, soc_max_frac), charge_from(row, kind)
        if row.report.problems or kind is None or endpoint is None:
            return None
        return Device(
            id=row.cells["id"],
            kind=kind,
            driver=row.cells["driver"],
            endpoint=endpoint,
            bus=row.cells["bus"].lower(),
            p_rated_w=(p_kw or 0.0) * 1e3 or self._greatest_w(kind),
            s_rated_va=(s_kva or p_kw or 0.0) * 1e3,
            energy_wh=energy_kwh * 1e3,
            soc_min_frac=soc_min_frac,
            soc_max_frac=soc_max_frac,
            serial=row.cells.get("serial", ""),
            link=link,
            connection=row.cells.get("connection", ""),
            inverter=row.cells.get("inverter", ""),
            backup_frac=kept_frac,
            charge_from=source,
        )

    def _greatest_w(self, kind: DeviceKind) -> float:
        """Power beyond which a meter without a rating is not believed; 0 where nothing is known."""
        peaks = {DeviceKind.HEAD_METER: HEAD_MAX_PEAKS, DeviceKind.SYSTEM_METER: SYSTEM_MAX_PEAKS}.get(kind, 0.0)
        return peaks * self._package.peak_w if self._package else 0.0

    def _check_names(self, row: Row, kind: DeviceKind | None) -> None:
        if name := row.text("id"):
            first = self._ids.setdefault(name, row.number)
            if not _ID.fullmatch(name):
                row.wrong("id", f"'{name}' has characters that an id cannot have", "use letters, digits, _ . and -")
            elif first != row.number:
                row.wrong("id", f"'{name}' is already the id of row {first}", "give every device an id of its own")
        if (word := row.text("kind")) and kind is None:
            right = did_you_mean(word, DeviceKind, "it is one of " + ", ".join(DeviceKind))
            row.wrong("kind", f"unknown kind '{word}'", right)
        if (driver := row.text("driver")) and driver not in self._drivers:
            known = "it is one of " + ", ".join(sorted(self._drivers))
            row.wrong("driver", f"unknown driver '{driver}'", did_you_mean(driver, self._drivers, known))
        elif driver and kind and kind not in (kinds := self._drivers[driver].kinds):
            right = "it is for " + ", ".join(sorted(kinds))
            row.wrong("driver", f"driver '{driver}' for the kind {kind}", right)

    def _endpoint(self, row: Row) -> Endpoint | None:
        host, port, unit = row.text("host"), row.value("port"), row.value("unit")
        transport = choice(row, "transport", Transport, Transport.TCP)
        check_place(row, transport)
        check_network(row, transport, self._networks)
        if row.bad & {"host", "port", "unit", "transport"} or not host or port is None:
            return None
        usual = self._drivers.get(row.cells.get("driver", ""))
        name = host if transport is Transport.SERIAL else host.lower()
        endpoint = Endpoint(name, int(port), int(unit or (usual.unit if usual else 1)), transport)
        self._check_shared(row, endpoint)
        return endpoint

    def _check_shared(self, row: Row, endpoint: Endpoint) -> None:
        """Units share an endpoint, whose transport and speed they have in common; each unit is there once."""
        first = self._endpoints.setdefault(endpoint, row.number)
        if first != row.number:
            row.wrong("host", f"{endpoint} is already the endpoint of row {first}", "change host, port or unit")
        place, transport = f"{endpoint.host}:{endpoint.port}", endpoint.transport
        other, first = self._links.setdefault((endpoint.host, endpoint.port), (transport, row.number))
        if other is not transport:
            row.wrong("transport", f"{transport} at {place}, where row {first} has {other}", "give both the same")
        baud, first = self._bauds.setdefault(endpoint.host, (endpoint.port, row.number))
        if transport is Transport.SERIAL and baud != endpoint.port:
            wrong = f"{endpoint.port} baud on the line that row {first} runs at {baud}"
            row.wrong("port", wrong, "give all devices of a serial line the same")

    def _check_bus(self, row: Row, kind: DeviceKind | None) -> None:
        """The bus is in the circuit, and a DER where the feeder's manifest binds it.

        Of rows that share an id nobody knows which one the manifest means.
        """
        if self._package is None:
            return
        bus, name, feeder = row.text("bus"), row.text("id"), self._package.id
        bound = self._bindings.get(name or "") if self._uses.get(name or "") == 1 else None
        home = self._site_bus.get(bound.site, "") if bound else ""
        if bus and bus.lower() not in self._package.buses:
            near = did_you_mean(bus, self._package.buses, f"use a bus of feeder {feeder}")
            row.wrong("bus", f"unknown bus '{bus}'", f"the manifest binds '{name}' to '{home}'" if bound else near)
        elif bus and bound and bus.lower() != home.lower():
            row.wrong("bus", f"'{name}' at bus '{bus}'", f"the manifest of feeder {feeder} binds it to '{home}'")
        if name and kind in DER_KINDS and name not in self._bindings:
            right = did_you_mean(name, self._bindings, "use an id of the feeder's manifest")
            row.wrong("id", f"'{name}' is not a DER of feeder {feeder}", right)
        elif bound and kind in DER_KINDS and kind != bound.kind:
            row.wrong("kind", f"'{name}' as {kind}", f"the manifest of feeder {feeder} has it as {bound.kind}")

    def _power(self, row: Row, column: str) -> float | None:
        """A power rating [kW, kVA]; one that fits no bus was written in W."""
        value = row.value(column)
        if value is None:
            return None
        bus = row.cells.get("bus", "")
        site_kva = self._transformer_va.get(bus.lower(), float("inf")) / 1e3
        unit = column.rpartition("_")[2].replace("kw", "kW").replace("kva", "kVA")
        if value > TRANSFORMER_RATIO_MAX * site_kva:
            wrong = f"{value:g} {unit} at bus {bus}, whose service transformer is {site_kva:g} kVA"
        elif value > P_MAX_KW:
            wrong = f"{value:g} {unit} is more than {P_MAX_KW:g} {unit}"
        else:
            return value
        row.wrong(column, wrong, f"was {unit[1:]} meant? {value / 1e3:g} {unit}")
        return None


def _energy_kwh(row: Row, kind: DeviceKind | None, p_kw: float | None) -> float:
    energy_kwh = row.value("energy_kwh")
    if energy_kwh is None:
        return 0.0
    if kind is not None and kind is not DeviceKind.BATTERY:
        row.wrong("energy_kwh", f"{energy_kwh:g} kWh for a {kind}", "leave it empty, or make the kind battery")
    elif p_kw is not None and not DURATION_MIN_H <= energy_kwh / p_kw <= DURATION_MAX_H:
        wrong = f"{energy_kwh:g} kWh at {p_kw:g} kW lasts {energy_kwh / p_kw:g} h"
        row.wrong("energy_kwh", wrong, f"give an energy of {DURATION_MIN_H:g} to {DURATION_MAX_H:g} hours")
    return energy_kwh


def _soc_range(row: Row) -> tuple[float, float]:
    low, high = row.value("soc_min_pct"), row.value("soc_max_pct")
    low_pct, high_pct = 10.0 if low is None else low, 95.0 if high is None else high
    if not row.bad & {"soc_min_pct", "soc_max_pct"} and low_pct >= high_pct:
        wrong = f"{low_pct:g} % is not below soc_max_pct = {high_pct:g} %"
        row.wrong("soc_min_pct", wrong, "give a reserve below the ceiling")
    return low_pct / 100, high_pct / 100

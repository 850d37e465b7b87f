"""The file of connections, and what rows of the fleet file say of what they share.

A CSV with a row per point of common coupling, in kW; every mistake is told.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from derms.domain.connection import Connection
from derms.domain.der import DER_KINDS, ChargeFrom, DeviceKind
from derms.service.files import Report, column_names, did_you_mean, read_csv
from derms.service.fleet_columns import CONNECTION_COLUMNS
from derms.service.fleet_row import Row, choice

_ID = re.compile(r"[A-Za-z0-9_.-]+")
_NO_FILE = "name a CSV with it as [fleet] connections in the site file"


@dataclass(frozen=True)
class ConnectionFile:
    """What was read, and what is wrong with it."""

    connections: tuple[Connection, ...]
    """All of them when nothing is wrong."""
    ids: frozenset[str]
    """Of every row, also of those with mistakes."""
    report: Report


def read_connections(path: Path) -> ConnectionFile:
    """Read the file of connections and find every mistake in it; raises ConfigError only when it is no CSV at all."""
    table, report = read_csv(path), Report(str(path))
    columns = column_names(table.header, CONNECTION_COLUMNS, report)
    for name, column in CONNECTION_COLUMNS.items():
        if column.needed_by and name not in columns:
            report.add(f"row 1, column {name}", f"column '{name}' is missing", f"add it: {column.meaning}")
    if not table.rows:
        report.add("row 2", "there is no connection", "add a row per connection")
    found, first = list[Connection](), dict[str, int]()
    for number, cells in table.rows:
        if len(cells) != len(columns):
            wrong = f"{len(cells)} cells under a header of {len(columns)}"
            report.add(f"row {number}", wrong, "give one cell per column, empty where there is nothing to say")
            continue
        row = Row(number, dict(zip(columns, cells, strict=True)), report, CONNECTION_COLUMNS)
        found.append(_connection(row, first))
    return ConnectionFile(tuple(found), frozenset(first), report)


def _connection(row: Row, first: dict[str, int]) -> Connection:
    for needed, column in CONNECTION_COLUMNS.items():
        if column.needed_by and row.cells.get(needed) == "":
            row.wrong(needed, "the cell is empty", f"give it: {column.meaning}")
    if name := row.text("id"):
        at = first.setdefault(name, row.number)
        if not _ID.fullmatch(name):
            row.wrong("id", f"'{name}' has characters that an id cannot have", "use letters, digits, _ . and -")
        elif at != row.number:
            row.wrong("id", f"'{name}' is already the id of row {at}", "give every connection an id of its own")
    kw = {column: row.value(column) or 0.0 for column in CONNECTION_COLUMNS if column != "id"}
    if not row.bad & {"load_min_kw", "load_max_kw"} and kw["load_min_kw"] > kw["load_max_kw"]:
        wrong = f"{kw['load_min_kw']:g} kW is more than load_max_kw = {kw['load_max_kw']:g}"
        row.wrong("load_min_kw", wrong, f"give at most {kw['load_max_kw']:g}")
    if not row.bad & {"import_max_kw", "load_max_kw"} and kw["load_max_kw"] > kw["import_max_kw"]:
        wrong = f"{kw['load_max_kw']:g} kW is more than import_max_kw = {kw['import_max_kw']:g}"
        row.wrong("load_max_kw", wrong, "give the load that the connection is made for")
    return Connection(
        id=row.cells.get("id", ""),
        export_max_w=kw["export_max_kw"] * 1e3,
        import_max_w=kw["import_max_kw"] * 1e3,
        load_max_w=kw["load_max_kw"] * 1e3,
        load_min_w=kw["load_min_kw"] * 1e3,
    )


def check_connection(row: Row, kind: DeviceKind | None, known: Collection[str] | None) -> None:
    """A DER's connection is one of the file's, its inverter such as it can share; without `known` any is taken."""
    if (name := row.text("connection")) and kind is not None and kind not in DER_KINDS:
        row.wrong("connection", f"'{name}' for a {kind}", "leave it empty: a meter feeds nothing in")
    elif name and known is not None and name not in known:
        otherwise = "use an id of the file that [fleet] connections names" if known else _NO_FILE
        row.wrong("connection", f"unknown connection '{name}'", did_you_mean(name, known, otherwise))
    shares = (DeviceKind.PV, DeviceKind.BATTERY)
    if (name := row.text("inverter")) and kind is not None and kind not in shares:
        row.wrong("inverter", f"'{name}' for a {kind}", "leave it empty: PV and batteries share inverters")


def backup_frac(row: Row, kind: DeviceKind | None, soc_min_frac: float, soc_max_frac: float) -> float:
    """What a battery keeps for an outage [0..1]."""
    backup_pct = row.value("backup_pct")
    if backup_pct is None:
        return 0.0
    low_pct, high_pct = soc_min_frac * 100.0, soc_max_frac * 100.0
    if kind is not None and kind is not DeviceKind.BATTERY:
        row.wrong("backup_pct", f"{backup_pct:g} % for a {kind}", "leave it empty, or make the kind battery")
    elif not row.bad & {"soc_min_pct", "soc_max_pct"} and not low_pct - 1e-9 <= backup_pct <= high_pct + 1e-9:
        wrong = f"{backup_pct:g} % is outside of soc_min_pct = {low_pct:g} to soc_max_pct = {high_pct:g} %"
        row.wrong("backup_pct", wrong, "give what is kept of a battery's usable range")
    return backup_pct / 100.0


def charge_from(row: Row, kind: DeviceKind | None) -> ChargeFrom:
    """What a battery may charge from."""
    found = choice(row, "charge_from", ChargeFrom, ChargeFrom.ANY)
    if found is ChargeFrom.SOLAR and kind is not None and kind is not DeviceKind.BATTERY:
        row.wrong("charge_from", f"'{found}' for a {kind}", "leave it empty: only batteries charge")
    return found


def check_company(rows: Sequence[Row], kinds: Sequence[DeviceKind | None]) -> None:
    """Who charges from PV has some behind its connection, and who shares an inverter shares it with PV at its own."""
    pv = [row for row, kind in zip(rows, kinds, strict=True) if kind is DeviceKind.PV]
    sunny = {row.cells.get("connection") for row in pv} - {"", None}
    coupled = {(row.cells.get("inverter"), row.cells.get("connection")) for row in pv}
    for row, kind in zip(rows, kinds, strict=True):
        if kind is not DeviceKind.BATTERY or "connection" in row.bad:
            continue
        connection = row.cells.get("connection")
        if row.text("charge_from") == ChargeFrom.SOLAR and connection not in sunny:
            at = f"at connection '{connection}', which has no PV" if connection else "without a connection"
            row.wrong("charge_from", f"'{ChargeFrom.SOLAR}' {at}", "name the connection of the PV that it charges from")
        if (name := row.text("inverter")) and (name, connection) not in coupled:
            wrong = f"no PV at its connection has the inverter '{name}'"
            row.wrong("inverter", wrong, "give the PV the same inverter and connection, or leave it empty")

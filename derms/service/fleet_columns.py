"""The columns of the fleet file: who needs each, and the bounds of what stands in it.

In kW, kVA, kWh and percent, as people write them.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from derms.domain.der import DER_KINDS, ChargeFrom, DeviceKind, Link, Transport

EVERYONE = frozenset(DeviceKind)
BATTERY = frozenset({DeviceKind.BATTERY})
PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the fleet file; `low` and `high` bound the number in a cell of it."""

    meaning: str
    needed_by: frozenset[DeviceKind] = frozenset()
    kind: type[str] | type[float] | type[int] = str
    low: float = 0.0
    high: float = 1e6

    def is_needed_by(self, kind: DeviceKind | None) -> bool:
        """Whether a device must have it; what everyone needs, a device of unknown kind needs too."""
        return self.needed_by == EVERYONE or kind in self.needed_by

    @property
    def right(self) -> str:
        """What would be right for a number, as the end of a message."""
        return f"give a {'whole ' * (self.kind is int)}number from {self.low:g} to {self.high:g}"


COLUMNS = {
    "id": Column("name of the device, unique; for DER as in the feeder's manifest", EVERYONE),
    "kind": Column("one of " + ", ".join(DeviceKind), EVERYONE),
    "driver": Column("name of the driver or profile that speaks with it", EVERYONE),
    "host": Column("IP address or host name; the serial port of a device on a serial line", EVERYONE),
    "port": Column(f"TCP port, at most {PORT_MAX}; baud of a serial line", EVERYONE, int, 1, 921600),
    "transport": Column("one of " + ", ".join(Transport) + f"; {Transport.TCP} when empty"),
    "unit": Column("Modbus unit; the driver's usual one when empty, mostly 1", kind=int, low=1, high=255),
    "link": Column("one of " + ", ".join(Link) + f", for how often it is polled; {Link.FIXED} when empty"),
    "bus": Column("bus of the feeder model", EVERYONE),
    "p_rated_kw": Column("nameplate active power", DER_KINDS, float, 0.001),
    "s_rated_kva": Column("nameplate apparent power; p_rated_kw when empty", kind=float, low=0.001),
    "energy_kwh": Column("usable energy of a battery", BATTERY, float, 0.001),
    "soc_min_pct": Column("reserve of a battery; 10 when empty", kind=float, high=99),
    "soc_max_pct": Column("ceiling of a battery; 95 when empty", kind=float, low=2, high=100),
    "serial": Column("serial number that the device must show; any when empty"),
    "connection": Column("id of the connection that it is behind; one of its own, without a limit, when empty"),
    "inverter": Column("id of an inverter that PV and batteries share (DC-coupled); one of its own when empty"),
    "backup_pct": Column("kept in a battery for an outage, from soc_min_pct to soc_max_pct", kind=float, high=100),
    "charge_from": Column(
        f"one of {', '.join(ChargeFrom)}, the latter for PV behind its connection only; {ChargeFrom.ANY} when empty"
    ),
}
CONNECTION_COLUMNS = {
    "id": Column("name of the connection, unique", EVERYONE),
    "export_max_kw": Column("greatest power out of the point of common coupling into the grid", EVERYONE, float),
    "import_max_kw": Column("greatest power out of the grid into it", EVERYONE, float),
    "load_max_kw": Column("greatest load behind it that is no device of the fleet; 0 when empty", kind=float),
    "load_min_kw": Column("least such load; 0 when empty", kind=float),
}
"""The columns of the file of connections."""
RATINGS = {"p_rated_kw": DER_KINDS, "s_rated_kva": DER_KINDS, "energy_kwh": BATTERY}
"""Columns of ratings, and the kinds that have them; for the others 0 is as good as empty."""


def describe_columns(columns: Mapping[str, Column]) -> str:
    """The reference of a file as Markdown: every column."""
    lines = ["| column | needed by | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, column in columns.items():
        needed = "all" if column.needed_by == EVERYONE else ", ".join(sorted(column.needed_by)) or "none"
        allowed = "text" if column.kind is str else f"{column.low:g} to {column.high:g}"
        lines.append(f"| `{name}` | {needed} | {allowed} | {column.meaning} |")
    return "\n".join([*lines, ""])

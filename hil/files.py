"""The files that point the control room at a world: fleet.csv, site.toml, history.csv."""

import csv
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Fleet

FLEET_COLUMNS = (
    "id", "kind", "driver", "host", "port", "unit", "bus", "p_rated_kw", "s_rated_kva", "energy_kwh", "soc_min_pct",
    "soc_max_pct", "serial",
)  # fmt: skip
HISTORY_COLUMNS = ("time_utc", "net_load_kw")

SITE = """\
[site]
name = "{name}"
feeder = "{feeder}"
mode = "{mode}"
latitude = {latitude_deg}
longitude = {longitude_deg}
timezone = "{timezone}"

[fleet]
file = "fleet.csv"

[scada]
net_load = "{net_load}"
history = "history.csv"

[storage]
directory = "data"
"""


def write_fleet(path: Path, fleet: Fleet) -> None:
    """Write the fleet file; a cell that does not apply to a device stays empty."""
    _write_csv(path, FLEET_COLUMNS, [_fleet_row(device) for device in fleet.devices])


def write_history(path: Path, ends: Sequence[datetime], net_load_w: FloatArray) -> None:
    """Write past net load: ends of intervals (UTC) and means over them [W]."""
    rows = [(end.isoformat(), f"{w / 1e3:.3f}") for end, w in zip(ends, net_load_w.tolist(), strict=True)]
    _write_csv(path, HISTORY_COLUMNS, rows)


def write_site(
    path: Path, *, feeder: str, mode: str, place_deg: tuple[float, float], timezone: str, net_load: str
) -> None:
    """Write the site file; `net_load` is the id of the meter that stands for SCADA."""
    text = SITE.format(
        name=f"Simulated {feeder}",
        feeder=feeder,
        mode=mode,
        latitude_deg=place_deg[0],
        longitude_deg=place_deg[1],
        timezone=timezone,
        net_load=net_load,
    )
    path.write_text(text, encoding="utf8")


def _fleet_row(device: Device) -> list[object]:
    battery = device.kind is DeviceKind.BATTERY
    return [
        device.id,
        device.kind.value,
        device.driver,
        device.endpoint.host,
        device.endpoint.port,
        device.endpoint.unit,
        device.bus,
        f"{device.p_rated_w / 1e3:g}" if device.is_der else "",
        f"{device.s_rated_va / 1e3:g}" if device.is_der else "",
        f"{device.energy_wh / 1e3:g}" if battery else "",
        f"{device.soc_min_frac * 100:g}" if battery else "",
        f"{device.soc_max_frac * 100:g}" if battery else "",
        device.serial,
    ]


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)

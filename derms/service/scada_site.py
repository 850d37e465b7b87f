"""[scada] of the site file with the files it names: where the utility's system is, and where it is told the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from derms.domain.grid import FeederPackage
from derms.domain.scada import PointKind, ScadaPoint, modbus_place
from derms.errors import ConfigError
from derms.scada.file import SUFFIXES
from derms.scada.intake import Limits, QualityMap
from derms.service.point_map import Places, read_points
from derms.service.quality_map import read_qualities
from derms.service.settings import SiteFile

NEEDED = {"meter": (), "file": ("points", "path"), "rest": ("points", "url"), "modbus": ("points", "url")}
"""Keys that a source cannot do without."""
LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, kw_only=True)
class ScadaSite:
    """The utility's system as the site file has it, checked."""

    source: str
    """meter, file, rest or modbus."""
    points: tuple[ScadaPoint, ...]
    tells_net_load: bool
    """Whether a point tells the system's net load, so that no meter has to."""
    qualities: QualityMap
    path: Path | None
    url: str | None
    token_variable: str | None
    ca: Path | None
    every_s: float
    timeout_s: float
    limits: Limits
    publish: Path | str | None
    """A file, or a URL."""
    publish_method: str


def read_scada(file: SiteFile, folder: Path, found: Mapping[str, Any], package: FeederPackage | None) -> ScadaSite:
    """The table's values with its files read; mistakes go to the file's report."""
    source: str = found["source"] or "meter"
    for key in NEEDED[source]:
        if found[key] is None:
            wrong = f'[scada] {key} is missing, which source = "{source}" needs'
            file.report.add(file.where("scada.source"), wrong, f"add {key} to [scada]")
    points, kinds = _points(file, folder, found, source, package) if source != "meter" else ((), frozenset())
    path = _watched(file, folder, found["path"]) if source == "file" and found["path"] else None
    if source in ("rest", "modbus") and found["url"]:
        _check_url(file, "url", found["url"], source, found["token_variable"])
    return ScadaSite(
        source=source,
        points=points,
        tells_net_load=PointKind.NET_LOAD in kinds,
        qualities=_qualities(file, folder, found["qualities"]),
        path=path,
        url=found["url"],
        token_variable=found["token_variable"],
        ca=_present(file, folder, "ca", found["ca"]),
        every_s=found["every_s"],
        timeout_s=found["timeout_s"],
        limits=Limits(found["stale_after_s"], found["ahead_max_s"]),
        publish=_outlet(file, folder, found["publish"], found["token_variable"]),
        publish_method=found["publish_method"],
    )


def _points(
    file: SiteFile, folder: Path, found: Mapping[str, Any], source: str, package: FeederPackage | None
) -> tuple[tuple[ScadaPoint, ...], frozenset[PointKind]]:
    """The points, and the kinds that the map has even where it has mistakes."""
    path = _present(file, folder, "points", found["points"])
    if path is None:
        return (), frozenset(PointKind)
    try:
        table = read_points(path, places=_places(source, found["path"]), package=package)
    except ConfigError as error:
        file.report.problems += error.problems
        return (), frozenset(PointKind)
    file.report.problems += table.report.problems
    return table.points, table.kinds


def _places(source: str, path: str | None) -> Places:
    if source == "modbus":
        return Places.REGISTERS
    json = source == "rest" or (path or "").lower().endswith(".json")
    return Places.POINTERS if json else Places.NAMES


def _qualities(file: SiteFile, folder: Path, name: str | None) -> QualityMap:
    path = _present(file, folder, "qualities", name)
    if path is not None:
        try:
            return read_qualities(path)
        except ConfigError as error:
            file.report.problems += error.problems
    return QualityMap()


def _present(file: SiteFile, folder: Path, key: str, name: str | None) -> Path | None:
    """A file that has to be there."""
    if name is None:
        return None
    path = folder / name
    if path.is_file():
        return path
    file.report.add(file.where(f"scada.{key}"), f"there is no file '{path}'", "give its path relative to the site file")
    return None


def _watched(file: SiteFile, folder: Path, name: str) -> Path:
    """A file that may come later, of a kind that we read, in a folder that is there."""
    path = folder / name
    _check_file(file, "path", path)
    return path


def _outlet(file: SiteFile, folder: Path, name: str | None, token_variable: str | None) -> Path | str | None:
    if name is None or "://" in name:
        if name is not None:
            _check_url(file, "publish", name, "modbus" if name.startswith("modbus:") else "rest", token_variable)
        return name
    path = folder / name
    _check_file(file, "publish", path)
    return path


def _check_file(file: SiteFile, key: str, path: Path) -> None:
    where = file.where(f"scada.{key}")
    if path.suffix.lower() not in SUFFIXES:
        file.report.add(where, f"'{path.name}' is neither CSV nor JSON", "end its name with .csv or .json")
    if not path.parent.is_dir():
        file.report.add(where, f"there is no folder '{path.parent}'", "name a file in a folder that exists")


def _check_url(file: SiteFile, key: str, url: str, kind: str, token_variable: str | None) -> None:
    where, report = file.where(f"scada.{key}"), file.report
    if kind == "modbus":
        place = modbus_place(url)
        if place is None or (key == "publish") != (place[1] is not None):
            right = "write it like modbus://10.0.0.5:502" + "/1/1000 with unit and address" * (key == "publish")
            report.add(where, f"[scada] {key} = '{url}' is not such an address", right)
        return
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that are none
        known = False
    if not known:
        right = "write it like https://ems.example.org/points"
        report.add(where, f"[scada] {key} = '{url}' is not such an address", right)
    elif parts.scheme == "http" and token_variable and parts.hostname not in LOOPBACK:
        report.add(where, f"[scada] {key} would send the token in clear text", "use https")

"""Writes a territory: a folder per feeder, the stations, and one digest over everything."""

import hashlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from derms.errors import ConfigError, Problem
from feeders.territory import package
from feeders.territory.feeder import Feeder, make
from feeders.territory.spec import Spec
from feeders.writing import pairs, table

TERRITORY, DIGEST = "territory.toml", "territory.sha256"
RATINGS_MVA = (5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0)
RESERVE = 1.3
"""Rating of a station's transformers over the sum of its feeders' peaks."""


@dataclass(frozen=True, slots=True)
class StationPlan:
    """A station as it stands in `territory.toml`; the fields are those of `derms.grid.territory.Station`."""

    id: str
    feeders: tuple[str, ...]
    s_rated_va: float
    r_pu: float
    x_pu: float
    source_r_pu: float
    source_x_pu: float
    source_pu: float
    ratio: float
    no_load_w: float


@dataclass(frozen=True, slots=True)
class Made:
    """What was written."""

    feeders: int
    stations: int
    buses: int
    customers: int
    der: int
    peak_kw: float
    sha256: str


def write(spec: Spec, out: Path, progress: Callable[[int], None] = lambda done: None) -> Made:
    """Write a territory into a folder that is empty or not there; `progress` hears of every feeder.

    `feeders.catalog.load` calls what it finds in such a folder somebody else's, to be solved in a confined process. A
    process that has just written the folder itself knows better, and may say so: `replace(load(folder), own=True)`.

    Raises
    ------
    ConfigError
        Something is in the folder already.
    """
    if out.exists() and any(out.iterdir()):
        raise ConfigError([Problem(str(out), "folder", "not empty", "name one that is new")])
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(spec.feeders):
        feeder = make(spec, number)
        folder = out / feeder.id
        folder.mkdir()
        package.write(feeder, folder, spec.customers["power_factor"])
        made.append(feeder)
        progress(number + 1)
    (out / TERRITORY).write_text(_territory(spec, made), encoding="ascii", newline="\n")
    sha256 = digest(out)
    (out / DIGEST).write_text(f"{sha256}\n", encoding="ascii", newline="\n")
    services = [service for feeder in made for _, _, service in feeder.services]
    return Made(
        feeders=len(made),
        stations=spec.stations,
        buses=sum(len(feeder.buses) for feeder in made),
        customers=sum(service.customers for service in services),
        der=sum(feeder.der_count for feeder in made),
        peak_kw=round(sum(feeder.peak_kw for feeder in made), 1),
        sha256=sha256,
    )


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files of a territory but that which holds it."""
    total = hashlib.sha256()
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    for name in sorted(files.keys() - {DIGEST}):
        total.update(f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def stations(folder: Path) -> tuple[StationPlan, ...]:
    """The stations of a territory that was written."""
    found = tomllib.loads((folder / TERRITORY).read_text(encoding="ascii"))
    fed: dict[str, list[str]] = {}
    for feeder in found["feeder"]:
        fed.setdefault(feeder["station"], []).append(feeder["id"])
    return tuple(StationPlan(feeders=tuple(fed[row["id"]]), **row) for row in found["station"])


def _territory(spec: Spec, made: Sequence[Feeder]) -> str:
    lines = ["# A made-up territory; written by feeders.territory, do not edit."]
    lines += pairs(schema=1, name=spec.name, seed=spec.seed)
    given = spec.station
    for number in range(spec.stations):
        station = f"s{number + 1:03d}"
        peak_mva = sum(feeder.peak_kw for feeder in made if feeder.station == station) / 1e3
        rated_mva = next((mva for mva in RATINGS_MVA if mva >= peak_mva * RESERVE), round(peak_mva * RESERVE))
        z = rated_mva / given["short_circuit_mva"]
        r = z / (1.0 + given["x_over_r"] ** 2) ** 0.5
        lines += table(
            "station",
            id=station,
            s_rated_va=rated_mva * 1e6,
            r_pu=round(given["r_pct"] / 100, 6),
            x_pu=round(given["x_pct"] / 100, 6),
            source_r_pu=round(r, 6),
            source_x_pu=round(r * given["x_over_r"], 6),
            source_pu=given["source_pu"],
            ratio=given["ratio"],
            no_load_w=round(rated_mva * 1e4 * given["no_load_pct"], 1),
        )
    for feeder in made:
        lines += table("feeder", id=feeder.id, station=feeder.station, peak_kw=feeder.peak_kw, der=feeder.der_count)
    return "\n".join(lines) + "\n"

"""Writes a packaged feeder from its tables: `python -m feeders.generate ieee123`.

The same tables give the same bytes. Golden results are the engine's to find: `python -m derms.grid.golden ieee123`.
"""

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from feeders.siting import Site, service_circuit, sites
from feeders.tables import base_circuit, rows

PACKAGES = Path(__file__).parent
TURNS = 20
HEAD_ELEMENT = "Transformer.reg1a"
SENSOR_BUSES = ("30", "66", "83")
"""Three-phase ends of branches: ahead of the mid-feeder regulators, south, and behind them."""


def write(feeder: str, folder: Path) -> None:
    """Write circuit and manifest of a feeder whose tables stand in `folder/tables`."""
    tables = folder / "tables"
    made = sites([row["bus"] for row in rows(tables, "loads")], TURNS)
    _write(folder / "base.dss", base_circuit(feeder, tables))
    _write(folder / "master.dss", "\n".join(_master(feeder, made)) + "\n")
    _write(folder / "manifest.toml", "\n".join(_manifest(feeder, tables, made)) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii", newline="\n")


def _master(feeder: str, made: Sequence[Site]) -> Iterator[str]:
    yield f"! {feeder} with services and DER, written by feeders.generate; do not edit."
    yield "Redirect base.dss"
    yield ""
    yield "! Measured power is injected at any voltage that can occur."
    yield "BatchEdit Load..* vminpu=0.6 vmaxpu=1.4"
    yield ""
    yield "! Sites: service transformer, drop, DER"
    yield from service_circuit(made)


def _manifest(feeder: str, tables: Path, made: Sequence[Site]) -> Iterator[str]:
    source = json.loads((tables / "source.json").read_text(encoding="utf8"))
    totals = json.loads((tables / "solved_totals.json").read_text(encoding="utf8"))
    yield f"# {feeder}: what the control room binds to the circuit; written by feeders.generate, do not edit."
    yield from _pairs(
        schema=1,
        id=feeder,
        circuit="master.dss",
        source_bus=source["source_bus"],
        head_element=HEAD_ELEMENT,
        peak_kw=round(totals["head_kw"], 3),
    )
    yield "\n# ANSI C84.1 Range A; bases are line to line"
    yield from _table("limit", v_base_max_v=600.0, v_min_pu=0.95, v_max_pu=1.05)
    yield from _table("limit", v_base_max_v=float("inf"), v_min_pu=0.975, v_max_pu=1.05)
    head = {"bus": source["source_bus"], "element": HEAD_ELEMENT, "terminal": 1}
    yield from _meter("head", "head-meter", head)
    for number, bus in enumerate(SENSOR_BUSES, 1):
        yield from _meter(f"vs{number}", "voltage-sensor", {"bus": bus})
    yield from _meter("system", "system-meter", head)
    for site in made:
        yield from _site(site)


def _meter(meter: str, kind: str, place: dict[str, str | int]) -> Iterable[str]:
    return _table("meter", id=meter, kind=kind, **place, sigma_frac=0.005, age_max_s=60.0)


def _site(site: Site) -> Iterator[str]:
    yield from _table(
        "site", id=site.bus, bus=site.bus, transformer=f"Transformer.svc_{site.der}", s_rated_kva=site.service.kva
    )
    energy = {"energy_kwh": site.energy_kwh} if site.energy_kwh else {}
    yield from _table(
        "der",
        id=site.der,
        site=site.bus,
        element=f"Generator.{site.der}",
        kind=site.kind,
        p_rated_kw=site.p_kw,
        s_rated_kva=site.s_kva,
        **energy,
    )


def _table(name: str, **fields: str | float) -> Iterator[str]:
    yield f"\n[[{name}]]"
    yield from _pairs(**fields)


def _pairs(**fields: str | float) -> Iterator[str]:
    for key, value in fields.items():
        yield f'{key} = "{value}"' if isinstance(value, str) else f"{key} = {value}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m feeders.generate", description=__doc__)
    parser.add_argument("feeder", help="folder under feeders/")
    feeder = parser.parse_args().feeder
    write(feeder, PACKAGES / feeder)


if __name__ == "__main__":
    main()

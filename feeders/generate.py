"""Writes a packaged feeder from its tables: `python -m feeders.generate ieee123`.

The same tables give the same bytes. Golden results are the engine's to find: `python -m derms.grid.golden ieee123`.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from feeders.manifest import SCHEMA
from feeders.recipes import RECIPES, TO_NEUTRAL, Recipe, Tie
from feeders.siting import Site, service_circuit, sites
from feeders.tables import SWITCH_OHM, base_circuit, primary_load_buses, rows, switch_rows
from feeders.writing import CONTROL_AGE_MAX_S, SWITCH_AGE_MAX_S, Value, limit_table, meter_table, pairs, table

PACKAGES = Path(__file__).parent


def write(feeder: str, folder: Path) -> None:
    """Write circuit and manifest of a feeder whose tables stand in `folder/tables`."""
    tables, recipe = folder / "tables", RECIPES[feeder]
    load_buses = primary_load_buses(tables, recipe.primary_kv, recipe.primaries == TO_NEUTRAL)
    made = sites(load_buses, recipe)
    _write(folder / "base.dss", base_circuit(feeder, tables))
    _write(folder / "master.dss", "\n".join(_master(feeder, tables, recipe, made)) + "\n")
    _write(folder / "manifest.toml", "\n".join(_manifest(feeder, tables, recipe, made)) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="ascii", newline="\n")


def _master(feeder: str, tables: Path, recipe: Recipe, made: Sequence[Site]) -> Iterator[str]:
    yield f"! {feeder} with services and DER, written by feeders.generate; do not edit."
    yield "Redirect base.dss"
    yield ""
    yield "! Measured power is injected at any voltage that can occur."
    yield "BatchEdit Load..* vminpu=0.6 vmaxpu=1.4"
    yield ""
    yield "! Sites: service transformer, drop, DER"
    yield from service_circuit(made, recipe.primary_kv)
    switches = {row["name"]: row for row in switch_rows(tables)}
    for tie in recipe.ties:
        yield from _tie(tie, switches[tie.switch])


def _tie(tie: Tie, row: Mapping[str, str]) -> Iterator[str]:
    phases = row["bus2"].removeprefix(tie.stub)
    yield ""
    yield f"! {tie.switch}, normally open: its stub {tie.stub} stays, and the switch stands between it and {tie.beyond}"
    yield (
        f"New Line.stub_{tie.switch} bus1={row['bus1']} bus2={row['bus2']} phases={row['phases']}"
        f" r1={SWITCH_OHM} x1=0 r0={SWITCH_OHM} x0=0 c1=0 c0=0 length={row['length']}"
    )
    yield f"Edit Line.{tie.switch} bus1={row['bus2']} bus2={tie.beyond}{phases}"
    yield f"Open Line.{tie.switch} 1"


def _manifest(feeder: str, tables: Path, recipe: Recipe, made: Sequence[Site]) -> Iterator[str]:
    source = json.loads((tables / "source.json").read_text(encoding="utf8"))
    totals = json.loads((tables / "solved_totals.json").read_text(encoding="utf8"))
    yield f"# {feeder}: what the control room binds to the circuit; written by feeders.generate, do not edit."
    yield from pairs(
        schema=SCHEMA,
        id=feeder,
        source=recipe.source,
        circuit="master.dss",
        source_bus=source["source_bus"],
        head_element=recipe.head_element,
        peak_kw=round(totals["head_kw"], 3),
    )
    yield "\n# ANSI C84.1 Range A; bases are line to line"
    for limit in recipe.limits:
        yield from limit_table(limit)
    yield from _bound(tables, recipe)
    head: dict[str, Value] = {
        "bus": _head_bus(tables, recipe.head_element),
        "element": recipe.head_element,
        "terminal": 1,
    }
    yield from meter_table("head", "head-meter", head)
    for number, bus in enumerate(recipe.sensor_buses, 1):
        yield from meter_table(f"vs{number}", "voltage-sensor", {"bus": bus})
    yield from meter_table("system", "system-meter", head)
    for site in made:
        yield from _site(site)


def _bound(tables: Path, recipe: Recipe) -> Iterator[str]:
    """Switches, regulators and capacitors of the tables."""
    ties = {tie.switch for tie in recipe.ties}
    for row in switch_rows(tables):
        normal = "open" if row["name"] in ties else "closed"
        element = f"Line.{row['name']}"
        yield from table("switch", id=row["name"], element=element, normal=normal, age_max_s=SWITCH_AGE_MAX_S)
    for name, kind in (("regulator", "RegControl"), ("capacitor", "Capacitor")):
        for row in rows(tables, f"{name}s"):
            element = f"{kind}.{row['name']}"
            yield from table(name, id=row["name"], element=element, age_max_s=CONTROL_AGE_MAX_S)


def _head_bus(tables: Path, element: str) -> str:
    """Bus of an element's first terminal."""
    kind, _, name = element.partition(".")
    row = next(row for row in rows(tables, f"{kind.lower()}s") if row["name"] == name)
    bus: str = row["bus1"] if kind == "Line" else json.loads(row["windings"])[0]["bus"]
    return bus.partition(".")[0]


def _site(site: Site) -> Iterator[str]:
    yield from table(
        "site", id=site.bus, bus=site.bus, transformer=f"Transformer.svc_{site.der}", s_rated_kva=site.service.kva
    )
    energy = {"energy_kwh": site.energy_kwh} if site.energy_kwh else {}
    yield from table(
        "der",
        id=site.der,
        site=site.bus,
        element=f"Generator.{site.der}",
        kind=site.kind,
        p_rated_kw=site.p_kw,
        s_rated_kva=site.s_kva,
        **energy,
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m feeders.generate", description=__doc__)
    parser.add_argument("feeder", choices=sorted(RECIPES), help="folder under feeders/")
    feeder = parser.parse_args().feeder
    write(feeder, PACKAGES / feeder)


if __name__ == "__main__":
    main()

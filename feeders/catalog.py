"""Feeder packages by id or by folder, every name in the manifest checked against the circuit's text.

OpenDSS is not asked: it accepts names that do not exist without a word.
"""

from collections.abc import Iterator
from pathlib import Path

from derms.domain.grid import DerBinding, FeederPackage, MeterBinding, SiteBinding, VoltageLimits
from derms.errors import ConfigError
from feeders import circuit, manifest
from feeders.circuit import CircuitText
from feeders.manifest import Manifest, Table

PACKAGES = Path(__file__).parent
MANIFEST = "manifest.toml"


def load(feeder: str) -> FeederPackage:
    """Load a packaged feeder by its id, or any folder by its path.

    Raises
    ------
    ConfigError
        With every problem found, in the manifest and between manifest and circuit.
    """
    packaged = PACKAGES / feeder
    folder = packaged if (packaged / MANIFEST).is_file() else Path(feeder)
    found = manifest.read(folder / MANIFEST)
    text = _circuit_text(found, folder)
    if text is not None:
        _check_feeder(found, text)
        _check_sites(found, text)
        _check_ders(found, text)
        _check_meters(found, text)
    if text is None or found.problems:
        raise ConfigError(found.problems)
    return _package(found, folder, text)


def _circuit_text(found: Manifest, folder: Path) -> CircuitText | None:
    if "circuit" not in found.head:
        return None
    try:
        return circuit.read(folder / found.head["circuit"])
    except ConfigError as error:
        found.problems.extend(error.problems)
        return None


def _check_feeder(found: Manifest, text: CircuitText) -> None:
    _check_bus(found, text, "file, source_bus", found.head.get("source_bus"))
    _check_element(found, text, "file, head_element", found.head.get("head_element"), "line", "transformer")
    if not found.of("limit"):
        found.report("[[limit]]", "none given", "give at least one range of voltages")
    for where, limit in found.of("limit").items():
        if limit.get("v_min_pu", 0.0) >= limit.get("v_max_pu", 2.0):
            found.report(where, "v_min_pu is not below v_max_pu", "give the lower voltage first")


def _check_sites(found: Manifest, text: CircuitText) -> None:
    for where, site in found.of("site").items():
        _check_bus(found, text, f"{where}, bus", site.get("bus"))
        _check_element(found, text, f"{where}, transformer", site.get("transformer"), "transformer")


def _check_ders(found: Manifest, text: CircuitText) -> None:
    sites = {site["id"]: site for site in found.of("site").values() if "id" in site}
    used: dict[str, str] = {}
    for where, der in found.of("der").items():
        site = sites.get(der.get("site", ""), {})
        if "site" in der and not site:
            found.report(f"{where}, site", f"no site {der['site']!r}", "name the id of a [[site]]")
        element = str(der.get("element", "")).lower()
        _check_element(found, text, f"{where}, element", der.get("element"), "generator")
        if element and used.setdefault(element, where) != where:
            found.report(f"{where}, element", f"taken by {used[element]}", "bind each element once")
        at = text.elements.get(element, ())
        if at and "bus" in site and site["bus"].lower() not in at:
            found.report(f"{where}, element", f"connects at {at[0]}, its site at {site['bus']}", "name one place")
        for wrong, right in _rating_problems(der, site):
            found.report(where, wrong, right)


def _rating_problems(der: Table, site: Table) -> Iterator[tuple[str, str]]:
    s_kva = der.get("s_rated_kva", float("inf"))
    if der.get("p_rated_kw", 0.0) > s_kva:
        yield "p_rated_kw is above s_rated_kva", "check which is which"
    if s_kva < float("inf") and s_kva > site.get("s_rated_kva", float("inf")):
        yield f"{s_kva} kVA behind a transformer of {site['s_rated_kva']} kVA", "check the ratings, in kVA"
    if (der.get("kind") == "battery") != (der.get("energy_kwh", 0.0) > 0) and "kind" in der:
        yield "energy_kwh does not go with its kind", "give a battery its usable energy, and PV none"


def _check_meters(found: Manifest, text: CircuitText) -> None:
    for where, meter in found.of("meter").items():
        _check_bus(found, text, f"{where}, bus", meter.get("bus"))
        element = str(meter.get("element", ""))
        if meter.get("kind") != "voltage-sensor" and not element:
            found.report(f"{where}, element", "missing", "name the element whose power it measures")
        elif element:
            _check_element(found, text, f"{where}, element", element)
        at = text.elements.get(element.lower(), ())
        terminal = meter.get("terminal", 1)
        if at and "bus" in meter and at[terminal - 1 : terminal] != (meter["bus"].lower(),):
            found.report(
                f"{where}, bus", f"terminal {terminal} of {element} is elsewhere", f"name one of {', '.join(at)}"
            )


def _check_bus(found: Manifest, text: CircuitText, where: str, bus: str | None) -> None:
    if bus is not None and bus.lower() not in text.buses:
        found.report(where, f"no bus {bus!r} in the circuit", "name a bus that an element connects to")


def _check_element(found: Manifest, text: CircuitText, where: str, element: str | None, *kinds: str) -> None:
    if element is None:
        return
    if element.lower() not in text.elements:
        found.report(where, f"no element {element!r} in the circuit", "give class and name, as in Transformer.t1")
    elif kinds and element.lower().partition(".")[0] not in kinds:
        found.report(where, f"{element!r} is of the wrong class", f"name a {' or a '.join(kinds)}")


def _package(found: Manifest, folder: Path, text: CircuitText) -> FeederPackage:
    head = found.head
    return FeederPackage(
        id=head["id"],
        circuit=(folder / head["circuit"]).resolve(),
        source_bus=head["source_bus"].lower(),
        head_element=head["head_element"],
        peak_w=_base_unit(head["peak_kw"]),
        sites=tuple(map(_site, found.of("site").values())),
        ders=tuple(map(_der, found.of("der").values())),
        meters=tuple(map(_meter, found.of("meter").values())),
        limits=tuple(VoltageLimits(**limit) for limit in found.of("limit").values()),
        buses=text.buses,
        elements=frozenset(text.elements),
    )


def _site(table: Table) -> SiteBinding:
    return SiteBinding(table["id"], table["bus"].lower(), table["transformer"], _base_unit(table["s_rated_kva"]))


def _der(table: Table) -> DerBinding:
    return DerBinding(
        id=table["id"],
        site=table["site"],
        element=table["element"],
        kind=table["kind"],
        p_rated_w=_base_unit(table["p_rated_kw"]),
        s_rated_va=_base_unit(table["s_rated_kva"]),
        energy_wh=_base_unit(table["energy_kwh"]),
    )


def _meter(table: Table) -> MeterBinding:
    return MeterBinding(**{**table, "bus": table["bus"].lower()})


def _base_unit(kilo: float) -> float:
    return round(kilo * 1e3, 3)  # 64.35 kW is 64350 W and nothing beside it

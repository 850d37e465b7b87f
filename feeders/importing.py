"""The skeleton of a manifest for a bare OpenDSS circuit, from its text: what can be guessed is, the rest is marked.

Whatever stands as `""` must be filled in before the catalog takes the manifest; comments say where to look.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from math import inf, sqrt
from pathlib import Path

from derms.domain.grid import Between, VoltageLimits
from derms.errors import ConfigError, Problem
from feeders.circuit import WINDING_KINDS, CircuitText, Element, read
from feeders.manifest import SCHEMA
from feeders.recipes import LOW_BASE_MAX_V
from feeders.tracing import Trace, is_across, trace
from feeders.writing import CONTROL_AGE_MAX_S, SWITCH_AGE_MAX_S, Blank, Value, limit_table, meter_table, pairs, table

BASE_MARGIN = 1.1
"""How far a voltage class reaches above the highest base in it."""
LOAD_KW_DEFAULT = 10.0
BLANK = Blank()

DER_KINDS = {"generator": "pv", "pvsystem": "pv", "storage": "battery"}
RATINGS: dict[str, tuple[tuple[str, float], float]] = {
    "generator": (("kw", 1000.0), 1.2),
    "pvsystem": (("pmpp", 500.0), 1.0),
    "storage": (("kwrated", 25.0), 1.0),
}
"""By class: the property that gives active power [kW] with OpenDSS's default, and apparent over active power."""
STORED_KWH_DEFAULT = 50.0


def skeleton(circuit: Path) -> str:
    """The text of a manifest for a circuit's master file, to be put beside it as `manifest.toml`.

    Raises
    ------
    ConfigError
        The circuit cannot be read, or makes no circuit. What else is wrong with it is left for the check to tell.
    """
    text = read(circuit)
    if not text.complete:
        raise ConfigError(text.problems)
    if "vsource.source" not in text.elements:
        raise ConfigError(
            [Problem(circuit.name, "circuit", "no circuit is made", "begin with New Circuit.name bus1=...")]
        )
    return "\n".join(_lines(circuit, text, trace(text, {}))) + "\n"


def _lines(circuit: Path, text: CircuitText, traced: Trace) -> Iterator[str]:
    source_bus = text.elements["vsource.source"].terminals[0].bus
    head = _head(text, source_bus)
    peak_kw = round(sum(_load_kw(load) for load in text.of("load") if load.enabled), 3)
    yield f'# Made from {circuit.name}; look through it, and fill in what stands as "".'
    yield from pairs(schema=SCHEMA, id=circuit.resolve().parent.name)
    yield "# Where the model comes from, and as of when"
    yield from pairs(source=f"imported from {circuit.name}", circuit=circuit.name, source_bus=source_bus)
    yield "# The line or transformer through which everything is fed, its terminal 1 towards the source"
    yield from pairs(head_element=_shown(head) if head else BLANK)
    yield "# The sum of the loads as they stand in the circuit"
    yield from pairs(peak_kw=peak_kw if peak_kw > 0 else BLANK)
    yield "\n# ANSI C84.1 Range A by base voltage, line to line; three-wire parts are measured between phases"
    for limit in _limits(text, traced):
        yield from limit_table(limit)
    yield from _bound(text)
    if head:
        yield "\n# Meters and voltage sensors; one standard deviation per unit of the value"
        place: dict[str, Value] = {"bus": head.terminals[0].bus, "element": _shown(head), "terminal": 1}
        for meter, kind in (("head", "head-meter"), ("system", "system-meter")):
            yield from meter_table(meter, kind, place)
    yield from _sites(text, traced)


def _head(text: CircuitText, source_bus: str) -> Element | None:
    """The first line or transformer at the source."""
    at_source = (e for e in text.of("line", "transformer") if e.closed and len(e.terminals) > 1)
    return next((e for e in at_source if e.terminals[0].bus == source_bus), None)


def _load_kw(load: Element) -> float:
    kva, pf = load.number("kva"), load.number("pf", 0.88)
    if "kw" not in load.given and kva and pf:
        return kva * abs(pf)
    return load.number("kw", LOAD_KW_DEFAULT) or 0.0


def _limits(text: CircuitText, traced: Trace) -> list[VoltageLimits]:
    """A class for each group of neighbouring base voltages that are measured alike."""
    floating = _floating(text, traced)
    floats: dict[float, bool] = {}
    for bus, kv in traced.base_kv.items():
        base_v = round(kv * sqrt(3) * 1e3, 1)
        floats[base_v] = floats.get(base_v, False) or bus in floating
    bases = sorted(floats)
    classes: list[VoltageLimits] = []
    for base_v, above_v in pairwise([*bases, inf]):
        between = Between.PHASES if floats[base_v] else Between.NEUTRAL
        top_v = round(min(base_v * BASE_MARGIN, (base_v + above_v) / 2), 1)
        made = VoltageLimits(top_v, 0.95 if base_v <= LOW_BASE_MAX_V else 0.975, 1.05, between)
        alike = classes and (classes[-1].v_min_pu, classes[-1].between) == (made.v_min_pu, made.between)
        classes[len(classes) - bool(alike) :] = [made]
    last = classes.pop() if classes else VoltageLimits(inf, 0.95, 1.05)
    return [*classes, VoltageLimits(inf, last.v_min_pu, last.v_max_pu, last.between)]


def _floating(text: CircuitText, traced: Trace) -> set[str]:
    """Buses without a neutral: behind a winding in delta, or between two phases of such a bus."""
    floating: set[str] = set()
    for bus in traced.fed:
        if bus not in traced.up:
            continue
        above = traced.up[bus]
        wound = [element for element in traced.between(above, bus) if element.kind in WINDING_KINDS]
        if not wound:
            floats = above in floating
        else:
            ends = [(element, end) for element in wound for end in element.terminals if end.bus == bus]
            floats = all(
                end.delta if element.phases > 1 else is_across(end) and above in floating for element, end in ends
            )
        if floats:
            floating.add(bus)
    return floating


def _bound(text: CircuitText) -> Iterator[str]:
    """Switches, regulators and capacitors."""
    lines = [line for line in text.of("line") if line.given.get("switch", "no").lower()[:1] in ("y", "t")]
    for line in lines:
        if not line.enabled:
            yield f"\n# {_shown(line)} is a switch, but disabled in the circuit: enable it, and open it instead"
            continue
        normal = "open" if line.open_conductors else "closed"
        yield from table("switch", id=line.name, element=_shown(line), normal=normal, age_max_s=SWITCH_AGE_MAX_S)
    shunts = [capacitor for capacitor in text.of("capacitor") if capacitor.enabled and len(capacitor.terminals) == 1]
    for name, elements in (("regulator", [*text.of("regcontrol")]), ("capacitor", shunts)):
        for element in elements:
            yield from table(name, id=element.name, element=_shown(element), age_max_s=CONTROL_AGE_MAX_S)


def _sites(text: CircuitText, traced: Trace) -> Iterator[str]:
    """A site for every bus with DER, and its DER."""
    by_bus: dict[str, list[Element]] = {}
    for element in text.of(*DER_KINDS):
        if element.enabled and element.terminals:
            by_bus.setdefault(element.terminals[0].bus, []).append(element)
    ids = _unique(element for elements in by_bus.values() for element in elements)
    if by_bus:
        yield "\n# Sites: the transformer that serves each, and its rating; then its DER"
    for bus, elements in by_bus.items():
        serving = next((element for element in traced.upstream(bus) if element.kind == "transformer"), None)
        yield from table(
            "site",
            id=bus,
            bus=bus,
            transformer=_shown(serving) if serving else BLANK,
            s_rated_kva=(serving and serving.number("kva#1")) or BLANK,
        )
        for element in elements:
            yield from _der(element, ids[element.full], bus)


def _der(element: Element, name: str, site: str) -> Iterator[str]:
    (power, default_kw), ratio = RATINGS[element.kind]
    p_kw = element.number(power, default_kw) or 0.0
    s_kva = element.number("kva") or p_kw * ratio
    p_kw = min(p_kw, s_kva) or s_kva  # panels larger than their inverter; a generator that stands at 0
    kind = DER_KINDS[element.kind]
    unknown = element.kind == "generator"
    energy: dict[str, Value] = (
        {"energy_kwh": element.number("kwhrated", STORED_KWH_DEFAULT) or BLANK} if kind == "battery" else {}
    )
    yield from table(
        "der",
        "a generator may be pv, ev-charger or load, or a battery with its energy_kwh" if unknown else "",
        id=name,
        site=site,
        element=_shown(element),
        kind=kind,
        p_rated_kw=round(p_kw, 3) or BLANK,
        s_rated_kva=round(s_kva, 3) or BLANK,
        **energy,
    )


def _unique(elements: Iterable[Element]) -> dict[str, str]:
    """Ids by full name: the bare name, or class and name where two classes share one."""
    found = list(elements)
    names = [element.name for element in found]
    return {e.full: e.name if names.count(e.name) == 1 else e.full.replace(".", "_") for e in found}


_CLASSES = {
    "line": "Line",
    "transformer": "Transformer",
    "regcontrol": "RegControl",
    "capacitor": "Capacitor",
    "generator": "Generator",
    "pvsystem": "PVSystem",
    "storage": "Storage",
}


def _shown(element: Element) -> str:
    """Full name with the class as OpenDSS writes it."""
    return f"{_CLASSES[element.kind]}.{element.name}"

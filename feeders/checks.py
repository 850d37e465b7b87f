"""Checks between a manifest and its circuit: every name is an element of the right class, at the right place."""

from collections.abc import Iterator
from math import inf, sqrt

from feeders.circuit import CircuitText, Element
from feeders.manifest import Manifest, Table
from feeders.soundness import shown
from feeders.tracing import Trace

HEADS = ("line", "transformer")
DER_ELEMENTS = ("generator", "pvsystem", "storage")
BOUND = {
    "der": ("element", DER_ELEMENTS),
    "switch": ("element", ("line",)),
    "regulator": ("element", ("regcontrol",)),
    "capacitor": ("element", ("capacitor",)),
    "invisible_pv": ("load", ("load",)),
}
"""Tables that bind an element, each once: the field that names it, and the classes it may be of."""


def normal_states(found: Manifest) -> dict[str, bool]:
    """Which switches are normally closed, by full name in lower case."""
    told = (switch for switch in found.of("switch").values() if {"element", "normal"} <= switch.keys())
    states = {switch["element"].lower(): switch["normal"] == "closed" for switch in told}
    return {name: closed for name, closed in states.items() if name.startswith("line.")}


def check(found: Manifest, text: CircuitText, traced: Trace) -> None:
    """Report everything in a manifest that does not fit its circuit."""
    _check_feeder(found, text, traced)
    _check_limits(found, traced)
    for table, (name, kinds) in BOUND.items():
        _check_bound(found, text, table, name, kinds)
    _check_sites(found, text, traced)
    _check_ders(found, text)
    _check_meters(found, text, traced)
    _check_switches(found, text)


def _check_feeder(found: Manifest, text: CircuitText, traced: Trace) -> None:
    _check_bus(found, text, "file, source_bus", found.head.get("source_bus"))
    head = _element(found, text, "file, head_element", found.head.get("head_element"), *HEADS)
    if head is None or len(head.terminals) < 2 or traced.loops:  # around a loop there is no one way
        return
    near, far = (terminal.bus for terminal in head.terminals[:2])
    if traced.up.get(near) == far:
        right = "name an element whose terminal 1 points to the source"
        found.report("file, head_element", f"{head.full} is fed through terminal 2", right)
    loads = [load for load in text.of("load") if load.terminals and load.terminals[0].bus in traced.fed]
    past = tuple(load.full for load in loads if load.enabled and head not in traced.upstream(load.terminals[0].bus))
    if past:
        are = f"{len(past)} load{'s' * (len(past) > 1)} not fed through it: {shown(past)}"
        found.report("file, head_element", are, "name the element through which everything is fed")


def _check_limits(found: Manifest, traced: Trace) -> None:
    limits = found.of("limit")
    if not limits:
        found.report("[[limit]]", "none given", "give at least one range of voltages")
    for where, limit in limits.items():
        if limit.get("v_min_pu", 0.0) >= limit.get("v_max_pu", 2.0):
            found.report(where, "v_min_pu is not below v_max_pu", "give the lower voltage first")
    top_v = max((limit.get("v_base_max_v", inf) for limit in limits.values()), default=inf)
    above = {bus: kv * 1e3 * sqrt(3) for bus, kv in traced.base_kv.items() if kv * 1e3 * sqrt(3) > top_v}
    if above:
        highest = max(above, key=above.__getitem__)
        found.report(
            "[[limit]]", f"none for bus {highest} of {above[highest]:.0f} V", "add one with v_base_max_v = inf"
        )


def _check_bound(found: Manifest, text: CircuitText, table: str, name: str, kinds: tuple[str, ...]) -> None:
    used: dict[str, str] = {}
    for where, row in found.of(table).items():
        place = f"{where}, {name}"
        element = _element(found, text, place, row.get(name), *kinds)
        full = str(row.get(name, "")).lower()
        if full and used.setdefault(full, where) != where:
            found.report(place, f"taken by {used[full]}", "bind each element once")
        if element is not None and not element.enabled:
            found.report(place, f"{element.full} is disabled in the circuit", "enable it, or leave it out")


def _check_sites(found: Manifest, text: CircuitText, traced: Trace) -> None:
    for where, site in found.of("site").items():
        _check_bus(found, text, f"{where}, bus", site.get("bus"))
        transformer = _element(found, text, f"{where}, transformer", site.get("transformer"), "transformer")
        bus = str(site.get("bus", "")).lower()
        way_known = bus in traced.fed and not traced.loops
        if transformer is not None and way_known and transformer not in traced.upstream(bus):
            right = "name the transformer that serves the site"
            found.report(f"{where}, transformer", f"{transformer.full} does not feed bus {bus}", right)


def _check_ders(found: Manifest, text: CircuitText) -> None:
    sites = {site["id"]: site for site in found.of("site").values() if "id" in site}
    for where, der in found.of("der").items():
        site = sites.get(der.get("site", ""), {})
        if "site" in der and not site:
            found.report(f"{where}, site", f"no site {der['site']!r}", "name the id of a [[site]]")
        element = text.elements.get(str(der.get("element", "")).lower())
        bus = element.terminals[0].bus if element is not None and element.terminals else ""
        if bus and "bus" in site and site["bus"].lower() != bus:
            found.report(f"{where}, element", f"connects at {bus}, its site at {site['bus']}", "name one place")
        for wrong, right in _rating_problems(der, site):
            found.report(where, wrong, right)


def _rating_problems(der: Table, site: Table) -> Iterator[tuple[str, str]]:
    s_kva = der.get("s_rated_kva", inf)
    if der.get("p_rated_kw", 0.0) > s_kva:
        yield "p_rated_kw is above s_rated_kva", "check which is which"
    if s_kva < inf and s_kva > site.get("s_rated_kva", inf):
        yield f"{s_kva} kVA behind a transformer of {site['s_rated_kva']} kVA", "check the ratings, in kVA"
    if (der.get("kind") == "battery") != (der.get("energy_kwh", 0.0) > 0) and "kind" in der:
        yield "energy_kwh does not go with its kind", "give a battery its usable energy, and PV none"


def _check_meters(found: Manifest, text: CircuitText, traced: Trace) -> None:
    for where, meter in found.of("meter").items():
        _check_bus(found, text, f"{where}, bus", meter.get("bus"))
        name = str(meter.get("element", ""))
        if meter.get("kind") != "voltage-sensor" and not name:
            found.report(f"{where}, element", "missing", "name the element whose power it measures")
        element = _element(found, text, f"{where}, element", name or None)
        at = tuple(terminal.bus for terminal in element.terminals) if element is not None else ()
        terminal, bus = meter.get("terminal", 1), str(meter.get("bus", "")).lower()
        if at and bus and at[terminal - 1 : terminal] != (bus,):
            found.report(f"{where}, bus", f"terminal {terminal} of {name} is elsewhere", f"name one of {', '.join(at)}")
        missing = sorted(set(meter.get("phases", ())) - traced.fed.get(bus, {1, 2, 3}))
        if missing:
            wrong = f"bus {bus} has no phase {', '.join(map(str, missing))}"
            found.report(f"{where}, phases", wrong, "name phases that the bus has")


def _check_switches(found: Manifest, text: CircuitText) -> None:
    for where, switch in found.of("switch").items():
        element = text.elements.get(str(switch.get("element", "")).lower())
        if element is None or element.kind != "line" or not element.enabled or "normal" not in switch:
            continue
        normal, is_now = switch["normal"], "closed" if not element.open_conductors else "open"
        if normal != is_now:
            right = f'give normal = "{is_now}", or {"Open" if is_now == "closed" else "Close"} it in the circuit'
            found.report(f"{where}, normal", f"{element.full} is {is_now} in the circuit, not {normal}", right)


def _check_bus(found: Manifest, text: CircuitText, where: str, bus: str | None) -> None:
    if bus is not None and bus.lower() not in text.buses:
        found.report(where, f"no bus {bus!r} in the circuit", "name a bus that an element connects to")


def _element(found: Manifest, text: CircuitText, where: str, name: str | None, *kinds: str) -> Element | None:
    """An element by its name, when it is there and of one of the classes; else the reason is reported."""
    element = text.elements.get((name or "").lower())
    if name is not None and element is None:
        found.report(where, f"no element {name!r} in the circuit", "give class and name, as in Transformer.t1")
    elif element is not None and kinds and element.kind not in kinds:
        found.report(where, f"{name!r} is of the wrong class", f"name a {' or a '.join(kinds)}")
        return None
    return element

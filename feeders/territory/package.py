"""A made-up feeder as a package: circuit, manifest, and a list of its devices."""

from collections.abc import Iterator
from math import acos, tan
from pathlib import Path

from feeders.manifest import SCHEMA
from feeders.recipes import FOUR_WIRE, THREE_WIRE
from feeders.siting import DROP_M, SECONDARY_KV
from feeders.territory.conductors import line_codes
from feeders.territory.feeder import Bus, Feeder
from feeders.territory.people import Service
from feeders.writing import SWITCH_AGE_MAX_S, limit_table, meter_table, pairs, table

DELTA_KV, WYE_KV = 4.8, 4.16
PHASE_KV = {True: 4.8, False: 2.4}
"""What a service transformer connects to, by delta or not."""
CONSTANT_CURRENT, CONSTANT_POWER = 5, 1
SOURCE_PU = 1.02
"""Where nobody couples it to a station."""
HEAD = "Line.l_n001"


def write(feeder: Feeder, folder: Path, power_factor: float) -> None:
    """Write the package into a folder that is there."""
    _write(folder / "master.dss", circuit(feeder, power_factor))
    _write(folder / "coordinates.csv", (f"{bus.name},{bus.x_m},{bus.y_m}" for bus in feeder.buses))
    _write(folder / "manifest.toml", _manifest(feeder))
    _write(folder / "devices.csv", _devices(feeder))


def _write(path: Path, lines: Iterator[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def circuit(feeder: Feeder, power_factor: float) -> Iterator[str]:
    """The circuit as lines of OpenDSS. Its source is the station's bus, and nearly stiff: the station is elsewhere."""
    base_kv = DELTA_KV if feeder.delta else WYE_KV
    yield f"! {feeder.id}: made up, written by feeders.territory; do not edit."
    yield "Clear"
    yield (
        f"New Circuit.{feeder.id} bus1=head phases=3 basekv={base_kv} pu={SOURCE_PU} angle=0 basefreq=60"
        f" R1=0.0001 X1=0.001 R0=0.0001 X0=0.001"
    )
    yield from line_codes(feeder.delta)
    for bus in feeder.buses:
        phases = "." + ".".join(map(str, bus.phases))
        yield (
            f"New Line.l_{bus.name} bus1={bus.up}{phases} bus2={bus.name}{phases} phases={len(bus.phases)}"
            f" linecode={bus.conductor}_{len(bus.phases)} length={bus.length_m / 1000:.4f} units=km"
        )
    for bus, phases_of, service in feeder.services:
        yield from _service(feeder.delta, bus, phases_of, service, power_factor)
    yield "! Voltage bases, given: finding the nearest one would depend on the voltages"
    yield "MakeBusList"
    for name in ("head", *(bus.name for bus in feeder.buses)):
        yield f"SetkVBase bus={name} kvll={base_kv}"
    for _, _, service in feeder.services:
        yield f"SetkVBase bus=low_{service.id} kvln={SECONDARY_KV}"
        if service.ders:
            yield f"SetkVBase bus=site_{service.id} kvln={SECONDARY_KV}"
    yield "BusCoords coordinates.csv"


def _service(delta: bool, bus: Bus, phases: tuple[int, ...], service: Service, power_factor: float) -> Iterator[str]:
    size, name, node = service.size, service.id, phases[0]
    primary = ".".join((bus.name, *map(str, phases)))
    connection = " conn=delta" if delta else ""
    yield f"New Transformer.svc_{name} phases=1 windings=2 xhl={size.x_pct}"
    yield f"~ wdg=1 bus={primary}{connection} kv={PHASE_KV[delta]} kva={size.kva} %r={size.r_pct / 2:g}"
    yield f"~ wdg=2 bus=low_{name}.{node} kv={SECONDARY_KV} kva={size.kva} %r={size.r_pct / 2:g}"
    model = CONSTANT_POWER if service.business else CONSTANT_CURRENT
    yield (
        f"New Load.{name} bus1=low_{name}.{node} phases=1 kv={SECONDARY_KV} model={model} vminpu=0.6 vmaxpu=1.4"
        f" kw={service.load_kw} kvar={service.load_kw * tan(acos(power_factor)):.2f}"
    )
    if not service.ders:
        return
    r, x = size.drop_r_ohm_per_km, size.drop_x_ohm_per_km
    yield (
        f"New Line.drop_{name} bus1=low_{name}.{node} bus2=site_{name}.{node} phases=1 length={DROP_M / 1000:g}"
        f" units=km r1={r} x1={x} r0={r} x0={x} c1=0 c0=0"
    )
    for der in service.ders:
        yield (
            f"New Generator.{der.id} bus1=site_{name}.{node} phases=1 kv={SECONDARY_KV} kva={der.s_kva:g} model=1"
            f" vminpu=0.6 vmaxpu=1.4 kw=0 kvar=0"
        )


def _manifest(feeder: Feeder) -> Iterator[str]:
    kind = "4.8 kV three-wire delta" if feeder.delta else "4.16 kV four-wire wye"
    yield f"# {feeder.id}: what the control room binds to the circuit; written by feeders.territory, do not edit."
    yield from pairs(
        schema=SCHEMA,
        id=feeder.id,
        source=f"made up by feeders.territory ({kind}); nothing of it is real",
        circuit="master.dss",
        source_bus="head",
        head_element=HEAD,
        peak_kw=feeder.peak_kw,
    )
    for limit in THREE_WIRE if feeder.delta else FOUR_WIRE:
        yield from limit_table(limit)
    trunk = [bus for bus in feeder.buses if len(bus.phases) == 3]
    switch = f"l_{trunk[len(trunk) // 2].name}"
    yield from table("switch", id=switch, element=f"Line.{switch}", normal="closed", age_max_s=SWITCH_AGE_MAX_S)
    yield from meter_table("head", "head-meter", {"bus": "head", "element": HEAD, "terminal": 1})
    for number, bus in enumerate((trunk[len(trunk) // 2], trunk[-1], feeder.buses[-1]), 1):
        yield from meter_table(f"vs{number}", "voltage-sensor", {"bus": bus.name})
    for _, _, service in feeder.services:
        if not service.ders:
            continue
        site = f"site_{service.id}"
        transformer = f"Transformer.svc_{service.id}"
        yield from table("site", id=site, bus=site, transformer=transformer, s_rated_kva=service.size.kva)
        for der in service.ders:
            energy = {"energy_kwh": der.energy_kwh} if der.energy_kwh else {}
            rated = {"p_rated_kw": der.p_kw, "s_rated_kva": der.s_kva, **energy}
            yield from table("der", id=der.id, site=site, element=f"Generator.{der.id}", kind=der.kind, **rated)


def _devices(feeder: Feeder) -> Iterator[str]:
    yield "der,kind,vendor,profile,service,customers"
    for _, _, service in feeder.services:
        for der in service.ders:
            device = der.device
            yield f"{der.id},{der.kind},{device.vendor},{device.profile},{service.id},{service.customers}"

"""Where a feeder's DER stand: sites of 240 V behind their own service transformers and drops, as OpenDSS text.

Every site is single-phase. Ratings in kW, kVA and kWh, as in the circuit and the manifest.
Sources: IEEE C57.12.20 ratings and typical impedances of pole-mounted transformers; service cable of aluminium at 75 C
(NEC chapter 9, table 8), go and return.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PRIMARY_KV = 2.402
SECONDARY_KV = 0.24
DROP_M = 20.0
OVERSIZE = 1.1
"""Apparent over active power of an inverter: room for reactive power at full output."""
BATTERY_HOURS = 4.0

PV_KW = (30.0, 67.6, 45.0, 68.0, 60.5)
"""Nameplates that recur along the feeder; eight rounds are 60 % of the IEEE 123 feeder's peak."""
BATTERY_KW = (25.0, 45.4, 32.0, 42.0, 36.4)
"""Four rounds are 20 % of the same peak."""


@dataclass(frozen=True, slots=True)
class ServiceClass:
    """A size of service transformer with the drop that belongs to it."""

    kva: float
    r_pct: float
    """Of both windings together."""
    x_pct: float
    drop_r_ohm_per_km: float
    drop_x_ohm_per_km: float


SERVICE_CLASSES = (
    ServiceClass(25.0, 1.4, 1.8, 0.67, 0.19),
    ServiceClass(37.5, 1.3, 1.9, 0.67, 0.19),
    ServiceClass(50.0, 1.1, 2.0, 0.41, 0.18),
    ServiceClass(75.0, 1.0, 2.1, 0.28, 0.17),
)


@dataclass(frozen=True, slots=True)
class Site:
    """One DER behind its own service transformer."""

    der: str
    kind: str
    primary: str
    """Bus of the feeder, without phase."""
    phase: int
    p_kw: float

    @property
    def bus(self) -> str:
        return f"site_{self.der}"

    @property
    def s_kva(self) -> float:
        return round(self.p_kw * OVERSIZE, 3)

    @property
    def energy_kwh(self) -> float:
        return round(self.p_kw * BATTERY_HOURS, 3) if self.kind == "battery" else 0.0

    @property
    def service(self) -> ServiceClass:
        """The smallest service that carries the inverter."""
        return next(service for service in SERVICE_CLASSES if service.kva >= self.s_kva)


def sites(load_buses: Sequence[str], turns: int) -> list[Site]:
    """Spread DER evenly over the buses of a feeder's loads: in each turn one site per phase, two PV and one battery.

    Parameters
    ----------
    load_buses
        Buses of the loads with their phases (`65.1.2`; `47` has all three), from the source outwards.
    turns
        Each takes the next bus, `1/turns` further along every phase.
    """
    by_phase = [_buses_of_phase(load_buses, phase) for phase in (1, 2, 3)]
    made: list[Site] = []
    counts = {"pv": 0, "battery": 0}
    for turn in range(turns):
        for phase, buses in enumerate(by_phase, 1):
            kind = "battery" if (turn + phase) % 3 == 0 else "pv"
            made.append(_site(kind, counts[kind], buses[turn * len(buses) // turns], phase))
            counts[kind] += 1
    return sorted(made, key=lambda site: site.kind != "pv")


def _buses_of_phase(load_buses: Sequence[str], phase: int) -> list[str]:
    split = (bus.split(".") for bus in load_buses)
    return list(dict.fromkeys(name for name, *phases in split if not phases or str(phase) in phases))


def _site(kind: str, order: int, primary: str, phase: int) -> Site:
    prefix, ratings_kw = ("pv", PV_KW) if kind == "pv" else ("bat", BATTERY_KW)
    return Site(f"{prefix}{order + 1:02d}", kind, primary, phase, ratings_kw[order % len(ratings_kw)])


def service_circuit(made: Sequence[Site]) -> Iterator[str]:
    """Transformers, drops, DER and voltage bases of the sites, as lines of OpenDSS."""
    for site in made:
        service, low, pcc = site.service, f"low_{site.der}.{site.phase}", f"{site.bus}.{site.phase}"
        yield f"New Transformer.svc_{site.der} phases=1 windings=2 xhl={service.x_pct}"
        yield f"~ wdg=1 bus={site.primary}.{site.phase} kv={PRIMARY_KV} kva={service.kva} %r={service.r_pct / 2:g}"
        yield f"~ wdg=2 bus={low} kv={SECONDARY_KV} kva={service.kva} %r={service.r_pct / 2:g}"
        yield (
            f"New Line.drop_{site.der} bus1={low} bus2={pcc} phases=1 length={DROP_M / 1000:g} units=km"
            f" r1={service.drop_r_ohm_per_km} x1={service.drop_x_ohm_per_km}"
            f" r0={service.drop_r_ohm_per_km} x0={service.drop_x_ohm_per_km} c1=0 c0=0"
        )
        yield (
            f"New Generator.{site.der} bus1={pcc} phases=1 kv={SECONDARY_KV} kva={site.s_kva:g} model=1"
            f" vminpu=0.6 vmaxpu=1.4 kw=0 kvar=0"
        )
    yield ""
    yield "! Voltage bases, given: finding the nearest one would depend on the taps"
    yield "MakeBusList"
    for site in made:
        yield f"SetkVBase bus=low_{site.der} kvln={SECONDARY_KV}"
        yield f"SetkVBase bus={site.bus} kvln={SECONDARY_KV}"

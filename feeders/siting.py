"""Where a feeder's DER stand: sites of 240 V behind their own service transformers and drops, as OpenDSS text.

Every site is single-phase, behind a transformer on one phase to neutral or on two phases.
Ratings in kW, kVA and kWh, as in the circuit and the manifest.
Sources: IEEE C57.12.20 ratings and typical impedances of pole-mounted transformers; service cable of aluminium at 75 C
(NEC chapter 9, table 8), go and return.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from feeders.recipes import Recipe

SECONDARY_KV = 0.24
DROP_M = 20.0
OVERSIZE = 1.1
"""Apparent over active power of an inverter: room for reactive power at full output."""
BATTERY_HOURS = 4.0


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
    """Bus of the feeder, without phases."""
    phases: tuple[int, ...]
    """Of the primary: one to neutral, or two."""
    p_kw: float

    @property
    def bus(self) -> str:
        return f"site_{self.der}"

    @property
    def node(self) -> int:
        """Of the site: the first phase of its primary."""
        return self.phases[0]

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


def sites(load_buses: Sequence[str], recipe: Recipe) -> list[Site]:
    """Spread DER evenly over the buses of a feeder's loads: in each turn one site per phase, two PV and one battery.

    Parameters
    ----------
    load_buses
        Buses of the loads with their phases (`65.1.2`; `47` has all three), from the source outwards.
    recipe
        Each of its turns takes the next bus, `1/turns` further along every phase, or pair of phases.
    """
    turns = recipe.turns
    ratings_kw = {"pv": recipe.pv_kw, "bat": recipe.battery_kw}
    made: list[Site] = []
    counts = {"pv": 0, "bat": 0}
    for turn in range(turns):
        for number, phases in enumerate(recipe.primaries, 1):
            buses = _buses_with(load_buses, phases)
            prefix = "bat" if (turn + number) % 3 == 0 else "pv"
            order = counts[prefix]
            rating_kw = ratings_kw[prefix][order % len(ratings_kw[prefix])]
            kind = "battery" if prefix == "bat" else "pv"
            primary = buses[turn * len(buses) // turns]
            made.append(Site(f"{prefix}{order + 1:02d}", kind, primary, phases, rating_kw))
            counts[prefix] += 1
    return sorted(made, key=lambda site: site.kind != "pv")


def _buses_with(load_buses: Sequence[str], phases: tuple[int, ...]) -> list[str]:
    split = (bus.split(".") for bus in load_buses)
    wanted = set(map(str, phases))
    return list(dict.fromkeys(name for name, *given in split if not given or wanted <= set(given)))


def service_circuit(made: Sequence[Site], primary_kv: float) -> Iterator[str]:
    """Transformers, drops, DER and voltage bases of the sites, as lines of OpenDSS."""
    for site in made:
        service, low, pcc = site.service, f"low_{site.der}.{site.node}", f"{site.bus}.{site.node}"
        primary = ".".join(map(str, (site.primary, *site.phases)))
        connection = " conn=delta" if len(site.phases) > 1 else ""
        yield f"New Transformer.svc_{site.der} phases=1 windings=2 xhl={service.x_pct}"
        yield f"~ wdg=1 bus={primary}{connection} kv={primary_kv} kva={service.kva} %r={service.r_pct / 2:g}"
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

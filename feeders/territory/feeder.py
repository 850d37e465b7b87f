"""One made-up feeder as a value: a trunk, laterals that hang on it, and services along both."""

from dataclasses import dataclass, replace

import numpy as np

from feeders.recipes import BETWEEN_PHASES, TO_NEUTRAL
from feeders.territory.people import People, Service
from feeders.territory.spec import Spec

RECENT = 3
"""A trunk goes on from one of its last buses: that makes it long, as streets are."""
LATERAL_MAX = 8
"""Buses of a lateral at the most."""


@dataclass(frozen=True, slots=True)
class Bus:
    """A bus of the primary and the line that feeds it."""

    name: str
    up: str
    conductor: str
    phases: tuple[int, ...]
    length_m: float
    x_m: float
    y_m: float
    services: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Feeder:
    """A feeder, as it is written."""

    id: str
    station: str
    delta: bool
    buses: tuple[Bus, ...]

    @property
    def services(self) -> tuple[tuple[Bus, tuple[int, ...], Service], ...]:
        """Every service with its bus and the phases of it that its transformer connects to."""
        found = []
        for row, bus in enumerate(self.buses):
            ways = BETWEEN_PHASES if self.delta else TO_NEUTRAL
            for number, service in enumerate(bus.services):
                on_trunk = len(bus.phases) == 3
                found.append((bus, ways[(row + number) % 3] if on_trunk else bus.phases, service))
        return tuple(found)

    @property
    def peak_kw(self) -> float:
        return round(sum(service.load_kw for bus in self.buses for service in bus.services), 3)

    @property
    def der_count(self) -> int:
        return sum(len(service.ders) for bus in self.buses for service in bus.services)


def make(spec: Spec, number: int) -> Feeder:
    """The feeder of this number; the same one in however many feeders."""
    rng = np.random.default_rng(np.random.SeedSequence([spec.seed, number]))
    delta = bool(rng.random() < spec.delta_frac)
    people = People(spec, rng)
    count = int(rng.integers(int(spec.feeder["buses_min"]), int(spec.feeder["buses_max"]), endpoint=True))
    trunk = max(3, round(count * spec.feeder["trunk_frac"]))
    buses: list[Bus] = []
    services = 0
    depth: dict[str, int] = {}
    for row in range(count):
        name = f"n{row + 1:03d}"
        up, phases = _place(rng, buses, row, trunk, depth, delta)
        depth[name] = 0 if row < trunk else depth.get(up.name if up else "", 0) + 1
        length_m = float(rng.uniform(spec.feeder["span_m_min"], spec.feeder["span_m_max"]))
        here = int(rng.poisson(spec.feeder["services_per_bus"]))
        made = tuple(people.service(services + one + 1) for one in range(here))
        services += here
        x_m, y_m = _xy(rng, up, length_m, row < trunk)
        kind = _conductor(row, trunk)
        buses.append(Bus(name, up.name if up else "head", kind, phases, round(length_m, 1), x_m, y_m, made))
    station = f"s{number % spec.stations + 1:03d}"
    if not services:
        buses[-1] = replace(buses[-1], services=(people.service(1),))
    return Feeder(f"{spec.name}_{number + 1:04d}", station, delta, tuple(buses))


def _place(
    rng: np.random.Generator, buses: list[Bus], row: int, trunk: int, depth: dict[str, int], delta: bool
) -> tuple[Bus | None, tuple[int, ...]]:
    """What a bus hangs on, and its phases: a random recursive tree, along the trunk first."""
    if row == 0:
        return None, (1, 2, 3)
    if row < trunk:
        return buses[int(rng.integers(max(0, row - RECENT), row))], (1, 2, 3)
    fit = [bus for bus in buses if depth[bus.name] < LATERAL_MAX]
    up = fit[int(rng.integers(0, len(fit)))]
    ways = BETWEEN_PHASES if delta else TO_NEUTRAL
    return up, up.phases if len(up.phases) < 3 else ways[int(rng.integers(0, 3))]


def _conductor(row: int, trunk: int) -> str:
    """The nearer to the station, the thicker."""
    if row >= trunk:
        return "acsr2" if row % 3 else "acsr1_0"
    return "acsr556" if row < trunk / 2 else "acsr336" if row < trunk * 0.8 else "acsr4_0"


def _xy(rng: np.random.Generator, up: Bus | None, length_m: float, trunk: bool) -> tuple[float, float]:
    """Where it is drawn [m]: the trunk mostly eastwards, laterals north and south, as streets run."""
    along = rng.random() < (0.8 if trunk else 0.2)
    sign = 1.0 if trunk or rng.random() < 0.5 else -1.0
    x_m, y_m = (up.x_m, up.y_m) if up else (0.0, 0.0)
    moved = (x_m + length_m, y_m) if along else (x_m, y_m + sign * length_m)
    return round(moved[0], 1), round(moved[1], 1)

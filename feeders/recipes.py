"""What is ours in each packaged feeder: DER and their services, where it is measured, which ranges of voltage hold.

Ratings in kW and kV, as in circuits and manifests; base voltages of limits in V line to line.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from derms.domain.grid import Between, VoltageLimits

SITE_BASE_MAX_V = 450.0
"""A 240 V site is rated to neutral: between phases its base is 416 V."""
LOW_BASE_MAX_V = 600.0

FOUR_WIRE = (VoltageLimits(LOW_BASE_MAX_V, 0.95, 1.05), VoltageLimits(inf, 0.975, 1.05))
"""ANSI C84.1 Range A: at the service, and on the primary."""
THREE_WIRE = (
    VoltageLimits(SITE_BASE_MAX_V, 0.95, 1.05),
    VoltageLimits(LOW_BASE_MAX_V, 0.95, 1.05, Between.PHASES),
    VoltageLimits(inf, 0.975, 1.05, Between.PHASES),
)
"""The same; all but the sites between phases, for a delta's voltages to ground float."""

TO_NEUTRAL = ((1,), (2,), (3,))
BETWEEN_PHASES = ((1, 2), (2, 3), (3, 1))


@dataclass(frozen=True, slots=True)
class Tie:
    """A switch of the tables that is normally open: there it ends on a stub, here it can join what lies beyond."""

    switch: str
    stub: str
    """Bus on which it ends in the tables."""
    beyond: str
    """Bus that it would join."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a packaged feeder is made from its tables."""

    source: str
    """Where the tables come from, in words."""
    head_element: str
    sensor_buses: tuple[str, ...]
    turns: int
    """Of siting: each gives every phase one site, two of them with PV and one with a battery."""
    primary_kv: float
    """Of the service transformers."""
    primaries: tuple[tuple[int, ...], ...] = TO_NEUTRAL
    """Phases that a service transformer connects to: one to neutral, or two."""
    limits: tuple[VoltageLimits, ...] = FOUR_WIRE
    ties: tuple[Tie, ...] = ()
    pv_kw: tuple[float, ...] = (30.0, 67.6, 45.0, 68.0, 60.5)
    """Nameplates that recur along the feeder; eight rounds are 60 % of the IEEE 123 feeder's peak."""
    battery_kw: tuple[float, ...] = (25.0, 45.4, 32.0, 42.0, 36.4)
    """Four rounds are 20 % of the same peak."""


RECIPES: Mapping[str, Recipe] = {
    "ieee13": Recipe(
        source="IEEE PES 13 node test feeder (4.16 kV, four-wire wye); sites, services and DER are ours",
        head_element="Line.650632",
        sensor_buses=("634", "675", "680"),
        turns=12,
        primary_kv=2.4,
    ),
    "ieee37": Recipe(
        source="IEEE PES 37 node test feeder (4.8 kV, three-wire delta); sites, services and DER are ours",
        head_element="Transformer.subxf",
        sensor_buses=("725", "732", "741"),
        turns=12,
        primary_kv=4.8,
        primaries=BETWEEN_PHASES,
        limits=THREE_WIRE,
    ),
    "ieee123": Recipe(
        source="IEEE PES 123 node test feeder (4.16 kV, four-wire wye); sites, services and DER are ours",
        head_element="Transformer.reg1a",
        sensor_buses=("30", "66", "83"),
        turns=20,
        primary_kv=2.402,
        ties=(Tie("sw7", "300_open", "300"), Tie("sw8", "94_open", "94")),
    ),
}

"""Overhead lines of the made-up territory: conductors, crossarms, and the impedances that follow from them.

Carson's equations in their usual short form, 60 Hz and earth of 100 ohm m. Sources: the conductors' published data
(resistance at 50 C, geometric mean radius, rating at 75 C); Kersting, Distribution System Modeling and Analysis, ch. 4.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

MILE_KM = 1.609344
EARTH_OHM_PER_KM, CARSON_OHM_PER_KM, CARSON_DEPTH = 0.0953 / MILE_KM, 0.12134 / MILE_KM, 6.7458
"""With distances in metres."""


@dataclass(frozen=True, slots=True)
class Conductor:
    """An aluminium conductor, steel reinforced."""

    r_ohm_per_km: float
    gmr_m: float
    rating_a: float


CONDUCTORS: Mapping[str, Conductor] = {
    "acsr556": Conductor(0.1859 / MILE_KM, 0.0313 * 0.3048, 730.0),
    "acsr336": Conductor(0.306 / MILE_KM, 0.0244 * 0.3048, 530.0),
    "acsr4_0": Conductor(0.592 / MILE_KM, 0.00814 * 0.3048, 340.0),
    "acsr1_0": Conductor(1.12 / MILE_KM, 0.00446 * 0.3048, 230.0),
    "acsr2": Conductor(1.69 / MILE_KM, 0.00418 * 0.3048, 180.0),
}
ARM_M = (0.0, 0.76, 2.13)
"""Where the phases hang on the crossarm."""
NEUTRAL_M = (1.22, 1.22)
"""Of the four-wire neutral, from the first phase and below the crossarm."""


def line_codes(delta: bool) -> Iterator[str]:
    """One line of OpenDSS for each conductor and number of phases: three, and those of a lateral."""
    for name, conductor in CONDUCTORS.items():
        for phases in (3, 2) if delta else (3, 1):
            z = _impedance(conductor, phases, neutral=not delta)
            parts = " ".join(f"{key}=({_lower(matrix)})" for key, matrix in (("rmatrix", z.real), ("xmatrix", z.imag)))
            zero = _lower(np.zeros((phases, phases)))
            yield (
                f"New LineCode.{name}_{phases} nphases={phases} units=km {parts} cmatrix=({zero})"
                f" normamps={conductor.rating_a:g}"
            )


def _impedance(conductor: Conductor, phases: int, *, neutral: bool) -> np.ndarray:
    """Impedance matrix [ohm/km], the neutral reduced into it, shape (phases, phases)."""
    places = [(x, 0.0) for x in ARM_M[:phases]] + [(NEUTRAL_M[0], -NEUTRAL_M[1])] * neutral
    count = len(places)
    z = np.empty((count, count), dtype=np.complex128)
    for row, one in enumerate(places):
        for col, other in enumerate(places):
            apart_m = conductor.gmr_m if row == col else float(np.hypot(one[0] - other[0], one[1] - other[1]))
            own = conductor.r_ohm_per_km if row == col else 0.0
            z[row, col] = own + EARTH_OHM_PER_KM + 1j * CARSON_OHM_PER_KM * (CARSON_DEPTH - np.log(apart_m))
    if neutral:
        z = z[:-1, :-1] - np.outer(z[:-1, -1], z[-1, :-1]) / z[-1, -1]
    return z


def _lower(matrix: np.ndarray) -> str:
    return " | ".join(" ".join(f"{value:.6f}" for value in row[: number + 1]) for number, row in enumerate(matrix))

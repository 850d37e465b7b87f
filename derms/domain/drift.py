"""Drift: what changed in a device's settings without an act of ours, in sentences."""

import math
from collections.abc import Mapping

NOISE = 1e-9
"""Relative difference of two floats that tell the same register."""


def drift(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """What differs between two readings of a device's settings, a sentence for each name, in the order of names."""
    found = []
    for name in sorted(before.keys() | now.keys()):
        match before.get(name), now.get(name):
            case None, value:
                found.append(f"{name} is new: {value:g}")
            case value, None:
                found.append(f"{name} was {value:g}, and is not there any more")
            case old, new if not math.isclose(old, new, rel_tol=NOISE, abs_tol=NOISE):
                found.append(f"{name} was {old:g}, is {new:g}")
    return found

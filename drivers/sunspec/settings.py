"""What engineers set in a device, as numbers by name: the ground on which drift is seen.

Enabled functions, the active curve of every function, settings in force, permission for service; nothing that
commands move. Values in the points' own SunSpec units after their scale factors.
"""

import math
import re
from collections.abc import Iterator, Mapping

from drivers.sunspec.codec import Image
from drivers.sunspec.models import Point, is_numeric

SETTLED = (121, 123, 702, 703, *range(704, 713))
"""Models with such points."""

_MOVED = re.compile(r"WMaxLim|WSet|Conn_|Adpt|\w+\[[1-9]")
"""Points of commands and of adoption, and curves that are not active."""
_CURVE_POINT = re.compile(r"(.*\.)Pt\[(\d+)\]\.")


def settings_of(image: Image) -> Mapping[str, float]:
    """All settings in one model, `705.Crv[0].Pt[1].V`; without what the device does not implement."""
    return {f"{image.model.id}.{point.name}": image.number(point.name) for point in _settings(image)}


def _settings(image: Image) -> Iterator[Point]:
    for point in image.model.points.values():
        set_by_people = point.writable and is_numeric(point.type) and not _MOVED.match(point.name)
        if set_by_people and math.isfinite(image.number(point.name)) and _in_use(image, point):
            yield point


def _in_use(image: Image, point: Point) -> bool:
    """Whether a point belongs to the active part of its curve."""
    found = _CURVE_POINT.match(point.name)
    return found is None or int(found[2]) < image.number(found[1] + "ActPt")

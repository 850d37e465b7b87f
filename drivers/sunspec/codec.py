"""One model instance as it was read, its points by name: scaled numbers out, register values in.

Numbers are in the point's own SunSpec unit (W, V, %, s) after its scale factor; NaN is `not implemented`.
Source: SunSpec Device Information Model Specification 1.2, 4.4 (scale factors) and 4.5 (unimplemented points).
"""

import math
import struct
from collections.abc import Collection

from derms.errors import WriteForbidden
from drivers.sunspec.models import (
    SCALE_FACTOR,
    Absent,
    Point,
    Value,
    decode_point,
    layout_of,
    number_format,
    outer_groups,
    repeated,
)

MAX_EXPONENT = 10
"""Scale factors go from -10 to 10; any other value is a fault of the device, not a scale."""
STEP_NOISE = 1e-6
"""Part of a register step that counts as floating-point noise when a value is rounded towards zero."""


class Image:
    """The bytes of one model instance from its ID register on; a device may implement fewer than the model has.

    The repeats of its groups are those that its counts say and its length has room for (`Crv[0].Pt[1].V`).
    `absent` are further values that mean `not implemented` on this device, `unsteady` the scale factors that changed
    while the model was read: nobody knows which of their values go with which factor.
    """

    def __init__(
        self, model_id: int, data: bytes, *, absent: Absent = (), unsteady: Collection[str] = frozenset()
    ) -> None:
        self.model = layout_of(model_id, data, len(data) // 2)
        self._data = data
        self._absent = absent
        self._unsteady = unsteady

    def raw(self, name: str) -> Value | None:
        """The unscaled value; None when it is not implemented or lies beyond the model's length."""
        point = self.model.points[name]
        data = self.registers(point)
        return decode_point(point, data, self._absent) if len(data) == 2 * point.size else None

    def registers(self, point: Point) -> bytes:
        """A point's bytes as they were read."""
        return self._data[2 * point.offset : 2 * point.end]

    def implements(self, *names: str) -> bool:
        return all(self.raw(name) is not None for name in names)

    def text(self, name: str) -> str:
        """A string point, printable characters only; empty when not implemented."""
        return str(self.raw(name) or "")

    def number(self, name: str) -> float:
        """The scaled value; NaN when value or scale factor are not implemented, not finite or out of range."""
        value = self.raw(name)
        number = math.nan if value is None else float(value) * self.resolution(name)
        return number if math.isfinite(number) else math.nan

    def resolution(self, name: str) -> float:
        """The smallest step of a point; NaN for a scale factor that cannot be believed."""
        scale = self.model.scale_of(self.model.points[name])
        exponent = self._exponent(scale) if isinstance(scale, Point) else scale
        return math.nan if exponent is None else float(10.0**exponent)

    def faults(self) -> list[str]:
        """What the device got wrong in this model, a sentence each; empty for a sound one."""
        scales = [point for point in self.model.points.values() if point.type == SCALE_FACTOR]
        found = [f"{scale.name} of model {self.model.id} {why}" for scale in scales if (why := self._wrong(scale))]
        registers = len(self._data) // 2
        for group, count in outer_groups(self.model.id):
            said = self.model.repeats[count] if count in self.model.points else 0
            if len(repeated(self.model, group)) < said or self.model.size > registers:
                found.append(f"{group} of model {self.model.id}: {said or 'some'} do not fit its {registers} registers")
        return found

    def _wrong(self, scale: Point) -> str:
        """What is wrong with a scale factor that the device needs; empty for nothing."""
        if scale.name in self._unsteady:
            return "changed while the model was read"
        exponent = self.raw(scale.name)
        if exponent is not None:
            believed = self._exponent(scale) is not None
            return "" if believed else f"is {exponent}, not from -{MAX_EXPONENT} to {MAX_EXPONENT}"
        points = self.model.points.values()
        needing = [p.name for p in points if self.model.scale_of(p) == scale and self.implements(p.name)]
        return f"is not implemented, and {', '.join(needing)} cannot be known" if needing else ""

    def _exponent(self, scale: Point) -> int | None:
        """A scale factor that can be believed."""
        exponent = self.raw(scale.name)
        if exponent is None or scale.name in self._unsteady or not -MAX_EXPONENT <= int(exponent) <= MAX_EXPONENT:
            return None
        return int(exponent)

    def to_register(self, name: str, value: float) -> int:
        """The register value of a scaled value, rounded towards zero: never more than was asked.

        Raises WriteForbidden when the device's register cannot hold it.
        """
        where = f"{name} of model {self.model.id}"
        steps = value / self.resolution(name)
        if not math.isfinite(steps):
            raise WriteForbidden(f"{where} cannot be written as {value:g}: no finite number, or no valid scale factor")
        low, high = _range(self.model.points[name].type)
        if not low - STEP_NOISE <= steps <= high + STEP_NOISE:
            raise WriteForbidden(f"{where} cannot be written as {value:g}: its register holds {low} to {high} steps")
        return math.trunc(steps + math.copysign(STEP_NOISE, steps))


def _range(point_type: str) -> tuple[int, int]:
    """Values that a number of a type may take: its sentinel, the least signed or the greatest unsigned, is none."""
    letter = number_format(point_type)
    values = 1 << 8 * struct.calcsize(">" + letter)
    return (1 - values // 2, values // 2 - 1) if letter.islower() else (0, values - 2)

"""One model instance as it was read, its points by name: scaled numbers out, register values in.

Numbers are in the point's own SunSpec unit (W, V, %, s) after its scale factor; NaN is `not implemented`.
Source: SunSpec Device Information Model Specification 1.2, 4.4 (scale factors) and 4.5 (unimplemented points).
"""

import math
import struct
from functools import cache

from derms.errors import WriteForbidden
from drivers.sunspec.models import Model, Point, Value, decode_point, layout, number_format

MAX_EXPONENT = 10
"""Scale factors go from -10 to 10; any other value is a fault of the device, not a scale."""
STEP_NOISE = 1e-6
"""Part of a register step that counts as floating-point noise when a value is rounded towards zero."""


@cache
def model_layout(model_id: int) -> Model:
    """A model without repeating groups; KeyError for a model that is not known."""
    return layout(model_id)


class Image:
    """The bytes of one model instance from its ID register on; a device may implement fewer than the model has."""

    def __init__(self, model_id: int, data: bytes) -> None:
        self.model = model_layout(model_id)
        self._data = data

    def raw(self, name: str) -> Value | None:
        """The unscaled value; None when it is not implemented or lies beyond the model's length."""
        point = self.model.points[name]
        data = self.registers(point)
        return decode_point(point, data) if len(data) == 2 * point.size else None

    def registers(self, point: Point) -> bytes:
        """A point's bytes as they were read."""
        return self._data[2 * point.offset : 2 * (point.offset + point.size)]

    def implements(self, *names: str) -> bool:
        return all(self.raw(name) is not None for name in names)

    def text(self, name: str) -> str:
        """A string point, printable characters only; empty when not implemented."""
        return str(self.raw(name) or "")

    def number(self, name: str) -> float:
        """The scaled value; NaN when value or scale factor are not implemented or out of range."""
        value = self.raw(name)
        return math.nan if value is None else float(value) * self.resolution(name)

    def resolution(self, name: str) -> float:
        """The smallest step of a point; NaN for a scale factor that cannot be believed."""
        scale = self.model.scale_of(self.model.points[name])
        exponent = self.raw(scale.name) if isinstance(scale, Point) else scale
        if exponent is None or not -MAX_EXPONENT <= int(exponent) <= MAX_EXPONENT:
            return math.nan
        return float(10.0 ** int(exponent))

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

"""Commands as register writes, and registers as what a device holds: pure, from one fresh image of the model.

Power in W, + = injection. A value goes out with its reversion timer in one block wherever the model allows it, so
that a device that is no longer spoken to returns to its own default.
Source: SunSpec models 704 (DER AC controls), 123 (immediate controls), 124 (basic storage).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from derms.domain.dispatch import Command, Held, Quantity
from derms.errors import WriteForbidden
from drivers.sunspec.codec import STEP_NOISE, Image
from drivers.sunspec.models import encode_point

WRITABLE: Mapping[int, frozenset[str]] = {
    704: frozenset(
        {
            "WMaxLimPctEna",
            "WMaxLimPct",
            "WMaxLimPctRvrt",
            "WMaxLimPctEnaRvrt",
            "WMaxLimPctRvrtTms",
            "WSetEna",
            "WSetMod",
            "WSet",
            "WSetRvrt",
            "WSetPct",
            "WSetPctRvrt",
            "WSetEnaRvrt",
            "WSetRvrtTms",
        }
    ),
    123: frozenset(
        {"WMaxLimPct", "WMaxLimPct_WinTms", "WMaxLimPct_RvrtTms", "WMaxLimPct_RmpTms", "WMaxLim_Ena"},
    ),
    124: frozenset({"StorCtl_Mod", "OutWRte", "InWRte", "InOutWRte_WinTms", "InOutWRte_RvrtTms"}),
}
"""Every point that may ever be written, by model; what is not here is refused."""

ENABLED = 1
WATTS = 1
"""704 WSetMod: the setpoint is WSet in watts; 0 is WSetPct."""
CHARGE_AND_DISCHARGE = 3
"""124 StorCtl_Mod: both bits, so that the pair of rates pins the power."""


class Write(NamedTuple):
    """One FC16 request."""

    offset: int
    """Registers from the model's ID register."""
    data: bytes


class Control(Protocol):
    """How one device takes one quantity."""

    @property
    def model_id(self) -> int: ...

    def writes(self, image: Image, command: Command) -> list[Write]:
        """The requests of a command, in order; raises WriteForbidden for what the device cannot take."""
        ...

    def held(self, image: Image) -> Held:
        """What the device holds; `value_w` is NaN when that is not one power."""
        ...


@dataclass(frozen=True)
class PercentLimit:
    """A ceiling on injection in percent of the greatest power (704 or 123)."""

    model_id: int
    enable: str
    percent: str
    timer: str
    left: str | None
    constant: Mapping[str, int]
    w_max_w: float

    def writes(self, image: Image, command: Command) -> list[Write]:
        if command.value_w is None:
            return [block(image, {self.enable: 0}, needs=(self.enable,))]
        values = {
            self.percent: _percent(image, self.percent, command.value_w / self.w_max_w),
            self.timer: _seconds(image, self.timer, command.reversion_s),
            self.enable: ENABLED,
        }
        return [block(image, {**values, **self.constant}, needs=(self.enable, self.percent))]

    def held(self, image: Image) -> Held:
        on = image.raw(self.enable) == ENABLED
        return Held(
            value_w=image.number(self.percent) / 100 * self.w_max_w if on else None,
            reversion_s=image.number(self.timer),
            reversion_left_s=image.number(self.left) if self.left else math.nan,
            resolution_w=image.resolution(self.percent) / 100 * self.w_max_w,
        )


@dataclass(frozen=True)
class WattSetpoint:
    """An active-power setpoint in watts (704)."""

    model_id: int
    w_max_w: float
    """Reference of a setpoint in percent, should the device hold one; NaN when it is not known."""

    def writes(self, image: Image, command: Command) -> list[Write]:
        if command.value_w is None:
            return [block(image, {"WSetEna": 0}, needs=("WSetEna",))]
        values = {
            "WSetEna": ENABLED,
            "WSetMod": WATTS,
            "WSet": image.to_register("WSet", command.value_w),
            "WSetRvrt": 0,
            "WSetEnaRvrt": 0,
            "WSetRvrtTms": _seconds(image, "WSetRvrtTms", command.reversion_s),
        }
        return [block(image, values, needs=("WSetEna", "WSet"))]

    def held(self, image: Image) -> Held:
        in_watts = image.raw("WSetMod") in (WATTS, None)
        value_w = image.number("WSet") if in_watts else image.number("WSetPct") / 100 * self.w_max_w
        return Held(
            value_w=value_w if image.raw("WSetEna") == ENABLED else None,
            reversion_s=image.number("WSetRvrtTms"),
            reversion_left_s=image.number("WSetRvrtRem"),
            resolution_w=image.resolution("WSet"),
        )


@dataclass(frozen=True)
class StorageRates:
    """An active-power setpoint as a pair of rates (124): at most p out, and at most -p in, leaves only p."""

    model_id: int
    discharge_max_w: float
    """Reference of OutWRte."""
    charge_max_w: float
    """Reference of InWRte."""

    def writes(self, image: Image, command: Command) -> list[Write]:
        if command.value_w is None:
            return [block(image, {"StorCtl_Mod": 0}, needs=("StorCtl_Mod",))]
        values = {
            "OutWRte": _percent(image, "OutWRte", command.value_w / self.discharge_max_w),
            "InWRte": _percent(image, "InWRte", -command.value_w / self.charge_max_w),
            "InOutWRte_WinTms": 0,
            "InOutWRte_RvrtTms": _seconds(image, "InOutWRte_RvrtTms", command.reversion_s),
        }
        # Read-only points lie between the mode and the rates: rates and timer first, the mode that obeys them last.
        rates = block(image, values, needs=("OutWRte", "InWRte"))
        return [rates, block(image, {"StorCtl_Mod": CHARGE_AND_DISCHARGE}, needs=("StorCtl_Mod",))]

    def held(self, image: Image) -> Held:
        most_w = image.number("OutWRte") / 100 * self.discharge_max_w
        least_w = -image.number("InWRte") / 100 * self.charge_max_w
        resolution_w = image.resolution("OutWRte") / 100 * max(self.discharge_max_w, self.charge_max_w)
        pinned = image.raw("StorCtl_Mod") == CHARGE_AND_DISCHARGE and abs(most_w - least_w) <= resolution_w
        held_w = most_w if pinned else math.nan
        return Held(
            value_w=held_w if image.raw("StorCtl_Mod") else None,
            reversion_s=image.number("InOutWRte_RvrtTms"),
            reversion_left_s=math.nan,
            resolution_w=resolution_w,
        )


def block(image: Image, values: Mapping[str, int], *, needs: tuple[str, ...]) -> Write:
    """One contiguous write from the first to the last point named; the points between keep what was read.

    A point that the device does not implement is written back as read too, unless it is one of `needs`: then the
    write is refused, as it is for every point that is not in WRITABLE.
    """
    named = [image.model.points[name] for name in values]
    first = min(point.offset for point in named)
    end = max(point.offset + point.size for point in named)
    covered = [point for point in image.model.points.values() if first <= point.offset < end]
    for point in covered:
        if point.name not in WRITABLE.get(image.model.id, ()):
            raise WriteForbidden(f"{point.name} of model {image.model.id} is not a point that may be written")
    for name in needs:
        if not image.implements(name):
            raise WriteForbidden(f"the device does not implement {name} of model {image.model.id}")
    return Write(
        first,
        b"".join(
            encode_point(point, values[point.name])
            if point.name in values and image.implements(point.name)
            else image.registers(point)
            for point in covered
        ),
    )


def _percent(image: Image, name: str, fraction: float) -> int:
    """The register value of a fraction of the device's own greatest power, refused above all of it."""
    register = image.to_register(name, 100 * fraction)
    if abs(register) * image.resolution(name) > 100 + STEP_NOISE:
        raise WriteForbidden(f"{name} of model {image.model.id}: {100 * fraction:g} % is more than the device has")
    return register


def _seconds(image: Image, timer: str, reversion_s: float) -> int:
    """Whole seconds for a reversion timer; a time above zero never becomes zero, which would disarm it."""
    if not reversion_s >= 0:
        raise WriteForbidden(f"a reversion time of {reversion_s:g} s cannot be armed")
    return image.to_register(timer, max(reversion_s, 1.0) if reversion_s > 0 else 0.0)


def controls(images: Mapping[int, Image]) -> Mapping[Quantity, Control]:
    """How a device takes each quantity, from its control and rating models; what it cannot take is not there."""
    found: dict[Quantity, Control] = {}
    w_max_w = reported(images, (702, "WMax"), (702, "WMaxRtg"), (121, "WMax"), (120, "WRtg"))
    charge_max_w = reported(images, (124, "WChaMax"))
    discharge_max_w = reported(images, (120, "MaxDisChaRte"), (124, "WChaMax"))
    if _has(images, 123, "WMaxLim_Ena") and w_max_w > 0:
        found[Quantity.P_LIMIT] = PercentLimit(
            model_id=123,
            enable="WMaxLim_Ena",
            percent="WMaxLimPct",
            timer="WMaxLimPct_RvrtTms",
            left=None,
            constant={"WMaxLimPct_WinTms": 0},
            w_max_w=w_max_w,
        )
    if _has(images, 704, "WMaxLimPctEna") and w_max_w > 0:
        found[Quantity.P_LIMIT] = PercentLimit(
            model_id=704,
            enable="WMaxLimPctEna",
            percent="WMaxLimPct",
            timer="WMaxLimPctRvrtTms",
            left="WMaxLimPctRvrtRem",
            constant={"WMaxLimPctEnaRvrt": 0},
            w_max_w=w_max_w,
        )
    if _has(images, 124, "OutWRte") and charge_max_w > 0 and discharge_max_w > 0:
        found[Quantity.P_SET] = StorageRates(124, discharge_max_w, charge_max_w)
    if _has(images, 704, "WSetEna"):
        found[Quantity.P_SET] = WattSetpoint(704, w_max_w)
    return found


def reported(images: Mapping[int, Image], *places: tuple[int, str]) -> float:
    """The first of some (model, point) places that a device reports; NaN when none does."""
    numbers = (images[model_id].number(name) for model_id, name in places if model_id in images)
    return next((number for number in numbers if math.isfinite(number)), math.nan)


def _has(images: Mapping[int, Image], model_id: int, name: str) -> bool:
    return model_id in images and images[model_id].implements(name)

"""Commands as register writes, and registers as what a device holds: pure, from one fresh image of the model.

Power in W, + = injection. A value goes out with its reversion timer in one block wherever the model and the device
allow it, so that a device that is no longer spoken to returns to its own default.
Source: SunSpec models 704 (DER AC controls), 123 (immediate controls), 124 (basic storage); 703 (enter service) and
715 (DER control) for ceasing to energize, which has no timer: it holds until the device is let in again.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from derms.domain.dispatch import Ceasing, Command, Held, Quantity
from derms.errors import WriteForbidden
from drivers.sunspec.codec import STEP_NOISE, Image
from drivers.sunspec.models import Point, encode_point
from drivers.sunspec.writable import Permission, permission

ENABLED = 1
WATTS = 1
"""704 WSetMod: the setpoint is WSet in watts; 0 is WSetPct."""
CHARGE_AND_DISCHARGE = 3
"""124 StorCtl_Mod: both bits, so that the pair of rates pins the power."""


class Write(NamedTuple):
    """One request."""

    offset: int
    """Registers from the model's ID register."""
    data: bytes
    names: tuple[str, ...]
    """The points it is for; those between them keep what was read."""


@dataclass(frozen=True, slots=True)
class Change:
    """Register values by point, in the order in which a device must take them that refuses them together."""

    value: Mapping[str, int] = field(default_factory=dict)
    reversion: Mapping[str, int] = field(default_factory=dict)
    enable: Mapping[str, int] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    """Points without which there is no such command; others that the device lacks are left out."""


class Control(Protocol):
    """How one device takes one quantity."""

    @property
    def model_id(self) -> int: ...

    @property
    def timer(self) -> str:
        """The point with the reversion time."""
        ...

    @property
    def left(self) -> str | None:
        """The point with the time left, in models that have one."""
        ...

    @property
    def most_w(self) -> float:
        """Greatest power that it takes [W], of both directions the smaller; NaN when not known."""
        ...

    def change(self, image: Image, command: Command) -> Change:
        """What a command changes; raises WriteForbidden for what the device cannot take."""
        ...

    def held(self, image: Image) -> Held:
        """What the device holds; `value_w` is NaN when that is not one power."""
        ...


@dataclass(frozen=True)
class PercentLimit:
    """A ceiling on injection in percent of the greatest power that the device is set to (704 or 123)."""

    model_id: int
    enable: str
    percent: str
    timer: str
    left: str | None
    constant: Mapping[str, int]
    """Points of the reversion that are always written so."""
    w_max_w: float

    @property
    def most_w(self) -> float:
        return self.w_max_w

    def change(self, image: Image, command: Command) -> Change:
        if command.value_w is None:
            return Change(enable={self.enable: 0}, needs=(self.enable,))
        # A limit above all that the device is set to give is no other than all of it.
        fraction = min(command.value_w / self.w_max_w, 1.0)
        return Change(
            value={self.percent: image.to_register(self.percent, 100 * fraction)},
            reversion={self.timer: seconds(image, self.timer, command.reversion_s), **self.constant},
            enable={self.enable: ENABLED},
            needs=(self.enable, self.percent),
        )

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
    most_w: float
    timer: str = "WSetRvrtTms"
    left: str | None = "WSetRvrtRem"

    def change(self, image: Image, command: Command) -> Change:
        if command.value_w is None:
            return Change(enable={"WSetEna": 0}, needs=("WSetEna",))
        return Change(
            value={"WSetMod": WATTS, "WSet": image.to_register("WSet", command.value_w)},
            reversion={
                "WSetRvrt": 0,
                "WSetEnaRvrt": 0,
                self.timer: seconds(image, self.timer, command.reversion_s),
            },
            enable={"WSetEna": ENABLED},
            needs=("WSetEna", "WSet"),
        )

    def held(self, image: Image) -> Held:
        in_watts = image.raw("WSetMod") in (WATTS, None)
        value_w = image.number("WSet") if in_watts else image.number("WSetPct") / 100 * self.w_max_w
        return Held(
            value_w=value_w if image.raw("WSetEna") == ENABLED else None,
            reversion_s=image.number(self.timer),
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
    timer: str = "InOutWRte_RvrtTms"
    left: str | None = None

    @property
    def most_w(self) -> float:
        return min(self.discharge_max_w, self.charge_max_w)

    def change(self, image: Image, command: Command) -> Change:
        if command.value_w is None:
            return Change(enable={"StorCtl_Mod": 0}, needs=("StorCtl_Mod",))
        return Change(
            value={
                "OutWRte": _percent(image, "OutWRte", command.value_w / self.discharge_max_w),
                "InWRte": _percent(image, "InWRte", -command.value_w / self.charge_max_w),
            },
            reversion={"InOutWRte_WinTms": 0, self.timer: seconds(image, self.timer, command.reversion_s)},
            enable={"StorCtl_Mod": CHARGE_AND_DISCHARGE},
            needs=("OutWRte", "InWRte", "StorCtl_Mod"),
        )

    def held(self, image: Image) -> Held:
        most_w = image.number("OutWRte") / 100 * self.discharge_max_w
        least_w = -image.number("InWRte") / 100 * self.charge_max_w
        resolution_w = image.resolution("OutWRte") / 100 * max(self.discharge_max_w, self.charge_max_w)
        pinned = image.raw("StorCtl_Mod") == CHARGE_AND_DISCHARGE and abs(most_w - least_w) <= resolution_w
        held_w = most_w if pinned else math.nan
        return Held(
            value_w=held_w if image.raw("StorCtl_Mod") else None,
            reversion_s=image.number(self.timer),
            reversion_left_s=math.nan,
            resolution_w=resolution_w,
        )


@dataclass(frozen=True, slots=True)
class Service:
    """A point that withdraws service and gives it back: 0 and 1 in all three models that have one."""

    model_id: int
    point: str
    at_once: tuple[str, ...] = ()
    """Times of the point that have to be 0, where the device has them: the window before, the reversion after it."""

    def change(self, *, let_in: bool) -> Change:
        return Change(reversion=dict.fromkeys(self.at_once, 0), enable={self.point: int(let_in)}, needs=(self.point,))

    def ceased(self, image: Image) -> bool:
        return image.raw(self.point) == 0


SERVICE: Mapping[Ceasing, Service] = {
    Ceasing.PERMIT_SERVICE: Service(703, "ES"),
    Ceasing.OPERATION: Service(715, "OpCtl"),
    Ceasing.CONNECT: Service(123, "Conn", at_once=("Conn_WinTms", "Conn_RvrtTms")),
}


def rearmed(control: Control, image: Image, quantity: Quantity, reversion_s: float, *, whole: bool) -> Change:
    """The change that starts the reversion timer anew: its point alone, or `whole` with the value that is held.

    Nothing for a function that is disabled.
    """
    held = control.held(image)
    if held.value_w is None:
        return Change()
    if whole:
        return control.change(image, Command(quantity, held.value_w, reversion_s))
    return Change(reversion={control.timer: seconds(image, control.timer, reversion_s)}, needs=(control.timer,))


def writes(image: Image, change: Change, *, value_first: bool, who: Permission = Permission.DISPATCH) -> list[Write]:
    """The requests of a change, in order: one block where model and device allow it, enable last otherwise.

    Raises WriteForbidden for a point that `who` may not write, and where the device lacks a point that is needed.
    """
    for name in change.needs:
        if not image.implements(name):
            raise WriteForbidden(f"the device does not implement {name} of model {image.model.id}")
    stages = (change.value, change.reversion, change.enable)
    if value_first:
        there = [{name: value for name, value in stage.items() if image.implements(name)} for stage in stages]
        return [write for stage in there for write in _runs(image, stage, who, between=False)]
    requests = _runs(image, {**change.value, **change.reversion, **change.enable}, who, between=True)
    return sorted(requests, key=lambda request: any(name in change.enable for name in request.names))


def _runs(image: Image, values: Mapping[str, int], who: Permission, *, between: bool) -> list[Write]:
    """A write for every run of points that stand together; `between` bridges points that may be written too."""
    for name in values:
        if permission(image.model.id, name) is not who:
            raise WriteForbidden(f"{name} of model {image.model.id} is not a point that {who.value} may write")
    runs: list[list[Point]] = [[]]
    for point in sorted(image.model.points.values(), key=lambda point: point.offset):
        if point.name in values or (between and permission(image.model.id, point.name) is who):
            runs[-1].append(point)
        else:
            runs.append([])
    return [_write(image, trimmed, values) for run in runs if (trimmed := _trimmed(run, values))]


def _trimmed(run: list[Point], values: Mapping[str, int]) -> list[Point]:
    """A run from the first to the last of its points that are to be written."""
    at = [place for place, point in enumerate(run) if point.name in values]
    return run[at[0] : at[-1] + 1] if at else []


def _write(image: Image, points: list[Point], values: Mapping[str, int]) -> Write:
    """One request over points that stand together; what is not named or not implemented is written back as read."""
    return Write(
        points[0].offset,
        b"".join(
            encode_point(point, values[point.name])
            if point.name in values and image.implements(point.name)
            else image.registers(point)
            for point in points
        ),
        tuple(point.name for point in points if point.name in values),
    )


def _percent(image: Image, name: str, fraction: float) -> int:
    """The register value of a fraction of the device's own greatest power, refused above all of it."""
    register = image.to_register(name, 100 * fraction)
    if abs(register) * image.resolution(name) > 100 + STEP_NOISE:
        raise WriteForbidden(f"{name} of model {image.model.id}: {100 * fraction:g} % is more than the device has")
    return register


def seconds(image: Image, timer: str, reversion_s: float) -> int:
    """Whole seconds for a reversion timer; a time above zero never becomes zero, which would disarm it."""
    if not reversion_s >= 0:
        raise WriteForbidden(f"a reversion time of {reversion_s:g} s cannot be armed")
    return image.to_register(timer, max(reversion_s, 1.0) if reversion_s > 0 else 0.0)


def controls(images: Mapping[int, Image]) -> Mapping[Quantity, Control]:
    """How a device takes each quantity, from its control and rating models; what it cannot take is not there.

    A setpoint needs its own points and a store whose state of charge can be watched while it holds. That it is not told
    just now is no reason to take none for as long as the connection stands: a guard forbids what nobody can watch.
    """
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
    stores = not STORING.isdisjoint(images) or _has(images, 124, "ChaState")
    if _has(images, 704, "WSetEna") and _has(images, 704, "WSet") and stores:
        rates_w = (reported(images, (702, name)) for name in ("WChaRteMax", "WDisChaRteMax"))
        found[Quantity.P_SET] = WattSetpoint(704, w_max_w, smallest(w_max_w, *rates_w))
    return found


STORING = frozenset({713, 802})
"""Models of a store, with its state of charge; 124 is also in inverters without one."""


def reported(images: Mapping[int, Image], *places: tuple[int, str]) -> float:
    """The first of some (model, point) places that a device reports; NaN when none does."""
    numbers = (images[model_id].number(name) for model_id, name in places if model_id in images)
    return next((number for number in numbers if math.isfinite(number)), math.nan)


def smallest(*powers_w: float) -> float:
    """The smallest power that is known and above zero [W]; NaN when none is."""
    return min((power_w for power_w in powers_w if power_w > 0.0), default=math.nan)


def _has(images: Mapping[int, Image], model_id: int, name: str) -> bool:
    return model_id in images and images[model_id].implements(name)

"""An engineer's explicit acts: curves written, adopted and compared, functions enabled, settings written.

Nothing here can be reached from dispatch. A curve is given by its points' names within it, in their own SunSpec units
(`ActPt`, `DeptRef`, `Pt[0].V` in %, `Pt[0].Var` in %, `RspTms` in s; for 711 `DbOf` in Hz, `KOf`, ...).
Source: SunSpec models 705, 706, 711, 712: curve 1 is active and read-only, a curve n >= 2 is written and adopted.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from derms.errors import DeviceMismatch, WriteForbidden
from drivers.modbus.unit import Unit
from drivers.sunspec.codec import Image
from drivers.sunspec.control import ENABLED, Change, seconds, writes
from drivers.sunspec.models import repeated
from drivers.sunspec.scan import Chain, Place, read_image
from drivers.sunspec.writable import Permission

Curve = Mapping[str, float]
Wait = Callable[[float], Awaitable[None]]
"""Lets a time pass [s]."""

LOOKS = 20
LOOK_EVERY_S = 0.5
"""How often and how far apart the result of an adoption is asked for."""
VARS = 4
"""704 VarSetMod: the setpoint is VarSet in var."""


@dataclass(frozen=True, slots=True)
class _Names:
    """What adoption is called in a model."""

    group: str
    request: str
    result: str


_CRV, _CTL = _Names("Crv", "AdptCrvReq", "AdptCrvRslt"), _Names("Ctl", "AdptCtlReq", "AdptCtlRslt")
ADOPTED: Mapping[int, _Names] = {705: _CRV, 706: _CRV, 711: _CTL, 712: _CRV}
"""Models whose curves are adopted."""


class Result(IntEnum):
    """AdptCrvRslt and AdptCtlRslt."""

    IN_PROGRESS = 0
    COMPLETED = 1
    FAILED = 2


class Adoption(StrEnum):
    """What became of a curve."""

    ADOPTED = "adopted"
    """Completed, and the active curve is the one written."""
    FAILED = "failed"
    """The device says that it did not adopt it."""
    UNANSWERED = "unanswered"
    """Still in progress when the patience ended."""
    DIFFERENT = "different"
    """Completed, but the active curve is another."""


@dataclass(frozen=True, slots=True)
class CurveResult:
    """How writing a curve ended."""

    adoption: Adoption
    differences: tuple[str, ...] = ()
    """Points of the active curve that are not as written, a sentence each."""


async def write_curve(
    unit: Unit, place: Place, curve: Curve, index: int, *, wait: Wait, value_first: bool = False
) -> CurveResult:
    """Write curve `index` (from 2), have it adopted, and compare the active curve with it; does not enable anything.

    Raises WriteForbidden, before anything is written, for curve 1, for a curve or point that the model does not have
    and for a read-only one; DeviceMismatch for a model without adoptable curves.
    """
    if place.model_id not in ADOPTED:
        raise DeviceMismatch(f"model {place.model_id} has no curves that are adopted")
    names = ADOPTED[place.model_id]
    image = await read_image(unit, place)
    change = Change(value=_registers(image, names, curve, index))
    adopt = Change(enable={names.request: index}, needs=(names.request, names.result))
    requests = writes(image, change, value_first=value_first, who=Permission.ENGINEER)
    requests += writes(image, adopt, value_first=value_first, who=Permission.ENGINEER)
    for offset, data, _ in requests:
        await unit.write(place.address + offset, data)
    for _ in range(LOOKS):
        held = await read_image(unit, place)
        match held.raw(names.result):
            case Result.COMPLETED:
                differences = _differences(held, names, curve, index)
                return CurveResult(Adoption.DIFFERENT if differences else Adoption.ADOPTED, differences)
            case Result.FAILED:
                return CurveResult(Adoption.FAILED)
        await wait(LOOK_EVERY_S)
    return CurveResult(Adoption.UNANSWERED)


def _registers(image: Image, names: _Names, curve: Curve, index: int) -> Mapping[str, int]:
    """Register values of a curve by point; raises WriteForbidden for what must not or cannot be written."""
    where = f"curve {index} of model {image.model.id}"
    path = f"{names.group}[{index - 1}]."
    if index < 2:
        raise WriteForbidden(f"{where} is the active one: write another and have it adopted")
    if path not in repeated(image.model, names.group):
        raise WriteForbidden(f"the device has no {where}")
    if image.raw(path + "ReadOnly") == 1:
        raise WriteForbidden(f"{where} is read-only")
    lacking = [name for name in curve if path + name not in image.model.points or not image.implements(path + name)]
    if lacking or not curve:
        raise WriteForbidden(f"{where} has no {', '.join(lacking) or 'values to write'}")
    return {path + name: image.to_register(path + name, number) for name, number in curve.items()}


def _differences(image: Image, names: _Names, curve: Curve, index: int) -> tuple[str, ...]:
    """Where the active curve is not the curve written, beyond the resolution of its registers."""
    active = f"{names.group}[0]."
    return tuple(
        f"{active}{name} is {held:g}, written as {wanted:g} to curve {index}"
        for name, wanted in curve.items()
        if not abs((held := image.number(active + name)) - wanted) <= 1.001 * image.resolution(active + name)
    )


async def enable(unit: Unit, chain: Chain, model_id: int, on: bool) -> bool:
    """Enable or disable a curve's function; whether the device then holds it so.

    Raises WriteForbidden for volt-var (705) while a constant reactive power (704 VarSet) is enabled.
    """
    if model_id not in ADOPTED:
        raise WriteForbidden(f"model {model_id} is no function that may be switched")
    if model_id == 705 and on and await _is(unit, chain, 704, "VarSetEna"):
        raise WriteForbidden("volt-var (705) beside an enabled constant reactive power (704 VarSet)")
    place = _place(chain, model_id)
    image = await read_image(unit, place)
    change = Change(enable={"Ena": ENABLED if on else 0}, needs=("Ena",))
    for offset, data, _ in writes(image, change, value_first=False, who=Permission.ENGINEER):
        await unit.write(place.address + offset, data)
    return (await read_image(unit, place)).raw("Ena") == (ENABLED if on else 0)


async def write_setting(unit: Unit, place: Place, name: str, value: float) -> float:
    """Write one setting in its SunSpec unit, `WMax` of 702; what the device then holds.

    Raises WriteForbidden for a point that is not an engineer's to write.
    """
    image = await read_image(unit, place)
    if name not in image.model.points:
        raise WriteForbidden(f"model {place.model_id} has no {name}")
    change = Change(value={name: image.to_register(name, value)}, needs=(name,))
    for offset, data, _ in writes(image, change, value_first=True, who=Permission.ENGINEER):
        await unit.write(place.address + offset, data)
    return (await read_image(unit, place)).number(name)


async def write_reactive(unit: Unit, chain: Chain, q_var: float | None, reversion_s: float) -> float | None:
    """Hold a constant reactive power [var, + = injection] with its reversion armed, or none; what is then held.

    Raises WriteForbidden while volt-var (705) is enabled: the two would work against one another.
    """
    if q_var is not None and await _is(unit, chain, 705, "Ena"):
        raise WriteForbidden("a constant reactive power (704 VarSet) beside an enabled volt-var (705)")
    place = _place(chain, 704)
    image = await read_image(unit, place)
    change = Change(enable={"VarSetEna": 0}, needs=("VarSetEna",))
    if q_var is not None:
        change = Change(
            value={"VarSetMod": VARS, "VarSet": image.to_register("VarSet", q_var)},
            reversion={"VarSetEnaRvrt": 0, "VarSetRvrtTms": seconds(image, "VarSetRvrtTms", reversion_s)},
            enable={"VarSetEna": ENABLED},
            needs=("VarSetEna", "VarSetMod", "VarSet", "VarSetRvrtTms"),
        )
    for offset, data, _ in writes(image, change, value_first=False):
        await unit.write(place.address + offset, data)
    held = await read_image(unit, place)
    return held.number("VarSet") if held.raw("VarSetEna") == ENABLED else None


def _place(chain: Chain, model_id: int) -> Place:
    place = chain.find(model_id)
    if place is None:
        raise DeviceMismatch(f"the device has no model {model_id}")
    return place


async def _is(unit: Unit, chain: Chain, model_id: int, name: str) -> bool:
    """Whether a function that a device may have is enabled."""
    place = chain.find(model_id)
    return place is not None and (await read_image(unit, place)).raw(name) == ENABLED

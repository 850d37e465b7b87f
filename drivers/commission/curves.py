"""Cases on curves (705 volt-var, 706 volt-watt, 712 watt-var) and droop settings (711): CRV-1 to CRV-3.

Curve 1 is the active one and read-only; curve n is written, adopted by its number, and read again as curve 1. The
trial curve is the active one with another response time, so that the device goes on doing what it does.
Source: SunSpec models 705, 706, 711, 712.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from derms.errors import DeviceRefused, FieldError
from drivers.commission.subject import ModelImage, Step, Subject
from drivers.commission.verdict import Verdict, absent, judged
from drivers.sunspec.writable import Permission, permission

IN_PROGRESS, COMPLETED, FAILED = 0, 1, 2
READ_ONLY = 1
ADOPTION_S = 30.0
"""Longest wait for an adoption [s]."""
LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Adoption:
    """Names in a model that adopts curves or control settings."""

    model_id: int
    group: str
    count: str
    request: str
    result: str
    nudge: tuple[str, ...]
    """Points of a curve of which the first that is there is moved by one step: none changes a steady state."""


CURVES = (
    Adoption(705, "Crv", "NCrv", "AdptCrvReq", "AdptCrvRslt", ("RspTms",)),
    Adoption(706, "Crv", "NCrv", "AdptCrvReq", "AdptCrvRslt", ("RspTms",)),
    Adoption(711, "Ctl", "NCtl", "AdptCtlReq", "AdptCtlRslt", ("RspTms",)),
    Adoption(712, "Crv", "NCrv", "AdptCrvReq", "AdptCrvRslt", ()),
)


async def _present(subject: Subject) -> list[tuple[Adoption, ModelImage]]:
    return [(each, await subject.model(each.model_id)) for each in CURVES if subject.chain.find(each.model_id)]


async def curve_one(subject: Subject) -> Verdict:
    """CRV-1: curve 1, the active one, says that it is read-only, and there is one to write beside it."""
    present = await _present(subject)
    if not present:
        return absent("the device has no curve model")
    mistakes = []
    for adoption, image in present:
        if image.whole(f"{adoption.group}[0].ReadOnly", -1) != READ_ONLY:
            mistakes.append(f"curve 1 of model {adoption.model_id} does not say that it is read-only")
        if image.whole(adoption.count) < 2:
            mistakes.append(f"model {adoption.model_id} has no second curve to write")
    return judged(mistakes, "read-only in models " + _ids(present))


async def apply_settings(subject: Subject) -> Verdict:
    """CRV-2: a curve that was written and adopted is the active one, point by point."""
    present = [(a, image) for a, image in await _present(subject) if image.whole(a.count) >= 2]
    if not present:
        return absent("the device has no curve model with a second curve")
    mistakes: list[str] = []
    for adoption, image in present:
        try:
            mistakes += await _apply(subject, adoption, image)
        except FieldError as error:
            mistakes.append(f"model {adoption.model_id}: {error}")
    return judged(mistakes, "written, adopted and active in models " + _ids(present))


async def _apply(subject: Subject, adoption: Adoption, image: ModelImage) -> list[str]:
    """Write curve 2 as the active one with a nudge, adopt it, compare; the way back is entered before each step."""
    active = dict(_values(image, adoption, 0))
    trial = _nudged(active, adoption)
    await subject.put(image, _named(trial, adoption, 1))

    async def back() -> None:
        fresh = await subject.model(adoption.model_id)
        await subject.put(fresh, _named(active, adoption, 1), restore=False)
        if await _adopt(subject, adoption, 2) != COMPLETED:
            raise FieldError(f"model {adoption.model_id} does not adopt its former curve again")

    stays = f"model {adoption.model_id} may still have the trial curve (another response time) as its active one"
    subject.later(Step(back, otherwise=f"{stays}; no reversion timer lets go of it"))
    result = await _adopt(subject, adoption, 2)
    if result != COMPLETED:
        return [f"model {adoption.model_id} answers {result} to the adoption of curve 2"]
    found = dict(_values(await subject.model(adoption.model_id), adoption, 0))
    return [
        f"curve 1 of model {adoption.model_id} has {name} {found.get(name)} after {value} was adopted"
        for name, value in trial.items()
        if found.get(name) != value
    ]


async def apply_error(subject: Subject) -> Verdict:
    """CRV-3: the adoption of a curve that does not exist fails, and the active curve stays."""
    present = await _present(subject)
    if not present:
        return absent("the device has no curve model")
    mistakes = []
    for adoption, image in present:
        number = image.whole(adoption.count) + 1
        try:
            result = await _adopt(subject, adoption, number)
        except DeviceRefused:
            result = FAILED
        if result != FAILED:
            mistakes.append(f"model {adoption.model_id} answers {result} to the adoption of curve {number}")
        after = await subject.model(adoption.model_id)
        if list(_values(after, adoption, 0)) != list(_values(image, adoption, 0)):
            mistakes.append(f"the active curve of model {adoption.model_id} has changed")
    return judged(mistakes, "a curve that does not exist is not adopted, in models " + _ids(present))


async def _adopt(subject: Subject, adoption: Adoption, number: int) -> int:
    """Ask for an adoption and wait for its result; IN_PROGRESS when it does not end in time."""
    image = await subject.model(adoption.model_id)
    await subject.put(image, {adoption.request: number}, restore=False)
    until_s = subject.clock.monotonic_s() + ADOPTION_S
    while subject.clock.monotonic_s() < until_s:
        result = (await subject.model(adoption.model_id)).whole(adoption.result, FAILED)
        if result != IN_PROGRESS:
            return result
        await subject.wait(LOOK_EVERY_S)
    return IN_PROGRESS


def _values(image: ModelImage, adoption: Adoption, index: int) -> Iterator[tuple[str, int]]:
    """What a curve holds, by names within it: all that an engineer may write into a curve beside the active one."""
    prefix, writable = f"{adoption.group}[{index}].", f"{adoption.group}[1]."
    for name in image.model.points:
        inner = name.removeprefix(prefix)
        if inner == name or permission(image.model.id, writable + inner) is Permission.REFUSED:
            continue
        if image.implements(name):
            yield inner, image.whole(name)


def _nudged(values: Mapping[str, int], adoption: Adoption) -> dict[str, int]:
    name = next((name for name in adoption.nudge if name in values), None)
    return {**values, name: values[name] + 1} if name else dict(values)


def _named(values: Mapping[str, int], adoption: Adoption, index: int) -> dict[str, int]:
    return {f"{adoption.group}[{index}].{name}": value for name, value in values.items()}


def _ids(present: list[tuple[Adoption, ModelImage]]) -> str:
    return ", ".join(str(adoption.model_id) for adoption, _ in present)

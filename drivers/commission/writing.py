"""Cases that write points and expect them back, or a refusal: MOD-3 and REJ.

Only points whose function is off are moved, so that nothing the device does changes; see `drivers.sunspec.writable` for
what may be written at all. A write that must be refused carries the bytes that are there already, or a value for a
function that is off.
Source: SunSpec Device Information Model Specification 1.2, 6.5; MODBUS Application Protocol 1.1b3, 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from derms.errors import DeviceRefused
from drivers.commission.raw import RawLink, frame, read_request
from drivers.commission.subject import COMMON, ModelImage, Step, Subject
from drivers.commission.verdict import Verdict, absent, judged
from drivers.modbus.unit import MAX_READ
from drivers.sunspec.models import encode_point

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS, ILLEGAL_VALUE = 1, 2, 3
UNASSIGNED_FUNCTION = 0x41
"""A function code that no device has (65-72 are for users)."""
EXCEPTION_BIT = 0x80


@dataclass(frozen=True, slots=True)
class Quiet:
    """A function of a model that may be tried while it is off."""

    model_id: int
    enable: str
    points: tuple[str, ...]


QUIET = (
    Quiet(704, "WMaxLimPctEna", ("WMaxLimPct", "WMaxLimPctRvrt", "WMaxLimPctRvrtTms")),
    Quiet(704, "WSetEna", ("WSet", "WSetRvrt", "WSetPct", "WSetPctRvrt", "WSetRvrtTms")),
    Quiet(123, "WMaxLim_Ena", ("WMaxLimPct", "WMaxLimPct_WinTms", "WMaxLimPct_RvrtTms", "WMaxLimPct_RmpTms")),
    Quiet(124, "StorCtl_Mod", ("OutWRte", "InWRte", "InOutWRte_WinTms", "InOutWRte_RvrtTms")),
)
"""Functions that are tried, each with its points in address order."""


async def point_write(subject: Subject) -> Verdict:
    """MOD-3: a point that was written reads back at once as it was written."""
    mistakes: list[str] = []
    done: list[str] = []
    busy: list[str] = []
    for quiet in QUIET:
        if subject.chain.find(quiet.model_id) is None:
            continue
        image = await subject.model(quiet.model_id)
        if image.whole(quiet.enable):
            busy.append(f"{quiet.enable} of model {quiet.model_id}")
            continue
        for name in quiet.points:
            if image.implements(name):
                done.append(name)
                mistakes += await _write_and_read(subject, image, name)
    if not done:
        return absent(f"in use: {', '.join(busy)}" if busy else "the device has no writable point that a test may move")
    return judged(mistakes, f"{len(done)} points" + (f"; left alone, in use: {', '.join(busy)}" if busy else ""))


async def _write_and_read(subject: Subject, image: ModelImage, name: str) -> list[str]:
    value = image.whole(name)
    wanted = value - 1 if value > 0 else value + 1
    try:
        await subject.put(image, {name: wanted})
    except DeviceRefused as error:
        return [f"{name}: {error}"]
    found = (await subject.model(image.model.id)).raw(name)
    return [] if found == wanted else [f"{name} of model {image.model.id} reads {found} after {wanted} was written"]


async def rejection(subject: Subject) -> Verdict:
    """REJ: what must not be written or read is refused with the right exception, and nothing changes."""
    common = await subject.model(COMMON)
    last = subject.chain.places[-1]
    beyond = last.address + last.size + 2
    manufacturer = common.model.points["Mn"]
    mistakes = await _refused(
        subject,
        "a write to the manufacturer's name",
        common.place.address + manufacturer.offset,
        common.registers(manufacturer),
        (ILLEGAL_ADDRESS, ILLEGAL_VALUE),
    )
    mistakes += await _refused(subject, "a write beyond the last model", beyond, bytes(2), (ILLEGAL_ADDRESS,))
    mistakes += await _unreadable(subject, beyond)
    mistakes += await _out_of_range(subject)
    if subject.dial is not None:
        mistakes += await _on_the_wire(subject)
    after = await subject.model(COMMON)
    if after.registers(manufacturer) != common.registers(manufacturer):
        mistakes.append("the manufacturer's name has changed")
    return judged(mistakes, "writes and reads that must not be are refused, nothing changed")


async def _refused(subject: Subject, what: str, address: int, data: bytes, codes: Sequence[int]) -> list[str]:
    try:
        await subject.send(address, data)
    except DeviceRefused as error:
        return [] if error.code in codes else [f"{what} is refused with exception {error.code}"]
    return [f"{what} is accepted"]


async def _unreadable(subject: Subject, address: int) -> list[str]:
    try:
        await subject.read(address, 1)
    except DeviceRefused as error:
        return [] if error.code == ILLEGAL_ADDRESS else [f"an unknown address is refused with exception {error.code}"]
    return ["an unknown address is read"]


async def _out_of_range(subject: Subject) -> list[str]:
    """A limit of more than 200 % into a function that is off: refused, and not there afterwards."""
    for quiet in QUIET:
        name = "WMaxLimPct"
        if name not in quiet.points or subject.chain.find(quiet.model_id) is None:
            continue
        image = await subject.model(quiet.model_id)
        if image.whole(quiet.enable) or not image.implements(name):
            continue
        point = image.model.points[name]
        address = image.place.address + point.offset
        high = image.to_register(name, 200.0) if 200.0 / image.resolution(name) < 0xFFFF else 0xFFFE
        subject.later(
            Step(
                subject.writing(address, image.registers(point)),
                quiet.model_id,
                {name: image.whole(name) * image.resolution(name)},
                {name: high * image.resolution(name)},
            )
        )
        what = f"{high * image.resolution(name):g} % for {name} of model {quiet.model_id}"
        return await _refused(subject, what, address, encode_point(point, high), (ILLEGAL_VALUE,))
    return []


async def _on_the_wire(subject: Subject) -> list[str]:
    """Requests that no driver would send: a function code that nobody has, and one register too many."""
    assert subject.dial is not None
    subject.unit.disconnect()
    link = await subject.dial()
    try:
        mistakes = await _exception(link, frame(1, link.unit, bytes([UNASSIGNED_FUNCTION])), ILLEGAL_FUNCTION)
        return mistakes + await _exception(link, read_request(2, link.unit, subject.base, MAX_READ + 1), ILLEGAL_VALUE)
    finally:
        link.close()


async def _exception(link: RawLink, request: bytes, code: int) -> list[str]:
    function = request[7]
    link.send(request)
    _, pdu = await link.answer()
    due = bytes([function | EXCEPTION_BIT, code])
    return [] if pdu == due else [f"function {function}: answer {pdu.hex()[:16]}, expected {due.hex()}"]

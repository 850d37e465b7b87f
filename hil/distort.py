"""What faults make of registers and of answers: functions from what would be right to what a failing device shows."""

import re
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from drivers.sunspec.models import Point, Value, decode_point, encode_point, number_format, sentinel
from hil.fault_kinds import Fault
from hil.framing import Answer
from hil.registers import Bank, Place

MEASURING = frozenset({*range(101, 104), *range(111, 114), 160, *range(201, 205), *range(211, 215), 701, 713, 714, 802})
"""Models whose points are measurements."""
_NO_MEASUREMENT = frozenset({"sunssf", "pad", "string", "count"})
_HEADER = frozenset({"ID", "L", "NPrt"})
_ACTIVE_POWER = re.compile(r"W(ph[ABC]|L[123])?")
_HEARTBEATS = frozenset({(715, "DERHb"), (802, "Hb")})
_LOCAL_REMOTE = frozenset({(715, "LocRemCtl"), (802, "LocRemCtl")})
_LOCAL = 1
OTHER_SERIAL = "ANOTHER-DEVICE"
VENDOR_MODEL = struct.pack(">HH", 64900, 10) + bytes(20)
"""What a firmware update puts behind the common model: 12 registers that nobody knows."""

_OTHER_FUNCTION = {3: 4, 4: 3, 6: 16, 16: 6}
_WRITES = (6, 16)


@dataclass(frozen=True, slots=True)
class Scene:
    """What the registers of a failing device follow from."""

    bank: Bank
    shown: bytes
    """What a sound device would show."""
    since: bytes
    """What it showed when the fault began."""
    value: float
    """The fault's number."""
    requests: int
    """How many came since the fault began, before this one."""


def image(kind: Fault, scene: Scene) -> bytes:
    """The registers that a failing device shows."""
    edits = _EDITS.get(kind)
    if edits is None:
        return scene.shown
    changed = bytearray(scene.shown)
    for place, registers in edits(scene):
        changed[2 * place.register : 2 * place.register + len(registers)] = registers
    return bytes(changed)


def moved(shown: bytes, bank: Bank) -> bytes:
    """The registers with a vendor's model behind the first."""
    at = 2 * _second_model(bank)
    return shown[:at] + VENDOR_MODEL + shown[at:]


def unmoved(register: int, bank: Bank) -> int:
    """Where a register of the moved map stands in the bank; -1 inside the vendor's model."""
    begin, size = _second_model(bank), len(VENDOR_MODEL) // 2
    if register < begin:
        return register
    return register - size if register >= begin + size else -1


def _second_model(bank: Bank) -> int:
    """Register at which the second model begins; the end for a bank of one model."""
    starts = sorted(bank.start.values())
    return starts[1] if len(starts) > 1 else bank.registers - 2


_Edit = Iterable[tuple[Place, bytes]]


def _silent(scene: Scene) -> _Edit:
    return [(place, encode_point(place.point, None)) for place in scene.bank.places.values() if _is_measured(place)]


def _unscaled(scene: Scene) -> _Edit:
    return [(place, encode_point(place.point, None)) for place in _scales(scene.bank)]


def _badly_scaled(scene: Scene) -> _Edit:
    return [(place, encode_point(place.point, int(scene.value))) for place in _scales(scene.bank)]


def _rescaled(scene: Scene) -> _Edit:
    return [*_scaled_up(scene.bank, scene.shown), *_scaled_down(scene.bank, scene.shown)] if scene.requests % 2 else []


def _torn(scene: Scene) -> _Edit:
    """Scale factors change at odd requests, the registers follow at even ones."""
    phase = scene.requests % 4
    scales = _scaled_up(scene.bank, scene.shown) if phase in (1, 2) else []
    return [*scales, *(_scaled_down(scene.bank, scene.shown) if phase in (2, 3) else [])]


def _tenfold(scene: Scene) -> _Edit:
    powers = [p for p in scene.bank.places.values() if _is_measured(p) and _ACTIVE_POWER.fullmatch(p.point.name)]
    return [(place, _times(place, scene.shown, 10.0)) for place in powers]


def _stale(scene: Scene) -> _Edit:
    return [(p, _bytes(p, scene.since)) for p in scene.bank.places.values() if (p.model, p.point.name) in _HEARTBEATS]


def _replaced(scene: Scene) -> _Edit:
    place = scene.bank.place("1.SN")
    return [(place, encode_point(place.point, OTHER_SERIAL))]


def _local(scene: Scene) -> _Edit:
    switches = [p for p in scene.bank.places.values() if (p.model, p.point.name) in _LOCAL_REMOTE]
    return [(place, encode_point(place.point, _LOCAL)) for place in switches]


_EDITS: Mapping[Fault, Callable[[Scene], _Edit]] = {
    Fault.SENTINEL: _silent,
    Fault.NAN_SCALE: _unscaled,
    Fault.BAD_SCALE: _badly_scaled,
    Fault.SCALE_CHANGE: _rescaled,
    Fault.SCALE_TORN: _torn,
    Fault.IMPLAUSIBLE: _tenfold,
    Fault.STALE_HEARTBEAT: _stale,
    Fault.SERIAL_CHANGE: _replaced,
    Fault.LOCAL_MODE: _local,
}


def _is_measured(place: Place) -> bool:
    point = place.point
    return (
        place.model in MEASURING
        and not (point.writable or point.static)
        and point.type not in _NO_MEASUREMENT
        and point.name not in _HEADER
    )


def _scales(bank: Bank) -> list[Place]:
    return [p for p in bank.places.values() if p.model in MEASURING and p.point.type == "sunssf"]


def _scaled_up(bank: Bank, shown: bytes) -> _Edit:
    """Every scale factor of a measurement one higher."""
    for place in _scales(bank):
        exponent = decode_point(place.point, _bytes(place, shown))
        if exponent is not None:
            yield place, encode_point(place.point, int(exponent) + 1)


def _scaled_down(bank: Bank, shown: bytes) -> _Edit:
    """Every scaled register of a measurement a tenth of what it is."""
    for place in bank.places.values():
        if place.model in MEASURING and isinstance(place.point.sf, str):
            yield place, _times(place, shown, 0.1)


def _bytes(place: Place, registers: bytes) -> bytes:
    return registers[2 * place.register : 2 * (place.register + place.point.size)]


def _times(place: Place, shown: bytes, factor: float) -> bytes:
    """A point's registers with its value multiplied, as far as its type can hold it."""
    value = decode_point(place.point, _bytes(place, shown))
    return encode_point(place.point, None if value is None else _fitting(place.point, float(value) * factor))


def _fitting(point: Point, value: float) -> Value:
    letter = number_format(point.type)
    if letter in "fd":
        return value
    bits = 8 * struct.calcsize(">" + letter)
    low, high = (1 - (1 << bits - 1), (1 << bits - 1) - 1) if letter.islower() else (0, (1 << bits) - 2)
    count = min(max(round(value), low), high)
    return count if count != sentinel(point.type) else count + 1


def answer(kind: Fault, value: float, right: Answer) -> Answer:
    """The answer that a failing device gives instead of the right one."""
    function, body = right.pdu[0], right.pdu[1:]
    match kind:
        case Fault.WRONG_TRANSACTION:
            return replace(right, transaction=(right.transaction + 1) & 0xFFFF)
        case Fault.ZERO_TRANSACTION:
            return replace(right, transaction=0)
        case Fault.WRONG_PROTOCOL:
            return replace(right, sound=False)
        case Fault.WRONG_UNIT:
            return replace(right, unit=int(value))
        case Fault.WRONG_FUNCTION:
            return replace(right, pdu=bytes((_OTHER_FUNCTION.get(function, function),)) + body)
        case Fault.WRONG_ECHO if function in _WRITES:
            address = (int.from_bytes(body[:2], "big") + 1) & 0xFFFF
            return replace(right, pdu=bytes((function,)) + address.to_bytes(2, "big") + body[2:])
        case Fault.SHORT:
            return replace(right, pdu=_resized(right.pdu, -2))
        case Fault.LONG:
            return replace(right, pdu=_resized(right.pdu, 2))
        case Fault.ODD:
            return replace(right, pdu=_resized(right.pdu, -1))
    return right


def _resized(pdu: bytes, by: int) -> bytes:
    """An answer with some bytes less or more, and the byte count to match; exceptions stay as they are."""
    if pdu[0] & 0x80:
        return pdu
    resized = pdu[:by] if by < 0 else pdu + bytes(by)
    return resized if pdu[0] in _WRITES else resized[:1] + bytes((pdu[1] + by & 0xFF,)) + resized[2:]

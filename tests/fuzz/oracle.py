"""A strict decoder of Modbus answers, written from the specifications alone: what the fuzzer holds our client against.

It knows nothing of drivers/. Source: MODBUS Application Protocol 1.1b3, 6.3, 6.4, 6.6, 6.12 and 7; MODBUS Messaging
on TCP/IP Implementation Guide 1.0b, 3.1.3 and 4.2; MODBUS over Serial Line 1.02, 2.5.1 and 6.2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it went out."""

    unit: int
    function: int
    """3 and 4 read, 6 and 16 write."""
    address: int
    registers: int
    value: int = 0
    """What FC6 writes."""
    transaction: int = 0


@dataclass(frozen=True, slots=True)
class Good:
    """The answer that was due; registers as bytes, none for a write."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    """A Modbus exception to this request."""

    code: int


@dataclass(frozen=True, slots=True)
class Incomplete:
    """Nothing wrong so far, and not the whole."""


@dataclass(frozen=True, slots=True)
class Wrong:
    """No answer to this request begins like that."""


Verdict = Good | Refused | Incomplete | Wrong


def judge_chunks(asked: Asked, chunks: Sequence[bytes], *, rtu: bool) -> Verdict:
    """The verdict as soon as there is one: after the first chunk with which the answer is whole or wrong."""
    received = b""
    for chunk in chunks:
        received += chunk
        verdict = _judge_rtu(asked, received) if rtu else _judge_tcp(asked, received)
        if not isinstance(verdict, Incomplete):
            return verdict
    return Incomplete()


def answer_to(asked: Asked, payload: bytes, *, rtu: bool) -> bytes:
    """The whole right answer to a request; `payload` is what it reads."""
    return _wrapped(asked, bytes((asked.function,)) + _body(asked, payload), rtu=rtu)


def refusal_of(asked: Asked, code: int, *, rtu: bool) -> bytes:
    """A whole exception answer."""
    return _wrapped(asked, bytes((asked.function + 0x80, code)), rtu=rtu)


def crc16(data: bytes) -> int:
    """The checksum of a serial frame: polynomial 0xA001 (reflected), start 0xFFFF."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def _body(asked: Asked, payload: bytes) -> bytes:
    """What follows the function code of a good answer."""
    if asked.function in (3, 4):
        return bytes((2 * asked.registers,)) + payload
    second = asked.value if asked.function == 6 else asked.registers
    return asked.address.to_bytes(2, "big") + second.to_bytes(2, "big")  # the echo of a write


def _wrapped(asked: Asked, pdu: bytes, *, rtu: bool) -> bytes:
    frame = bytes((asked.unit,)) + pdu
    if rtu:
        return frame + crc16(frame).to_bytes(2, "little")
    return asked.transaction.to_bytes(2, "big") + b"\0\0" + len(frame).to_bytes(2, "big") + frame


def _judge_tcp(asked: Asked, received: bytes) -> Verdict:
    if len(received) < 8:
        return Incomplete()  # nothing is judged before the function code is there
    length = int.from_bytes(received[4:6], "big")
    head_is_right = received[:2] == asked.transaction.to_bytes(2, "big") and received[2:4] == b"\0\0"
    if not head_is_right or received[6] != asked.unit or len(received) > 6 + length:
        return Wrong()
    return _judge_pdu(asked, received[7:], pdu_bytes=length - 1)


def _judge_rtu(asked: Asked, received: bytes) -> Verdict:
    if len(received) < 2:
        return Incomplete()
    if received[0] != asked.unit:
        return Wrong()
    pdu_bytes = 2 if received[1] & 0x80 else 1 + len(_body(asked, bytes(2 * asked.registers)))
    whole = 1 + pdu_bytes + 2
    if len(received) > whole:
        return Wrong()
    verdict = _judge_pdu(asked, received[1 : 1 + pdu_bytes], pdu_bytes=pdu_bytes)
    if isinstance(verdict, Wrong) or len(received) < whole:
        return Wrong() if isinstance(verdict, Wrong) else Incomplete()
    return verdict if crc16(received[:-2]).to_bytes(2, "little") == received[-2:] else Wrong()


def _judge_pdu(asked: Asked, pdu: bytes, *, pdu_bytes: int) -> Verdict:
    """Judge an answer from its function code on, of which `pdu_bytes` are announced."""
    function = pdu[0]
    if function == asked.function + 0x80:
        if pdu_bytes != 2:
            return Wrong()
        return Refused(pdu[1]) if len(pdu) == 2 else Incomplete()
    if function != asked.function:
        return Wrong()
    due = bytes((function,)) + _body(asked, b"")
    due_bytes = len(due) + (2 * asked.registers if function in (3, 4) else 0)
    if pdu_bytes != due_bytes or not due.startswith(pdu[: len(due)]):
        return Wrong()
    return Good(pdu[len(due) :]) if len(pdu) == due_bytes else Incomplete()

"""Questions as bytes, what their answers must look like, and what is wrong with those that do not.

Frames are made by pymodbus's framers and PDUs. Answers are compared byte by byte with what the question allows,
because pymodbus's client accepts answers that do not fit their question.
Source: MODBUS Messaging on TCP/IP Implementation Guide 1.0b, 3.1.3; MODBUS over Serial Line 1.02, 2.5.1;
MODBUS Application Protocol 1.1b3, 6.3, 6.4, 6.6, 6.12, 7.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from pymodbus.framer import FramerRTU, FramerSocket
from pymodbus.pdu import DecodePDU, ModbusPDU
from pymodbus.pdu.register_message import (
    ReadHoldingRegistersRequest,
    ReadHoldingRegistersResponse,
    ReadInputRegistersRequest,
    ReadInputRegistersResponse,
    WriteMultipleRegistersRequest,
    WriteMultipleRegistersResponse,
    WriteSingleRegisterRequest,
    WriteSingleRegisterResponse,
)

from drivers.modbus.unit import MAX_READ, MAX_WRITE, Table

ADDRESSES = 0x10000
EXCEPTION_BIT = 0x80

_MBAP = struct.Struct(">HHHBB")
"""Transaction id, protocol id, length of what follows, unit; then the function code."""
_MBAP_UNCOUNTED = 6
"""Bytes that the length field does not count."""
_EXCEPTION_LENGTH = 3
"""Unit, function code and exception code."""
_CRC_BYTES = 2
_READS = {
    Table.HOLDING: (ReadHoldingRegistersRequest, ReadHoldingRegistersResponse),
    Table.INPUT: (ReadInputRegistersRequest, ReadInputRegistersResponse),
}
_EXCEPTIONS = {
    1: "illegal function",
    2: "illegal address",
    3: "illegal value",
    4: "device failure",
    5: "acknowledge",
    6: "device busy",
    7: "negative acknowledge",
    8: "memory parity error",
    10: "gateway path unavailable",
    11: "gateway target device failed to respond",
}


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """A question without its transaction id, and what the answer to it must look like."""

    frame: bytes
    answer: bytes
    """A good answer from behind its transaction id up to its payload."""
    payload_at: int
    """Where in the whole good answer its payload begins."""
    size: int
    """Bytes of the whole good answer."""
    unit: int
    """The unit that the answer must name."""
    function: int
    address: int
    text: str


class Framing(Protocol):
    """How a link wraps questions and answers."""

    id_bytes: int
    """Bytes of the transaction id at the start of each frame; 0 where there is none."""
    head_bytes: int
    """Bytes of an answer from which on it can be judged."""
    refused_size: int
    """Bytes of a whole exception answer."""

    def __hash__(self) -> int: ...

    def question(self, request: ModbusPDU, answer: ModbusPDU, payload: int, text: str) -> Question:
        """A question from its PDU and that of a good answer to it, of which the last bytes are free."""
        ...

    def wrong(self, received: bytes, question: Question) -> str:
        """How the bytes so far cannot be the answer to a question of that transaction; empty while they can."""
        ...

    def refuses(self, received: bytes, question: Question) -> bool:
        """Whether it is an exception to that question; needs the head only."""
        ...

    def exception_code(self, frame: bytes) -> int:
        """The code of a whole exception answer."""
        ...

    def payload(self, frame: bytes, question: Question) -> bytes:
        """The registers of a whole answer without fault."""
        ...


class Mbap:
    """Frames of Modbus/TCP."""

    id_bytes = 2
    head_bytes = _MBAP.size
    refused_size = _MBAP_UNCOUNTED + _EXCEPTION_LENGTH

    def __init__(self) -> None:
        self._framer = FramerSocket(DecodePDU(is_server=False))

    def question(self, request: ModbusPDU, answer: ModbusPDU, payload: int, text: str) -> Question:
        good = self._framer.buildFrame(answer)
        frame = self._framer.buildFrame(request)[2:]
        payload_at = len(good) - payload
        unit, function = answer.dev_id, answer.function_code
        return Question(frame, good[2:payload_at], payload_at, len(good), unit, function, request.address, text)

    def wrong(self, received: bytes, question: Question) -> str:
        _, protocol, length, unit, function = _MBAP.unpack_from(received)
        refused = self.refuses(received, question)
        size = self.refused_size if refused else question.size
        rest_due = b"" if refused else question.answer[_MBAP.size - 2 :]
        rest = received[_MBAP.size : _MBAP.size + len(rest_due)]
        return _first_difference(
            ("protocol id", protocol, 0),
            ("unit", unit, question.unit),
            ("function code", function, function if refused else question.function),
            ("frame length", length, size - _MBAP_UNCOUNTED),
            ("byte count or echo", rest.hex(), rest_due[: len(rest)].hex()),
        )

    def refuses(self, received: bytes, question: Question) -> bool:
        return received[_MBAP.size - 1] == question.function | EXCEPTION_BIT

    def exception_code(self, frame: bytes) -> int:
        return frame[_MBAP.size]

    def payload(self, frame: bytes, question: Question) -> bytes:
        return frame[question.payload_at :]


class Rtu:
    """Frames of a serial line, on the line or through a TCP connection; no transaction ids, but a checksum."""

    id_bytes = 0
    head_bytes = 2
    refused_size = _EXCEPTION_LENGTH + _CRC_BYTES

    def __init__(self) -> None:
        self._framer = FramerRTU(DecodePDU(is_server=False))

    def question(self, request: ModbusPDU, answer: ModbusPDU, payload: int, text: str) -> Question:
        good = self._framer.buildFrame(answer)
        frame = self._framer.buildFrame(request)
        payload_at = len(good) - _CRC_BYTES - payload
        unit, function = answer.dev_id, answer.function_code
        return Question(frame, good[:payload_at], payload_at, len(good), unit, function, request.address, text)

    def wrong(self, received: bytes, question: Question) -> str:
        unit, function = received[:2]
        refused = self.refuses(received, question)
        size = self.refused_size if refused else question.size
        damaged = len(received) >= size and not _checksum_holds(received[:size])
        rest_due = b"" if refused else question.answer[2:]
        rest = received[2 : 2 + len(rest_due)]
        return _first_difference(
            ("unit", unit, question.unit),
            ("function code", function, function if refused else question.function),
            ("byte count or echo", rest.hex(), rest_due[: len(rest)].hex()),
            ("checksum", "wrong" if damaged else "right", "right"),
        )

    def refuses(self, received: bytes, question: Question) -> bool:
        return received[1] == question.function | EXCEPTION_BIT

    def exception_code(self, frame: bytes) -> int:
        return frame[2]

    def payload(self, frame: bytes, question: Question) -> bytes:
        return frame[question.payload_at : -_CRC_BYTES]


MBAP, RTU = Mbap(), Rtu()


@lru_cache(maxsize=4096)
def read_question(framing: Framing, unit: int, answers_as: int, table: Table, address: int, count: int) -> Question:
    """Ask for registers; raises ValueError for what no request can carry."""
    if not (1 <= count <= MAX_READ and 0 <= address <= ADDRESSES - count):
        raise ValueError(f"{count} registers at {address} cannot be read at once")
    request, answer = _READS[table]
    return framing.question(
        request(dev_id=unit, address=address, count=count),
        answer(dev_id=answers_as, registers=[0] * count),
        2 * count,
        f"reading {count} registers at {address}",
    )


def write_question(
    framing: Framing, unit: int, answers_as: int, address: int, data: bytes, *, single: bool
) -> Question:
    """Set registers, one alone by FC6 if `single`; raises ValueError for what no request can carry."""
    count, odd = divmod(len(data), 2)
    if odd or not (1 <= count <= MAX_WRITE and 0 <= address <= ADDRESSES - count):
        raise ValueError(f"{len(data)} bytes at {address} cannot be written at once")
    registers = list(struct.unpack(f">{count}H", data))
    request: ModbusPDU
    answer: ModbusPDU
    if single and count == 1:
        request = WriteSingleRegisterRequest(dev_id=unit, address=address, registers=registers)
        answer = WriteSingleRegisterResponse(dev_id=answers_as, address=address, registers=registers)
    else:
        request = WriteMultipleRegistersRequest(dev_id=unit, address=address, registers=registers)
        answer = WriteMultipleRegistersResponse(dev_id=answers_as, address=address, count=count)
    return framing.question(request, answer, 0, f"writing {count} registers at {address}")


def exception_name(code: int) -> str:
    """An exception code in words, for messages."""
    return _EXCEPTIONS.get(code, "unknown exception")


def _checksum_holds(frame: bytes) -> bool:
    return FramerRTU.check_CRC(frame[:-_CRC_BYTES], int.from_bytes(frame[-_CRC_BYTES:], "big"))


def _first_difference(*checks: tuple[str, object, object]) -> str:
    return next((f"{what} {got}, expected {due}" for what, got, due in checks if got != due), "")

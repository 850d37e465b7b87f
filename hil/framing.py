"""How requests and answers travel: with the MBAP header of Modbus TCP, or as RTU frames inside a TCP connection.

Source: MODBUS Messaging on TCP/IP 1.0b, 3.1.3; MODBUS over Serial Line 1.02, 2.5.1 (RTU) and 6.2.2 (CRC).
"""

import struct
from dataclasses import dataclass
from typing import Protocol

_LENGTH_MAX = 254
"""Unit and PDU."""
_READ_FUNCTIONS, _WRITE_ONE, _WRITE_MANY = (1, 2, 3, 4), 6, 16


class OutOfStep(Exception):
    """What came is no frame: nothing after it can be believed."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, with the frame that carried it."""

    transaction: int
    unit: int
    pdu: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, with everything in it that can be wrong."""

    transaction: int
    unit: int
    pdu: bytes
    sound: bool = True
    """Without it the protocol id, or the checksum, is wrong."""


class Framing(Protocol):
    """Takes requests off a stream and packs answers."""

    def cut(self, stream: bytes) -> Request | None:
        """The first request of the stream; None when there is no whole one. Raises OutOfStep."""
        ...

    def pack(self, answer: Answer) -> bytes: ...


class Mbap:
    """Modbus TCP, and the same inside TLS."""

    def cut(self, stream: bytes) -> Request | None:
        if len(stream) < 8:
            return None
        transaction, protocol, length, unit = struct.unpack_from(">HHHB", stream)
        if protocol or not 2 <= length <= _LENGTH_MAX:
            raise OutOfStep
        frame = stream[: 6 + length]
        return Request(transaction, unit, frame[7:], frame) if len(frame) == 6 + length else None

    def pack(self, answer: Answer) -> bytes:
        protocol = 0 if answer.sound else 1
        return struct.pack(">HHHB", answer.transaction, protocol, 1 + len(answer.pdu), answer.unit) + answer.pdu


class Rtu:
    """RTU frames: their ends follow from the function code; for an unknown one, all that is there is one frame."""

    def cut(self, stream: bytes) -> Request | None:
        size = self._size(stream)
        if size is None or len(stream) < size:
            return None
        frame = stream[:size]
        if size < 4 or crc16(frame[:-2]) != int.from_bytes(frame[-2:], "little"):
            raise OutOfStep
        return Request(0, frame[0], frame[1:-2], frame)

    @staticmethod
    def _size(stream: bytes) -> int | None:
        """Bytes of the first frame; None while it cannot be known."""
        if len(stream) < 2:
            return None
        if stream[1] in (*_READ_FUNCTIONS, _WRITE_ONE):
            return 8
        if stream[1] == _WRITE_MANY:
            return 9 + stream[6] if len(stream) > 6 else None
        return len(stream)

    def pack(self, answer: Answer) -> bytes:
        body = bytes((answer.unit,)) + answer.pdu
        return body + (crc16(body) ^ (not answer.sound)).to_bytes(2, "little")


def crc16(data: bytes) -> int:
    """Checksum of a serial frame: polynomial 0xA001, reflected, from 0xFFFF; sent with the low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc

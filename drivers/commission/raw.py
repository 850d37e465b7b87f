"""A bare Modbus TCP connection for tests of the wire itself: bytes out as given, whole frames in, nothing forgiven.

Source: MODBUS Messaging on TCP/IP Implementation Guide 1.0b, 3.1.3.
"""

import asyncio
import struct
from collections.abc import Awaitable, Callable

from derms.errors import DeviceUnreachable, ProtocolViolation

READ = 3
_HEAD = struct.Struct(">HHH")
_LENGTH_MAX = 254


def read_request(transaction: int, unit: int, address: int, count: int) -> bytes:
    """A whole FC3 request."""
    return frame(transaction, unit, struct.pack(">BHH", READ, address, count))


def frame(transaction: int, unit: int, pdu: bytes) -> bytes:
    """A PDU in its MBAP header."""
    return _HEAD.pack(transaction, 0, 1 + len(pdu)) + bytes([unit]) + pdu


class RawLink:
    """One connection; every wait is bounded by `timeout_s`."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, unit: int, timeout_s: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._timeout_s = timeout_s
        self.unit = unit

    @classmethod
    async def dial(cls, host: str, port: int, *, unit: int, timeout_s: float) -> "RawLink":
        """Connect; raises DeviceUnreachable."""
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_connection(host, port)
        except OSError as error:  # a time-out is one too
            raise DeviceUnreachable(f"{host}:{port}: no connection: {error or 'no answer in time'}") from error
        return cls(reader, writer, unit=unit, timeout_s=timeout_s)

    def send(self, data: bytes) -> None:
        """Send bytes as they are, in a segment of their own where the network keeps them apart."""
        self._writer.write(data)

    async def answer(self) -> tuple[int, bytes]:
        """Transaction id and PDU of the next frame; raises DeviceUnreachable or ProtocolViolation."""
        try:
            async with asyncio.timeout(self._timeout_s):
                transaction, protocol, length = _HEAD.unpack(await self._reader.readexactly(_HEAD.size))
                if protocol or not 2 <= length <= _LENGTH_MAX:
                    raise ProtocolViolation(f"protocol id {protocol}, frame length {length}")
                unit, *pdu = await self._reader.readexactly(length)
        except TimeoutError as error:
            raise DeviceUnreachable(f"no answer in {self._timeout_s:g} s") from error
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise DeviceUnreachable("the device closed the connection") from error
        if unit != self.unit:
            raise ProtocolViolation(f"unit {unit} answered for unit {self.unit}")
        return transaction, bytes(pdu)

    async def is_silent(self, wait: Callable[[float], Awaitable[None]], for_s: float) -> bool:
        """Whether nothing arrives, and the connection stays, for a time [s]."""
        arrived = asyncio.ensure_future(self._reader.read(1))
        await wait(for_s)
        silent = not arrived.done()
        arrived.cancel()
        await asyncio.wait({arrived})
        return silent

    def close(self) -> None:
        self._writer.close()

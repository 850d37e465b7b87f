"""A serial port as a transport of asyncio: pymodbus moves the bytes, what they mean is the link's affair."""

import asyncio
from typing import Any

from pymodbus.transport.serialtransport import SerialTransport

BITS_PER_CHARACTER = 11
"""Start, eight data bits, parity or a second stop bit, stop."""
FAST_BAUD = 19200
FAST_SILENCE_S = 0.00175


def silence_s(baud: int) -> float:
    """The pause that parts two frames on the line [s]: 3.5 characters, and a fixed time from 19200 baud on.

    Source: MODBUS over Serial Line 1.02, 2.5.1.1.
    """
    return FAST_SILENCE_S if baud > FAST_BAUD else 3.5 * BITS_PER_CHARACTER / baud


async def open_port(protocol: asyncio.Protocol, port: str, baud: int, parity: str) -> None:
    """Open a serial port of 8 bits and give it to a protocol; raises OSError."""
    transport: Any = SerialTransport(
        asyncio.get_running_loop(), protocol, port, baudrate=baud, bytesize=8, parity=parity, stopbits=1, timeout=0
    )
    transport.setup()
    await asyncio.sleep(0)  # the transport tells the protocol in the next turn of the loop

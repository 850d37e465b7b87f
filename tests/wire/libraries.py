"""Three Modbus libraries that share no code, and ours, as clients of one shape: blocking, one unit, one connection.

Registers are bytes as on the wire. A refusal is a Refusal with the exception code of the device, whichever library it
comes through; libmodbus is spoken to through ctypes.
"""

import asyncio
import ctypes
import random
import re
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from pymodbus.client import ModbusTcpClient
from sunspec2.modbus.client import SunSpecModbusClientDeviceTCP
from sunspec2.modbus.modbus import ModbusClientException

from derms.domain.der import Endpoint as Address
from derms.errors import DeviceRefused
from derms.ports import FieldOptions
from drivers.modbus.session import Sessions
from hil.server import Endpoint
from hil.unit import SimulatedUnit

TIMEOUT_S = 5.0
LIBMODBUS = "libmodbus.so.5"
ERRNO_BASE = 112345678
"""libmodbus reports exception n as this errno plus n (modbus.h)."""


class Refusal(Exception):
    """The device answered with an exception."""

    def __init__(self, code: int) -> None:
        self.code = code
        super().__init__(f"exception {code}")


class Client(Protocol):
    """A library with a connection."""

    def read(self, address: int, count: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None:
        """By FC6 for a single register in libraries that do so, else by FC16."""
        ...

    def close(self) -> None: ...


class Pysunspec2:
    """pysunspec2's own Modbus client."""

    def __init__(self, port: int) -> None:
        self._device = SunSpecModbusClientDeviceTCP(slave_id=1, ipaddr="127.0.0.1", ipport=port, timeout=TIMEOUT_S)
        self._device.connect()

    def read(self, address: int, count: int) -> bytes:
        try:
            return bytes(self._device.read(address, count))
        except ModbusClientException as error:
            raise Refusal(_code_in(error)) from error

    def write(self, address: int, data: bytes) -> None:
        try:
            self._device.write(address, data)
        except ModbusClientException as error:
            raise Refusal(_code_in(error)) from error

    def close(self) -> None:
        self._device.disconnect()


def _code_in(error: ModbusClientException) -> int:
    """The exception code, which pysunspec2 tells in words only: `Modbus exception 2: addr: 40000 count: 1`."""
    found = re.match(r"Modbus exception:? (\d+)", str(error))
    assert found
    return int(found[1])


class Pymodbus:
    """pymodbus's blocking client."""

    def __init__(self, port: int) -> None:
        self._client: Any = ModbusTcpClient("127.0.0.1", port=port, timeout=TIMEOUT_S)

    def read(self, address: int, count: int) -> bytes:
        answer = self._client.read_holding_registers(address, count=count, device_id=1)
        if answer.isError():
            raise Refusal(answer.exception_code)
        return struct.pack(f">{count}H", *answer.registers)

    def write(self, address: int, data: bytes) -> None:
        values = list(struct.unpack(f">{len(data) // 2}H", data))
        answer = self._client.write_registers(address, values, device_id=1)
        if answer.isError():
            raise Refusal(answer.exception_code)

    def close(self) -> None:
        self._client.close()


class Libmodbus:
    """libmodbus, a library in C; raises OSError where it is not installed."""

    def __init__(self, port: int) -> None:
        self._lib = lib = ctypes.CDLL(LIBMODBUS, use_errno=True)
        lib.modbus_new_tcp.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(lib.modbus_new_tcp(b"127.0.0.1", port))
        lib.modbus_set_slave(self._context, 1)
        lib.modbus_set_response_timeout(self._context, ctypes.c_uint32(int(TIMEOUT_S)), ctypes.c_uint32(0))
        self._done(lib.modbus_connect(self._context))

    def read(self, address: int, count: int) -> bytes:
        words = (ctypes.c_uint16 * count)()
        assert self._done(self._lib.modbus_read_registers(self._context, address, count, words)) == count
        return struct.pack(f">{count}H", *words)

    def write(self, address: int, data: bytes) -> None:
        count = len(data) // 2
        words = struct.unpack(f">{count}H", data)
        if count == 1:
            self._done(self._lib.modbus_write_register(self._context, address, words[0]))
        else:
            block = (ctypes.c_uint16 * count)(*words)
            self._done(self._lib.modbus_write_registers(self._context, address, count, block))

    def close(self) -> None:
        self._lib.modbus_close(self._context)
        self._lib.modbus_free(self._context)

    def _done(self, result: int) -> int:
        if result >= 0:
            return result
        errno = ctypes.get_errno()
        if 0 < errno - ERRNO_BASE < 256:
            raise Refusal(errno - ERRNO_BASE)
        raise OSError(errno, "libmodbus")


class Ours:
    """The client of this project, on a loop of its own."""

    def __init__(self, port: int) -> None:
        self._runner = asyncio.Runner()
        options = FieldOptions(timeout_s=TIMEOUT_S, connect_timeout_s=TIMEOUT_S, read_only=False)
        self._unit = Sessions(options, random.Random(1)).unit(Address("127.0.0.1", port))
        self._runner.run(self._unit.connect())

    def read(self, address: int, count: int) -> bytes:
        async def asked() -> bytes:
            try:
                return await self._unit.read(address, count)
            except DeviceRefused as error:
                raise Refusal(error.code) from error

        return self._runner.run(asked())

    def write(self, address: int, data: bytes) -> None:
        async def asked() -> None:
            try:
                await self._unit.write(address, data)
            except DeviceRefused as error:
                raise Refusal(error.code) from error

        self._runner.run(asked())

    def close(self) -> None:
        async def leave() -> None:
            self._unit.disconnect()

        self._runner.run(leave())
        self._runner.close()


LIBRARIES: Mapping[str, Any] = {
    "pysunspec2": Pysunspec2,
    "pymodbus": Pymodbus,
    "libmodbus": Libmodbus,
    "ours": Ours,
}


@contextmanager
def served(units: Mapping[int, SimulatedUnit]) -> Iterator[int]:
    """A port on which a thread of its own serves some units, for clients that block."""
    endpoint = Endpoint(units, rng=np.random.default_rng(1))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(endpoint.start("127.0.0.1", 0), loop).result(TIMEOUT_S)
    finally:

        async def stop() -> None:
            endpoint.stop()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(stop(), loop).result(TIMEOUT_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

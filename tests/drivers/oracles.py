"""Independent ends for the driver tests: maps by pysunspec2, served by pymodbus, and servers that lie on purpose."""

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import sunspec2.device
from pymodbus.pdu import ModbusPDU
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from derms.domain.der import Device, DeviceKind, Endpoint, Transport
from derms.ports import Clock, FieldOptions
from drivers.modbus.quirks import STANDARD, LinkQuirks
from drivers.modbus.session import Sessions
from drivers.modbus.unit import Unit
from drivers.sunspec.driver import SunSpecDriver

Points = Mapping[str, Any]
END = b"\xff\xff\x00\x00"
COMMON: Points = {"Mn": "Acme", "Md": "Box", "Vr": "1.0", "SN": "SN-7", "DA": 1}

PV_1547: Mapping[int, Points] = {
    1: COMMON,
    701: {
        "W": 4321,
        "W_SF": 0,
        "Var": -55,
        "Var_SF": 1,
        "LNV": 2403,
        "LLV": 4162,
        "V_SF": -1,
        "Hz": 60012,
        "Hz_SF": -3,
        "TotWhInj": 123456,
        "TotWh_SF": 0,
    },
    702: {"WMaxRtg": 5000, "VAMaxRtg": 5500, "VNomRtg": 240, "WMax": 5000, "W_SF": 0, "VA_SF": 0, "V_SF": 0},
    703: {"ES": 1},
    704: {
        "WMaxLimPctEna": 0,
        "WMaxLimPct": 10000,
        "WMaxLimPctRvrt": 8000,
        "WMaxLimPctEnaRvrt": 1,
        "WMaxLimPctRvrtTms": 0,
        "WMaxLimPctRvrtRem": 17,
        "WMaxLimPct_SF": -2,
    },
}
BATTERY_1547: Mapping[int, Points] = {
    **PV_1547,
    704: {
        **PV_1547[704],
        "WSetEna": 0,
        "WSetMod": 0,
        "WSet": 0,
        "WSetRvrt": 77,
        "WSetEnaRvrt": 1,
        "WSetRvrtTms": 0,
        "WSetRvrtRem": 23,
        "WSet_SF": 1,
    },
    713: {"WHRtg": 2000, "SoC": 555, "WH_SF": 1, "Pct_SF": -1},
}
BATTERY_LEGACY: Mapping[int, Points] = {
    1: COMMON,
    103: {"W": -120, "W_SF": 1, "VAr": 33, "VAr_SF": 0, "PhVphA": 2398, "V_SF": -1},
    120: {
        "WRtg": 5000,
        "WRtg_SF": 0,
        "VARtg": 5200,
        "VARtg_SF": 0,
        "WHRtg": 20000,
        "WHRtg_SF": 0,
        "MaxDisChaRte": 4000,
        "MaxDisChaRte_SF": 0,
    },
    121: {"WMax": 500, "WMax_SF": 1, "VRef": 240, "VRef_SF": 0},
    122: {"PVConn": 1},
    123: {"WMaxLimPct": 100, "WMaxLimPct_WinTms": 9, "WMaxLimPct_RvrtTms": 0, "WMaxLim_Ena": 0, "WMaxLimPct_SF": 0},
    124: {
        "WChaMax": 5000,
        "WChaMax_SF": 0,
        "StorCtl_Mod": 0,
        "ChaState": 62,
        "ChaState_SF": 0,
        "OutWRte": 0,
        "InWRte": 0,
        "InOutWRte_WinTms": 9,
        "InOutWRte_RvrtTms": 0,
        "InOutWRte_SF": -1,
    },
}
METER: Mapping[int, Points] = {
    1: COMMON,
    203: {
        "W": 3000,
        "WphA": 1500,
        "WphB": 1000,
        "WphC": 500,
        "W_SF": 3,
        "VAR": -30,
        "VARphA": -10,
        "VARphB": -20,
        "VAR_SF": 2,
        "PhV": 2401,
        "PhVphA": 2400,
        "PhVphB": 2410,
        "PhVphC": 2393,
        "V_SF": 0,
    },
}


def model_bytes(model_id: int, points: Points) -> bytes:
    """One model with ID and L as pysunspec2 encodes it; points that are not given are not implemented."""
    length = len(sunspec2.device.Model(model_id).get_mb()) // 2 - 2
    return bytes(sunspec2.device.Model(model_id, data={"ID": model_id, "L": length, **points}).get_mb())


def map_bytes(models: Mapping[int, Points]) -> bytes:
    """A whole SunSpec map from 'SunS' to the end model."""
    return b"SunS" + b"".join(model_bytes(model_id, points) for model_id, points in models.items()) + END


def address_of(models: Mapping[int, Points], model_id: int, base: int = 40000) -> int:
    """Address of a model's ID register in the map of `map_bytes`."""
    before = list(models)[: list(models).index(model_id)]
    return base + 2 + sum(len(model_bytes(each, models[each])) // 2 for each in before)


class PymodbusDevice:
    """A device on pymodbus's own server; keeps the requests it got."""

    def __init__(self, image: bytes, base: int) -> None:
        self.base = base
        self.requests: list[tuple[int, int, int]] = []
        """Function code, address and count of each request."""
        self.left = asyncio.Event()
        """A client has disconnected."""
        registers = list(struct.unpack(f">{len(image) // 2}H", image))
        self._size = len(registers)
        self._server: Any = ModbusTcpServer(
            SimDevice(1, [SimData(base, values=registers, datatype=DataType.REGISTERS)]),
            address=("127.0.0.1", 0),
            trace_pdu=self._note,
            trace_connect=self._note_connection,
        )

    @property
    def port(self) -> int:
        return int(self._server.transport.sockets[0].getsockname()[1])

    async def start(self) -> None:
        await self._server.serve_forever(background=True)

    async def stop(self) -> None:
        await self._server.shutdown()

    async def image(self) -> bytes:
        """The registers as they are now."""
        registers = await self._server.async_getValues(1, 3, self.base, self._size)
        return struct.pack(f">{self._size}H", *registers)

    async def model(self, models: Mapping[int, Points], model_id: int) -> Any:
        """One model as it is now, decoded by pysunspec2."""
        start = 2 * (address_of(models, model_id, self.base) - self.base)
        return sunspec2.device.Model(model_id, data=(await self.image())[start:])

    def writes(self) -> list[tuple[int, int]]:
        """Address and count of each FC16 request."""
        return [(address, count) for function, address, count in self.requests if function == 16]

    def _note_connection(self, connected: bool) -> None:
        if not connected:
            self.left.set()

    def _note(self, sending: bool, pdu: ModbusPDU) -> ModbusPDU:
        if not sending:
            self.requests.append((pdu.function_code, pdu.address, pdu.count))
        return pdu


@asynccontextmanager
async def pymodbus_device(image: bytes, base: int = 40000) -> AsyncIterator[PymodbusDevice]:
    """pymodbus's server with one unit 1 that holds an image at a base address."""
    device = PymodbusDevice(image, base)
    await device.start()
    try:
        yield device
    finally:
        await device.stop()


class FrozenClock:
    """A clock that moves a second at each look."""

    def __init__(self) -> None:
        self._looks = 0

    def monotonic_s(self) -> float:
        self._looks += 1
        return float(self._looks)

    def utc(self) -> datetime:
        return datetime(2024, 4, 15, tzinfo=UTC)


@asynccontextmanager
async def connected_driver(
    port: int,
    *,
    kind: DeviceKind = DeviceKind.BATTERY,
    serial: str = "",
    read_only: bool = False,
    clock: Clock | None = None,
) -> AsyncIterator[tuple[SunSpecDriver, Any]]:
    """A driver connected to a port of this machine, and the identity it found."""
    device = Device(
        id="dut",
        kind=kind,
        driver="sunspec",
        endpoint=Endpoint("127.0.0.1", port),
        bus="b1",
        serial=serial,
    )
    driver = SunSpecDriver(device, connection_to(port, timeout_s=2.0, read_only=read_only), clock or FrozenClock())
    identity = await driver.connect()
    try:
        yield driver, identity
    finally:
        driver.disconnect()


def connection_to(
    port: int,
    *,
    timeout_s: float = 5.0,
    read_only: bool = False,
    quirks: LinkQuirks = STANDARD,
    transport: Transport = Transport.TCP,
) -> Unit:
    """Unit 1 on a port of this machine, in a session of its own."""
    sessions = sessions_with(timeout_s=timeout_s, read_only=read_only)
    return sessions.unit(Endpoint("127.0.0.1", port, 1, transport), quirks)


def sessions_with(**changes: Any) -> Sessions:
    """Sessions that try a lost endpoint again at once, unless told otherwise."""
    usual = {"timeout_s": 5.0, "connect_timeout_s": 5.0, "read_only": False, "backoff_min_s": 0.0}
    return Sessions(FieldOptions(**{**usual, **changes}), random.Random(1))


Answer = Callable[[bytes], Sequence[bytes]]
"""The chunks with which a scripted device answers a request; each is sent by itself."""


def good_answer(request: bytes) -> bytes:
    """What a sound device answers; every register it reads holds its own address."""
    transaction, unit, function = request[:2], request[6:7], request[7:8]
    address, count = struct.unpack(">HH", request[8:12])
    if function in (b"\x06", b"\x10"):
        pdu = function + request[8:12]
    else:
        pdu = function + bytes([2 * count]) + registers_at(address, count)
    return transaction + struct.pack(">HH", 0, 1 + len(pdu)) + unit + pdu


def registers_at(address: int, count: int) -> bytes:
    """The registers of `good_answer`."""
    return struct.pack(f">{count}H", *range(address, address + count))


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted_device(*scripts: Script) -> AsyncIterator[int]:
    """A server whose n-th connection runs the n-th script, the last one for all that follow; gives its port."""
    connections = 0
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        script = scripts[min(connections, len(scripts) - 1)]
        connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def next_request(reader: asyncio.StreamReader) -> bytes:
    """One whole request frame."""
    head = await reader.readexactly(6)
    return head + await reader.readexactly(int.from_bytes(head[4:6], "big"))


def answering(answer: Answer) -> Script:
    """A script that answers every request with chunks, each in a segment of its own."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            for chunk in answer(await next_request(reader)):
                writer.write(chunk)
                await writer.drain()
                await asyncio.sleep(0)

    return script


sound: Script = answering(lambda request: [good_answer(request)])


def asked_address(request: bytes) -> int:
    """The address that a request asks for."""
    return int(struct.unpack(">H", request[8:10])[0])


@asynccontextmanager
async def connected_unit(
    *scripts: Script, timeout_s: float = 5.0, quirks: LinkQuirks = STANDARD
) -> AsyncIterator[tuple[Unit, int]]:
    """A unit connected to a scripted device, and the port of it."""
    async with scripted_device(*scripts) as port:
        unit = connection_to(port, timeout_s=timeout_s, quirks=quirks)
        await unit.connect()
        yield unit, port
        unit.disconnect()

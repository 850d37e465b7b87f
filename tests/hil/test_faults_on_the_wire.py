"""Every fault of a simulated device as its clients see it, on a real socket."""

import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from drivers.sunspec.models import layout
from hil.distort import OTHER_SERIAL
from hil.fault_kinds import OF_MODELS, VALUES
from hil.framing import Rtu, crc16
from hil.plain import PlainPoint, PlainUnit
from hil.registers import BASE, Bank
from hil.server import Endpoint, Fault
from hil.unit import BankUnit

TIMEOUT_S = 2.0
SILENCE_S = 0.02
"""Long enough for an answer that would come at once."""
RESET = (ConnectionResetError, BrokenPipeError)


def fault_bank() -> Bank:
    bank = Bank(1, [layout(model) for model in (1, 701, 704, 715)], {"701.W_SF": 1, "704.WMaxLimPct_SF": -2})
    bank.text("1.SN", ["SN-1"])
    for name, value in (
        ("701.W", 50_000.0),
        ("701.Hz", 60.0),
        ("701.St", 1.0),
        ("715.DERHb", 7.0),
        ("715.LocRemCtl", 0),
    ):
        bank.put(name, value)
    for name in ("Ena", "", "Rvrt", "EnaRvrt", "RvrtTms"):
        bank.put(f"704.WMaxLimPct{name}", 0)
    return bank


@dataclass
class Wire:
    """Two units behind one port, and connections to it."""

    bank: Bank
    endpoint: Endpoint
    port: int
    obeyed: list[int]
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def exchange(self, adu: bytes) -> bytes:
        """What comes back on a new connection until it has been quiet for a moment, or is closed."""
        reader, writer = await self.connect()
        writer.write(adu)
        return await until_quiet(reader)

    async def ask(self, adu: bytes, size: int) -> bytes:
        """So many bytes on a new connection."""
        reader, writer = await self.connect()
        writer.write(adu)
        return await asyncio.wait_for(reader.readexactly(size), TIMEOUT_S)

    def at(self, name: str) -> int:
        return BASE + self.bank.place(name).register

    async def number(self, name: str) -> int:
        """A 16-bit point as it is read."""
        answer = await self.ask(reading(self.at(name), 1), 11)
        return int(struct.unpack(">h", answer[9:])[0])


async def until_quiet(reader: asyncio.StreamReader) -> bytes:
    got = b""
    try:
        while part := await asyncio.wait_for(reader.read(4096), SILENCE_S if got else 4 * SILENCE_S):
            got += part
    except (TimeoutError, *RESET):
        pass
    return got


def reading(address: int, count: int, *, transaction: int = 9, unit: int = 1) -> bytes:
    return struct.pack(">HHHBBHH", transaction, 0, 6, unit, 3, address, count)


def writing(address: int, *values: int) -> bytes:
    body = struct.pack(f">HHB{len(values)}H", address, len(values), 2 * len(values), *values)
    return struct.pack(">HHHBB", 9, 0, 2 + len(body), 1, 16) + body


def on_the_wire(scenario: Callable[[Wire], Awaitable[None]]) -> None:
    async def run() -> None:
        bank = fault_bank()
        obeyed: list[int] = []
        first = BankUnit(bank, 0, on_write=lambda row, model, offset, data: obeyed.append(model))
        second = BankUnit(fault_bank(), 0)
        endpoint = Endpoint({1: first, 2: second}, rng=np.random.default_rng(3))
        wire = Wire(bank, endpoint, await endpoint.start("127.0.0.1", 0), obeyed)
        try:
            await scenario(wire)
        finally:
            for writer in wire.writers:
                writer.close()
            endpoint.stop()

    asyncio.run(run())


SUNS = reading(BASE, 2)
RIGHT = struct.pack(">HHHBBB", 9, 0, 7, 1, 3, 4) + b"SunS"
TIMER_AT = BASE + 2 + 68 + 155 + 18
ECHO = struct.pack(">HHHBBHH", 9, 0, 6, 1, 16, TIMER_AT, 2)


@pytest.mark.parametrize(
    ("kind", "value", "request_", "answer"),
    [
        (Fault.DUPLICATE, None, SUNS, RIGHT + RIGHT),
        (Fault.DROP_MID_FRAME, None, SUNS, RIGHT[:6]),
        (Fault.SPLIT, None, SUNS, RIGHT),
        (Fault.DRIBBLE, 0.001, SUNS, RIGHT),
        (Fault.DELAY, 0.02, SUNS, RIGHT),
        (Fault.WRONG_TRANSACTION, None, SUNS, b"\x00\x0a" + RIGHT[2:]),
        (Fault.ZERO_TRANSACTION, None, SUNS, b"\x00\x00" + RIGHT[2:]),
        (Fault.WRONG_PROTOCOL, None, SUNS, RIGHT[:2] + b"\x00\x01" + RIGHT[4:]),
        (Fault.WRONG_UNIT, 77, SUNS, RIGHT[:6] + b"\x4d" + RIGHT[7:]),
        (Fault.WRONG_FUNCTION, None, SUNS, RIGHT[:7] + b"\x04" + RIGHT[8:]),
        (Fault.WRONG_FUNCTION, None, writing(TIMER_AT, 0, 5), ECHO[:7] + b"\x06" + ECHO[8:]),
        (Fault.SHORT, None, SUNS, struct.pack(">HHHBBB", 9, 0, 5, 1, 3, 2) + b"Su"),
        (Fault.LONG, None, SUNS, struct.pack(">HHHBBB", 9, 0, 9, 1, 3, 6) + b"SunS\0\0"),
        (Fault.ODD, None, SUNS, struct.pack(">HHHBBB", 9, 0, 6, 1, 3, 3) + b"Sun"),
        (Fault.WRONG_ECHO, None, SUNS, RIGHT),
        (Fault.WRONG_ECHO, None, writing(TIMER_AT, 0, 5), ECHO[:8] + struct.pack(">HH", TIMER_AT + 1, 2)),
        (Fault.EXCEPTION, None, SUNS, struct.pack(">HHHBBB", 9, 0, 3, 1, 0x83, 4)),
        (Fault.EXCEPTION, 0x77, SUNS, struct.pack(">HHHBBB", 9, 0, 3, 1, 0x83, 0x77)),
        (Fault.EXCEPTION, 6, writing(TIMER_AT, 0, 5), struct.pack(">HHHBBB", 9, 0, 3, 1, 0x90, 6)),
        (Fault.HANG, None, SUNS, b""),
        (Fault.HALF_OPEN, None, SUNS, b""),
    ],
    ids=lambda value: value.value if isinstance(value, Fault) else "",
)
def test_a_wrong_answer_is_wrong_in_its_own_way_and_right_again_when_healed(
    kind: Fault, value: float | None, request_: bytes, answer: bytes
) -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(kind, value)
        assert await wire.exchange(request_) == answer
        await wire.endpoint.heal()
        assert await wire.ask(SUNS, len(RIGHT)) == RIGHT

    on_the_wire(scenario)


def test_a_delayed_answer_is_late_by_its_time_and_a_dribbled_one_takes_it_for_each_byte() -> None:
    async def scenario(wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        took_s = {}
        for kind in (Fault.DELAY, Fault.DRIBBLE):
            wire.endpoint.fault(kind, 0.01)
            reader, writer = await wire.connect()
            began_s = loop.time()
            writer.write(SUNS)
            assert await asyncio.wait_for(reader.readexactly(len(RIGHT)), TIMEOUT_S) == RIGHT
            took_s[kind] = loop.time() - began_s
        assert took_s[Fault.DELAY] >= 0.009
        assert took_s[Fault.DRIBBLE] >= 0.009 * (len(RIGHT) - 1)

    on_the_wire(scenario)


def test_a_late_answer_comes_with_the_next_request_on_the_same_connection() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.LATE)
        reader, writer = await wire.connect()
        writer.write(reading(BASE, 2, transaction=1))
        assert await until_quiet(reader) == b""
        writer.write(reading(BASE + 2, 1, transaction=2))
        late = await until_quiet(reader)
        assert late == b"\x00\x01" + RIGHT[2:]

    on_the_wire(scenario)


def test_a_busy_device_refuses_a_few_requests_and_is_fine_after() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.BUSY, 2)
        busy = struct.pack(">HHHBBB", 9, 0, 3, 1, 0x83, 6)
        assert [await wire.exchange(SUNS) for _ in range(3)] == [busy, busy, RIGHT]

    on_the_wire(scenario)


def test_a_single_client_device_resets_the_second_connection_until_the_first_is_gone() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.SECOND_REFUSED)
        reader, writer = await wire.connect()
        writer.write(SUNS)
        assert await until_quiet(reader) == RIGHT
        assert await wire.exchange(SUNS) == b""
        writer.close()
        await writer.wait_closed()
        await asyncio.sleep(SILENCE_S)
        assert await wire.exchange(SUNS) == RIGHT

    on_the_wire(scenario)


def test_a_half_open_connection_does_not_even_notice_its_end() -> None:
    async def scenario(wire: Wire) -> None:
        reader, writer = await wire.connect()
        wire.endpoint.fault(Fault.HALF_OPEN)
        writer.write(SUNS)
        writer.write_eof()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(), SILENCE_S)
        assert len(wire.endpoint.links) == 1

    on_the_wire(scenario)


def test_a_rebooting_device_is_gone_and_comes_back_without_its_setpoints() -> None:
    async def scenario(wire: Wire) -> None:
        at = wire.at("704.WMaxLimPctEna")
        await wire.exchange(writing(at, 1, 4000))
        assert await wire.number("704.WMaxLimPct") == 4000
        reader, _ = await wire.connect()
        wire.endpoint.fault(Fault.REBOOT)
        assert await until_quiet(reader) == b""
        with pytest.raises(OSError):
            await wire.connect()
        await wire.endpoint.heal()
        assert await wire.number("704.WMaxLimPctEna") == 0
        assert await wire.number("704.WMaxLimPct") == 0
        assert await wire.number("701.W") == 5000
        assert wire.obeyed == [704, 704]

    on_the_wire(scenario)


def test_silent_measurements_leave_controls_and_scale_factors_as_they_are() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.SENTINEL)
        assert await wire.number("701.W") == -0x8000
        assert await wire.number("701.W_SF") == 1
        assert await wire.number("704.WMaxLimPctEna") == 0
        assert await wire.number("701.ID") == 701

    on_the_wire(scenario)


@pytest.mark.parametrize(
    ("kind", "value", "exponent"),
    [(Fault.NAN_SCALE, None, -0x8000), (Fault.BAD_SCALE, None, 11), (Fault.BAD_SCALE, -11, -11)],
)
def test_a_scale_factor_that_is_none_stands_beside_registers_that_are_right(
    kind: Fault, value: float | None, exponent: int
) -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(kind, value)
        assert await wire.number("701.W_SF") == exponent
        assert await wire.number("701.W") == 5000
        assert await wire.number("704.WMaxLimPct_SF") == -2

    on_the_wire(scenario)


def test_a_changing_scale_is_right_within_a_request_and_a_torn_one_is_not() -> None:
    async def scenario(wire: Wire) -> None:
        count = wire.bank.place("701.W_SF").register - wire.bank.place("701.W").register + 1

        async def powers_w() -> list[float]:
            seen = []
            for _ in range(4):
                data = (await wire.ask(reading(wire.at("701.W"), count), 9 + 2 * count))[9:]
                seen.append(struct.unpack(">h", data[:2])[0] * 10.0 ** struct.unpack(">h", data[-2:])[0])
            return seen

        wire.endpoint.fault(Fault.SCALE_CHANGE)
        assert await powers_w() == [50e3, 50e3, 50e3, 50e3]
        assert {await wire.number("701.W_SF"), await wire.number("701.W_SF")} == {1, 2}
        wire.endpoint.fault(Fault.SCALE_TORN)
        assert await powers_w() == [50e3, 500e3, 50e3, 5e3]

    on_the_wire(scenario)


def test_an_implausible_device_claims_ten_times_its_power_as_far_as_the_register_goes() -> None:
    async def scenario(wire: Wire) -> None:
        wire.bank.put("701.W", 12_340.0)
        wire.endpoint.fault(Fault.IMPLAUSIBLE)
        assert await wire.number("701.W") == 12_340
        wire.bank.put("701.W", -300e3)
        assert await wire.number("701.W") == -0x7FFF

    on_the_wire(scenario)


def test_a_stale_heartbeat_stands_still_while_measurements_move() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.STALE_HEARTBEAT)
        wire.bank.put("715.DERHb", 8.0)
        wire.bank.put("701.W", 40e3)
        beat = await wire.exchange(reading(wire.at("715.DERHb"), 2))
        assert struct.unpack(">I", beat[9:]) == (7,)
        assert await wire.number("701.W") == 4000

    on_the_wire(scenario)


def test_a_moved_map_has_a_strange_model_in_front_and_takes_writes_at_the_new_addresses_only() -> None:
    async def scenario(wire: Wire) -> None:
        reader, _ = await wire.connect()
        old = wire.at("701.ID")
        wire.endpoint.fault(Fault.MAP_CHANGE)
        assert await until_quiet(reader) == b""  # reconnected
        assert struct.unpack(">HH", (await wire.exchange(reading(old, 2)))[9:]) == (64900, 10)
        assert struct.unpack(">H", (await wire.exchange(reading(old + 12, 1)))[9:]) == (701,)
        limit = wire.at("704.WMaxLimPct")
        assert (await wire.exchange(writing(limit, 4000)))[7:] == b"\x90\x02"
        assert (await wire.exchange(writing(limit + 12, 4000)))[7] == 16
        assert wire.bank.get("704.WMaxLimPct").tolist() == [40.0]
        await wire.endpoint.heal()
        assert await wire.number("701.ID") == 701

    on_the_wire(scenario)


def test_another_device_answers_with_another_serial_number() -> None:
    async def scenario(wire: Wire) -> None:
        reader, _ = await wire.connect()
        wire.endpoint.fault(Fault.SERIAL_CHANGE)
        assert await until_quiet(reader) == b""
        answer = await wire.exchange(reading(wire.at("1.SN"), 16))
        assert answer[9:].rstrip(b"\0") == OTHER_SERIAL.encode()

    on_the_wire(scenario)


def test_an_ignored_write_is_acknowledged_and_a_local_one_is_even_held() -> None:
    async def scenario(wire: Wire) -> None:
        at = wire.at("704.WMaxLimPct")
        wire.endpoint.fault(Fault.IGNORE_WRITE)
        assert (await wire.exchange(writing(at, 4000)))[7] == 16
        assert await wire.number("704.WMaxLimPct") == 0
        wire.endpoint.fault(Fault.LOCAL_MODE)
        assert await wire.number("715.LocRemCtl") == 1
        assert (await wire.exchange(writing(at, 4000)))[7] == 16
        assert await wire.number("704.WMaxLimPct") == 4000
        assert wire.obeyed == []

    on_the_wire(scenario)


def test_a_register_wears_out_with_its_writes_and_each_is_counted() -> None:
    async def scenario(wire: Wire) -> None:
        at = wire.at("704.WMaxLimPct")
        await wire.exchange(writing(at, 1))
        wire.endpoint.fault(Fault.FLASH_WEAR, 2)
        answers = [(await wire.exchange(writing(at, 100 + i)))[7:] for i in range(3)]
        assert [answer[0] for answer in answers] == [16, 16, 0x90]
        assert answers[2] == b"\x90\x04"
        assert await wire.number("704.WMaxLimPct") == 101
        assert wire.endpoint.units[1].writes[at] == 4

    on_the_wire(scenario)


def test_one_unit_fails_and_its_neighbour_behind_the_same_port_does_not() -> None:
    async def scenario(wire: Wire) -> None:
        wire.endpoint.fault(Fault.HANG, unit=2)
        assert await wire.exchange(reading(BASE, 2, unit=2)) == b""
        assert await wire.exchange(SUNS) == RIGHT
        await wire.endpoint.heal()
        assert (await wire.exchange(reading(BASE, 2, unit=2)))[9:] == b"SunS"

    on_the_wire(scenario)


@pytest.mark.parametrize("kind", list(Fault))
def test_every_fault_begins_and_ends(kind: Fault) -> None:
    async def scenario(wire: Wire) -> None:
        for value in (None, VALUES[kind].low) if kind in VALUES else (None,):
            wire.endpoint.fault(kind, value)
            await wire.endpoint.heal()
        assert await wire.ask(SUNS, len(RIGHT)) == RIGHT

    on_the_wire(scenario)


def test_a_number_that_a_fault_does_not_take_is_refused_with_what_would_be_right() -> None:
    unit = BankUnit(fault_bank(), 0)
    with pytest.raises(ValueError, match="'hang' takes no number"):
        unit.fail(Fault.HANG, 3.0)
    with pytest.raises(ValueError, match=r"'exception' takes a whole number \(exception code\) from 1 to 127"):
        unit.fail(Fault.EXCEPTION, 128)
    assert unit.failing is None
    plain = PlainUnit([PlainPoint("p", 0, "int16")])
    for kind in OF_MODELS:
        with pytest.raises(ValueError, match="befalls SunSpec models"):
            plain.fail(kind)


def test_rtu_frames_are_answered_one_after_the_other_and_a_wrong_checksum_ends_the_connection() -> None:
    assert crc16(bytes.fromhex("1103006b0003")) == 0x8776

    async def scenario() -> None:
        endpoint = Endpoint({5: BankUnit(fault_bank(), 0)}, rng=np.random.default_rng(1), framing=Rtu())
        port = await endpoint.start("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        request = bytes((5, 3)) + struct.pack(">HH", BASE, 2)
        frame = request + crc16(request).to_bytes(2, "little")
        body = bytes((5, 3, 4)) + b"SunS"
        answer = body + crc16(body).to_bytes(2, "little")
        writer.write(frame + frame[:3])
        assert await until_quiet(reader) == answer
        writer.write(frame[3:])
        assert await until_quiet(reader) == answer
        endpoint.fault(Fault.WRONG_PROTOCOL)
        writer.write(frame)
        assert await until_quiet(reader) == answer[:-2] + bytes((answer[-2] ^ 1, answer[-1]))
        writer.write(request + b"\0\0")
        assert await until_quiet(reader) == b""
        assert endpoint.links == set()
        writer.close()
        endpoint.stop()

    asyncio.run(scenario())

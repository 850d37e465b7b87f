"""The checks of the quality levels, in their order: what a driver must do for bronze, silver and gold."""

import asyncio
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from derms.domain.der import Device, Endpoint
from derms.domain.dispatch import Command, Held, Quantity
from derms.errors import DeviceMismatch, DeviceUnreachable, FieldError, WriteForbidden
from derms.ports import DeviceDriver, FieldOptions
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.profiles.profile import Level
from hil.fault_kinds import Fault
from hil.server import Endpoint as Server
from tests.conformance.devices import KIT, P_RATED_W, PROFILES, Make, Simulated
from tests.drivers.commissioning import HOST, PORT, START

TICK_S = 0.25
REVERSION_S = 30.0
OPTIONS = FieldOptions(timeout_s=2.0, connect_timeout_s=2.0, read_only=False, backoff_min_s=0.1, backoff_max_s=0.1)
WRONG_ANSWERS: Sequence[tuple[Fault, float | None]] = (
    (Fault.SHORT, None),
    (Fault.LONG, None),
    (Fault.WRONG_TRANSACTION, None),
    (Fault.WRONG_FUNCTION, None),
    (Fault.WRONG_UNIT, 99.0),
    (Fault.GARBAGE, None),
)


@dataclass
class Trial:
    """A driver, connected, and its device, with time passing."""

    make: Make
    driver: DeviceDriver
    device: Simulated
    server: Server
    frames: list[bytes]
    """Write requests that reached the device."""

    @property
    def takes(self) -> list[Quantity]:
        return sorted(self.driver.identity.capabilities.takes)

    async def commanded(self, quantity: Quantity) -> tuple[float, Held]:
        """Write half of the rating, in the direction and the steps that the device takes, and read it back."""
        rated_w = self.driver.identity.p_rated_w
        rated_w = rated_w if math.isfinite(rated_w) else P_RATED_W
        for part in (0.5, -0.5, -1.0):
            try:
                await self.driver.write(Command(quantity, part * rated_w, REVERSION_S))
            except WriteForbidden:
                continue
            return part * rated_w, await self.driver.read_back(quantity)
        raise AssertionError(f"takes no {quantity.value} at all")

    async def pass_time(self, seconds: int, *, every: Callable[[], Awaitable[object]] | None = None) -> None:
        """Let seconds pass, doing something in each."""
        for _ in range(seconds):
            if every:
                await every()
            await asyncio.sleep(1.0)


async def _identity(trial: Trial) -> None:
    assert trial.driver.identity.manufacturer, "nobody knows who made it"


async def _power(trial: Trial) -> None:
    reading = await trial.driver.read()
    columns = reading.layout.decode(np.frombuffer(reading.raw, dtype=np.uint8)[np.newaxis])
    found = float(columns["p_w"][0])
    assert abs(found - trial.make.p_w) <= 1.0, f"reads {found:g} W where the device measures {trial.make.p_w:g} W"


async def _wrong_answers(trial: Trial) -> None:
    for fault, value in WRONG_ANSWERS:
        trial.server.fault(fault, value)
        try:
            await trial.driver.read()
        except FieldError:
            pass
        else:
            raise AssertionError(f"believes an answer with the fault {fault.value}")
        await trial.server.heal()
        await asyncio.sleep(1.0)
        await trial.driver.connect()
        await _power(trial)


async def _silence(trial: Trial) -> None:
    trial.server.fault(Fault.HANG)
    try:
        await trial.driver.read()
    except DeviceUnreachable:
        pass
    else:
        raise AssertionError("reads a device that does not answer")
    assert not trial.driver.connected, "calls a device connected that does not answer"


async def _read_back(trial: Trial) -> None:
    assert trial.takes, "takes no command"
    for quantity in trial.takes:
        wanted_w, held = await trial.commanded(quantity)
        assert held.value_w is not None, f"{quantity.value} is not held"
        assert abs(held.value_w - wanted_w) <= held.resolution_w, (
            f"{quantity.value}: {held.value_w:g}, not {wanted_w:g}{_place(trial.make, quantity)}"
        )


def _place(make: Make, quantity: Quantity) -> str:
    """Which register of a profile's map a value is read back from, as the end of a message."""
    control = PROFILES[make.name].controls.get(quantity) if make.name in PROFILES else None
    return f", in {control.shown.table.name.lower()} register {control.shown.address}" if control else ""


async def _release(trial: Trial) -> None:
    for quantity in trial.takes:
        await trial.commanded(quantity)
        await trial.driver.write(Command(quantity, None, 0.0))
        held = await trial.driver.read_back(quantity)
        assert held.value_w is None, f"{quantity.value} is held after its release"


async def _refusal(trial: Trial) -> None:
    trial.server.fault(Fault.EXCEPTION, 4.0)
    for quantity in trial.takes:
        try:
            await trial.commanded(quantity)
        except FieldError:
            continue
        raise AssertionError(f"takes a refusal of {quantity.value} for a success")


async def _observe(trial: Trial) -> None:
    for quantity in trial.takes:
        try:
            await trial.driver.write(Command(quantity, 0.0, REVERSION_S))
        except WriteForbidden:
            continue
        raise AssertionError(f"writes {quantity.value} in observe mode")
    assert trial.frames == [], "write requests in observe mode"


async def _lets_go(trial: Trial) -> None:
    for quantity in trial.takes:
        await trial.commanded(quantity)
        await trial.pass_time(5, every=trial.driver.beat)
        assert (await trial.driver.read_back(quantity)).value_w is not None, f"{quantity.value} is not held"
        await trial.pass_time(120)
        held = await trial.driver.read_back(quantity)
        assert held.value_w is None, f"{quantity.value} is held for ever"


async def _refreshed(trial: Trial) -> None:
    for quantity in trial.takes:
        await trial.commanded(quantity)
        for _ in range(6):
            await trial.pass_time(10, every=trial.driver.beat)
            held = await trial.driver.refresh(quantity, REVERSION_S)
            assert held.value_w is not None, f"{quantity.value} is let go though it is refreshed"


async def _settings(trial: Trial) -> None:
    first = await trial.driver.settings()
    assert first, "has no settings to watch"
    assert first == await trial.driver.settings(), "settings move by themselves"


async def _stranger(trial: Trial) -> None:
    stranger = trial.make.device("STRANGER")
    trial.server.units = {trial.make.unit: stranger}
    for link in tuple(trial.server.links):
        link.abort()
    await asyncio.sleep(1.0)
    try:
        await trial.driver.connect()
    except DeviceMismatch:
        return
    raise AssertionError("another device is taken for the one that was there")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a level asks for."""

    level: Level
    name: str
    run: Callable[[Trial], Awaitable[None]]
    read_only: bool = False


CHECKS = (
    Check(Level.BRONZE, "identity", _identity),
    Check(Level.BRONZE, "power read", _power),
    Check(Level.BRONZE, "wrong answers refused", _wrong_answers),
    Check(Level.BRONZE, "silence told", _silence),
    Check(Level.SILVER, "write and read back", _read_back),
    Check(Level.SILVER, "release", _release),
    Check(Level.SILVER, "refusal told", _refusal),
    Check(Level.SILVER, "observe mode", _observe, read_only=True),
    Check(Level.GOLD, "lets go", _lets_go),
    Check(Level.GOLD, "stays while refreshed", _refreshed),
    Check(Level.GOLD, "settings for drift", _settings),
    Check(Level.GOLD, "identity after reconnect", _stranger),
)


def failure(make: Make, check: Check) -> str:
    """Why a driver fails a check on a fresh device; empty when it passes."""
    try:
        run_simulated(partial(_try, make, check), seed=1)
    except (AssertionError, FieldError) as error:
        return str(error)
    return ""


async def _try(make: Make, check: Check, loop: SimulatedLoop) -> None:
    frames: list[bytes] = []
    simulated = make.device()
    server = Server({make.unit: simulated}, rng=np.random.default_rng(1), tap=frames.append)
    await server.start(HOST, PORT)
    options = OPTIONS if not check.read_only else FieldOptions(timeout_s=2.0, connect_timeout_s=2.0, read_only=True)
    endpoint = Endpoint(HOST, PORT, make.unit)
    device = Device(id="dut", kind=make.kind, driver=make.name, endpoint=endpoint, bus="", p_rated_w=P_RATED_W)
    driver = KIT.open([device], LoopClock(loop, START), options, random.Random(1))[device.id]
    passing = asyncio.ensure_future(_pass_time(simulated))
    try:
        await driver.connect()
        await check.run(Trial(make, driver, simulated, server, frames))
    finally:
        passing.cancel()
        driver.disconnect()
        server.stop()


async def _pass_time(simulated: Simulated) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        simulated.tick(TICK_S)


def reached(failures: dict[str, str]) -> Level | None:
    """The highest level whose checks, and those of the levels below it, all passed; None for none."""
    best: Level | None = None
    for level in Level:
        if any(failures[check.name] for check in CHECKS if check.level is level):
            return best
        best = level
    return best

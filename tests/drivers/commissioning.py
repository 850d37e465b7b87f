"""`derms device` on simulated time: the command as a user gives it, against a reference device that obeys."""

import asyncio
import random
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import numpy as np

from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.commission.command import command
from hil.server import Endpoint
from hil.specimen import Specimen

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PROFILE = (1, *range(701, 714), 715)
"""A battery of the IEEE 1547 profile, with a heartbeat."""
LEGACY = (1, 103, 120, 121, 123, 124)
"""A battery of the models before the profile: no time left is shown, no curves, no heartbeat."""
HOST, PORT = "10.0.0.7", 502
TICK_S = 0.25


Befall = Callable[[Endpoint], None]


def nothing(server: Endpoint) -> None:
    """The device is sound."""


@asynccontextmanager
async def served(specimen: Specimen, frames: list[bytes] | None = None) -> AsyncIterator[Endpoint]:
    """A specimen as unit 1 on the network of the running loop, with time passing for it; write requests to `frames`."""
    tapped: list[bytes] = [] if frames is None else frames
    server = Endpoint({1: specimen}, rng=np.random.default_rng(1), tap=tapped.append)
    await server.start(HOST, PORT)
    passing = asyncio.ensure_future(_pass_time(specimen))
    try:
        yield server
    finally:
        passing.cancel()
        server.stop()


async def _pass_time(specimen: Specimen) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        specimen.tick(TICK_S)


def device(
    arguments: Sequence[str], specimen: Specimen, befall: Befall = nothing, frames: list[bytes] | None = None
) -> int:
    """Exit status of `derms device ARGUMENTS`; `befall` does something to the device before."""

    async def talk(loop: SimulatedLoop) -> int:
        async with served(specimen, frames) as server:
            befall(server)
            return await command(arguments)(LoopClock(loop, START), random.Random(1))

    return run_simulated(talk, seed=1)


async def shows(specimen: Specimen, name: str, value: float) -> None:
    """Wait until a point of a device has a value."""
    while specimen.value(name) != value:  # noqa: ASYNC110 - simulated time passes at once
        await asyncio.sleep(0.1)


def points_written(specimen: Specimen, frames: Sequence[bytes]) -> set[str]:
    """Every point that write requests (FC16) named, `704.WSet`; raises KeyError for addresses that are no points."""
    names: set[str] = set()
    for frame in frames:
        address, count = struct.unpack(">HH", frame[8:12])
        places = specimen.bank.covered(address - specimen.base, count)
        if not places:
            raise KeyError(address)
        names |= {f"{place.model}.{place.point.name}" for place in places}
    return names


def differences(specimen: Specimen, before: bytes) -> set[str]:
    """Points that do not hold what they held."""
    after = bytes(specimen.bank.row(0))
    changed = {at // 2 for at in range(len(before)) if before[at] != after[at]}
    owners: set[str] = set()
    for register in range(len(before) // 2):
        for place in specimen.bank.covered(register, 1) or specimen.bank.covered(register, 2):
            if changed & set(range(place.register, place.register + place.point.size)):
                owners.add(f"{place.model}.{place.point.name}")
    return owners

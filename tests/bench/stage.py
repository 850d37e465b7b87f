"""What the field's benchmarks share: simulated devices in a process of their own, on a core of its own.

A device is a SunSpec map (1, 701, 704) answered from bytes that were made before; its measurements change from answer
to answer. It can also accept and keep silent, or give its answers one byte at a time. Not a benchmark by itself.
"""

import asyncio
import json
import multiprocessing
import os
import resource
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from functools import partial
from importlib.resources import files
from multiprocessing.connection import Connection
from typing import cast

import uvloop

from derms.domain.der import Device, DeviceKind, Endpoint

CLIENT_CORE, SERVER_CORE = 0, 1
BASE = 40000
VARIANTS = 8
DRIBBLE_S = 0.05
BACKLOG = 2048
_SIZES = {"uint32": 2, "int32": 2, "acc32": 2, "bitfield32": 2, "enum32": 2, "uint64": 4, "int64": 4, "acc64": 4}
_LENGTHS = {1: 66, 701: 153, 704: 65}


class Manner(StrEnum):
    """How a device treats who asks it."""

    WELL = "well"
    SILENT = "silent"
    DRIBBLING = "dribbling"
    """One byte every 50 ms."""
    DEAD = "dead"
    """Nobody listens."""


def offsets(model: int) -> Mapping[str, int]:
    """Register offset of every point of a model's head, from the definitions in pysunspec2."""
    text = files("sunspec2.models.json").joinpath(f"model_{model}.json").read_text()
    found, at = {}, 0
    for point in json.loads(text)["group"]["points"]:
        found[point["name"]] = at
        at += point["size"] if point["type"] == "string" else _SIZES.get(point["type"], 1)
    return found


def image(variant: int) -> bytes:
    """The whole map of a device that measures something of its own."""
    words = {model: [model, length, *[0] * length] for model, length in _LENGTHS.items()}
    at = offsets(1)
    for name, text in {"Mn": "Bench", "Md": "One", "SN": "1"}.items():
        padded = text.encode().ljust(32, b"\0")
        words[1][at[name] : at[name] + 16] = struct.unpack(">16H", padded)
    at = offsets(701)
    measured = {"W": 500 + variant, "VA": 510, "Var": 20, "PF": 980, "A": 21, "LLV": 2400, "LNV": 1200, "TmpAmb": 25}
    scales = {"A_SF": -1, "V_SF": -1, "Hz_SF": -2, "W_SF": 1, "PF_SF": -3, "VA_SF": 1, "Var_SF": 1}
    for name, value in {"ACType": 1, "St": 1, "InvSt": 3, "ConnSt": 1, **measured, **scales}.items():
        words[701][at[name]] = value & 0xFFFF
    words[701][at["Hz"] : at["Hz"] + 2] = 0, 6000
    words[701][at["TotWhInj"] + 3] = variant
    at = offsets(704)
    for name, value in {"WMaxLimPct": 1000, "WMaxLimPct_SF": -1, "WSet_SF": 1, "WSetPct_SF": -1}.items():
        words[704][at[name]] = value & 0xFFFF
    flat = [word for model in _LENGTHS for word in words[model]] + [0xFFFF, 0]
    return b"SunS" + struct.pack(f">{len(flat)}H", *flat)


class _Link(asyncio.Protocol):
    """One client's connection to a device."""

    def __init__(self, manner: Manner, answers: dict[bytes, bytes], images: Sequence[bytes]) -> None:
        self._manner = manner
        self._answers = answers
        self._images = images
        self._asked = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._manner is Manner.SILENT:
            return
        for at in range(0, len(data), 12):
            self._asked += 1
            question = data[at + 2 : at + 12]
            key = question + bytes((self._asked // 2 % VARIANTS,))
            answer = self._answers.get(key) or self._answers.setdefault(key, self._make(key))
            if self._manner is Manner.DRIBBLING:
                self._dribble(data[at : at + 2] + answer)
            else:
                self._transport.write(data[at : at + 2] + answer)

    def _make(self, key: bytes) -> bytes:
        _, _, unit, function, address, count = struct.unpack(">HHBBHH", key[:10])
        at = 2 * (address - BASE)
        found = self._images[key[10]][at : at + 2 * count] if address >= BASE else b""
        if function != 3 or len(found) != 2 * count:
            return struct.pack(">HHBBB", 0, 3, unit, function | 0x80, 2)
        return struct.pack(">HHBBB", 0, 3 + 2 * count, unit, 3, 2 * count) + found

    def _dribble(self, rest: bytes) -> None:
        if rest and not self._transport.is_closing():
            self._transport.write(rest[:1])
            asyncio.get_running_loop().call_later(DRIBBLE_S, self._dribble, rest[1:])


def serve(ready: Connection) -> None:
    """Process: one listener on every address for each manner; tells the port of each."""
    os.sched_setaffinity(0, {SERVER_CORE})
    lift_limits()

    async def forever() -> None:
        loop = asyncio.get_running_loop()
        images = [image(variant) for variant in range(VARIANTS)]
        ports, servers = {}, []
        for manner in Manner:
            link = partial(_Link, manner, {}, images)
            server = await loop.create_server(link, "0.0.0.0", 0, backlog=BACKLOG)
            ports[manner] = server.sockets[0].getsockname()[1]
            if manner is Manner.DEAD:
                server.close()
            servers.append(server)
        ready.send(ports)
        await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(forever())


@contextmanager
def devices() -> Iterator[Mapping[Manner, int]]:
    """Serve devices of every manner in a process of their own; gives the port of each manner, on any 127 address.

    This process goes to the other core.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    process.start()
    os.sched_setaffinity(0, {CLIENT_CORE})
    lift_limits()
    try:
        yield here.recv()
    finally:
        process.terminate()
        process.join()


def lift_limits() -> None:
    """Take as many file descriptors as this process may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def inverter(number: int, port: int) -> Device:
    """A row of the fleet file for a device here: each has an address, and so a connection, of its own."""
    host = f"127.{1 + number // 62500}.{number // 250 % 250}.{1 + number % 250}"
    return Device(
        id=f"pv{number:05d}",
        kind=DeviceKind.PV,
        driver="sunspec",
        endpoint=Endpoint(host, port),
        bus="",
        p_rated_w=10e3,
        s_rated_va=10e3,
    )

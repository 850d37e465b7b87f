"""Mutated Modbus answers against the client's link, judged by the strict decoder of `oracle`: `make fuzz N=1000000`.

Each frame is an answer to a request that the link has just sent, changed by chance, cut into chunks by chance. The link
runs on a loop whose time stands still until nothing more comes; then the deadline passes. What it says must be what
the oracle says: a value that the oracle does not find is `accepted_wrong`, a good answer that it refuses is
`refused_good`, anything raised but a FieldError is a crash, a request without an end is a hang. The last line is one
JSON object; what went wrong is written to a file, a line per case, with the seed that makes it again.
"""

import argparse
import asyncio
import itertools
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVarTuple

from derms.errors import DeviceRefused, FieldError
from drivers.modbus.frames import MBAP, RTU, Framing, Question, read_question, write_question
from drivers.modbus.link import Link
from drivers.modbus.unit import Priority, Table
from tests.fuzz.oracle import Asked, Good, Refused, answer_to, judge_chunks, refusal_of

_Ts = TypeVarTuple("_Ts")

UNIT, TIMEOUT_S, HANG_S = 7, 2.0, 1.0
QUESTIONS_PER_LINK = 4
EDGES = (0, 1, 2, 3, 4, 6, 16, 0x7F, 0x80, 0x83, 0x84, 0x86, 0x90, 0xFE, 0xFF)

CRASHES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    asyncio.InvalidStateError,
    struct.error,
)


class StillLoop(asyncio.BaseEventLoop):
    """As much of an event loop as a link needs; time stands still until `pass_deadline`."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.timers: list[asyncio.TimerHandle] = []

    def time(self) -> float:
        return self.now_s

    def call_at(
        self, when: float, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.timers.append(handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers.remove(handle)

    def pass_deadline(self) -> None:
        """Let more time pass than any deadline has left, and run what was due."""
        self.now_s += 2.0 * TIMEOUT_S
        due, self.timers = self.timers, []
        for handle in due:
            handle._run()


class Wire(asyncio.Transport):
    """What a link writes to."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.open = True

    def write(self, data: Any) -> None:
        self.sent = bytes(data)

    def abort(self) -> None:
        self.open = False


@dataclass(eq=False)
class Somebody:
    """A unit that asks."""

    name: str = "10.0.0.1:502/7"
    timeout_s: float = TIMEOUT_S


@dataclass
class Tally:
    """What was found."""

    frames: int = 0
    accepted_wrong: int = 0
    refused_good: int = 0
    crashes: int = 0
    hangs: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.accepted_wrong or self.refused_good or self.crashes or self.hangs)


LinkMaker = Callable[[asyncio.AbstractEventLoop, Framing], Link]


class Fuzzer:
    """Asks and answers without end, repeatable by its seed."""

    def __init__(self, seed: int, make_link: LinkMaker = Link, framings: Sequence[Framing] = (MBAP, MBAP, RTU)) -> None:
        self._chance = random.Random(seed)
        self._make_link = make_link
        self._framings = framings
        self.tally = Tally()

    def run(self, frames: int) -> None:
        """Judge this many answers."""
        tally, loop = self.tally, StillLoop()
        while tally.frames < frames:
            framing, wire = self._chance.choice(self._framings), Wire()
            link = self._make_link(loop, framing)
            link.connection_made(wire)
            for _ in range(QUESTIONS_PER_LINK):
                if not link.open or tally.frames >= frames:
                    break
                self._question(link, loop, wire, framing)
            loop.timers.clear()
        loop.close()

    def _question(self, link: Link, loop: StillLoop, wire: Wire, framing: Framing) -> None:
        chance, tally = self._chance, self.tally
        asked, question = self._any_question(framing)
        rtu = not framing.id_bytes
        answered = link.ask(question, Somebody(), Priority.READ)
        if not rtu:
            asked = Asked(
                asked.unit,
                asked.function,
                asked.address,
                asked.registers,
                asked.value,
                int.from_bytes(wire.sent[:2], "big"),
            )
        kind, stream = self._mutated(asked, rtu=rtu)
        chunks = _cut(chance, stream)
        tally.frames += 1
        tally.kinds[kind] += 1
        began_s = time.perf_counter()
        fed: list[bytes] = []
        try:
            for chunk in chunks:
                if answered.done() or not wire.open:
                    break
                fed.append(chunk)
                link.data_received(chunk)
            if not answered.done():
                loop.pass_deadline()
        except CRASHES as error:
            self._found("crashes", kind, asked, fed, rtu=rtu, said=repr(error))
            link.open = False
            return
        if not answered.done() or time.perf_counter() - began_s > HANG_S:
            self._found("hangs", kind, asked, fed, rtu=rtu, said="no end")
            link.open = False
            return
        self._compare(kind, asked, fed, answered, rtu=rtu)

    def _compare(
        self, kind: str, asked: Asked, fed: Sequence[bytes], answered: "asyncio.Future[bytes]", *, rtu: bool
    ) -> None:
        error = answered.exception()
        verdict = judge_chunks(asked, fed, rtu=rtu)
        self.tally.verdicts[type(verdict).__name__] += 1
        if error is None:
            if verdict != Good(answered.result()):
                self._found("accepted_wrong", kind, asked, fed, rtu=rtu, said=answered.result().hex())
        elif not isinstance(error, FieldError):
            self._found("crashes", kind, asked, fed, rtu=rtu, said=repr(error))
        elif isinstance(error, DeviceRefused):
            if verdict != Refused(error.code):
                self._found("accepted_wrong", kind, asked, fed, rtu=rtu, said=str(error))
        elif isinstance(verdict, Good | Refused):
            self._found("refused_good", kind, asked, fed, rtu=rtu, said=str(error))

    def _found(self, what: str, kind: str, asked: Asked, fed: Sequence[bytes], *, rtu: bool, said: str) -> None:
        tally = self.tally
        setattr(tally, what, getattr(tally, what) + 1)
        case = {
            "what": what,
            "kind": kind,
            "asked": [asked.unit, asked.function, asked.address, asked.registers, asked.value, asked.transaction],
            "rtu": rtu,
            "chunks": [chunk.hex() for chunk in fed],
            "said": said,
        }
        if len(tally.cases) < 100:
            tally.cases.append(json.dumps(case))

    def _any_question(self, framing: Framing) -> tuple[Asked, Question]:
        chance = self._chance
        address, count = chance.randrange(0x10000 - 125), chance.choice((1, 2, 3, 67, 123, 125))
        match chance.choice((3, 3, 3, 4, 6, 16)):
            case 6:
                value = chance.randrange(0x10000)
                data = value.to_bytes(2, "big")
                question = write_question(framing, UNIT, UNIT, address, data, single=True)
                return Asked(UNIT, 6, address, 1, value), question
            case 16:
                count = min(count, 123)
                question = write_question(framing, UNIT, UNIT, address, chance.randbytes(2 * count), single=False)
                return Asked(UNIT, 16, address, count), question
            case function:
                table = Table.HOLDING if function == 3 else Table.INPUT
                return Asked(UNIT, function, address, count), read_question(framing, UNIT, UNIT, table, address, count)

    def _mutated(self, asked: Asked, *, rtu: bool) -> tuple[str, bytes]:
        """A stream of bytes that comes instead of the answer, and how it was made."""
        chance = self._chance
        payload = chance.randbytes(2 * asked.registers) if asked.function in (3, 4) else b""
        good = answer_to(asked, payload, rtu=rtu)
        if chance.random() < 0.1:
            good = refusal_of(asked, chance.choice((1, 2, 3, 4, 5, 6, 10, 11, 0x77, 0, 255)), rtu=rtu)
        kind = chance.choice(tuple(MUTATIONS))
        return kind, MUTATIONS[kind](chance, good, asked, rtu)


Mutation = Callable[[random.Random, bytes, Asked, bool], bytes]


def _flip(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    frame = bytearray(good)
    for _ in range(chance.choice((1, 1, 2, 5))):
        frame[chance.randrange(len(frame))] ^= 1 << chance.randrange(8)
    return bytes(frame)


def _edge(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    """A byte of the head takes a value at an edge."""
    frame = bytearray(good)
    frame[chance.randrange(min(len(frame), 13))] = chance.choice(EDGES)
    return bytes(frame)


def _cut_short(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    return good[: chance.randrange(len(good))]


def _grow(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    return good + chance.randbytes(chance.choice((1, 2, 4, 100)))


def _insert(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    at = chance.randrange(len(good))
    return good[:at] + chance.randbytes(chance.choice((1, 2))) + good[at:]


def _remove(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    at = chance.randrange(len(good))
    return good[:at] + good[at + chance.choice((1, 2)) :]


def _twice(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    return good + good


def _noise(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    return chance.randbytes(chance.randrange(1, 300))


def _other(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    """A right answer to another request: another function, address, count, unit or transaction."""
    function = chance.choice((3, 4, 6, 16))
    other = Asked(
        chance.choice((asked.unit, asked.unit, 1, 255)),
        chance.choice((asked.function, asked.function, function)),
        chance.choice((asked.address, asked.address, asked.address ^ 1)),
        1 if asked.function == 6 else max(1, min(125, asked.registers + chance.choice((0, 0, -1, 1)))),
        asked.value ^ chance.choice((0, 0, 1)),
        chance.choice((asked.transaction, asked.transaction, asked.transaction - 1 & 0xFFFF, 0)),
    )
    payload = chance.randbytes(2 * other.registers) if other.function in (3, 4) else b""
    return answer_to(other, payload, rtu=rtu)


def _late_first(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    """The answer to the request before comes first."""
    return (asked.transaction - 1 & 0xFFFF).to_bytes(2, "big") + good[2:] + good


def _length_lies(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    at = 2 if rtu else chance.choice((4, 5, 8))
    frame = bytearray(good)
    frame[min(at, len(frame) - 1)] = chance.choice((0, 1, 2, 3, 0xFF, frame[min(at, len(frame) - 1)] ^ 1))
    return bytes(frame)


def _untouched(chance: random.Random, good: bytes, asked: Asked, rtu: bool) -> bytes:
    return good


MUTATIONS: dict[str, Mutation] = {
    "untouched": _untouched,
    "flip": _flip,
    "edge": _edge,
    "cut": _cut_short,
    "grow": _grow,
    "insert": _insert,
    "remove": _remove,
    "twice": _twice,
    "noise": _noise,
    "other": _other,
    "late-first": _late_first,
    "length-lies": _length_lies,
}


def _cut(chance: random.Random, stream: bytes) -> list[bytes]:
    """A stream in one piece, in two or three, or byte by byte at its beginning."""
    match chance.randrange(4):
        case 0 | 1:
            return [stream] if stream else []
        case 2:
            cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.choice((1, 2))))
            edges = [0, *cuts, len(stream)]
            return [stream[a:b] for a, b in itertools.pairwise(edges) if b > a]
        case _:
            head = chance.randrange(1, 14)
            return [stream[i : i + 1] for i in range(min(head, len(stream)))] + [stream[head:]] * (len(stream) > head)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Mutated Modbus answers against the client.")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=Path, default=Path("runs/fuzz-cases.jsonl"), help="where findings are written")
    options = parser.parse_args(argv)
    fuzzer, began_s = Fuzzer(options.seed), time.perf_counter()
    tally = fuzzer.tally
    while tally.frames < options.frames:
        fuzzer.run(min(options.frames, tally.frames + 50_000))
        print(f"{tally.frames} of {options.frames} frames, {len(tally.cases)} findings", file=sys.stderr, flush=True)
    if tally.cases:
        options.cases.parent.mkdir(parents=True, exist_ok=True)
        options.cases.write_text("\n".join([*tally.cases, ""]))
    result = {
        "fuzz": "frames",
        "frames": tally.frames,
        "accepted_wrong": tally.accepted_wrong,
        "refused_good": tally.refused_good,
        "crashes": tally.crashes,
        "hangs": tally.hangs,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began_s, 1),
        "verdicts": dict(sorted(tally.verdicts.items())),
        "mutations": dict(sorted(tally.kinds.items())),
    }
    print(json.dumps(result))
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())

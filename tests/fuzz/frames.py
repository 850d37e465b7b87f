"""Mutated Modbus answers against the client's link, judged by the strict decoder of `oracle`: `make fuzz N=1000000`.

A tenth as many random register images go against the decoding of SunSpec values; see `images`.

Each frame is an answer to a request that the link has just sent, changed by chance, cut into chunks by chance. The link
runs on a loop whose time stands still until nothing more comes; then the deadline passes. What it says must be what
the oracle says: a value that the oracle does not find is `accepted_wrong`, a good answer that it refuses is
`refused_good`, anything raised but a FieldError is a crash, a request without an end is a hang. The last line is one
JSON object; what went wrong is written to a file, a line per case, with the seed that makes it again.
"""

import argparse
import asyncio
import json
import random
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextvars import Context
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVarTuple

from derms.errors import DeviceRefused, FieldError
from drivers.modbus.frames import MBAP, RTU, Framing, Question, read_question, write_question
from drivers.modbus.link import Link
from drivers.modbus.unit import Priority, Table
from tests.fuzz.images import fuzz_images
from tests.fuzz.mutations import MUTATIONS, cut
from tests.fuzz.oracle import Asked, Good, Refused, answer_to, judge_chunks, refusal_of

_Ts = TypeVarTuple("_Ts")

UNIT, TIMEOUT_S, HANG_S = 7, 2.0, 1.0
QUESTIONS_PER_LINK = 4

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

    def cut_off(self) -> None:
        """There is nothing that it would have to leave."""


@dataclass
class _Line:
    """A link with a request in flight."""

    link: Link
    loop: StillLoop
    wire: Wire
    answered: "asyncio.Future[bytes]"
    rtu: bool


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

    def replay(self, case: str) -> None:
        """Judge a case again that was written down; the client may be another one by now."""
        found = json.loads(case)
        unit, function, address, registers, value, transaction = found["asked"]
        asked = Asked(unit, function, address, registers, value, transaction)
        framing, loop, wire = RTU if found["rtu"] else MBAP, StillLoop(), Wire()
        link = self._make_link(loop, framing)
        link.connection_made(wire)
        link._transaction = (transaction or 1) - 1
        answered = link.ask((_question_of(asked, framing, bytes(2 * registers)),), Somebody(), Priority.READ)
        chunks = [bytes.fromhex(chunk) for chunk in found["chunks"]]
        self._feed(found["kind"], asked, chunks, _Line(link, loop, wire, answered, found["rtu"]))
        loop.close()

    def _question(self, link: Link, loop: StillLoop, wire: Wire, framing: Framing) -> None:
        asked, question = self._any_question(framing)
        rtu = not framing.id_bytes
        answered = link.ask((question,), Somebody(), Priority.READ)
        if not rtu:
            asked = replace(asked, transaction=int.from_bytes(wire.sent[:2], "big"))
        kind, stream = self._mutated(asked, rtu=rtu)
        self._feed(kind, asked, cut(self._chance, stream), _Line(link, loop, wire, answered, rtu))

    def _feed(self, kind: str, asked: Asked, chunks: Sequence[bytes], line: "_Line") -> None:
        """Give the link an answer in chunks, let the deadline pass, and judge what it says."""
        tally, answered, link = self.tally, line.answered, line.link
        tally.frames += 1
        tally.kinds[kind] += 1
        began_s = time.perf_counter()
        fed: list[bytes] = []
        try:
            for chunk in chunks:
                if answered.done() or not line.wire.open:
                    break
                fed.append(chunk)
                link.data_received(chunk)
            if not answered.done():
                line.loop.pass_deadline()
        except CRASHES as error:
            self._found("crashes", kind, asked, fed, rtu=line.rtu, said=repr(error))
            link.open = False
            return
        if not answered.done() or time.perf_counter() - began_s > HANG_S:
            self._found("hangs", kind, asked, fed, rtu=line.rtu, said="no end")
            link.open = False
            return
        self._compare(kind, asked, fed, answered, rtu=line.rtu)

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
        function = chance.choice((3, 3, 3, 4, 6, 16))
        if function == 6:
            asked = Asked(UNIT, function, address, 1, chance.randrange(0x10000))
        else:
            asked = Asked(UNIT, function, address, min(count, 123) if function == 16 else count)
        data = chance.randbytes(2 * asked.registers) if function == 16 else b""
        return asked, _question_of(asked, framing, data)

    def _mutated(self, asked: Asked, *, rtu: bool) -> tuple[str, bytes]:
        """A stream of bytes that comes instead of the answer, and how it was made."""
        chance = self._chance
        payload = chance.randbytes(2 * asked.registers) if asked.function in (3, 4) else b""
        good = answer_to(asked, payload, rtu=rtu)
        if chance.random() < 0.1:
            good = refusal_of(asked, chance.choice((1, 2, 3, 4, 5, 6, 10, 11, 0x77, 0, 255)), rtu=rtu)
        kind = chance.choice(tuple(MUTATIONS))
        return kind, MUTATIONS[kind](chance, good, asked, rtu)


def _question_of(asked: Asked, framing: Framing, data: bytes) -> Question:
    """The request; `data` is what FC16 writes."""
    match asked.function:
        case 6:
            return write_question(framing, UNIT, UNIT, asked.address, asked.value.to_bytes(2, "big"), single=True)
        case 16:
            return write_question(framing, UNIT, UNIT, asked.address, data, single=False)
    table = Table.HOLDING if asked.function == 3 else Table.INPUT
    return read_question(framing, UNIT, UNIT, table, asked.address, asked.registers)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Mutated Modbus answers and SunSpec images against the client.")
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--images", type=int, help="register images (default a tenth of the frames)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=Path, default=Path("runs/fuzz-cases.jsonl"), help="where findings are written")
    options = parser.parse_args(argv)
    fuzzer, began_s = Fuzzer(options.seed), time.perf_counter()
    tally = fuzzer.tally
    while tally.frames < options.frames:
        fuzzer.run(min(options.frames, tally.frames + 50_000))
        print(f"{tally.frames} of {options.frames} frames, {len(tally.cases)} findings", file=sys.stderr, flush=True)
    images = fuzz_images(options.frames // 10 if options.images is None else options.images, options.seed)
    if cases := [*tally.cases, *images.cases]:
        options.cases.parent.mkdir(parents=True, exist_ok=True)
        options.cases.write_text("\n".join([*cases, ""]))
    result = {
        "fuzz": "frames",
        "frames": tally.frames,
        "accepted_wrong": tally.accepted_wrong,
        "refused_good": tally.refused_good,
        "crashes": tally.crashes,
        "hangs": tally.hangs,
        "images": images.images,
        "images_wrong": images.wrong,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - began_s, 1),
        "verdicts": dict(sorted(tally.verdicts.items())),
        "mutations": dict(sorted(tally.kinds.items())),
    }
    print(json.dumps(result))
    return 0 if tally.clean and not images.wrong else 1


if __name__ == "__main__":
    sys.exit(main())

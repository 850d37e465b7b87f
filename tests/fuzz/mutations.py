"""What chance makes of a right answer: a table of mutations, and how a stream is cut into chunks."""

import itertools
import random
from collections.abc import Callable

from tests.fuzz.oracle import Asked, answer_to

EDGES = (0, 1, 2, 3, 4, 6, 16, 0x7F, 0x80, 0x83, 0x84, 0x86, 0x90, 0xFE, 0xFF)

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


def cut(chance: random.Random, stream: bytes) -> list[bytes]:
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

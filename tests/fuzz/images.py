"""Random register images against our decoding, judged by the strict one of `values`: a part of `make fuzz`.

An image is a device: some models, as long as their definitions, shorter or longer, with random registers in which
sentinels, edges, scale factors in and out of bounds, and enabled functions are far more frequent than chance has them.
Devices of one structure are decoded together, as the poller does it.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from derms.domain.arrays import ByteArray
from derms.domain.telemetry import COLUMNS
from derms.errors import DeviceMismatch
from drivers.sunspec.codec import Image
from drivers.sunspec.scan import Chain, Place
from drivers.sunspec.telemetry import read_plan
from tests.fuzz import values

TOGETHER = 32
"""Devices of one structure."""
POINT_BY_POINT = 4
"""Devices of these of which every point is compared, and not the columns alone."""
BASE = 40000
STRUCTURES = (
    *((701, 704, 713), (701, 704, 802), (701, 704), (701, 713), (701, 802), (701,)),
    *((103, 704, 802), (103, 713), (103,), (113, 704), (113, 802), (113,)),
    *((203,), (213,), (802,), (802, 704)),
)
EDGES = np.array([0, 1, 2, 0x7F80, 0x7FC0, 0x7FFF, 0x8000, 0x8001, 0xFF80, 0xFFFE, 0xFFFF], dtype=np.uint16)
EXPONENTS = np.array([*range(-10, 11), -11, 11, -0x8000, 0x7FFF], dtype=np.int16).view(np.uint16)
CASES_MAX = 100


@dataclass
class Found:
    """What came of it."""

    images: int = 0
    wrong: int = 0
    """Devices of which some value was decoded as another, or as none, or was made of nothing."""
    numbers: int = 0
    """Values compared that are numbers."""
    missing: int = 0
    """Values compared that are none."""
    cases: list[str] = field(default_factory=list)


def fuzz_images(images: int, seed: int) -> Found:
    """Compare this many devices."""
    chance, found = np.random.default_rng(seed), Found()
    while found.images < images:
        models = STRUCTURES[int(chance.integers(len(STRUCTURES)))]
        together = min(TOGETHER, images - found.images)
        sizes = [_size(chance, model) for model in models]
        fleet = np.concatenate(
            [_registers(chance, model, size, together) for model, size in zip(models, sizes, strict=True)], axis=1
        )
        _compare(models, sizes, fleet, found)
    return found


def replay(case: str) -> Found:
    """Compare a device again that was written down; our decoding may be another one by now."""
    found = Found()
    held = {int(model): bytes.fromhex(registers) for model, registers in json.loads(case)["models"].items()}
    fleet = np.frombuffer(b"".join(held.values()), dtype=np.uint8)[None, :]
    _compare(list(held), [len(registers) // 2 for registers in held.values()], fleet, found)
    return found


def _size(chance: np.random.Generator, model: int) -> int:
    """Registers of an instance with ID and L: as defined, or shorter, or longer."""
    size = values.size(model)
    match int(chance.integers(8)):
        case 0:
            return int(chance.integers(3, size))
        case 1:
            return size + int(chance.integers(1, 20))
    return size


def _registers(chance: np.random.Generator, model: int, size: int, together: int) -> ByteArray:
    """Instances of a model, shape (together, 2 * size)."""
    whole = max(size, values.size(model))
    words = chance.integers(0, 0x10000, (together, whole), dtype=np.uint16)
    at_edge = chance.random(words.shape) < 0.15
    words[at_edge] = chance.choice(EDGES, int(at_edge.sum()))
    for point in values.points(model).values():
        span = words[:, point.at : point.at + point.size]
        rows = chance.random(together)
        if point.type == "sunssf":
            span[rows < 0.9] = chance.choice(EXPONENTS, (int((rows < 0.9).sum()), 1))
        elif point.type in ("enum16", "bitfield32"):
            span[rows < 0.7] = 0
            span[rows < 0.7, -1] = chance.integers(0, 4, int((rows < 0.7).sum()))
        elif chance.random() < 0.1:
            span[rows < 0.5] = chance.choice(EDGES, (1, point.size))
    words[:, :2] = model, size - 2
    held: ByteArray = words[:, :size].astype(">u2").view(np.uint8)
    return held


def _compare(models: Sequence[int], sizes: Sequence[int], fleet: ByteArray, found: Found) -> None:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    places = [Place(model, BASE + at, size) for model, at, size in zip(models, starts, sizes, strict=True)]
    try:
        layout, spans = read_plan(Chain(tuple(places)))
    except DeviceMismatch:  # it measures nothing: then nobody may find anything in it
        ours = {name: np.full((len(fleet), 3 if "phase" in name else 1), math.nan) for name in COLUMNS}
    else:
        asked = [fleet[:, 2 * (span.address - BASE) :][:, : 2 * span.count] for span in spans]
        with np.errstate(invalid="ignore"):  # some of the random floats are signalling NaN
            decoded = layout.decode(np.concatenate(asked, axis=1))
        ours = {name: column.reshape(len(fleet), -1) for name, column in decoded.items()}
    for row, registers in enumerate(fleet):
        held = {
            model: registers[2 * at : 2 * (at + size)].tobytes()
            for model, at, size in zip(models, starts, sizes, strict=True)
        }
        said = {name: column[row].tolist() for name, column in ours.items()}
        due = {name: list(column) for name, column in values.columns(held).items()}
        if row < POINT_BY_POINT:
            said |= _points_of_ours(held)
            due |= _points_of_the_oracle(held)
        _judge(held, said, due, found)


Said = dict[str, list[float]]


def _points_of_ours(held: values.Models) -> Said:
    images = {model: Image(model, data) for model, data in held.items()}
    return {f"{m}.{p}": [images[m].number(p)] for m in held for p in _numeric(m)}


def _points_of_the_oracle(held: values.Models) -> Said:
    return {f"{m}.{p}": [values.number(m, held[m], p)] for m in held for p in _numeric(m)}


def _numeric(model: int) -> list[str]:
    return [point.name for point in values.points(model).values() if point.type in values.NUMERIC]


def _judge(held: values.Models, said: Said, due: Said, found: Found) -> None:
    found.images += 1
    wrong = {}
    for name in due.keys() | said.keys():
        pair = said.get(name, []), due.get(name, [])
        missing = sum(map(math.isnan, pair[1]))
        found.missing += missing
        found.numbers += len(pair[1]) - missing
        if len(pair[0]) != len(pair[1]) or not all(map(_same, *pair)):
            wrong[name] = pair
    if wrong:
        found.wrong += 1
        if len(found.cases) < CASES_MAX:
            registers = {model: data.hex() for model, data in held.items()}
            found.cases.append(json.dumps({"what": "images_wrong", "models": registers, "said and due": wrong}))


def _same(said: float, due: float) -> bool:
    return math.isclose(said, due, rel_tol=1e-12) or (math.isnan(said) and math.isnan(due))

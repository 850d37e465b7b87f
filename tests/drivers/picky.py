"""A device on a real socket that refuses what a test wants refused, obeys what it wants obeyed, and keeps a log."""

import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from drivers.sunspec.models import Point, encode_point, layout_of
from tests.drivers.oracles import Points, address_of, answering, map_bytes, scripted_device

BASE = 40000


class PickyDevice:
    """A SunSpec map in memory; `refuses` gives the exception of a write, `obeys` is told of every one it took."""

    def __init__(self, models: Mapping[int, Points], *, repeats: Mapping[int, bytes] | None = None) -> None:
        """`repeats` are whole models, header included, for those with repeating groups."""
        self.models = dict(models)
        end = b"\xff\xff\x00\x00"
        self.image = bytearray(map_bytes(models)[: -len(end)])
        self._extra: dict[int, int] = {}
        for model_id, data in (repeats or {}).items():
            self._extra[model_id] = BASE + len(self.image) // 2
            self.image += data
        self.image += end
        self.writes: list[tuple[int, int, int]] = []
        """Model, offset in it, and registers of every write that came, refused ones too."""
        self.refuses: Callable[[int, int, int], int] = lambda model_id, offset, count: 0
        self.obeys: Callable[[int, int], None] = lambda model_id, offset: None

    def address(self, model_id: int) -> int:
        return self._extra[model_id] if model_id in self._extra else address_of(self.models, model_id)

    def get(self, model_id: int, name: str) -> int:
        """A register value as it is now."""
        at, point = self._point(model_id, name)
        signed = point.type.startswith("int")
        return int.from_bytes(self.image[at : at + 2 * point.size], "big", signed=signed)

    def put(self, model_id: int, name: str, value: int | str) -> None:
        """Change a point, as the device itself or another master does."""
        at, point = self._point(model_id, name)
        self.image[at : at + 2 * point.size] = encode_point(point, value)

    def answer(self, request: bytes) -> bytes:
        function, body = request[7], request[8:]
        address = int.from_bytes(body[:2], "big")
        if function == 3:
            count = int.from_bytes(body[2:4], "big")
            at = 2 * (address - BASE)
            held = bytes(self.image[max(at, 0) : at + 2 * count])
            good = at >= 0 and len(held) == 2 * count
            pdu = bytes((3, len(held))) + held if good else bytes((0x83, 2))
        else:
            data = body[5:] if function == 16 else body[2:4]
            refused = self._write(address, data)
            pdu = bytes((function | 0x80, refused)) if refused else bytes((function,)) + body[:4]
        return request[:4] + struct.pack(">HB", 1 + len(pdu), request[6]) + pdu

    def _write(self, address: int, data: bytes) -> int:
        starts = {self.address(model_id): model_id for model_id in [*self.models, *self._extra]}
        start = max(each for each in starts if each <= address)
        model_id, offset, count = starts[start], address - start, len(data) // 2
        self.writes.append((model_id, offset, count))
        if refused := self.refuses(model_id, offset, count):
            return refused
        at = 2 * (address - BASE)
        self.image[at : at + len(data)] = data
        self.obeys(model_id, offset)
        return 0

    def _point(self, model_id: int, name: str) -> tuple[int, Point]:
        """Where a point's bytes stand in the image."""
        start = 2 * (self.address(model_id) - BASE)
        data = bytes(self.image[start:])
        point = layout_of(model_id, data, 2 + int.from_bytes(data[2:4], "big")).points[name]
        return start + 2 * point.offset, point

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serve on a port of this machine."""
        async with scripted_device(answering(lambda request: [self.answer(request)])) as port:
            yield port

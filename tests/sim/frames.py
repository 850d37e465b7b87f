"""What happens to bytes between the product and its devices: split, doubled, damaged; and who was heard when.

Requests are only ever split: a register value that is damaged inside a whole frame is nothing that TCP lets through.
Answers may be damaged in their frame: transaction, protocol, length, unit, function, or cut short.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

HEADER = 8
"""Bytes of an answer that say whose it is: header and function code."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Parts of all deliveries that are split, doubled or damaged [0..1]."""

    split_frac: float = 0.0
    double_frac: float = 0.0
    damage_frac: float = 0.0


@dataclass
class Wire:
    """The state of the ways to all endpoints, by port."""

    chance: random.Random
    now_s: Callable[[], float] = lambda: 0.0
    damage: dict[int, Damage] = field(default_factory=dict)
    refusing: set[int] = field(default_factory=set)
    answered_s: dict[int, float] = field(default_factory=dict)
    """When each endpoint was last heard by the product [s]."""
    connects: Counter[int] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    """Deliveries that were treated badly, by how."""

    def refuses(self, port: int) -> bool:
        if port in self.refusing:
            self.injected["refused"] += 1
        return port in self.refusing

    def to_client(self, port: int, data: bytes) -> list[bytes]:
        """What arrives of an answer, piece by piece."""
        self.answered_s[port] = self.now_s()
        damage, chance = self.damage.get(port), self.chance
        if damage is None:
            return [data]
        if chance.random() < damage.damage_frac:
            self.injected["damaged"] += 1
            data = self._damaged(data)
        if chance.random() < damage.double_frac:
            self.injected["doubled"] += 1
            data += data
        return self.split(port, data)

    def split(self, port: int, data: bytes) -> list[bytes]:
        damage = self.damage.get(port)
        if damage is None or len(data) < 2 or self.chance.random() >= damage.split_frac:
            return [data]
        self.injected["split"] += 1
        at = self.chance.randrange(1, len(data))
        return [data[:at], data[at:]]

    def _damaged(self, data: bytes) -> bytes:
        at = self.chance.randrange(min(HEADER, len(data)))
        how = self.chance.randrange(3)
        if how == 0:
            return data[: self.chance.randrange(len(data))]
        if how == 1:
            return data[:at] + self.chance.randbytes(1) + data[at:]
        return data[:at] + bytes((data[at] ^ (1 << self.chance.randrange(8)),)) + data[at + 1 :]


class _Between(asyncio.Protocol):
    """Stands between a transport and a protocol."""

    def __init__(self, inner: asyncio.Protocol, wire: Wire) -> None:
        self.inner = inner
        self.wire = wire
        self.port = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.inner.connection_lost(exc)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()


class FromClient(_Between):
    """At a device: requests as they arrive."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.port = cast(tuple[str, int], transport.get_extra_info("sockname"))[1]
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        for piece in self.wire.split(self.port, data):
            self.inner.data_received(piece)


class FromServer(_Between):
    """At the product: answers as they arrive; an exception there closes the connection, as real loops have it."""

    def __init__(self, inner: asyncio.Protocol, wire: Wire, port: int, point: Callable[[str], None]) -> None:
        super().__init__(inner, wire)
        self.port = port
        self._point = point
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        whole = False
        try:
            self._point("receive")
            for piece in self.wire.to_client(self.port, data):
                self.inner.data_received(piece)
            whole = True
        except ConnectionResetError:
            pass
        finally:
            if not whole and self._transport is not None:
                self._transport.abort()

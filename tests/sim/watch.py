"""What the oracle sees: write frames at the devices, the durable journal, and what has happened; never the service.

Values in W, + = injection; times in s on the true clock.
"""

import json
import math
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from derms.domain.dispatch import Quantity
from hil import distort
from hil.fault_kinds import Fault
from hil.registers import BASE
from hil.server import DeviceServer
from hil.tap import AT_123, AT_704, Plate, _blocks, _Held, _legacy, _modern, _written

Key = tuple[str, Quantity]
KEPT = 400
"""Happenings that are remembered for the story of a violation."""


@dataclass(frozen=True, slots=True)
class Write:
    """A frame that commands a device."""

    at_s: float
    device: str
    quantity: Quantity
    value_w: float | None
    """What the device holds after it [W]; None for nothing."""
    reversion_s: float
    before_w: float | None
    """What it was told before."""
    whole: bool
    """Whether the frame says all of it: value, timer and that it is on."""

    @property
    def key(self) -> Key:
        return self.device, self.quantity

    @property
    def is_command(self) -> bool:
        """Whether it gives the device another value than it was told before."""
        return self.value_w is not None and (self.before_w is None or abs(self.value_w - self.before_w) > 1e-6)


@dataclass(frozen=True, slots=True)
class JournalIntent:
    """An intent as it stands on the disk."""

    seq: int
    at_s: float
    key: Key
    value_w: float | None
    token: int


@dataclass
class JournalView:
    """The durable journal, read by a decoder of its own."""

    intents: dict[int, JournalIntent] = field(default_factory=dict)
    outcomes: dict[int, str] = field(default_factory=dict)
    last: dict[Key, list[JournalIntent]] = field(default_factory=dict)
    """Of each key the latest intents, oldest first."""
    wrong: list[str] = field(default_factory=list)
    """What should never be in it."""
    _end: int = 0
    _crc: int = 0

    def read(self, content: bytes | bytearray, now_s: float) -> None:
        """Take in what has become durable."""
        if len(content) < self._end:
            self.wrong.append(f"the journal has lost durable records: {len(content)} bytes of {self._end}")
            return
        while (newline := content.find(b"\n", self._end)) >= 0:
            line = bytes(content[self._end : newline])
            crc = zlib.crc32(line[9:], self._crc)
            if line[:9] != b"%08x " % crc:
                return
            self._end, self._crc = newline + 1, crc
            self._take(json.loads(line[9:]), now_s)

    def _take(self, record: Mapping[str, Any], now_s: float) -> None:
        if record["kind"] == "INTENT":
            command, seq = record["command"], record["seq"]
            key = (record["device_id"], Quantity(command["quantity"]))
            if seq in self.intents:
                self.wrong.append(f"intent {seq} is there twice")
            self.intents[seq] = found = JournalIntent(seq, now_s, key, command["value_w"], record.get("token", 0))
            self.last.setdefault(key, []).append(found)
            del self.last[key][:-20]
        elif record["kind"] == "OUTCOME":
            seq, name = record["seq"], record["outcome"]["name"]
            if seq not in self.intents:
                self.wrong.append(f"outcome {name} of command {seq}, which has no intent")
            elif seq in self.outcomes:
                self.wrong.append(f"command {seq} ended twice: {self.outcomes[seq]}, {name}")
            self.outcomes[seq] = name

    def open(self) -> Iterator[JournalIntent]:
        """Intents without an outcome."""
        return (intent for seq, intent in self.intents.items() if seq not in self.outcomes)


class Ear:
    """Listens at one device, and tells of every frame that commands it."""

    def __init__(self, server: DeviceServer, device: str, plate: Plate, now_s: Callable[[], float]) -> None:
        self._server, self._device, self._plate, self._now_s = server, device, plate, now_s
        self._registers: dict[int, int] = {}
        self.on_write: Callable[[Write], None] = lambda write: None
        server.tap = self._saw

    def forget(self) -> None:
        """The device has lost what it was told: it was restarted."""
        self._registers.clear()

    def _saw(self, adu: bytes) -> None:
        written = {self._address(address): value for address, value in _written(adu).items()}
        limits, setpoints = _blocks(self._plate)
        before, before_s = self._held(), self._reversions_s()
        self._registers.update(written)
        after, after_s = self._held(), self._reversions_s()
        del before_s
        for quantity, block, size in ((Quantity.P_LIMIT, limits, 5), (Quantity.P_SET, setpoints, 5)):
            if not block.isdisjoint(written):
                whole = len(block & written.keys()) >= size
                values = [_of(held, quantity) for held in (after, before)]
                write = Write(self._now_s(), self._device, quantity, values[0], after_s[quantity], values[1], whole)
                self.on_write(write)

    def _held(self) -> _Held:
        return (_legacy if self._plate.legacy else _modern)(self._registers, self._plate)

    def _reversions_s(self) -> dict[Quantity, float]:
        got = self._registers.get
        if self._plate.legacy:
            limit_s = float(got(AT_123 + 7, 0))
        else:
            limit_s = float(got(AT_704 + 18, 0) << 16 | got(AT_704 + 19, 0))
        return {Quantity.P_LIMIT: limit_s or math.inf, Quantity.P_SET: self._held().reversion_s}

    def _address(self, address: int) -> int:
        """Where a register is meant that has moved."""
        if self._server.failing is not Fault.MAP_CHANGE:
            return address
        return distort.unmoved(address - BASE, self._server.bank) + BASE


def _of(held: _Held, quantity: Quantity) -> float | None:
    return held.limit_w if quantity is Quantity.P_LIMIT else held.setpoint_w


@dataclass
class Story:
    """What has happened lately, for people who read of a violation."""

    now_s: Callable[[], float]
    _kept: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def tell(self, text: str) -> None:
        self._kept.append((self.now_s(), text))

    def since(self, from_s: float, about: str = "") -> list[str]:
        """Happenings from a moment on; of one device with what concerns all."""
        return [f"{at_s:9.2f} {text}" for at_s, text in self._kept if at_s >= from_s and about in text]

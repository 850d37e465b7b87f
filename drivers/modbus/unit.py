"""What drivers need of one Modbus unit, whatever carries it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol

MAX_READ = 125
MAX_WRITE = 123
"""Registers that fit one request."""


class Table(Enum):
    """Which registers are read, by the function code that reads them."""

    HOLDING = 3
    INPUT = 4


@dataclass(frozen=True, slots=True)
class Span:
    """Registers that are read together."""

    address: int
    count: int
    table: Table = Table.HOLDING


class Priority(IntEnum):
    """Who goes first when calls wait for their turn; within one priority it is first come, first served."""

    EMERGENCY = 0
    WRITE = 1
    READ = 2


class Unit(Protocol):
    """One Modbus unit behind some connection, which units of one endpoint share; calls may overlap.

    Calls raise DeviceUnreachable (not connected, lost, no answer in time), ProtocolViolation (an answer that does not
    fit its question), DeviceRefused (a Modbus exception) or WriteForbidden (a read-only session). Addresses are
    protocol addresses from 0, counts are registers of two bytes.
    """

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        ...

    @property
    def connected(self) -> bool:
        """Whether the connection that `connect` joined still stands; false for ever once that one is lost."""
        ...

    @property
    def registers_max(self) -> int:
        """Registers that one request reads: MAX_READ unless the link says less. Longer reads go in parts, anyhow cut:
        who minds where a cut falls asks for no more than this at once."""
        ...

    async def connect(self) -> None:
        """Join the connection that stands, or make a new one; raises DeviceUnreachable."""
        ...

    def read(
        self, address: int, count: int, *, table: Table = Table.HOLDING, priority: Priority = Priority.READ
    ) -> Awaitable[bytes]:
        """Read registers (FC3 or FC4); 2 * count bytes as they came. The request goes out with the call."""
        ...

    def reading(self, spans: Sequence[Span]) -> Callable[[], Awaitable[bytes]]:
        """What reads spans one after the other, each time that it is called, and joins their bytes.

        Whoever goes first by priority gets a turn between them; the first that fails fails the whole.
        """
        ...

    async def write(self, address: int, data: bytes, *, priority: Priority = Priority.WRITE) -> None:
        """Write holding registers in one request (FC16, or FC6 for a device that wants it so)."""
        ...

    def disconnect(self) -> None:
        """Leave the connection: what this unit waits for fails; the last to leave closes it."""
        ...

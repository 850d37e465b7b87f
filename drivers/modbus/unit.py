"""What drivers need of one Modbus unit, whatever carries it."""

from typing import Protocol


class Unit(Protocol):
    """One Modbus unit behind some connection; calls may overlap and are answered in order.

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
        """Whether the connection that `connect` made still stands; false for ever once that one is lost."""
        ...

    async def connect(self) -> None: ...

    async def read(self, address: int, count: int) -> bytes:
        """Read holding registers (FC3); 2 * count bytes as they came."""
        ...

    async def write(self, address: int, data: bytes) -> None:
        """Write holding registers (FC16)."""
        ...

    def disconnect(self) -> None: ...

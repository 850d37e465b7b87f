"""The part that drivers share: a connection counts only once it is proven who answers on it."""

import asyncio
from abc import ABC, abstractmethod
from contextlib import ExitStack

from derms.domain.telemetry import Identity
from drivers.modbus.unit import Unit


class ProvenConnection(ABC):
    """Connects a unit and has it proven; see derms.ports.DeviceDriver.

    Until then nothing is read as telemetry and nothing written; commands and connects take turns, so that none of them
    spans two connections.
    """

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._proven = False
        """Whether it is known who answers on the connection that stands."""
        self._commanding = asyncio.Lock()
        self._connecting = asyncio.Lock()

    @property
    def connected(self) -> bool:
        return self._proven and self._unit.connected

    @property
    @abstractmethod
    def identity(self) -> Identity:
        """Who the device said it is; raises DeviceUnreachable before the first connect is done."""

    async def connect(self) -> Identity:
        """Connect and prove anew; of calls at the same time one does it for all.

        Raises DeviceMismatch, after disconnecting, for another device than the fleet file's or the last one, and for
        one of another kind than the fleet file says.
        """
        others = self._connecting.locked()
        async with self._connecting:
            if not (others and self.connected):
                self.disconnect()
                async with self._commanding:
                    await self._connect_anew()
            return self.identity

    async def _connect_anew(self) -> None:
        with ExitStack() as undo:
            undo.callback(self.disconnect)
            await self._unit.connect()
            await self._prove()
            self._proven = True
            undo.pop_all()

    @abstractmethod
    async def _prove(self) -> None:
        """Find out who answers on the new connection; raises DeviceMismatch for another than expected."""

    def disconnect(self) -> None:
        """Drop the connection, a connect in progress included."""
        self._proven = False
        self._unit.disconnect()

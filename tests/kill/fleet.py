"""A simulated fleet on loopback that keeps account of every request, for whoever kills the control room around it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from hil.server import _FramedLink
from hil.world import World


@dataclass(slots=True)
class Account:
    """What one device was asked."""

    wrote_s: float = -np.inf
    """When a command or a refresh last reached it [s]."""
    blind: int = 0
    """Writes before which this gateway had read nothing of the registers that they change."""
    _read: set[int] = field(default_factory=set)

    def killed(self) -> None:
        """The gateway is another one from now on: it knows nothing of what this device holds."""
        self._read.clear()

    def read(self, address: int, count: int) -> None:
        """Registers were read."""
        self._read.update(range(address, address + count))

    def wrote(self, address: int, count: int, now_s: float) -> None:
        """Registers were written."""
        self.wrote_s = now_s
        self.blind += self._read.isdisjoint(range(address, address + count))


class AccountedFleet:
    """The world of a feeder, and an account of each device."""

    def __init__(self, world: World, now_s: Callable[[], float]) -> None:
        self.world = world
        self._now_s = now_s
        self.accounts = {device: Account() for device in world.servers}
        for device in world.servers:
            self._listen_in(device)

    def _listen_in(self, device: str) -> None:
        server, account = self.world.servers[device], self.accounts[device]
        server.endpoint._link = _FramedLink  # which asks its unit for every read
        read, write = server.read, server.write

        def reading(function: int, address: int, count: int) -> bytes | int:
            account.read(address, count)
            return read(function, address, count)

        def writing(address: int, data: bytes) -> int:
            account.wrote(address, len(data) // 2, self._now_s())
            return write(address, data)

        server.read, server.write = reading, writing  # type: ignore[method-assign]

    def killed(self) -> None:
        """The gateway was killed just now."""
        for account in self.accounts.values():
            account.killed()

    @property
    def blind(self) -> int:
        """Writes that nobody read anything before, since the beginning."""
        return sum(account.blind for account in self.accounts.values())

    def holding(self) -> dict[str, float]:
        """When each device that holds a command was last written to [s]."""
        commands = self.world.commands
        held = commands.setpoint.enabled | commands.limit.enabled
        return {
            der.id: self.accounts[der.id].wrote_s
            for der, holds in zip(self.world.package.ders, held, strict=True)
            if holds
        }

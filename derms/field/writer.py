"""The writer: carries a command to its device, reads it back, and asks devices what they hold.

It never writes blindly: before a value is replaced the device is asked whether it still holds the one before. A value
whose reversion timer is not armed is released again. Everything that one device is given goes through `alone_with`.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.domain.dispatch import Applied, Command, Expired, Failed, Held, Rejected, Unknown
from derms.errors import DeviceRefused, FieldError, ProtocolViolation, WriteForbidden
from derms.field.custody import Custody
from derms.field.holdings import Holding, Key
from derms.field.ledger import Ledger, Pending, Stage
from derms.field.thrift import Thrift
from derms.ports import Clock, DeviceDriver


@dataclass(slots=True)
class Writer:
    """Brings commands to devices; see the module's text."""

    fleet: Fleet
    drivers: Mapping[str, DeviceDriver]
    clock: Clock
    ledger: Ledger
    custody: Custody
    thrift: Thrift
    on_event: Callable[[Event], None]
    alone_with: defaultdict[int, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))
    """Per row: a device is compared with what it was given while nobody else gives it anything."""

    async def write_all(self, due: Sequence[Pending]) -> None:
        """Write durable intents; each has its outcome then, or is watched, also when a driver fails unexpectedly."""
        ended = await asyncio.gather(*(self._carry_out(pending) for pending in due), return_exceptions=True)
        for pending, error in zip(due, ended, strict=True):
            if isinstance(error, Exception):
                self.ledger.break_off(pending.key, _unexpected(error))

    async def ask_all(self, keys: Sequence[Key]) -> None:
        """Ask devices what they hold; one whose driver fails unexpectedly is said and left alone."""
        ended = await asyncio.gather(*(self._ask(key) for key in keys), return_exceptions=True)
        for key, error in zip(keys, ended, strict=True):
            if isinstance(error, Exception):
                self.custody.unknown.discard(key)
                device_id = self.fleet.devices[key[0]].id
                text = f"{device_id}: {_unexpected(error)}"
                self.on_event(Event(self.clock.utc(), Severity.ALARM, device_id, "driver-failed", text))

    async def lost(self, keys: Sequence[Key]) -> list[Key]:
        """Those values that devices do not hold any more, and those of which a driver fails unexpectedly to tell."""
        ended = await asyncio.gather(*(self._keeps(key) for key in keys), return_exceptions=True)
        return [key for key, keeps in zip(keys, ended, strict=True) if keeps is not True]

    async def _keeps(self, key: Key) -> bool:
        """Whether a device holds what it was given, as far as it can be asked."""
        holding, driver = self.custody.holdings.get(key), self._driver(key[0])
        if holding is None or not driver.connected:
            return True
        async with self.alone_with[key[0]]:
            try:
                found = self.custody.notice(key, await driver.read_back(key[1]))
            except FieldError:
                return True  # the poller tells of devices that do not answer
        return found is None or not found.corrects

    async def _ask(self, key: Key) -> None:
        row, quantity = key
        driver = self._driver(row)
        try:
            if not driver.connected:
                await driver.connect()
            held = await driver.read_back(quantity)
        except WriteForbidden:  # it does not take this quantity
            self.custody.unknown.discard(key)
        except FieldError:
            return
        else:
            self.custody.found(key, held)

    async def _carry_out(self, pending: Pending) -> None:
        """Write one command and read it back; the effect is watched later."""
        if pending.stage is Stage.ENDED:  # by the journal
            return
        command = pending.command
        if command.value_w is not None and np.isnan(command.value_w):
            self.ledger.end(pending, Rejected(pending.by))
            return
        driver = self._driver(pending.row)
        try:
            if not driver.connected:
                await driver.connect()
        except FieldError as error:
            self.ledger.end(pending, Failed(f"not connected: {error}"))
            return
        async with self.alone_with[pending.row]:
            held = await self._write(pending, driver)
        if command.value_w is not None and held is not None and not _is_armed(command, held):
            # It would keep the value after our death: better none at all.
            release = self.ledger.intend(pending.key, None, dispatch=None)
            await self.ledger.make_durable([release])
            await self._carry_out(release)

    async def _write(self, pending: Pending, driver: DeviceDriver) -> Held | None:
        """Write a command to a connected device; what it holds then, None when that is nothing or nobody knows."""
        ledger, command = self.ledger, pending.command
        if not await self._is_ours(pending.key, driver):
            ledger.end(pending, Rejected("conflict"))
            return None
        reason = ledger.journal.refusal(pending.token, pending.deadline_s, self.clock.monotonic_s())
        if reason is not None:
            ledger.end(pending, Expired() if reason.by == "deadline" else Rejected(f"{reason.by}: {reason.text}"))
            return None
        ledger.counts.writes += 1
        self.thrift.wrote(pending.key)
        pending.stage = Stage.SENT
        self.custody.sent(pending.key)
        doubt = ""
        try:
            async with asyncio.timeout_at(pending.deadline_s):  # it may wait for its turn at the device
                await driver.write(command)
        except TimeoutError:
            ledger.end(pending, Unknown("its deadline passed before it was written whole"))
            return None
        except (DeviceRefused, WriteForbidden) as error:
            ledger.end(pending, Rejected(f"device: {error}"))
            return None
        except ProtocolViolation as error:  # it may have taken all, a part or nothing: what it holds decides
            doubt = f"{error}; "
        except FieldError as error:
            ledger.end(pending, Unknown(str(error)))
            return None
        try:
            held = await driver.read_back(command.quantity)
        except FieldError as error:
            ledger.end(pending, Unknown(f"{doubt}written, but not read back: {error}"))
            return None
        self._read_back(pending, held, doubt)
        return None if held.value_w is None else held

    async def _is_ours(self, key: Key, driver: DeviceDriver) -> bool:
        """Look whether the device still holds what it was given; false for one that is left to another master."""
        row, quantity = key
        if key in self.custody.holdings:
            try:
                found = self.custody.notice(key, await driver.read_back(quantity))
            except FieldError:
                return True  # the write that follows will tell
            if found is not None and found.corrects:
                self.custody.corrected(row)
        return row not in self.custody.handed_over

    def _read_back(self, pending: Pending, held: Held, doubt: str) -> None:
        command, key = pending.command, pending.key
        if command.value_w is None:
            if held.value_w is None:
                self.custody.held.discard(key)
                self.ledger.end(pending, Applied(float("nan")))
            else:
                self.ledger.end(pending, Failed(f"{doubt}released, but read back {held.value_w:.0f} W"))
        elif held.value_w is None or not abs(held.value_w - command.value_w) <= 1.001 * held.resolution_w:
            shown = "disabled" if held.value_w is None else f"{held.value_w:.0f} W"
            self.ledger.end(pending, Failed(f"{doubt}wrote {command.value_w:.0f} W, read back {shown}"))
        elif not _is_armed(command, held):
            armed = f"wrote a reversion time of {command.reversion_s:.0f} s, read back {held.reversion_s:.0f} s"
            self.ledger.end(pending, Failed(f"{armed}: released"))
        else:
            pending.written_s = now_s = self.clock.monotonic_s()
            pending.stage = Stage.WATCHED
            self.custody.holdings[key] = Holding(command, held, now_s, now_s, pending.valid_until_s)

    def _driver(self, row: int) -> DeviceDriver:
        return self.drivers[self.fleet.devices[row].id]


def _is_armed(command: Command, held: Held) -> bool:
    """Whether the device counts down to its own release; a timer that it does not have reads as NaN."""
    return 0.0 < held.reversion_s <= command.reversion_s + 1.0


def _unexpected(error: Exception) -> str:
    return f"its driver failed unexpectedly with {type(error).__name__}: {error}"

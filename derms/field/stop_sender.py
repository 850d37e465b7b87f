"""What a stop sends to one device, what letting it in again sends, and how both are read back.

A stop is held up by nothing that it can do without: a journal that fails or hangs is waited for 0.2 s and then told, a
device that others have to themselves for longer than a second is spoken to all the same, and a lost lease keeps nobody
from stopping. Letting in asks the lease as every other command does.
"""

import asyncio
import math
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np

from derms.control.latch import stop_bounds
from derms.control.stopping import CEASING, QUANTITIES, Means, means_of, value_w
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.dispatch import Applied, Capabilities, Ceasing, Command, Failed, Held, Rejected, Unknown
from derms.errors import DeviceRefused, FieldError, ProtocolViolation, WriteForbidden
from derms.field.holdings import Holding
from derms.field.ledger import Pending, Stage
from derms.field.orders import Orders
from derms.field.reconcile import Reconciler
from derms.field.stop_walk import Walk
from derms.field.withdrawn import Withdrawn
from derms.ports import DeviceDriver

JOURNAL_S = 0.2
"""For the journal to take what a stop sends; after that it goes out without it."""
ALONE_S = 1.0
"""For others to be done with a device."""


@cache
def _can(capabilities: Capabilities) -> BoolArray:
    """Means that a device takes, shape (len(Means),)."""
    takes: BoolArray = means_of([capabilities])[0]
    return takes


@dataclass(slots=True)
class StopSender:
    """Speaks to devices for stops; see the module's text."""

    reconciler: Reconciler
    orders: Orders
    withdrawn: Withdrawn
    on_event: Callable[[Event], None]
    _doubts: set[tuple[int, Ceasing]] = field(default_factory=set)
    """Devices that may have ceased for a stop without our having seen it."""
    _entered: defaultdict[tuple[str, str], list[str]] = field(default_factory=lambda: defaultdict(list))
    """What is to be told to the journal, and of which devices."""
    _commit: asyncio.Future[None] | None = None
    _journal_fails: bool = False

    async def tell(self, walk: Walk, row: int) -> None:
        """Tell a device what its stop has for it now, and read back what it holds then."""
        driver = self._driver(row)
        try:
            if not driver.connected:
                await driver.connect()
        except FieldError as error:
            walk.missed(row, str(error), self._now_s())
            return
        walk.meet(row, _can(driver.identity.capabilities))
        means = walk.means(row)
        if means is None:
            walk.cannot(row, self._now_s())
            return
        try:
            async with self._alone_with(row):
                await self._send(walk, row, means, driver)
        except (DeviceRefused, WriteForbidden) as error:
            walk.refused(row, str(error))
        except FieldError as error:
            walk.missed(row, str(error), self._now_s())
        else:
            walk.told(row, self._now_s())

    async def _send(self, walk: Walk, row: int, means: Means, driver: DeviceDriver) -> None:
        if means in CEASING:
            await self._cease(walk, row, means, driver)
        elif means in QUANTITIES:
            await self._command(walk, row, means, driver, self._value_w(walk, row, means))
        elif means is Means.RELEASE:
            custody, takes = self.reconciler.custody, driver.identity.capabilities.takes
            for each, quantity in QUANTITIES.items():
                walk.read(row, each, math.inf, self._now_s())
                if quantity not in takes:
                    custody.cannot((row, quantity))
                elif (row, quantity) in custody.held | custody.unknown:
                    await self._command(walk, row, each, driver, None)
            walk.telling(row, means, self._now_s())
        else:
            await self._hold(walk, row, driver)

    def _value_w(self, walk: Walk, row: int, means: Means) -> float:
        """Value for a device [W]: inside what all stops leave, and what it can do at all."""
        wanted_w = float(value_w(walk.how, np.array([means]), walk.devices.p_w[row : row + 1])[0])
        bounds, devices = stop_bounds(self.orders.latches, walk.places), walk.devices
        possible_w = min(max(wanted_w, float(devices.low_w[row])), max(float(devices.high_w[row]), 0.0))
        return min(max(possible_w, float(bounds.low_w[row])), float(bounds.high_w[row]))

    async def _cease(self, walk: Walk, row: int, means: Means, driver: DeviceDriver) -> None:
        by = CEASING[means]
        self._enter(row, "stop-command", f"stop {walk.latch.number} has cease by {by.value}")
        await self._durable()
        walk.telling(row, means, self._now_s())
        was_in = False
        try:
            was_in = await driver.cease(by)
        except (DeviceRefused, WriteForbidden):
            raise
        except FieldError as error:  # it may have taken it, and will not say any more what was before
            self._doubts.add((row, by))
            if not isinstance(error, ProtocolViolation):
                raise
        if was_in or walk.resumed:
            self.withdrawn.mark(row, by, withdrawn=True)
        await self._see_ceased(walk, row, means, driver)

    async def _see_ceased(self, walk: Walk, row: int, means: Means, driver: DeviceDriver) -> None:
        """Read back whether a device is to cease; one that may have been told unseen, and is, was told by us."""
        by = CEASING[means]
        ceased = await driver.ceased(by)
        if ceased and (row, by) in self._doubts:
            self._doubts.discard((row, by))
            self.withdrawn.mark(row, by, withdrawn=True)
        walk.read(row, means, 0.0 if ceased else 1.0, self._now_s())

    async def _command(self, walk: Walk, row: int, means: Means, driver: DeviceDriver, value_w: float | None) -> None:
        """Write a value, or release it with None; what is not read back raises."""
        ledger, key = self.reconciler.ledger, (row, QUANTITIES[means])
        pending = ledger.intend(key, value_w, wanted_w=math.nan if value_w is None else value_w, dispatch=None)
        await self._durable()
        ledger.counts.writes += 1
        self.reconciler.thrift.wrote(key)
        pending.stage = Stage.SENT
        self.reconciler.custody.sent(key)
        walk.telling(row, means, self._now_s())
        try:
            await driver.write(pending.command)
        except (DeviceRefused, WriteForbidden) as error:
            ledger.end(pending, Rejected(f"device: {error}"))
            raise
        except ProtocolViolation:  # it may have taken all, a part or nothing: what it holds decides
            pass
        except FieldError as error:
            ledger.end(pending, Unknown(str(error)))
            raise
        try:
            held = await driver.read_back(key[1])
        except FieldError as error:
            ledger.end(pending, Unknown(f"written, but not read back: {error}"))
            raise
        walk.read(row, means, math.inf if held.value_w is None else held.value_w, self._now_s())
        self._judge(pending, held)

    def _judge(self, pending: Pending, held: Held) -> None:
        """Give a command its outcome, or have its effect watched; what is held is refreshed while the stop is latched.

        A value without a timer stays, which is what a stop wants.
        """
        ledger, custody, key, value_w = (
            self.reconciler.ledger,
            self.reconciler.custody,
            pending.key,
            pending.command.value_w,
        )
        if value_w is None and held.value_w is None:
            custody.held.discard(key)
            custody.unknown.discard(key)
            ledger.end(pending, Applied(math.nan))
        elif value_w is None or held.value_w is None or not abs(held.value_w - value_w) <= 1.001 * held.resolution_w:
            shown = "nothing" if held.value_w is None else f"{held.value_w:.0f} W"
            ledger.end(pending, Failed(f"read back {shown}"))
        elif pending.stage is not Stage.ENDED:
            pending.written_s = now_s = self._now_s()
            pending.stage = Stage.WATCHED
            if held.reversion_s > 0.0:
                custody.holdings[key] = Holding(pending.command, held, now_s, now_s, math.inf)

    async def _hold(self, walk: Walk, row: int, driver: DeviceDriver) -> None:
        """Have what a device holds of ours refreshed from now on, whatever becomes of the plan behind it."""
        custody, settings = self.reconciler.custody, self.reconciler.settings
        for means, quantity in QUANTITIES.items():
            key = row, quantity
            walk.read(row, means, math.inf, self._now_s())
            of_before = custody.unasked(key) and quantity in driver.identity.capabilities.takes
            if key not in custody.held and not of_before:
                continue
            held, now_s = await driver.read_back(quantity), self._now_s()
            walk.read(row, means, math.inf if held.value_w is None else held.value_w, now_s)
            custody.unknown.discard(key)
            if held.value_w is not None and held.reversion_s > 0.0:
                custody.held.add(key)
                command = Command(quantity, held.value_w, settings.reversion_s)
                known = custody.holdings.get(key, Holding(command, held, now_s, now_s, math.inf))
                custody.holdings[key] = known.prolonged(math.inf)
        walk.telling(row, Means.HOLD, self._now_s())

    async def look(self, walk: Walk, row: int) -> None:
        """See whether a device still holds what it was told; one that does not answer is the poller's to tell."""
        driver, takes = self._driver(row), self._driver(row).identity.capabilities.takes
        told = walk.sent[row]
        try:
            async with self._alone_with(row):
                for means in CEASING:
                    if told[means]:
                        await self._see_ceased(walk, row, means, driver)
                for means, quantity in QUANTITIES.items():
                    if quantity in takes and (told[means] or told[Means.RELEASE] or told[Means.HOLD]):
                        held = await driver.read_back(quantity)
                        walk.read(row, means, math.inf if held.value_w is None else held.value_w, self._now_s())
        except FieldError:
            walk.looked_s[row] = self._now_s()

    async def ceased(self, row: int) -> list[Ceasing]:
        """Ways in which a device says that it is to cease to energize; raises FieldError where it does not say."""
        driver = self._driver(row)
        async with self._alone_with(row):
            return [by for by in Ceasing if by in driver.identity.capabilities.ceases and await driver.ceased(by)]

    async def let_in(self, row: int, may: Callable[[int], bool]) -> str:
        """Give back the service that stops have withdrawn from a device; why that was not possible, or nothing."""
        driver, journal = self._driver(row), self.reconciler.journal
        try:
            if not driver.connected:
                await driver.connect()
            async with self._alone_with(row):
                for by in reversed(self.withdrawn.ways(row)):
                    self._enter(row, "let-in", f"permitted to energize again by {by.value}")
                    await self._durable()
                    reason = journal.refusal(journal.token, math.inf, self._now_s())
                    if reason is not None or not may(row):
                        return reason.text if reason else "it is stopped again"
                    await driver.let_in(by)
                    if await driver.ceased(by):
                        return f"does not take it by {by.value}"
                    self.withdrawn.mark(row, by, withdrawn=False)
        except FieldError as error:
            return str(error)
        return ""

    def let_go(self, rows: BoolArray) -> None:
        """What devices were given by a stop is not refreshed any more: the reconciler has them again."""
        holdings, now_s = self.reconciler.custody.holdings, self._now_s()
        for (row, quantity), holding in list(holdings.items()):
            if rows[row] and math.isinf(holding.valid_until_s):
                holdings[row, quantity] = replace(holding, valid_until_s=now_s)

    # The journal, as far as it goes

    def _enter(self, row: int, kind: str, text: str) -> None:
        """Have it in the journal that something is done at a device: together with others to which the same is done."""
        self._entered[kind, text].append(self.reconciler.fleet.devices[row].id)

    def _tell_journal(self) -> None:
        entered, self._entered = self._entered, defaultdict(list)
        for (kind, text), devices in entered.items():
            at = self.reconciler.clock.utc()
            self.reconciler.journal.tell(Event(at, Severity.INFO, "gateway", kind, f"{text}: {', '.join(devices)}"))

    async def _durable(self) -> None:
        """Have what was entered made durable, together with what others enter now, for as long as that may take."""
        await asyncio.sleep(0)
        self._tell_journal()
        loop = asyncio.get_running_loop()
        end_s = loop.time() + JOURNAL_S
        if self._commit is not None and not await self._committed(self._commit, end_s):
            return
        if self._commit is None:  # the one before may have begun too early for this
            self._commit = loop.run_in_executor(None, self.reconciler.journal.commit)
            self._commit.add_done_callback(self._settled)
        await self._committed(self._commit, end_s)

    async def _committed(self, commit: asyncio.Future[None], end_s: float) -> bool:
        left_s = 0.0 if self._journal_fails else max(0.0, end_s - asyncio.get_running_loop().time())
        done, _ = await asyncio.wait([commit], timeout=left_s)
        if not done:
            self._without(f"it takes longer than {JOURNAL_S:g} s")
        return bool(done)

    def _settled(self, commit: asyncio.Future[None]) -> None:
        self._commit = None
        error = None if commit.cancelled() else commit.exception()
        if error is None:
            self._journal_fails = False
        else:
            self._without(str(error))

    def _without(self, why: str) -> None:
        if not self._journal_fails:
            self._journal_fails = True
            text = f"what stops send goes out without the journal: {why}"
            self.on_event(Event(self.reconciler.clock.utc(), Severity.ALARM, "gateway", "stop-not-journalled", text))

    @asynccontextmanager
    async def _alone_with(self, row: int) -> AsyncIterator[None]:
        """Have a device to oneself, for as long as others leave it in time."""
        lock, mine = self.reconciler.writer.alone_with[row], True
        try:
            async with asyncio.timeout(ALONE_S):
                await lock.acquire()
        except TimeoutError:
            mine = False
        try:
            yield
        finally:
            if mine:
                lock.release()

    def _driver(self, row: int) -> DeviceDriver:
        return self.reconciler.drivers[self.reconciler.fleet.devices[row].id]

    def _now_s(self) -> float:
        return self.reconciler.clock.monotonic_s()

"""The heartbeat: keeps alive what devices hold of ours, apart from the dispatch and its turns.

Reversion timers are armed anew on a cadence of their own, at most a third of their time apart, while the dispatch
behind a value is valid and the guards would still let that value go out as it is; a device of which they would leave
another value has its turn at once, one of which they leave none is left to its timer. While a stop is latched over a
device, what it holds inside the stop's bounds is armed anew whatever guards, tags and the end of a dispatch say.
Devices with a heartbeat register (SunSpec 715) get one each second while they are under command, and theirs is
watched. A second in which nothing is due costs the same for any number of holdings.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import Quantity
from derms.errors import FieldError
from derms.field.agenda import Agenda
from derms.field.ending import end
from derms.field.holdings import Holding, Key
from derms.field.poller import phase
from derms.field.reconcile import ERRAND_S, Reconciler
from derms.ports import DeviceDriver

BEAT_S = 1.0
STILL_AFTER_S = 5.0
"""A device's own heartbeat that stands still for longer is an alarm; it counts seconds (715 DERHb)."""
SPREAD_FRAC = 0.25
"""Part of the cadence over which the devices of a fleet are spread."""
RETRY_FRAC = 0.1
"""Part of the cadence after which a refresh that did not come through is tried again."""


@dataclass(slots=True)
class _Pulse:
    """A device's own heartbeat as last seen to move."""

    count: int
    moved_s: float
    still: bool = False


@dataclass(slots=True)
class Heartbeat:
    """Refreshes what a reconciler's devices hold; see the module's text."""

    reconciler: Reconciler
    on_event: Callable[[Event], None]
    refreshed: int = 0
    """Timers armed anew since the start."""
    _agenda: Agenda[Key] = field(default_factory=Agenda)
    """When each holding is to be armed anew."""
    _rows: dict[int, None] = field(default_factory=dict)
    """Rows under command that watch our heartbeat, or have not been looked at yet."""
    _pulses: dict[int, _Pulse] = field(default_factory=dict)
    _busy: set[int] = field(default_factory=set)
    """Rows that are being seen to."""
    _failed: set[int] = field(default_factory=set)
    """Rows whose driver has failed in a way that nobody expected."""

    async def run(self) -> None:
        """See to every device that is under command, each on its own, until cancelled."""
        clock = self.reconciler.clock
        due_s = clock.monotonic_s()
        tasks: set[asyncio.Task[None]] = set()
        try:
            while True:
                await asyncio.sleep(max(0.0, due_s - clock.monotonic_s()))
                for row, keys in self._work(clock.monotonic_s()).items():
                    self._busy.add(row)
                    task = asyncio.create_task(self._see_to(row, keys), name=f"heartbeat {row}")
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    task.add_done_callback(partial(self._seen_to, row))
                due_s = max(due_s + BEAT_S, clock.monotonic_s())
        finally:
            await end(tasks)

    def _seen_to(self, row: int, task: asyncio.Task[None]) -> None:
        """An error that nobody expected costs its device the heartbeat, and is said once; the others go on."""
        error = None if task.cancelled() else task.exception()
        if error is not None and row not in self._failed:
            self._failed.add(row)
            text = f"gets no heartbeat: its driver failed unexpectedly with {type(error).__name__}: {error}"
            self._event(row, Severity.ALARM, "driver-failed", text)

    def _work(self, now_s: float) -> dict[int, list[Key]]:
        """The devices to be seen to now, each with the holdings that are to be refreshed."""
        for key, holding in self.reconciler.holdings.news():
            self._agenda.put(key, self._due_s(key, holding))
            self._rows[key[0]] = None
        work: defaultdict[int, list[Key]] = defaultdict(list)
        for key in self._allowed(self._due(now_s)):
            work[key[0]].append(key)
        for row in self._beating():
            if row not in self._busy and row not in work:
                work[row] = []
        return work

    def _every_s(self, holding: Holding) -> float:
        return holding.refresh_within_s(self.reconciler.settings.refresh_every_s)

    def _due_s(self, key: Key, holding: Holding) -> float:
        place = phase(self.reconciler.fleet.devices[key[0]].id)
        return holding.armed_s + self._every_s(holding) * (1.0 - SPREAD_FRAC * place)

    def _due(self, now_s: float) -> list[Key]:
        """Holdings to be armed anew now; a device that is busy or away is looked at again with the next beat."""
        due: list[Key] = []
        for key in self._agenda.due(now_s):
            holding = self.reconciler.holdings.get(key)
            if holding is None or (now_s > holding.valid_until_s and not self._is_stopped(key[0])):
                continue  # let go, or left to its timer
            if key[0] in self._busy or not self._driver(key[0]).connected:
                self._agenda.put(key, now_s)
            else:
                due.append(key)
        return due

    def _beating(self) -> list[int]:
        """Rows under command that are connected and watch our heartbeat; forgets those that are not, or do not."""
        beating: list[int] = []
        for row in list(self._rows):
            held = any((row, quantity) in self.reconciler.holdings for quantity in Quantity)
            driver = self._driver(row)
            if held and not driver.connected:
                continue
            if held and driver.identity.capabilities.heartbeat:
                beating.append(row)
            else:
                del self._rows[row]
                self._pulses.pop(row, None)
        return beating

    def _allowed(self, due: list[Key]) -> list[Key]:
        """Those whose value the guards would let go out now as it is.

        Devices of which they would leave another value have their turn now; all others are asked about again later.
        """
        if not due:
            return []
        reconciler = self.reconciler
        snapshot = reconciler.poller.snapshot()
        for key in due:
            self._agenda.put(key, snapshot.now_s + RETRY_FRAC * self._every_s(reconciler.holdings[key]))
        allowed: list[Key] = []
        moved = np.zeros(len(reconciler.fleet), dtype=np.bool_)
        for quantity in Quantity:
            keys = [key for key in due if key[1] is quantity]
            guarded = reconciler.wishes.held(quantity, [row for row, _ in keys], snapshot)
            for key in keys:
                row, by = key[0], guarded.by[key[0]]
                if self._may_stay(key, by):
                    allowed.append(key)
                else:
                    moved[row] |= np.isfinite(guarded.value_w[row])
        if moved.any():
            reconciler.hasten(moved)
        return allowed

    def _is_stopped(self, row: int) -> bool:
        return bool(self.reconciler.orders.stopped()[row])

    def _may_stay(self, key: Key, by: str) -> bool:
        """Whether a value may stay in a device: a limit is always better there than none while a stop is latched."""
        row, bounds = key[0], self.reconciler.orders.laid.stop_bounds
        if not self._is_stopped(row):
            return not by
        held_w = self.reconciler.holdings[key].held.value_w
        if held_w is None:
            return False
        return key[1] is Quantity.P_LIMIT or bool(bounds.low_w[row] <= held_w <= bounds.high_w[row])

    async def _see_to(self, row: int, keys: list[Key]) -> None:
        """One device's turn; what does not come through is tried again, and the timer ends what stays away."""
        driver = self._driver(row)
        try:
            async with asyncio.timeout(ERRAND_S):
                async with self.reconciler.writer.alone_with[row]:
                    for key in keys:
                        await self._refresh(key)
                if driver.identity.capabilities.heartbeat:
                    self._felt(row, await driver.beat())
        except (FieldError, TimeoutError):
            return  # the poller tells of devices that do not answer
        finally:
            self._busy.discard(row)

    async def _refresh(self, key: Key) -> None:
        """Arm a timer anew, unless the device does not hold any more what it was given: the next turn mends that."""
        holdings, clock = self.reconciler.holdings, self.reconciler.clock
        holding, driver, quantity = holdings.get(key), self._driver(key[0]), key[1]
        if holding is None or clock.monotonic_s() - holding.armed_s < BEAT_S:
            return  # a command has just gone out
        held = await driver.read_back(quantity)
        found = self.reconciler.custody.notice(key, held)
        if held.value_w is None or (found is not None and found.corrects):
            return
        armed_s = clock.monotonic_s()
        self.reconciler.thrift.wrote(key)
        await driver.refresh(quantity, holding.command.reversion_s)
        self.refreshed += 1
        latest = holdings.get(key)
        if latest is not None and latest.command is holding.command:  # else a write has ended it meanwhile
            holdings[key] = latest.refreshed(armed_s)

    def _felt(self, row: int, count: int | None) -> None:
        """Watch a device's own heartbeat."""
        if count is None or row not in self._rows:
            return
        now_s = self.reconciler.clock.monotonic_s()
        pulse = self._pulses.get(row)
        if pulse is None:
            self._pulses[row] = _Pulse(count, now_s)
        elif count != pulse.count:
            if pulse.still:
                self._event(row, Severity.INFO, "heartbeat-back", "counts its heartbeat again")
            self._pulses[row] = _Pulse(count, now_s)
        elif not pulse.still and now_s - pulse.moved_s > STILL_AFTER_S:
            pulse.still = True
            self._event(row, Severity.ALARM, "heartbeat-lost", "answers, but its own heartbeat stands still")

    def _driver(self, row: int) -> DeviceDriver:
        return self.reconciler.drivers[self.reconciler.fleet.devices[row].id]

    def _event(self, row: int, severity: Severity, kind: str, text: str) -> None:
        device_id = self.reconciler.fleet.devices[row].id
        self.on_event(Event(self.reconciler.clock.utc(), severity, device_id, kind, f"{device_id} {text}"))

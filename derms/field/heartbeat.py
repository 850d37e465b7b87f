"""The heartbeat: keeps alive what devices hold of ours, apart from the dispatch and its turns.

Reversion timers are armed anew on a cadence of their own, at most a third of their time apart, while the dispatch
behind a value is valid and the guards would still let that value go out as it is; what they would change is left to
the next turn, and to the timer. Devices with a heartbeat register (SunSpec 715) get one each second while they are
under command, and theirs is watched.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from derms.control.guards import GuardInput, guard
from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import Quantity
from derms.errors import FieldError
from derms.field.holdings import Holding, Key
from derms.field.poller import phase
from derms.field.reconcile import Reconciler
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
    _tried_s: dict[Key, float] = field(default_factory=dict)
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
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _seen_to(self, row: int, task: asyncio.Task[None]) -> None:
        """An error that nobody expected costs its device the heartbeat, and is said once; the others go on."""
        error = None if task.cancelled() else task.exception()
        if error is not None and row not in self._failed:
            self._failed.add(row)
            text = f"gets no heartbeat: its driver failed unexpectedly with {type(error).__name__}: {error}"
            self._event(row, Severity.ALARM, "driver-failed", text)

    def _work(self, now_s: float) -> dict[int, list[Key]]:
        """The devices to be seen to now, each with the holdings that are to be refreshed."""
        work: defaultdict[int, list[Key]] = defaultdict(list)
        due = [key for key, holding in self.reconciler.holdings.items() if self._is_due(key, holding, now_s)]
        for key in self._allowed(due):
            work[key[0]].append(key)
        commanded = {row for row, _ in self.reconciler.holdings}
        self._pulses = {row: pulse for row, pulse in self._pulses.items() if row in commanded}
        for row in commanded - self._busy - work.keys():
            if self._driver(row).connected and self._driver(row).identity.capabilities.heartbeat:
                work[row] = []
        return work

    def _is_due(self, key: Key, holding: Holding, now_s: float) -> bool:
        row = key[0]
        every_s = min(self.reconciler.settings.refresh_every_s, holding.reversion_s / 3.0)
        due_s = holding.armed_s + every_s * (1.0 - SPREAD_FRAC * phase(self.reconciler.fleet.devices[row].id))
        retry_s = self._tried_s.get(key, -np.inf) + RETRY_FRAC * every_s
        free = row not in self._busy and self._driver(row).connected
        return free and max(due_s, retry_s) <= now_s <= holding.valid_until_s

    def _allowed(self, due: list[Key]) -> list[Key]:
        """Those whose value the guards would let go out now as it is; the others are asked about again later."""
        if not due:
            return []
        reconciler = self.reconciler
        snapshot, settings = reconciler.poller.snapshot(), reconciler.settings
        given = GuardInput(reconciler.fleet, snapshot, settings.reversion_s + settings.reversion_jitter_s)
        allowed: list[Key] = []
        for quantity in Quantity:
            keys = [key for key in due if key[1] is quantity]
            held_w = np.full(len(reconciler.fleet), np.nan)
            for key in keys:
                held_w[key[0]] = reconciler.holdings[key].held.value_w
            guarded = guard(held_w, given)
            allowed.extend(key for key in keys if not guarded.by[key[0]])
        self._tried_s.update(dict.fromkeys(due, snapshot.now_s))
        return allowed

    async def _see_to(self, row: int, keys: list[Key]) -> None:
        """One device's turn; what does not come through is tried again, and the timer ends what stays away."""
        driver = self._driver(row)
        try:
            async with self.reconciler.alone_with[row]:
                for key in keys:
                    await self._refresh(key)
            if driver.identity.capabilities.heartbeat:
                self._felt(row, await driver.beat())
        except FieldError:
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
        found = self.reconciler.notice(key, held)
        if held.value_w is None or (found is not None and found.corrects):
            return
        armed_s = clock.monotonic_s()
        await driver.refresh(quantity, holding.command.reversion_s)
        self.refreshed += 1
        if holdings.get(key) is holding:  # the effect of a write may have ended it meanwhile
            holdings[key] = holding.refreshed(armed_s)
            self._tried_s.pop(key, None)

    def _felt(self, row: int, count: int | None) -> None:
        """Watch a device's own heartbeat."""
        if count is None:
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

"""The cadence table: which named job is due when, and the two runners of it.

Polling, reconciliation and heartbeats are not here: they run on monotonic deadlines inside the gateway.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from apscheduler.triggers.interval import IntervalTrigger

from derms.ports import Clock
from derms.service.clock import SystemClock

Action = Callable[[], Awaitable[None]]


class Trigger(Protocol):
    """What both runners need of an APScheduler trigger."""

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """A line of the table: a name, when it is due, and what it does."""

    name: str
    trigger: Trigger
    action: Action


def every(seconds: float, *, first: datetime) -> Trigger:
    """Due at `first` and every `seconds` after it."""
    trigger: Trigger = IntervalTrigger(seconds=seconds, start_date=first, timezone=UTC)
    return trigger


async def run_scheduled(jobs: tuple[Job, ...]) -> None:
    """Run the table in real time until cancelled; nothing of it is under way any more then.

    A late run is made once (coalesced), however late; a run still going on is never doubled. APScheduler's own
    schedulers go by the wall clock, and stand still for as long as somebody sets it back.
    """
    await run_on_clock(jobs, SystemClock(asyncio.get_running_loop()))


async def run_on_clock(jobs: tuple[Job, ...], clock: Clock) -> None:
    """Run the same table on a clock until cancelled: steps of its wall clock after the start move no job."""
    start, start_s = clock.utc(), clock.monotonic_s()

    def now() -> datetime:
        return start + timedelta(seconds=clock.monotonic_s() - start_s)

    async with asyncio.TaskGroup() as group:
        for job in jobs:
            group.create_task(_follow(job, now), name=job.name)


async def _follow(job: Job, now: Callable[[], datetime]) -> None:
    due = job.trigger.get_next_fire_time(None, now())
    while due is not None:
        await asyncio.sleep(max(0.0, (due - now()).total_seconds()))
        await job.action()
        due = _coalesced(job.trigger, due, now())


def _coalesced(trigger: Trigger, previous: datetime, now: datetime) -> datetime | None:
    """The next time due after `previous`; of several that were missed, the last."""
    due = trigger.get_next_fire_time(previous, now)
    while due is not None:
        later = trigger.get_next_fire_time(due, now)
        if later is None or later > now:
            return due
        due = later
    return None

"""The supervisor: a job that fails is said once, tried again, and nobody else's trouble."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from derms.domain.alarm import Event, Severity
from derms.errors import PlanError
from derms.service.cadence import Job, every, run_on_clock
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, run_simulated
from derms.service.supervisor import Supervisor

START = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)


def _told(errors: dict[int, BaseException], minutes: int) -> tuple[list[Event], list[int], int, set[str]]:
    """Run a job each minute that raises at some of its runs, beside one that never does."""
    events: list[Event] = []
    runs: list[int] = []
    others = 0

    async def main(loop: SimulatedLoop) -> set[str]:
        clock = LoopClock(loop, START)
        supervisor = Supervisor(clock, events.append)

        async def fragile() -> None:
            runs.append(len(runs))
            if runs[-1] in errors:
                raise errors[runs[-1]]

        async def steady() -> None:
            nonlocal others
            others += 1

        table = [("fragile", fragile), ("steady", steady)]
        jobs = (Job(name, every(60.0, first=START + timedelta(seconds=1)), action) for name, action in table)
        running = asyncio.ensure_future(run_on_clock(tuple(supervisor.guarded(job) for job in jobs), clock))
        await asyncio.sleep(60.0 * minutes)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        return supervisor.failing

    failing = run_simulated(main, seed=0)
    return events, runs, others, failing


def test_a_failing_job_is_an_alarm_once_and_is_tried_again_while_the_others_go_on() -> None:
    errors: dict[int, BaseException] = {n: PlanError(f"attempt {n}") for n in range(2, 6)}
    events, runs, others, failing = _told(errors, 10)
    assert [(event.kind, event.severity, event.source) for event in events] == [
        ("job-failed", Severity.ALARM, "fragile"),
        ("job-back", Severity.INFO, "fragile"),
    ]
    assert events[0].text == "job fragile failed: PlanError: attempt 2"
    assert [event.at - START for event in events] == [timedelta(seconds=121), timedelta(seconds=361)]
    assert (len(runs), others, failing) == (10, 10, set())


def test_a_job_that_goes_on_failing_stays_marked_and_is_not_said_again() -> None:
    events, runs, _, failing = _told({n: ZeroDivisionError() for n in range(100)}, 10)
    assert [event.kind for event in events] == ["job-failed"]
    assert (len(runs), failing) == (10, {"fragile"})


def test_each_new_failure_after_a_recovery_is_said() -> None:
    events, _, _, _ = _told({1: ValueError(), 3: ValueError()}, 6)
    assert [event.kind for event in events] == ["job-failed", "job-back"] * 2


def test_stopping_a_job_is_not_a_failure() -> None:
    events: list[Event] = []

    async def main(loop: SimulatedLoop) -> None:
        supervisor = Supervisor(LoopClock(loop, START), events.append)
        job = supervisor.guarded(Job("slow", every(60.0, first=START), lambda: asyncio.sleep(1e6)))
        running = asyncio.ensure_future(job.action())
        await asyncio.sleep(1.0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    run_simulated(main, seed=0)
    assert events == []

"""One cadence table, two runners: the same jobs at the same times."""

import asyncio
import threading
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.triggers.date import DateTrigger

from derms.service.cadence import Action, Job, every, run_on_clock, run_scheduled
from derms.service.clock import LoopClock, SystemClock
from derms.service.simulated import SimulatedLoop, run_simulated

START = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)


def _run_for(seconds: float, jobs: tuple[Job, ...], loop: SimulatedLoop) -> asyncio.Future[None]:
    async def run() -> None:
        runner = asyncio.ensure_future(run_on_clock(jobs, LoopClock(loop, START)))
        await asyncio.sleep(seconds)
        runner.cancel()

    return asyncio.ensure_future(run())


def test_jobs_run_on_simulated_time_when_they_are_due() -> None:
    ran: dict[str, list[float]] = {"estimate": [], "plan": []}

    async def main(loop: SimulatedLoop) -> None:
        def job(name: str, period_s: float, first_s: float) -> Job:
            async def action() -> None:
                ran[name].append(round(loop.time(), 3))

            return Job(name, every(period_s, first=START + timedelta(seconds=first_s)), action)

        await _run_for(330.0, (job("estimate", 60.0, 15.0), job("plan", 300.0, 20.0)), loop)

    run_simulated(main, seed=0)
    assert ran == {"estimate": [15.0, 75.0, 135.0, 195.0, 255.0, 315.0], "plan": [20.0, 320.0]}


def test_a_job_that_overruns_is_made_up_once_and_never_doubled() -> None:
    began: list[float] = []

    async def main(loop: SimulatedLoop) -> None:
        async def slow() -> None:
            began.append(round(loop.time(), 3))
            await asyncio.sleep(250.0 if len(began) == 1 else 1.0)

        await _run_for(420.0, (Job("slow", every(100.0, first=START), slow),), loop)

    run_simulated(main, seed=0)
    assert began == [0.0, 250.0, 300.0, 400.0]


PATIENCE_S = 60.0
"""Far longer than anything here takes."""


def _begun(action: Action) -> asyncio.Task[None]:
    """The runner of real time with a job that is due now."""
    now = DateTrigger(SystemClock(asyncio.get_running_loop()).utc())
    return asyncio.create_task(run_scheduled((Job("plan", now, action),)))


def test_the_real_time_runner_takes_the_same_table() -> None:
    async def main() -> None:
        clock = SystemClock(asyncio.get_running_loop())
        ran = asyncio.Semaphore(0)

        async def action() -> None:
            ran.release()

        runner = asyncio.create_task(run_scheduled((Job("soon", every(0.05, first=clock.utc()), action),)))
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(3):
                await ran.acquire()
        runner.cancel()
        await asyncio.wait([runner])
        assert runner.cancelled()

    asyncio.run(main())


def test_a_job_in_its_thread_neither_holds_up_the_end_nor_is_it_an_error(caplog: pytest.LogCaptureFixture) -> None:
    begun, over = threading.Event(), threading.Event()

    def plan() -> None:
        begun.set()
        assert over.wait(PATIENCE_S)

    async def main(executor: Executor) -> None:
        loop = asyncio.get_running_loop()

        async def action() -> None:
            await loop.run_in_executor(executor, plan)

        runner = _begun(action)
        assert await loop.run_in_executor(None, begun.wait, PATIENCE_S)
        runner.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([runner])
        assert not over.is_set()
        assert runner.cancelled()
        assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of it goes on"

    with ThreadPoolExecutor(1) as executor:
        asyncio.run(main(executor))
        over.set()
    assert caplog.records == []


@pytest.mark.parametrize("turns", range(6))
def test_a_job_that_is_due_when_the_end_comes_is_no_error_however_far_it_has_come(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async def action() -> None:
            await asyncio.Event().wait()

        runner = _begun(action)
        for _ in range(turns):
            await asyncio.sleep(0.0)
        runner.cancel()
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([runner])
        for _ in range(6):
            await asyncio.sleep(0.0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert caplog.records == []


def test_a_job_that_fails_ends_the_runner() -> None:
    """What a job may expect to go wrong the supervisor has caught before."""

    async def failing() -> None:
        raise ZeroDivisionError

    async def main() -> None:
        runner = _begun(failing)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait([runner])
        error = runner.exception()
        assert isinstance(error, ExceptionGroup)
        assert isinstance(error.exceptions[0], ZeroDivisionError)

    asyncio.run(main())

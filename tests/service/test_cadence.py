"""One cadence table, two runners: the same jobs at the same times."""

import asyncio
from datetime import UTC, datetime, timedelta

from derms.service.cadence import Job, every, run_on_clock, run_scheduled
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


def test_the_real_time_runner_takes_the_same_table() -> None:
    async def main() -> int:
        clock = SystemClock(asyncio.get_running_loop())
        ran = asyncio.Event()

        async def action() -> None:
            ran.set()

        runner = asyncio.ensure_future(run_scheduled((Job("soon", every(0.05, first=clock.utc()), action),)))
        await asyncio.wait_for(ran.wait(), 30.0)
        runner.cancel()
        return int(ran.is_set())

    assert asyncio.run(main()) == 1

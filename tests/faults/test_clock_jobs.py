"""The wall clock is set back while the service runs: its jobs go on at their times."""

import asyncio
from datetime import UTC, datetime, timedelta, tzinfo

import pytest

from derms.service import clock
from derms.service.cadence import Job, every, run_scheduled

PATIENCE_S = 60.0
"""Far longer than anything here takes."""


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(seconds=-15), timedelta(hours=1)])
def test_jobs_go_on_when_the_wall_clock_is_set(step: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = [timedelta(0)]

    class Wall(datetime):
        """A wall clock that somebody sets."""

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Wall":
            return cls.fromtimestamp((datetime.now(UTC) + ahead[0]).timestamp(), tz)

    monkeypatch.setattr(clock, "datetime", Wall)

    async def main() -> int:
        ran = asyncio.Semaphore(0)

        async def action() -> None:
            ran.release()

        first = clock.SystemClock(asyncio.get_running_loop()).utc()
        runner = asyncio.create_task(run_scheduled((Job("often", every(0.02, first=first), action),)))
        async with asyncio.timeout(PATIENCE_S):
            for count in range(20):
                await ran.acquire()
                if count == 5:
                    ahead[0] = step
        runner.cancel()
        await asyncio.wait([runner])
        return count

    assert asyncio.run(main()) == 19

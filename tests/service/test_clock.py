"""The clocks: control goes by time that nobody sets, the wall clock is for people and records."""

import asyncio
from datetime import UTC, datetime

from derms.service.clock import LoopClock, SystemClock

LOOP_S = 5.0


class _Still(asyncio.SelectorEventLoop):
    """A loop whose time stands, far from that of any wall."""

    def time(self) -> float:
        return LOOP_S


def test_control_goes_by_the_time_of_the_loop_whatever_the_wall_says() -> None:
    loop = _Still()
    try:
        assert SystemClock(loop).monotonic_s() == LOOP_S
        assert SystemClock(loop).utc().tzinfo is UTC
        clock = LoopClock(loop, datetime(2026, 4, 15, tzinfo=UTC))
        assert (clock.monotonic_s(), clock.utc()) == (LOOP_S, datetime(2026, 4, 15, tzinfo=UTC))
    finally:
        loop.close()

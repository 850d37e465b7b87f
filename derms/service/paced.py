"""Real sockets at a multiple of real time: an event loop whose clock runs faster, and stands still in a stall.

The clock advances only while the loop waits or turns, by the real time passed times `speed`, and at most by
`step_max_s` a turn. So when the machine is busy, simulated time slows down instead of running into time-outs.
"""

import asyncio
import selectors
import time
from collections.abc import Mapping
from typing import Any


class _PacedSelector(selectors.BaseSelector):
    """The platform's selector, with waits in simulated seconds."""

    def __init__(self, speed: float, step_max_s: float) -> None:
        self._selector = selectors.DefaultSelector()
        self._speed = speed
        self._step_max_s = step_max_s
        self._real_s = time.monotonic()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        wait_s = self._step_max_s if timeout is None else min(timeout, self._step_max_s)
        ready = self._selector.select(max(wait_s, 0.0) / self._speed)
        real_s = time.monotonic()
        self.now_s += min((real_s - self._real_s) * self._speed, self._step_max_s)
        self._real_s = real_s
        return ready

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.modify(fileobj, events, data)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()


class PacedLoop(asyncio.SelectorEventLoop):
    """An asyncio loop over real sockets whose time runs `speed` times as fast as real time, at most.

    Parameters
    ----------
    speed : float
        Simulated seconds per real second.
    step_max_s : float
        Most that one turn of the loop may advance the clock [simulated s]; keep it well under every time-out.
    """

    def __init__(self, speed: float, step_max_s: float = 0.5) -> None:
        self._paced = _PacedSelector(speed, step_max_s)
        super().__init__(self._paced)

    def time(self) -> float:
        return self._paced.now_s

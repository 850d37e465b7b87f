"""Slow calls off the loop: one at a time, given up after a while, never doubled while one hangs."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from derms.errors import ScadaError

T = TypeVar("T")


class Errand:
    """Runs calls one after the other on the loop's own worker threads."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._going: asyncio.Future[Any] | None = None

    async def __call__(self, work: Callable[[], T]) -> T:
        """The result of the call; raises ScadaError when it, or the one before, takes longer than the time-out."""
        if self._going is not None and not self._going.done():
            await self._wait(self._going)
        going = asyncio.get_running_loop().run_in_executor(None, work)
        going.add_done_callback(_seen)
        self._going = going
        await self._wait(going)
        return going.result()

    async def _wait(self, going: asyncio.Future[Any]) -> None:
        done, _ = await asyncio.wait([going], timeout=self._timeout_s)
        if not done:
            raise ScadaError(f"no end within {self._timeout_s:g} s")


def _seen(future: asyncio.Future[Any]) -> None:
    """An error of a call that was given up is nobody's any more."""
    if not future.cancelled():
        future.exception()

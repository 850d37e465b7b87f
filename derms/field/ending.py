"""Ending tasks: a cancel can get lost, and whoever stops does not wait for ever for a task that does not mind it."""

import asyncio
from collections.abc import Iterable
from typing import Any

CANCEL_EVERY_S = 0.5
CANCELS_MAX = 4
"""After these a task is left to itself."""
END_S = CANCELS_MAX * CANCEL_EVERY_S
"""Longest wait for tasks that are ended."""


async def end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    """Cancel tasks, again and again until they have ended; what goes on all the same is left to itself.

    A cancel is lost where it meets a result (`asyncio.wait_for` before Python 3.12), and in whatever catches it.
    """
    left = [task for task in tasks if not task.done()]
    for _ in range(CANCELS_MAX):
        if not left:
            return
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCEL_EVERY_S)
        left = [task for task in left if not task.done()]

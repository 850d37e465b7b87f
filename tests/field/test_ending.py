"""Ending tasks on virtual time: at once as a rule, a lost cancel is given again, and nobody is waited for for ever."""

import asyncio
from collections.abc import Callable, Coroutine

from derms.field.ending import CANCEL_EVERY_S, CANCELS_MAX, END_S, end
from derms.service.simulated import SimulatedLoop, run_simulated
from tests.field.scripted import deaf


def ended(*works: Callable[[], Coroutine[None, None, None]]) -> tuple[list[bool], float]:
    """Which of some tasks have ended after `end`, and how long that took [s]."""

    async def main(loop: SimulatedLoop) -> tuple[list[bool], float]:
        tasks = [asyncio.create_task(work()) for work in works]
        await asyncio.sleep(1.0)
        start_s = loop.time()
        await end(tasks)
        return [task.done() for task in tasks], loop.time() - start_s

    return run_simulated(main, seed=0)


async def done() -> None:
    """Is over before anybody wants it to be."""


async def failing() -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise ZeroDivisionError


def test_what_has_ended_ends_at_once_or_fails_meanwhile_costs_no_time() -> None:
    assert ended() == ([], 0.0)
    assert ended(done, lambda: deaf(0), failing) == ([True] * 3, 0.0)


def test_a_cancel_that_was_lost_is_given_again() -> None:
    assert ended(lambda: deaf(1), lambda: deaf(0)) == ([True, True], CANCEL_EVERY_S)


def test_what_minds_no_cancel_is_left_to_itself() -> None:
    assert ended(lambda: deaf(CANCELS_MAX), lambda: deaf(0)) == ([False, True], END_S)

"""Ctrl-C while OSQP solves: it takes SIGINT from the process for as long, gives up with it, and keeps it to itself."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from osqp.interface import default_algebra_module


@contextmanager
def ctrl_c_passed_on() -> Iterator[None]:
    """Around a solve by OSQP: a SIGINT that it took is sent again once its handler is gone."""
    try:
        yield
    finally:
        was_interrupted = _asks_osqp()
        if was_interrupted():
            os.kill(os.getpid(), signal.SIGINT)


@cache
def _asks_osqp() -> Callable[[], int]:
    """What tells whether SIGINT came in the latest solve; a build that leaves signals alone has nothing to tell."""
    library = ctypes.CDLL(default_algebra_module().__file__)
    asks: Callable[[], int] = getattr(library, "osqp_is_interrupted", int)
    return asks

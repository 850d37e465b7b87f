"""The end of a process with work in threads that nobody can break off: it comes in time, whatever they do."""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def ends_within(seconds: float) -> Iterator[None]:
    """If what is inside takes longer, tell where each thread stands and end the process with status 1."""
    with Path(os.devnull).open("w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.stderr or nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


def leave_within(seconds: float, status: int) -> None:
    """If the process has not ended by itself by then, end it with this status.

    For one that has nothing left to do, and nothing said that is not flushed: the ends of a loop and of Python wait
    for every thread that there is.
    """
    timer = threading.Timer(seconds, os._exit, [status])
    timer.daemon = True
    timer.start()

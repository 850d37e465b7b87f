"""Ctrl-C while the optimizer works: OSQP takes the signal for itself, and it has to arrive all the same."""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cvxpy as cp
import pytest

from derms.errors import PlanError
from derms.optimize.horizon import Horizon, SolverLimits
from tests.optimize.test_horizon import _duck, _horizon

PATIENCE_S = 60.0
"""Far longer than anything here takes."""


@contextmanager
def hearing_ctrl_c() -> Iterator[threading.Event]:
    """Set when SIGINT has come to where it should."""
    came = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before)


def handler() -> int | None:
    """The address of what the system calls at SIGINT: the first word of `struct sigaction`."""
    action = (ctypes.c_void_p * 64)()
    assert ctypes.CDLL(None).sigaction(signal.SIGINT, None, action) == 0
    return action[0]


def endless(limits: SolverLimits) -> tuple[tuple[str, dict[str, object]], ...]:
    """Solvers with a problem that OSQP cannot be done with."""
    return ((cp.OSQP, {"max_iter": 10**9, "eps_abs": 1e-16, "eps_rel": 1e-16, "time_limit": PATIENCE_S}),)


def test_ctrl_c_that_osqp_took_reaches_whom_it_is_meant_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Horizon, "_solvers", staticmethod(endless))
    horizon, given = _horizon(), _duck()
    with hearing_ctrl_c() as came, ThreadPoolExecutor(1) as executor:
        ours = handler()
        solving = executor.submit(horizon.solve, given, SolverLimits())
        while handler() == ours:
            assert not solving.done()
        os.kill(os.getpid(), signal.SIGINT)
        assert came.wait(PATIENCE_S)
        assert handler() == ours
        assert isinstance(solving.exception(), PlanError)


def test_a_plan_that_nobody_interrupts_raises_no_signal() -> None:
    with hearing_ctrl_c() as came:
        _horizon().solve(_duck(), SolverLimits())
        assert not came.is_set()

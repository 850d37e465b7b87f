"""The forecast as the service makes it: stored with every plan, and a model of load fitted while nobody waits."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from derms.service.brain import Brain
from tests.service.test_service import EVENING, Day, _day


@pytest.mark.slow
def test_what_was_known_at_a_time_is_the_forecast_of_the_plan_before_it(tmp_path: Path) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(1300.0)
        store = day.service.store
        store.flush()
        then = EVENING + timedelta(minutes=13)
        known = store.forecast_known_at(then)
        assert known is not None
        assert timedelta(0) <= then - known.made_at < timedelta(seconds=day.service.site.plan.every_s)
        decisions = store.decisions(EVENING, then)
        np.testing.assert_equal(vars([*decisions][-1].inputs["forecast"]), vars(known))
        np.testing.assert_allclose(known.hours, day.service.site.plan.hours)
        assert known.method.startswith("recent days' load x ")
        assert [kind for kind in day.kinds("brain") if kind.startswith("forecast")] == []

    _day(scenario, tmp_path)


class _Fits:
    """A forecaster whose fit lasts until it is let go."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.go = threading.Event()

    def fit_due(self, now: datetime) -> bool:
        return True

    def fit(self, now: datetime) -> None:
        self.threads.append(threading.current_thread().name)
        self.go.wait(10.0)


def test_a_fit_runs_beside_the_loop_and_only_one_at_a_time() -> None:
    fits = _Fits()
    with ThreadPoolExecutor(1) as executor:
        brain = cast(Any, SimpleNamespace(_forecaster=fits, _fitting=None, _executor=executor))
        for _ in range(3):
            Brain._fit_forecast(brain, EVENING)
        fits.go.set()
        brain._fitting.join(10.0)
    assert fits.threads == ["forecast fit"]


def test_in_simulated_time_a_fit_runs_in_place() -> None:
    fits = _Fits()
    fits.go.set()
    Brain._fit_forecast(cast(Any, SimpleNamespace(_forecaster=fits, _fitting=None, _executor=None)), EVENING)
    assert fits.threads == [threading.current_thread().name]

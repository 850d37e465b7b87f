"""The power flow is gone while devices are commanded: nobody plans blindly, the feeder goes back to shadow."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derms.domain.plan import PlanSource
from derms.domain.quality import Quality
from derms.errors import GridError
from tests.service import test_service as service
from tests.service.test_service import Day


class Gone:
    """An engine whose solver does not come back any more; everything else about it is as before."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def solve(self) -> None:
        raise GridError("ieee123: the confined process ended by SIGSEGV")


@pytest.mark.slow
def test_without_a_power_flow_devices_are_handed_back_and_polls_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(day: Day) -> None:
        await asyncio.sleep(400.0)
        assert {"bat01", "bat02", "bat03"} <= day.holding()
        monkeypatch.setattr(day.service.brain, "_engine", Gone(day.service.brain._engine))
        await asyncio.sleep(900.0)
        assert day.holding() == set()
        assert day.kinds("estimate") == ["job-failed"]
        decision = day.service.brain.decision
        assert decision is not None
        assert decision.plan.source is PlanSource.DEFAULTS
        assert "no solution" in decision.plan.reason
        told = day.kinds("gateway")
        assert {"ladder-no-model", "mode-changed"} <= set(told)
        assert told.count("mode-changed") == 1
        assert (day.service.gateway.snapshot().quality == Quality.GOOD).all()
        assert np.isfinite(day.service.gateway.snapshot().p_w).all()

    day = service._day(scenario, tmp_path)
    assert day.world.tap.violations == []

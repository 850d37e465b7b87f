"""What is known of the feeder can be read: on the line of a running service, and from the record with each decision."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from derms.domain.grid import GridState, StateSummary
from derms.domain.quality import Quality
from derms.historian.replay import pack, unpack
from derms.historian.store import Store
from derms.service.words import status_line
from tests.service.test_service import EVENING, Day, _day

AT = datetime(2026, 4, 15, 19, tzinfo=UTC)


@pytest.fixture
def state() -> GridState:
    """Three points; the last has no source."""
    v_pu, three = np.array([1.0, 0.98, 0.0]), np.zeros(3)
    return GridState(
        "ieee123",
        AT,
        v_pu,
        ("1.1", "2.1", "3.1"),
        three,
        three,
        three,
        three,
        three,
        residual_w=-2e3,
        quality=Quality.SUSPECT,
        violations=0,
        v_sigma_pu=np.array([0.002, 0.006, 0.0]),
        gross_w=3.1e6,
        hidden_w=4e5,
        bad=("eye at 2.1",),
        misfit=1.24,
    )


def test_a_summary_says_how_sure_the_state_is_what_is_masked_and_what_was_left_out(state: GridState) -> None:
    known = state.summary
    assert (known.v_sigma_mean_pu, known.v_sigma_max_pu, known.v_sigma_max_at) == (0.004, 0.006, "2.1")
    assert str(known) == (
        "feeder suspect: load 3100 kW, 400 of it masked, voltages to 0.4% (0.6% at 2.1), misfit 1.2,"
        " left out: eye at 2.1"
    )
    assert "left out" not in str(replace(state, bad=()).summary)


def test_a_state_of_which_nobody_said_how_sure_it_is_has_a_summary_too(state: GridState) -> None:
    known = replace(state, v_sigma_pu=np.zeros(0)).summary
    assert np.isnan([known.v_sigma_mean_pu, known.v_sigma_max_pu]).all()
    assert known.v_sigma_max_at == ""


def test_a_summary_survives_as_bytes(state: GridState) -> None:
    again = unpack(pack(state.summary))
    assert type(again) is StateSummary
    assert again == state.summary


def test_a_running_service_says_what_it_knows_and_every_decision_keeps_it(tmp_path: Path) -> None:
    said: list[str] = []
    summaries: list[StateSummary] = []

    async def scenario(day: Day) -> None:
        said.append(status_line(day.service.brain, day.service.alarms, UTC))
        await asyncio.sleep(700.0)
        said.append(status_line(day.service.brain, day.service.alarms, UTC))
        assert day.service.brain.grid is not None
        summaries.append(day.service.brain.grid.summary)

    day = _day(scenario, tmp_path)
    assert said[0] == "the gateway has not said anything yet"
    assert str(summaries[0]) in said[1]
    store = Store(f"sqlite:///{day.service.site.storage / 'historian.sqlite'}", day.service.site.fleet)
    decisions = list(store.decisions(EVENING, EVENING + timedelta(hours=1)))
    store.close()
    assert decisions
    for decision in decisions:
        known = decision.inputs["known"]
        assert timedelta(0) <= decision.at - known.at <= timedelta(seconds=90)
        assert known.gross_w == pytest.approx(decision.inputs["load_w"].sum() + known.hidden_w)
        assert 0.0 < known.v_sigma_mean_pu < known.v_sigma_max_pu < 0.1

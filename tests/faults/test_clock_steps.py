"""The wall clock is set while devices are under control: nothing that goes by time misses a beat.

Polls, turns, refreshes and the end of a dispatch go by the monotonic clock; the wall clock only dates records.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derms.service.clock import LoopClock
from tests.field import rig as field_rig
from tests.field.rig import Rig, in_the_field

HOUR = timedelta(hours=1)
DEVICES = ("bat01", "bat03", "pv01")


class Wall(LoopClock):
    """A clock whose wall time somebody sets."""

    ahead = timedelta(0)

    def utc(self) -> datetime:
        return super().utc() + self.ahead


def _polled_s(rig: Rig, device: str) -> float:
    return rig.poller.requested_s(rig.fleet.index[device])


@pytest.mark.parametrize("step", [-HOUR, HOUR, timedelta(days=-400), timedelta(seconds=-15)])
def test_a_wall_clock_that_is_set_costs_no_poll_no_turn_and_no_refresh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: timedelta
) -> None:
    monkeypatch.setattr(field_rig, "LoopClock", Wall)

    async def scenario(rig: Rig) -> None:
        assert isinstance(rig.clock, Wall)
        rig.want({"bat01": 5e3, "bat03": -5e3}, {"pv01": 8e3}, valid_s=900.0)
        await rig.turns_and_beats(120.0)
        assert rig.holding() == set(DEVICES)
        rig.clock.ahead = step
        for _ in range(30):
            await rig.turns_and_beats(20.0)
            assert rig.holding() == set(DEVICES)
            now_s = rig.clock.monotonic_s()
            assert all(now_s - _polled_s(rig, device) <= rig.poller.settings.poll_s + 1.0 for device in DEVICES)
        assert rig.events == []
        assert {type(record.outcome).__name__ for record in rig.outcomes} <= {"Applied", "Superseded"}
        assert abs((rig.outcomes[-1].at - datetime(2026, 4, 15, 19, 0, tzinfo=UTC)) - step) < HOUR / 2
        await rig.turns_and_beats(300.0)  # the dispatch ends by the clock that nobody sets
        assert rig.events_of("gateway") == ["dispatch-expired"]
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=DEVICES)

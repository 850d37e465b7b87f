"""Two columns over time that somebody else writes: past net load, prices of energy."""

import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event, Severity
from derms.domain.settings import PlanSettings, PlanWeights
from derms.errors import ConfigError
from derms.service.pricing import Pricing
from derms.service.series import read_history, read_prices

NOON = datetime(2026, 4, 14, 12, 0, tzinfo=UTC)


def test_history_is_read_in_watts_and_utc(tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    path.write_text("time_utc,net_load_kw\n2026-04-14T00:15:00Z,812.5\n2026-04-14T00:30:00,-3\n")
    times, net_load_w = read_history(path)
    assert times == [datetime(2026, 4, 14, 0, 15, tzinfo=UTC), datetime(2026, 4, 14, 0, 30, tzinfo=UTC)]
    np.testing.assert_array_equal(net_load_w, [812.5e3, -3e3])


def test_every_mistake_of_a_history_is_named(tmp_path: Path) -> None:
    path = tmp_path / "past.csv"
    path.write_text("time_utc,net_load_kw\nyesterday,1\n2026-04-14T00:15Z,\n2026-04-14T00:15Z,2\n2026-04-15T00:00Z\n")
    with pytest.raises(ConfigError) as caught:
        read_history(path)
    assert [problem.where for problem in caught.value.problems] == [
        "row 2, column time_utc",
        "row 3, column net_load_kw",
        "row 4, column time_utc",
        "row 5",
    ]
    path.write_text("time,kw\n")
    with pytest.raises(ConfigError, match="the header is time, kw; the columns are time_utc, net_load_kw"):
        read_history(path)


def _prices(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(["from_utc,usd_per_mwh", *rows, ""]))
    return path


def test_a_price_holds_until_the_next_and_the_last_one_for_an_hour(tmp_path: Path) -> None:
    told = read_prices(_prices(tmp_path / "p.csv", "2026-04-14T12:00Z,20", "2026-04-14T13:00Z,-40"))
    # Half an hour of each, a quarter of the second, and a step that reaches beyond what is known.
    steps = told.means(NOON.timestamp() + 1800.0, np.array([1.0, 0.25, 0.25, 0.25]))
    np.testing.assert_allclose(steps, [-10.0, -40.0, -40.0, np.nan])
    assert np.isnan(told.means(NOON.timestamp() - 60.0, np.array([0.5]))).all()


class Stopped:
    """A clock at noon."""

    def utc(self) -> datetime:
        return NOON

    def monotonic_s(self) -> float:
        return 0.0


def test_prices_are_counted_like_the_peak_read_anew_when_they_change_and_kept_when_they_cannot_be_read(
    tmp_path: Path,
) -> None:
    path, events, plan = tmp_path / "p.csv", list[Event](), PlanSettings(peak_price=10.0, weights=PlanWeights(peak=2.0))
    pricing = Pricing(path, plan, Stopped(), events.append)
    assert not pricing.price().any()
    assert "no price for the coming hours" in events[-1].text
    _prices(path, "2026-04-14T12:00Z,50", "2026-04-14T13:00Z,150")
    # A MWh is a per-unit hour of 1 MW, whose peak would cost $10,000, twice as much as a unit of the objective.
    assert pricing.price()[[0, 11, 12, -1]] == pytest.approx([0.01, 0.01, 0.03, 0.02], rel=0.01)
    assert (events[-1].severity, events[-1].text) == (Severity.INFO, "prices of energy are there")
    _prices(path, "2026-04-14T12:00Z,cheap")
    os.utime(path, (1, 1))
    assert pricing.price()[0] == pytest.approx(0.01)
    assert "row 2, column usd_per_mwh: 'cheap' is not a number" in events[-1].text
    assert len(events) == 3

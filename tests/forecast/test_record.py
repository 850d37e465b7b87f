"""The record of quarter hours: intervals of any length, gaps, other orders, and the wall clock."""

from datetime import UTC, datetime

import numpy as np
import pytest

from derms.forecast.record import (
    DAYS_MAX,
    Record,
    at_quarters,
    days_before_s,
    offset_s,
    quarters_of,
    standard_offset_s,
)
from tests.forecast.sight import ZONE

FIRST = 2_000_000


def _record(*load_w: float) -> Record:
    return _entered(Record.empty(), FIRST, *load_w)


def _entered(record: Record, first: int, *load_w: float) -> Record:
    values = np.array(load_w)
    unknown = np.full(values.size, np.nan)
    return record.entered(first + np.arange(values.size), values, unknown, unknown)


@pytest.mark.parametrize(
    ("ends_quarters", "values", "quarters", "means"),
    [
        ([1.0, 2.0, 3.0], [5.0, 6.0, 7.0], [0, 1, 2], [5.0, 6.0, 7.0]),
        ([4.0, 8.0], [5.0, 9.0], [*range(8)], [5.0] * 4 + [9.0] * 4),
        ([1 / 3, 2 / 3, 1.0, 4 / 3], [1.0, 2.0, 3.0, 4.0], [0, 1], [2.0, 4.0]),
        ([1.0, 2.0, 3.0, 7.0], [5.0, np.nan, 7.0, 8.0], [0, 2, 6], [5.0, 7.0, 8.0]),
    ],
    ids=["quarters", "hours", "five minutes", "with gaps"],
)
def test_intervals_of_any_length_become_quarters(
    ends_quarters: list[float], values: list[float], quarters: list[int], means: list[float]
) -> None:
    found, mean = quarters_of(900.0 * (FIRST + np.array(ends_quarters)), np.array(values))
    np.testing.assert_array_equal(found - FIRST, quarters)
    np.testing.assert_allclose(mean, means)


def test_what_is_entered_later_replaces_what_was_and_what_is_unknown_leaves_it() -> None:
    record = _entered(_record(1.0, 2.0, 3.0), FIRST + 1, np.nan, 4.0, 5.0)
    np.testing.assert_array_equal(record.load_w, [1.0, 2.0, 4.0, 5.0])
    earlier = _entered(record, FIRST - 2, 9.0)
    np.testing.assert_array_equal(earlier.load_w, [9.0, np.nan, 1.0, 2.0, 4.0, 5.0])
    assert (earlier.first, earlier.after) == (FIRST - 2, FIRST + 4)


def test_a_part_of_a_record_is_unknown_where_the_record_is_not() -> None:
    record = _record(1.0, 2.0, 3.0)
    np.testing.assert_array_equal(record.between(FIRST - 1, FIRST + 2).load_w, [np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(record.between(FIRST + 5, FIRST + 7).load_w, [np.nan] * 2)
    np.testing.assert_array_equal(record.between(FIRST - 7, FIRST - 5).load_w, [np.nan] * 2)
    at_s = 900.0 * (FIRST + np.array([-0.5, 0.5, 2.9, 3.1]))
    np.testing.assert_array_equal(at_quarters(record, record.load_w, at_s), [np.nan, 1.0, 3.0, np.nan])


def test_what_is_years_old_is_forgotten() -> None:
    record = _entered(_record(1.0), FIRST + DAYS_MAX * 96 + 10, 2.0)
    assert (record.load_w.size, record.load_w[-1], np.isfinite(record.load_w).sum()) == (DAYS_MAX * 96, 2.0, 1)


@pytest.mark.parametrize(
    ("local", "hours_before"),
    [((2026, 3, 8, 12), 23.0), ((2026, 11, 1, 12), 25.0), ((2026, 3, 9, 12), 24.0), ((2026, 11, 1, 0), 24.0)],
)
def test_a_day_before_at_the_same_wall_clock_is_23_to_25_hours_ago(
    local: tuple[int, int, int, int], hours_before: float
) -> None:
    at_s = np.array([datetime(*local, tzinfo=ZONE).timestamp()])
    assert at_s - days_before_s(at_s, 1.0, ZONE) == 3600.0 * hours_before


def test_offsets_are_those_of_the_zone_to_the_second_of_a_change() -> None:
    change_s = datetime(2026, 3, 8, 10, tzinfo=UTC).timestamp()
    np.testing.assert_array_equal(offset_s(change_s + np.array([-1.0, 0.0]), ZONE) / 3600.0, [-8.0, -7.0])
    assert standard_offset_s(change_s, ZONE) == standard_offset_s(change_s + 90 * 86400.0, ZONE) == -8 * 3600.0
    assert offset_s(np.empty(0), ZONE).size == 0

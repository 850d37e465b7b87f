"""The gates: every kind of bad input is refused with its own reason, and good input passes."""

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.forecast.believe import belief
from derms.forecast.climate import climate_of, standard_profile
from derms.forecast.gates import LOAD, PV, SKY, Gated, Reason, Samples, gated, lags_h, pv_bounds_pu
from derms.forecast.record import Record, hourly, middles_s
from tests.forecast.sight import NOON, PEAK_W, PLACE, ZONE

NOW_S = NOON.timestamp()
AT_S = NOW_S - 60.0 * np.arange(10.0, 0.0, -1.0)
CLIMATE = climate_of(standard_profile(PEAK_W), ZONE, measured=True)


def _load(values: FloatArray | float, at_s: FloatArray = AT_S) -> Gated:
    low, high = CLIMATE.bounds(AT_S)
    samples = Samples(
        name="load",
        at_s=at_s,
        values=np.zeros(10) + values,
        usual=CLIMATE.usual(AT_S),
        low=low,
        high=high,
        now_s=NOW_S,
        age_max_s=3600.0,
    )
    return gated(samples, LOAD)


def _pv(values: FloatArray | float) -> Gated:
    clear = PLACE.sky.exact_pu(AT_S)
    low, high = pv_bounds_pu(clear)
    samples = Samples(name="PV", at_s=AT_S, values=np.zeros(10) + values, usual=clear, low=low, high=high, now_s=NOW_S)
    return gated(samples, PV)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (3.4e6, None),
        (1.8e6, None),
        (6e6, None),
        (np.nan, Reason.MISSING),
        (np.inf, Reason.NOT_FINITE),
        (-np.inf, Reason.NOT_FINITE),
        (34e6, Reason.UNITS),
        (0.34e6, Reason.UNITS),
        (3.4e9, Reason.UNITS),
        (3.4e3, Reason.UNITS),
        (3.4, Reason.UNITS),
        (1e30, Reason.CLIMATOLOGY),
        (-3.4e6, Reason.CLIMATOLOGY),
        (0.0, Reason.CLIMATOLOGY),
    ],
)
def test_load_is_refused_for_what_is_wrong_with_it(value: float, reason: Reason | None) -> None:
    values = np.full(10, 3.4e6)
    values[4] = value
    found = _load(values)
    assert [found.reason(row) for row in range(10)] == [None] * 4 + [reason] + [None] * 5
    assert np.isnan(found.values[4]) == (reason is not None)
    told = [] if reason in (None, Reason.MISSING) else [reason]
    assert [refusal.reason for refusal in found.refusals] == told


@pytest.mark.parametrize(("factor", "share"), [(10.0, 1.0), (0.1, 1.0), (1000.0, 1.0), (1e-3, 1.0)])
@pytest.mark.parametrize("usual", [0.4, 1.0, 2.4])
def test_a_power_of_ten_is_never_believed_however_unusual_the_load_is(
    factor: float, share: float, usual: float
) -> None:
    found = _load(usual * CLIMATE.usual(AT_S) * factor)
    assert (found.codes > 0).mean() == share
    assert _load(usual * CLIMATE.usual(AT_S)).refusals == ()


def test_what_is_late_and_what_is_still_to_come_is_refused() -> None:
    at_s = AT_S.copy()
    at_s[0], at_s[-1] = NOW_S - 7200.0, NOW_S + 600.0
    found = _load(3.4e6, at_s)
    assert (found.reason(0), found.reason(5), found.reason(9)) == (Reason.LATE, None, Reason.EARLY)
    assert [refusal.text for refusal in found.refusals] == [
        "load: 1 of 10 values are too old",
        "load: 1 of 10 values are of a time that is still to come",
    ]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (0.8, None),
        (0.02, None),
        (1.1, None),
        (-0.01, None),
        (-0.1, Reason.NEGATIVE),
        (1.6, Reason.CLEAR_SKY),
        (8.0, Reason.UNITS),
        (800.0, Reason.UNITS),
        (1e12, Reason.CLEAR_SKY),
        (np.inf, Reason.NOT_FINITE),
    ],
)
def test_pv_is_held_against_the_clear_sky(value: float, reason: Reason | None) -> None:
    assert _pv(value).reason(0) is reason


def _days(hours: int) -> FloatArray:
    return NOW_S - 3600.0 * (np.arange(hours, 0.0, -1.0) - 0.5)


def _sky(values: FloatArray, usual: FloatArray) -> Gated:
    low, high = pv_bounds_pu(usual)
    at_s = _days(values.size)
    return gated(Samples(name="sky", at_s=at_s, values=values, usual=usual, low=low, high=high, now_s=NOW_S), SKY)


def test_a_sky_in_other_units_is_all_but_dark_and_refused() -> None:
    usual = PLACE.sky.exact_pu(_days(48))
    found = _sky(usual / 1000.0, usual)
    assert {found.reason(row) for row in range(48)} == {Reason.UNITS}
    assert _sky(0.1 * usual, usual).refusals == ()


@pytest.mark.parametrize("late_h", [-12, -7, -3, 3, 5, 12])
def test_a_course_that_fits_another_hour_better_is_shifted_by_as_much(late_h: int) -> None:
    at_s = _days(72)
    around = CLIMATE.usual(np.concatenate([at_s[:12] - 12 * 3600.0, at_s, at_s[-12:] + 12 * 3600.0]))
    noise = np.random.default_rng(3).normal(1.0, 0.02, 72)
    (found,) = lags_h((noise * CLIMATE.usual(at_s - 3600.0 * late_h))[None], around[None])
    assert (found - late_h + 1) % 24 <= 2  # half a day late is half a day early
    assert lags_h((noise * CLIMATE.usual(at_s))[None], around[None]) == [0]


@pytest.mark.parametrize("seed", range(6))
def test_cloudy_mornings_and_bright_evenings_are_no_wrong_clock(seed: int) -> None:
    draw = np.random.default_rng(seed)
    quarters = np.arange(int(NOW_S // 900) - 96 * 10, int(NOW_S // 900))
    clear = PLACE.sky.exact_pu(middles_s(quarters, 900.0))
    hour = np.arange(quarters.size) // 4
    clouds = np.clip(draw.normal(0.7, 0.25, hour.max() + 1), 0.1, 1.1)[hour]
    record = Record.empty().entered(quarters, np.full(quarters.size, np.nan), clear * clouds, clear)
    found = belief(record, CLIMATE, NOW_S)
    assert (found.refusals, found.pv_doubt) == ((), ())
    np.testing.assert_array_equal(found.record.pv_pu, record.whole_hours().pv_pu)


def test_pv_that_runs_four_hours_late_is_a_wrong_clock() -> None:
    quarters = np.arange(int(NOW_S // 900) - 96 * 5, int(NOW_S // 900))
    clear = PLACE.sky.exact_pu(middles_s(quarters, 900.0))
    late = PLACE.sky.exact_pu(middles_s(quarters - 16, 900.0))
    found = belief(Record.empty().entered(quarters, np.full(clear.size, np.nan), late, clear), CLIMATE, NOW_S)
    assert {Reason.SHIFTED, Reason.CLEAR_SKY} <= {refusal.reason for refusal in found.refusals}
    assert [refusal.reason for refusal in found.pv_doubt] == [Reason.SHIFTED]


def test_pv_at_its_rating_all_noon_is_clipped_and_not_stuck_and_nights_are_dark_and_not_stuck() -> None:
    quarters = np.arange(int(NOW_S // 900) - 96 * 2, int(NOW_S // 900))
    clear = PLACE.sky.exact_pu(middles_s(quarters, 900.0))
    unknown = np.full(clear.size, np.nan)
    flat = np.where(clear > 0.5, 1.0, clear)
    assert (
        belief(
            Record.empty().entered(quarters, unknown, np.minimum(flat, 1.25 * clear), clear), CLIMATE, NOW_S
        ).refusals
        == ()
    )
    stuck = belief(Record.empty().entered(quarters, unknown, np.where(clear > 0.5, 0.55, clear), clear), CLIMATE, NOW_S)
    assert {refusal.reason for refusal in stuck.refusals} == {Reason.STUCK}


def test_hours_are_known_when_half_of_them_is() -> None:
    values = np.array([1.0, 3.0, np.nan, np.nan, np.nan, np.nan, np.nan, 5.0])
    np.testing.assert_array_equal(hourly(values), [2.0, np.nan])

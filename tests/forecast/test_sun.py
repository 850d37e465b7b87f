"""PV forecast from the sky seen: no foresight, clouds that last hours and fade over days, bounds that always hold."""

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.forecast.history import DAY, IntArray
from derms.forecast.sun import CLOUD_TYPICAL, INDEX_MAX, NEXT_DAY, PRIOR_MEMORY_H, PRIOR_SD, cloud_memory, pv_ahead

DAYS = 20
HOURS = DAYS * DAY
LEADS = np.arange(48)
CLEAR_PU = np.tile(np.maximum(0.8 * np.sin(np.pi * (np.arange(DAY) + 0.5 - 6.0) / 12.0), 0.0), DAYS + 3)
"""Clear sky of equal days, lit from 6 to 18 h, as far as forecasts reach."""
NOON = 12


def _ahead(pv_pu: FloatArray, *origins: int) -> FloatArray:
    memory = cloud_memory(pv_pu, CLEAR_PU[: pv_pu.size])
    return pv_ahead(memory, CLEAR_PU, np.array(origins), LEADS)


def _index(ahead_pu: FloatArray, origin: int, place: int) -> float:
    """Middle forecast of a place against clear sky."""
    return float(ahead_pu[place - origin, 1] / CLEAR_PU[place])


def _cloudy(seed: int = 1) -> FloatArray:
    """Days of different clouds with an hour in ten unknown."""
    draw = np.random.default_rng(seed)
    index = np.repeat(draw.uniform(0.2, 1.0, DAYS), DAY) + draw.normal(0.0, 0.1, HOURS)
    pv_pu = CLEAR_PU[:HOURS] * np.clip(index, 0.0, 1.3)
    return np.asarray(np.where(draw.random(HOURS) < 0.1, np.nan, pv_pu), dtype=np.float64)


@pytest.mark.parametrize("day", [0, 1, DAYS - 1])
@pytest.mark.parametrize("hour", [0, 1, 7, NOON, 17, 23])
def test_a_forecast_is_the_same_bit_for_bit_whatever_comes_later(day: int, hour: int) -> None:
    pv_pu, origin = _cloudy(), day * DAY + hour
    scrambled = pv_pu.copy()
    scrambled[origin:] = np.random.default_rng(9).uniform(0.0, 2.0, HOURS - origin)
    scrambled[origin::5] = np.nan
    np.testing.assert_array_equal(_ahead(pv_pu, origin), _ahead(scrambled, origin))


def test_many_origins_at_once_are_forecast_as_each_alone() -> None:
    pv_pu, origins = _cloudy(), np.arange(0, HOURS + 1, 7)
    alone = np.concatenate([_ahead(pv_pu, int(origin)) for origin in origins])
    np.testing.assert_allclose(_ahead(pv_pu, *origins), alone, rtol=0.0, atol=1e-12)


def test_before_any_hour_was_seen_a_fair_day_is_expected_with_doubt() -> None:
    made = _ahead(np.full(DAY, np.nan), 0)[0]
    np.testing.assert_allclose(made[:, 1], CLOUD_TYPICAL * CLEAR_PU[:48])
    assert made[NOON, 2] - made[NOON, 0] > 0.3 * CLEAR_PU[NOON]


def test_a_clear_day_stays_clear_and_is_surer_than_a_first_day() -> None:
    origin = (DAYS - 1) * DAY + NOON
    made = _ahead(CLEAR_PU[:HOURS], origin)[0]
    assert [_index(made, origin, origin + hours) for hours in range(4)] == pytest.approx([1.0] * 4, abs=0.03)
    first = _ahead(CLEAR_PU[:HOURS], 0)[0]
    assert np.ptp(made[0]) < 0.5 * np.ptp(first[NOON])


def test_a_cloudy_morning_lowers_the_afternoon_and_less_so_tomorrow() -> None:
    origin = (DAYS - 1) * DAY + NOON
    fair, grey = 0.9 * CLEAR_PU[:HOURS], 0.9 * CLEAR_PU[:HOURS]
    grey[origin - 6 : origin] *= 0.3
    made, expected = _ahead(grey, origin)[0], _ahead(fair, origin)[0]
    places = np.arange(origin, origin + 4)
    lost = [_index(expected, origin, place) - _index(made, origin, place) for place in (*places, *(places + DAY))]
    afternoon, tomorrow = lost[:4], lost[4:]
    assert afternoon[0] > 0.4
    assert (np.diff(afternoon) < 0.0).all()
    assert 0.05 < np.mean(tomorrow) < np.mean(afternoon) - 0.05


def test_the_morning_after_a_grey_day_is_expected_duller_than_usual() -> None:
    origin = (DAYS - 1) * DAY + 3
    grey = 0.9 * CLEAR_PU[:HOURS]
    grey[origin - DAY : origin] *= 0.4
    assert _index(_ahead(grey, origin)[0], origin, origin + 8) < 0.75


def test_what_was_seen_narrows_the_band_of_the_next_hours() -> None:
    pv_pu, day = _cloudy(), (DAYS - 1) * DAY
    made = _ahead(pv_pu, day, day + NOON)
    assert np.ptp(made[1, 0]) < 0.7 * np.ptp(made[0, NOON])


def test_nights_are_zero() -> None:
    origins = np.arange(HOURS + 1)
    made = _ahead(_cloudy(), *origins)
    dark = CLEAR_PU[origins[:, None] + LEADS] == 0.0
    assert dark.any()
    assert (made[dark] == 0.0).all()


def test_unknown_days_count_as_if_they_were_not_in_the_record() -> None:
    pv_pu, origin = _cloudy(), 3 * DAY + NOON
    longer = np.concatenate([np.full(4 * DAY, np.nan), pv_pu])
    memory = cloud_memory(longer, np.resize(CLEAR_PU[:DAY], longer.size))
    later = pv_ahead(memory, np.resize(CLEAR_PU[:DAY], longer.size + 48), np.array([4 * DAY + origin]), LEADS)
    np.testing.assert_allclose(later, _ahead(pv_pu, origin), rtol=0.0, atol=1e-12)


def test_an_unknown_hour_is_neither_dark_nor_fair() -> None:
    origin = (DAYS - 1) * DAY + NOON
    grey = 0.9 * CLEAR_PU[:HOURS]
    grey[origin - 4 : origin] *= 0.3
    known = _index(_ahead(grey, origin)[0], origin, origin)
    grey[origin - 2] = np.nan
    assert _index(_ahead(grey, origin)[0], origin, origin) == pytest.approx(known, abs=0.05)
    grey[origin - 6 : origin] = np.nan
    assert _index(_ahead(grey, origin)[0], origin, origin) == pytest.approx(0.9, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_quantiles_are_in_order_and_within_what_a_sky_can_bring(seed: int) -> None:
    origins = np.arange(HOURS + 1)
    made = _ahead(_cloudy(seed), *origins)
    assert np.isfinite(made).all()
    assert (np.diff(made, axis=-1) >= 0.0).all()
    assert (made >= 0.0).all()
    assert (made <= np.minimum(INDEX_MAX * CLEAR_PU[origins[:, None] + LEADS], 1.0)[..., None]).all()


def test_four_in_five_hours_fall_into_the_band_under_a_sky_such_as_it_supposes() -> None:
    draw, days = np.random.default_rng(3), 400
    gap_h = np.abs(np.arange(DAY)[:, None] - np.arange(DAY))
    index = draw.multivariate_normal(np.zeros(DAY), PRIOR_SD**2 * np.exp(-gap_h / PRIOR_MEMORY_H), days)
    for day in range(1, days):
        index[day] = NEXT_DAY * index[day - 1] + np.sqrt(1.0 - NEXT_DAY**2) * index[day]
    clear_pu = np.resize(CLEAR_PU[:DAY], (days + 2) * DAY)
    pv_pu = np.clip(0.6 + index.ravel(), 0.0, None) * clear_pu[: index.size]
    origins = np.arange(40 * DAY, (days - 3) * DAY, 5)
    made = pv_ahead(cloud_memory(pv_pu, clear_pu[: pv_pu.size]), clear_pu, origins, LEADS)
    targets = origins[:, None] + LEADS
    inside = (made[..., 0] <= pv_pu[targets]) & (pv_pu[targets] <= made[..., 2])
    for leads in (slice(0, 3), slice(3, 24), slice(24, 48)):
        lit = clear_pu[targets[:, leads]] > 0.1
        assert inside[:, leads][lit].mean() == pytest.approx(0.8, abs=0.06)


@pytest.mark.parametrize("origins", [np.array([-1]), np.array([5, HOURS + 1])])
def test_an_origin_outside_the_record_is_refused(origins: IntArray) -> None:
    memory = cloud_memory(_cloudy(), CLEAR_PU[:HOURS])
    with pytest.raises(ValueError, match="the record has places 0 to 480"):
        pv_ahead(memory, CLEAR_PU, origins, LEADS)

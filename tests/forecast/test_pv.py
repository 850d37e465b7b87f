"""Clear-sky photovoltaics over a spring day."""

import numpy as np

from derms.forecast.pv import ClearSky, ClearSkyDays, clear_sky_pu

LOCAL_MIDNIGHT_S = 1776236400.0  # 15 April 2026, 00:00 in Los Angeles
HOURS_S = LOCAL_MIDNIGHT_S + 3600.0 * np.arange(24, dtype=np.float64)


def test_a_spring_day_rises_to_one_noon_and_is_dark_at_night() -> None:
    p_pu = clear_sky_pu(HOURS_S, 34.05, -118.24)
    noon = int(p_pu.argmax())
    assert noon == 13  # daylight saving time
    assert 0.8 < p_pu[noon] <= 1.0
    assert (p_pu[[0, 1, 2, 3, 4, 5, 20, 21, 22, 23]] == 0.0).all()
    assert (np.diff(p_pu[6:14]) > 0.0).all()
    assert (np.diff(p_pu[13:20]) < 0.0).all()


def test_summer_days_bring_more_than_winter_days() -> None:
    june_s, december_s = HOURS_S + 67 * 86400.0, HOURS_S - 115 * 86400.0
    assert clear_sky_pu(june_s, 34.05, -118.24).sum() > 1.3 * clear_sky_pu(december_s, 34.05, -118.24).sum()


def test_the_sun_rises_later_further_west() -> None:
    morning_s = np.array([LOCAL_MIDNIGHT_S + 7.5 * 3600.0])
    assert clear_sky_pu(morning_s, 34.05, -118.24)[0] > clear_sky_pu(morning_s, 34.05, -125.0)[0]


def test_a_table_of_days_says_what_the_formula_does_whichever_way_it_is_asked() -> None:
    days = ClearSkyDays(ClearSky(34.05, -118.24))
    for first_h in (0.0, 30.0, 10.0, 24.0 * 40, 5.0):
        times_s = HOURS_S[:, None] + 3600.0 * first_h + np.array([0.0, 100.0])
        exact = clear_sky_pu(times_s.ravel(), 34.05, -118.24).reshape(times_s.shape)
        np.testing.assert_allclose(days.pu(times_s), exact, atol=2e-3)
    assert days.pu(np.empty((0, 3))).shape == (0, 3)

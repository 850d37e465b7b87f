"""The sky and the customers of the simulated world."""

from datetime import datetime, timedelta

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.netload import WEEKDAY_SHAPE
from hil.history import net_load
from hil.load import Loads, local_offset_s, shape_pu
from hil.weather import Clouds

DT_S = 5.0


def sky(seed: int, steps: int = 17280, plants: int = 8) -> FloatArray:
    clouds = Clouds(plants, dt_s=DT_S, rng=np.random.default_rng(seed))
    return np.array([clouds.step() for _ in range(steps)])


def test_clouds_take_a_tenth_of_the_light_and_never_more_than_three_quarters() -> None:
    factors = np.concatenate([sky(seed) for seed in range(3)])
    assert 0.85 < factors.mean() < 0.95
    assert factors.min() >= 0.25
    assert factors.max() <= 1.0
    assert factors.min() < 0.6


def test_clouds_last_for_minutes_and_reach_every_plant_at_its_own_time() -> None:
    factors = sky(1)

    def alike(steps: int) -> float:
        return float(np.corrcoef(factors[:-steps, 0], factors[steps:, 0])[0, 1])

    assert alike(int(30 / DT_S)) > 0.7
    assert alike(int(3 * 3600 / DT_S)) < 0.5
    between = [np.corrcoef(factors[:, 0], factors[:, plant])[0, 1] for plant in range(1, 8)]
    assert 0.3 < min(between) < 0.9999


def test_load_follows_the_hours_of_a_spring_weekday(midnight: datetime) -> None:
    hours_s = midnight.timestamp() + 3600.0 * (np.arange(24, dtype=np.float64) + 0.5)
    np.testing.assert_allclose(shape_pu(hours_s, local_offset_s(midnight)), np.array(WEEKDAY_SHAPE))


def test_loads_differ_from_the_model_one_by_one_and_agree_in_total() -> None:
    nominal_w = np.random.default_rng(1).uniform(10e3, 80e3, 90)
    loads = Loads(nominal_w, dt_s=DT_S, rng=np.random.default_rng(2))
    assert 0.1 < np.log(loads.size).std() < 0.3
    totals = np.array([loads.step(1.0) @ nominal_w for _ in range(2000)]) / nominal_w.sum()
    assert abs(totals.mean() - 1.0) < 0.03
    assert 0.001 < totals.std() < 0.03


def test_history_keeps_to_quarter_hours(midnight: datetime) -> None:
    ends, _ = net_load(
        midnight + timedelta(seconds=899.5),
        1,
        load_w=3.5e6,
        pv_rated_w=0.0,
        place_deg=(34.05, -118.24),
        rng=np.random.default_rng(3),
    )
    assert ends[-1] == midnight


def test_history_ends_at_the_start_and_dips_at_noon(midnight: datetime) -> None:
    ends, load_w = net_load(
        midnight, 7, load_w=3.5e6, pv_rated_w=2.1e6, place_deg=(34.05, -118.24), rng=np.random.default_rng(3)
    )
    assert len(ends) == load_w.size == 7 * 96
    assert ends[-1] == midnight
    days = load_w.reshape(7, 96)
    np.testing.assert_array_less(days[:, 48:56].mean(axis=1), 0.75 * days[:, 78:86].mean(axis=1))
    assert len(np.unique(days.mean(axis=1))) == 7

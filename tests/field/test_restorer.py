"""The way back to defaults: who goes when, who joins later, and who is wanted again on the way."""

import numpy as np
import pytest

from derms.field.restorer import Restorer
from tests.control.values import fleet_of

NOW_S = 100.0
RAMP_W_PER_MIN = 60e3
NOTHING = np.nan


def _taken(held_w: list[float], restorer: Restorer | None = None, now_s: float = NOW_S) -> Restorer:
    restorer = restorer or Restorer(fleet_of(3, inverters=1), RAMP_W_PER_MIN)
    restorer.take(np.array(held_w), now_s)
    return restorer


def test_one_goes_after_another_and_pv_counts_with_its_rating() -> None:
    restorer = _taken([20e3, -10e3, NOTHING, 5e3])
    ends_s = [restorer.end_s(row) for row in (0, 1, 3)]
    assert max(ends_s) == pytest.approx(NOW_S + 20.0 + 10.0 + 30.0)
    assert len({round(end_s, 3) for end_s in ends_s}) == 3
    assert restorer.on_way.tolist() == [True, True, False, True]
    for now_s in np.arange(NOW_S, NOW_S + 61.0, 0.5):
        assert np.isfinite(restorer.moving_w(now_s)).sum() <= 1
    assert restorer.due(NOW_S + 61.0).tolist() == [True, True, False, True]


def test_one_that_is_wanted_again_leaves_the_way_and_the_others_keep_their_times() -> None:
    restorer = _taken([20e3, -10e3, 15e3, NOTHING])
    before = [restorer.end_s(row) for row in range(3)]
    _taken([20e3, NOTHING, 15e3, NOTHING], restorer, NOW_S + 1.0)
    assert restorer.on_way.tolist() == [True, False, True, False]
    assert [restorer.end_s(row) for row in (0, 2)] == [before[0], before[2]]


def test_one_that_joins_goes_when_the_others_have_gone() -> None:
    restorer = _taken([20e3, NOTHING, NOTHING, NOTHING])
    _taken([20e3, NOTHING, -10e3, NOTHING], restorer, NOW_S + 5.0)
    assert restorer.end_s(0) == pytest.approx(NOW_S + 20.0)
    assert restorer.end_s(2) == pytest.approx(NOW_S + 30.0)
    assert restorer.moving_w(NOW_S + 10.0)[0] == pytest.approx(10e3)
    assert np.isnan(restorer.moving_w(NOW_S + 10.0)[2])

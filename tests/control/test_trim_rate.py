"""The rate of the trim holds from its first moment on, when no trim before it bounds it."""

import numpy as np
import pytest

from derms.control.guards import PowerBounds
from derms.control.trim import Measured, TrimState, Turns, trimmed
from derms.domain.dispatch import Dispatch, Leeway
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings
from tests.control.values import NOON

RATED_W, COUNT = 25e3, 10
SETTINGS = DispatchSettings()


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_first_trim_is_no_faster_than_its_rate(sign: float) -> None:
    rest_w, fleet_w = np.zeros(COUNT), COUNT * RATED_W
    leeway = Leeway(np.full(2, 1e6), np.full(COUNT, RATED_W))
    free_w = np.full((COUNT, 2), np.nan)
    dispatch = Dispatch(1, NOON, 3600.0, np.array([0.0, 3600.0]), np.zeros((COUNT, 2)), free_w, leeway)
    bounds = PowerBounds(np.full(COUNT, -RATED_W), np.full(COUNT, RATED_W))
    measured = Measured(1e6 + sign * fleet_w, Quality.GOOD, 0.0)
    turns = Turns(rest_w, np.zeros(COUNT, dtype=np.bool_))
    _, state = trimmed(dispatch, bounds, TrimState(), measured, 0.0, turns=turns, settings=SETTINGS)
    per_trim_w = SETTINGS.trim_ramp_frac_per_min * fleet_w * SETTINGS.trim_every_s / 60.0
    assert state.trim_w == pytest.approx(sign * per_trim_w)

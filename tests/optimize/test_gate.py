"""What the planner refuses at its gate: limits, desk and periods that are no numbers, stores in mixed units."""

from dataclasses import replace

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.errors import PlanError
from derms.optimize.portfolio import Desk, Portfolio
from tests.optimize.territory import territory

GIVEN = territory(ders=12, feeders=2, congested=0, seed=3)


def _spoiled(column: FloatArray, value: float) -> FloatArray:
    spoiled = column.copy()
    spoiled[0] = value
    return spoiled


@pytest.mark.parametrize("limit", ["low_w", "high_w"])
def test_a_feeder_limit_that_is_no_number_is_refused(limit: str) -> None:
    feeders = replace(GIVEN.feeders, **{limit: _spoiled(getattr(GIVEN.feeders, limit), np.nan)})  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="no number"):
        replace(GIVEN, feeders=feeders).checked()


@pytest.mark.parametrize("limit", ["low", "high"])
def test_a_row_limit_that_is_no_number_is_refused(limit: str) -> None:
    rows = replace(GIVEN.rows, **{limit: _spoiled(getattr(GIVEN.rows, limit), np.nan)})  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="no number"):
        replace(GIVEN, rows=rows).checked()


@pytest.mark.parametrize(
    "desk",
    [
        Desk(ramp_w_per_h=np.nan),
        Desk(ramp_w_per_h=-1.0),
        Desk(hold_h=np.nan),
        Desk(hold_h=np.inf),
        Desk(hold_h=-1.0),
        Desk(reserve_up_w=-1.0),
        Desk(reserve_down_w=-1.0),
        Desk(hold_w={2: 1e3}),
        Desk(hold_w={-1: 1e3}),
        Desk(hold_w={0: np.nan}),
    ],
)
def test_a_desk_that_asks_for_what_cannot_be_is_refused(desk: Desk) -> None:
    with pytest.raises(PlanError):
        replace(GIVEN, desk=desk).checked()


@pytest.mark.parametrize("period_h", [np.nan, 0.0, -0.25, 0.7, 4.0])
def test_a_period_that_three_hours_do_not_hold_is_refused(period_h: float) -> None:
    with pytest.raises(PlanError, match="periods"):
        replace(GIVEN, period_h=period_h).checked()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_store_whose_power_is_in_another_unit_than_its_energy_is_set_aside(factor: float) -> None:
    power_w = GIVEN.devices.charge_max_w.copy()
    power_w[4] *= factor
    mixed: Portfolio = replace(GIVEN, devices=replace(GIVEN.devices, charge_max_w=power_w, discharge_max_w=power_w))
    assert np.flatnonzero(~mixed.checked().devices.available).tolist() == [4]

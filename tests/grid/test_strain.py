"""The strain of a feeder and what each DER has to do with it, against differences of whole solutions on IEEE 123."""

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.errors import NotConverged
from derms.grid.look_ahead import look_ahead
from derms.grid.opendss import FeederEngine
from derms.grid.strain import strain
from tests.grid.test_look_ahead import NOTHING, RATED_W, SUN_W, engine, state

__all__ = ["engine", "state"]

FULL_W = np.where(SUN_W > 0.0, 1.4 * RATED_W, RATED_W)
"""Every inverter beyond its transformer, every battery discharging."""


def test_a_feeder_within_its_limits_is_not_strained_and_no_der_counts(engine: FeederEngine, state: GridState) -> None:
    found = strain(engine, state, NOTHING, 1.0)
    assert (found.violations, found.excess_pu, found.overload) == (0, 0.0, 0.0)
    assert not found.excess_per_w.any()
    assert not found.overload_per_w.any()


@pytest.mark.parametrize(("der_w", "load_factor"), [(FULL_W, 0.2), (-RATED_W, 2.4)])
def test_effect_of_each_der_is_that_of_solving_anew_with_a_little_more(
    engine: FeederEngine, state: GridState, der_w: FloatArray, load_factor: float
) -> None:
    engine.set_tolerance(1e-9)
    found = strain(engine, state, der_w, load_factor)
    assert found.violations > 0
    assert found.overload > 0.0
    for row in (0, len(der_w) // 2, len(der_w) - 1):
        step_w = np.where(np.arange(len(der_w)) == row, 50.0, 0.0)
        up, down = (strain(engine, state, der_w + side * step_w, load_factor) for side in (1.0, -1.0))
        assert up.violations == down.violations == found.violations
        slope = (up.excess_pu - down.excess_pu) / 100.0
        assert found.excess_per_w[row] == pytest.approx(slope, rel=0.02, abs=1e-9)
        slope = (up.overload - down.overload) / 100.0
        assert found.overload_per_w[row] == pytest.approx(slope, rel=0.02, abs=1e-9)


def test_sum_of_voltages_outside_their_range_is_that_of_the_solution(engine: FeederEngine, state: GridState) -> None:
    flow = look_ahead(engine, state, FULL_W, NOTHING, 0.2, regulators_act=False)
    found = strain(engine, state, FULL_W, 0.2)
    layout = engine.layout
    assert found.violations == np.count_nonzero(layout.violating(flow.v_pu))
    assert found.excess_pu == pytest.approx(layout.excess_pu(flow.v_pu).sum())


def test_without_a_solution_there_is_no_strain(engine: FeederEngine, state: GridState) -> None:
    with pytest.raises(NotConverged):
        strain(engine, state, NOTHING, 60.0)

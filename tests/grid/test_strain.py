"""The strain of a feeder and what each DER has to do with it, against differences of whole solutions on IEEE 123."""

from dataclasses import replace

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.errors import NotConverged
from derms.grid.look_ahead import look_ahead
from derms.grid.opendss import FeederEngine
from derms.grid.strain import SIGMA_SHARE, strain
from tests.grid.test_look_ahead import NOTHING, RATED_W, SUN_W, engine, state

__all__ = ["engine", "state"]

FULL_W = np.where(SUN_W > 0.0, 1.4 * RATED_W, RATED_W)
"""Every inverter beyond its transformer, every battery discharging."""


def test_a_feeder_within_its_limits_is_not_strained_and_no_der_counts(engine: FeederEngine, state: GridState) -> None:
    found = strain(engine, state, NOTHING, 1.0)
    assert (found.violations, found.overload) == (0, 0.0)
    assert found.excess_pu < 1e-9
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
        slope = (up.excess_pu - down.excess_pu) / 100.0
        assert found.excess_per_w[row] == pytest.approx(slope, rel=0.02, abs=1e-9)
        slope = (up.overload - down.overload) / 100.0
        assert found.overload_per_w[row] == pytest.approx(slope, rel=0.02, abs=1e-9)


def test_excess_to_be_expected_is_the_mean_over_what_the_voltages_may_be(
    engine: FeederEngine, state: GridState
) -> None:
    """Against chance itself; known well, it is the excess of the solution."""
    layout = engine.layout
    v_pu = look_ahead(engine, state, FULL_W, NOTHING, 0.2, regulators_act=False).v_pu
    known = strain(engine, replace(state, v_sigma_pu=np.zeros_like(v_pu)), FULL_W, 0.2)
    assert known.violations == np.count_nonzero(layout.violating(v_pu))
    assert known.excess_pu == pytest.approx(layout.excess_pu(v_pu).sum())
    sigma_pu = np.full_like(v_pu, 0.02)
    drawn_pu = v_pu + SIGMA_SHARE * sigma_pu * np.random.default_rng(1).standard_normal((4000, len(v_pu)))
    unsure = strain(engine, replace(state, v_sigma_pu=sigma_pu), FULL_W, 0.2)
    assert unsure.violations == known.violations
    assert unsure.excess_pu == pytest.approx(layout.excess_pu(drawn_pu).sum(axis=1).mean(), rel=0.01)
    assert unsure.excess_pu > known.excess_pu


def test_without_a_solution_there_is_no_strain(engine: FeederEngine, state: GridState) -> None:
    with pytest.raises(NotConverged):
        strain(engine, state, NOTHING, 60.0)

"""Reactive power: voltages are kept with it before energy is, every inverter within its rating."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Portfolio
from derms.optimize.reactive import REACTIVE_FRAC, room_var, share_reactive
from derms.optimize.verify_fleet import check_shares
from derms.optimize.zones import zoning
from tests.optimize.territory import territory

OVERSIZE = 1.12
"""Rating of inverters against power: room for 44 % reactive power beside it."""
X_PER_R = 1.5
NOBODY = np.zeros(0, dtype=np.intp)


def _without() -> Portfolio:
    """Two feeders; active power cannot keep the voltages of the second one above what is asked."""
    given = territory(ders=60, feeders=2, congested=2, seed=4)
    rows = given.rows
    return replace(given, rows=replace(rows, low=np.where(rows.feeder == 1, rows.low + 0.006, rows.low)))


def _with(portfolio: Portfolio, oversize: float = OVERSIZE) -> Portfolio:
    """The same with inverters that may give reactive power, over lines with more reactance than resistance."""
    devices, rows = portfolio.devices, portfolio.rows
    rating_va = oversize * devices.discharge_max_w[:, 0]
    return replace(
        portfolio,
        devices=replace(devices, apparent_max_va=rating_va),
        rows=replace(rows, per_var=X_PER_R * rows.per_w),
    )


def _plan(portfolio: Portfolio, shared: int = 12) -> FleetPlan:
    scale_w = float(portfolio.feeders.net_load_w.sum(axis=0).max())
    return FleetPlanner(PlanWeights(), scale_w=scale_w, shared_steps=shared).plan(portfolio)


def _reactive(plan: FleetPlan) -> FloatArray:
    assert plan.reactive_var is not None
    return plan.reactive_var


def _faults(portfolio: Portfolio, plan: FleetPlan, reactive_var: FloatArray | None) -> list[str]:
    named = {slack.limit for slack in plan.gave_way}
    return check_shares(
        portfolio.checked(), plan.shares.power_w, plan.held_w, plan.promised_w, named, reactive_var=reactive_var
    )


def test_where_energy_cannot_keep_a_voltage_reactive_power_does() -> None:
    without, helped = _without(), _with(_without())
    bare, plan = _plan(without, len(without.hours)), _plan(helped, len(helped.hours))
    reactive_var, power_w, rows = _reactive(plan), plan.shares.power_w, helped.rows
    assert bare.reactive_var is None
    assert [slack.limit for slack in bare.gave_way] == ["voltage at spot 12 of feeder 1"]
    value = rows.base + rows.per_w @ power_w - rows.per_pv_w[:, None] * plan.held_w[rows.feeder]
    assert (value < rows.low[:, None]).any()
    assert rows.per_var is not None
    assert (value + rows.per_var @ reactive_var >= rows.low[:, None]).all()
    assert plan.agreed
    assert plan.gave_way == ()
    assert _faults(helped, plan, reactive_var) == []


def test_every_inverter_stays_within_its_rating_and_its_share_of_reactive_power() -> None:
    helped = _with(_without())
    plan = _plan(helped, len(helped.hours))
    rating_va = helped.devices.apparent_max_va
    assert rating_va is not None
    reactive_var = _reactive(plan)
    assert np.abs(reactive_var).max() > 0.0
    assert (np.hypot(plan.shares.power_w, reactive_var) <= rating_va[:, None] * (1.0 + 1e-9)).all()
    assert (np.abs(reactive_var) <= 0.44 * rating_va[:, None] * (1.0 + 1e-9)).all()


def test_the_verifier_finds_inverters_beyond_their_rating_and_a_voltage_that_they_make_worse() -> None:
    helped = _with(_without())
    plan = _plan(helped, len(helped.hours))
    too_much = _reactive(plan).copy()
    too_much[3, 2] = 0.6 * OVERSIZE * helped.devices.discharge_max_w[3, 0]
    assert "1 inverters beyond their rating" in _faults(helped, plan, too_much)
    assert any("voltage at spot" in sentence for sentence in _faults(helped, plan, -_reactive(plan)))
    assert _faults(helped, plan, too_much * np.nan) == ["setpoints that are not finite"]


def test_an_inverter_without_room_beside_its_power_is_not_counted_on() -> None:
    full = _with(_without(), oversize=1.0)
    plan = _plan(full, len(full.hours))
    assert not _reactive(plan).any()
    assert _faults(full, plan, _reactive(plan)) == []


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(-1.0, 1.0))
def test_shares_of_reactive_power_sum_up_to_it_and_leave_every_inverter_its_active_power(
    seed: int, part: float
) -> None:
    portfolio = _with(_without())
    devices = portfolio.devices
    power_w = devices.discharge_max_w * np.random.default_rng(seed).uniform(-1.0, 1.0, (len(devices), 5))
    zones = zoning(portfolio, np.array([0, 1]), NOBODY, per_feeder=2)
    always_var = room_var(devices, devices.discharge_max_w)[:, 0]
    wanted_var = part * np.bincount(devices.feeder, weights=always_var)[:, None] * np.ones(5)
    shares_var = share_reactive(wanted_var, devices, zones, power_w)
    sums_var = np.array([shares_var[devices.feeder == feeder].sum(axis=0) for feeder in (0, 1)])
    np.testing.assert_allclose(sums_var, wanted_var, rtol=1e-9, atol=1e-6)
    assert devices.apparent_max_va is not None
    rating_va = devices.apparent_max_va[:, None] * (1.0 + 1e-9)
    assert (np.hypot(power_w, shares_var) <= rating_va).all()
    assert (np.abs(shares_var) <= REACTIVE_FRAC * rating_va).all()


def test_a_rating_that_nobody_knows_counts_for_nothing_and_an_effect_that_is_no_number_is_refused() -> None:
    helped = _with(_without())
    rating_va = helped.devices.apparent_max_va
    per_var = helped.rows.per_var
    assert rating_va is not None
    assert per_var is not None
    rating_va[5] = np.nan
    plan = _plan(helped, len(helped.hours))
    assert not _reactive(plan)[5].any()
    assert _reactive(plan).any()
    broken = per_var.copy()
    broken.data[3] = np.nan
    with pytest.raises(PlanError, match="effect of reactive power"):
        _plan(replace(helped, rows=replace(helped.rows, per_var=broken)))

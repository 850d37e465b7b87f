"""Sites: every device within what its connection, its inverter, its PV and an outage leave it, whatever others do."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.portfolio import Portfolio, Sites
from derms.optimize.sites import within_sites
from derms.optimize.verify_fleet import check_shares
from tests.optimize.territory import territory

DERS = 40
STEPS = len(territory(ders=4, feeders=1, congested=0, seed=1).hours)
SHARED = 12


def _sites(**changes: object) -> Sites:
    """Two devices behind each connection, no limit that anybody would meet."""
    sites = DERS // 2
    made = Sites(
        site=np.arange(DERS) // 2,
        load_w=np.full((sites, STEPS), 1e3),
        pv_w=np.full((sites, STEPS), 3e3),
        import_max_w=np.full(sites, 1e6),
        export_max_w=np.full(sites, 1e6),
        inverter=np.full(DERS, -1),
        inverter_pv_w=np.zeros((0, STEPS)),
        inverter_max_w=np.zeros(0),
        backup_wh=np.zeros(DERS),
        solar_only=np.zeros(DERS, dtype=np.bool_),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def _portfolio(sites: Sites) -> Portfolio:
    return replace(territory(ders=DERS, feeders=2, congested=1, seed=1), sites=sites)


def _scale(portfolio: Portfolio) -> float:
    return float(portfolio.feeders.net_load_w.sum(axis=0).max())


def _plan(portfolio: Portfolio) -> FleetPlan:
    return FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=SHARED).plan(portfolio)


def _faults(portfolio: Portfolio, plan: FleetPlan, power_w: FloatArray | None = None) -> list[str]:
    named = {slack.limit for slack in plan.gave_way}
    shown_w = plan.shares.power_w if power_w is None else power_w
    return check_shares(portfolio.checked(), shown_w, plan.held_w, plan.promised_w, named)


def _by_site(power_w: FloatArray) -> FloatArray:
    both_w: FloatArray = power_w[0::2] + power_w[1::2]
    return both_w


def _tight(seed: int) -> Sites:
    """Random sites, inverters and rules of which many bind, some forecasts missing."""
    rng = np.random.default_rng(seed)
    sites = DERS // 2
    pv_w = rng.uniform(0.0, 8e3, (sites, STEPS))
    pv_w[rng.random(sites) < 0.1] = np.nan
    return _sites(
        site=rng.integers(-1, sites, DERS),
        load_w=rng.uniform(0.0, 5e3, (sites, STEPS)),
        pv_w=pv_w,
        import_max_w=rng.uniform(2e3, 15e3, sites),
        export_max_w=rng.uniform(0.0, 10e3, sites),
        inverter=rng.integers(-1, 10, DERS),
        inverter_pv_w=rng.uniform(0.0, 6e3, (10, STEPS)),
        inverter_max_w=rng.uniform(2e3, 10e3, 10),
        solar_only=rng.random(DERS) < 0.3,
        backup_wh=np.where(rng.random(DERS) < 0.1, np.nan, rng.uniform(0.0, 1e4, DERS)),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_whatever_all_devices_do_within_their_bounds_no_point_takes_or_gives_more_than_it_may(seed: int) -> None:
    sites, devices = _tight(seed), territory(ders=DERS, feeders=2, congested=0, seed=seed).devices
    narrowed = within_sites(devices, sites, STEPS)
    portfolio = replace(_portfolio(sites), devices=devices)
    assert (narrowed.charge_max_w <= devices.charge_max_w).all()
    assert (narrowed.discharge_max_w <= devices.discharge_max_w).all()
    assert (narrowed.charge_max_w >= 0.0).all()
    # Held against the verifier, which sums up what is behind each point: first all take, then all give.
    full = replace(portfolio, devices=replace(devices, stored_min_wh=0.0 * devices.stored_min_wh))
    for power_w in (-narrowed.charge_max_w, narrowed.discharge_max_w):
        found = check_shares(full, power_w, np.zeros_like(full.feeders.pv_w), power_w.sum(axis=0), set())
        assert not [sentence for sentence in found if "site" in sentence or "inverter" in sentence]
        assert not [sentence for sentence in found if "PV" in sentence]


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_plans_over_tight_sites_pass_the_verifier(seed: int) -> None:
    portfolio = _portfolio(_tight(seed))
    assert _faults(portfolio, _plan(portfolio)) == []


def test_room_that_does_not_reach_for_all_is_shared_by_what_each_can() -> None:
    sites = _sites(import_max_w=np.full(DERS // 2, 2e3))
    devices = territory(ders=DERS, feeders=2, congested=0, seed=1).devices
    narrowed = within_sites(devices, sites, STEPS)
    # 2 kW of import, and 2 kW more that PV has beyond the load.
    wanted_w = np.minimum(4e3, _by_site(devices.charge_max_w)) * np.ones(STEPS)
    np.testing.assert_allclose(_by_site(narrowed.charge_max_w), wanted_w)
    part = narrowed.charge_max_w[:, 0] / devices.charge_max_w[:, 0]
    np.testing.assert_allclose(part[0::2], part[1::2])
    np.testing.assert_array_equal(narrowed.discharge_max_w, np.repeat(devices.discharge_max_w, STEPS, axis=1))


def test_a_battery_behind_one_inverter_with_pv_has_what_pv_leaves() -> None:
    pv_w = np.linspace(0.0, 6e3, STEPS)[None, :]
    inverter = np.full(DERS, -1)
    inverter[5] = 0
    sites = _sites(inverter=inverter, inverter_pv_w=pv_w, inverter_max_w=np.array([5e3]))
    devices = territory(ders=DERS, feeders=2, congested=0, seed=1).devices
    narrowed = within_sites(devices, sites, STEPS)
    most_w = devices.discharge_max_w[5, 0]
    np.testing.assert_allclose(narrowed.discharge_max_w[5], np.clip(5e3 - pv_w[0], 0.0, most_w))
    np.testing.assert_allclose(narrowed.charge_max_w[5], np.minimum(5e3 + pv_w[0], most_w))


def test_a_battery_that_may_charge_from_pv_only_waits_for_the_sun() -> None:
    pv_w = np.where(np.arange(STEPS) < 6, 0.0, 2e3) * np.ones((DERS // 2, 1))
    portfolio = _portfolio(_sites(pv_w=pv_w, solar_only=np.ones(DERS, dtype=np.bool_)))
    cheap = replace(portfolio, price=np.full(STEPS, -1.0))
    plan = _plan(cheap)
    taken_w = -np.minimum(plan.shares.power_w, 0.0)
    assert not taken_w[:, :6].any()
    assert (_by_site(taken_w)[:, 6:] <= 2e3 + 1.0).all()
    assert taken_w[:, 6:].any()
    assert _faults(cheap, plan) == []


def test_what_is_kept_for_an_outage_is_not_given_in_the_evening() -> None:
    portfolio = territory(ders=DERS, feeders=2, congested=0, seed=1)
    devices = portfolio.devices
    backup_wh = 0.9 * devices.stored_wh
    kept = replace(portfolio, sites=_sites(backup_wh=backup_wh))
    planner = FleetPlanner(PlanWeights(), scale_w=_scale(kept), shared_steps=STEPS)
    plan = planner.plan(kept)
    free = planner.plan(portfolio)
    assert _faults(kept, plan) == []
    assert "40 stores give what is kept for an outage" in _faults(kept, free)


def test_a_site_that_nobody_has_a_forecast_for_is_left_alone() -> None:
    load_w = np.full((DERS // 2, STEPS), 1e3)
    load_w[3, 4:] = np.nan
    portfolio = _portfolio(_sites(load_w=load_w))
    plan = _plan(portfolio)
    assert not plan.shares.power_w[6:8, 4:].any()
    assert plan.shares.power_w[6:8, :4].any()
    assert _faults(portfolio, plan) == []


def test_a_store_whose_backup_nobody_knows_gives_nothing() -> None:
    backup_wh = np.zeros(DERS)
    backup_wh[7] = np.nan
    portfolio = _portfolio(_sites(backup_wh=backup_wh))
    plan = FleetPlanner(PlanWeights(), scale_w=_scale(portfolio), shared_steps=STEPS).plan(portfolio)
    assert plan.shares.power_w[7].max() <= 0.0
    assert _faults(portfolio, plan) == []


def test_a_plan_made_without_sites_is_refused_for_each_of_them_that_it_overloads() -> None:
    bare = territory(ders=DERS, feeders=2, congested=1, seed=1)
    plan = _plan(replace(bare, price=np.full(STEPS, -1.0)))
    inverter = np.arange(DERS)
    tight = _sites(
        import_max_w=np.zeros(DERS // 2),
        export_max_w=np.zeros(DERS // 2),
        load_w=np.full((DERS // 2, STEPS), 3e3),
        inverter=inverter,
        inverter_pv_w=np.zeros((DERS, STEPS)),
        inverter_max_w=np.full(DERS, 1.0),
        solar_only=np.ones(DERS, dtype=np.bool_),
        pv_w=np.zeros((DERS // 2, STEPS)),
    )
    for sign, told in ((1.0, "give"), (-1.0, "take"), (-1.0, "draw"), (-1.0, "from PV only")):
        power_w = sign * np.abs(plan.shares.power_w)
        found = _faults(replace(bare, sites=tight), plan, power_w)
        assert any(told in sentence for sentence in found), (told, found)


def test_sites_that_do_not_tell_of_every_device_are_refused_by_the_gate() -> None:
    portfolio = _portfolio(_sites(backup_wh=np.zeros(DERS - 1)))
    with pytest.raises(PlanError, match="where it is"):
        portfolio.checked()
    nowhere = _portfolio(_sites(site=np.full(DERS, DERS)))
    with pytest.raises(PlanError, match="where it is"):
        nowhere.checked()

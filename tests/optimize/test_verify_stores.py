"""The verifier of fleet plans, one fault at a time: nothing else about the plan is wrong."""

from dataclasses import replace

import numpy as np

from derms.domain.arrays import FloatArray
from derms.optimize.portfolio import Portfolio, Sites
from derms.optimize.verify_fleet import check_shares
from tests.optimize.territory import territory

DERS, FEEDERS, SHARED = 12, 2, 12


def _fleet(*, congested: int = 0) -> Portfolio:
    """Batteries that hold half of what they can, on feeders without a limit that anybody meets."""
    made = territory(ders=DERS, feeders=FEEDERS, congested=congested, seed=3)
    half_wh = 0.5 * made.devices.stored_max_wh
    return replace(made, devices=replace(made.devices, stored_wh=half_wh))


def _faults(given: Portfolio, power_w: FloatArray, *named: str) -> list[str]:
    held_w = np.zeros((FEEDERS, len(given.hours)))
    return check_shares(given, power_w, held_w, power_w.sum(axis=0), named)


def _all(given: Portfolio, frac: float) -> FloatArray:
    """Everybody gives (+) or takes (-) a part of what it can."""
    return frac * given.devices.discharge_max_w * np.ones(SHARED)


def test_a_store_at_its_bound_gives_or_takes_no_more() -> None:
    given = _fleet()
    assert _faults(given, _all(given, 0.5)) == []
    for bound_wh, frac in ((given.devices.stored_min_wh, 0.5), (given.devices.stored_max_wh, -0.5)):
        stored_wh = given.devices.stored_wh.copy()
        stored_wh[4] = bound_wh[4]
        at_bound = replace(given, devices=replace(given.devices, stored_wh=stored_wh))
        assert _faults(at_bound, _all(given, frac)) == ["1 stores beyond their energy"]
        assert _faults(at_bound, _all(given, -frac)) == []


def test_a_store_that_is_not_available_is_not_commanded() -> None:
    given, available = _fleet(), np.ones(DERS, dtype=np.bool_)
    available[7] = False
    without = replace(given, devices=replace(given.devices, available=available))
    power_w = _all(given, 0.1)
    assert _faults(without, power_w) == ["stores are commanded that are not available"]
    power_w[7] = 0.0
    assert _faults(without, power_w) == []


def test_a_network_row_that_a_plan_takes_beyond_its_limit_is_told_unless_the_plan_named_it() -> None:
    given = _fleet(congested=FEEDERS)
    rows, power_w = given.rows, _all(given, 0.5)
    bare = rows.base[:, :SHARED]
    tight = replace(given, rows=replace(rows, low=bare.min(axis=1) - 1e-4, high=bare.max(axis=1)))
    found = _faults(tight, power_w)
    told = [name for name in rows.names if any(sentence.startswith(f"{name} beyond its limits") for sentence in found)]
    assert len(told) == len(found) >= FEEDERS
    assert _faults(tight, power_w, *told) == []
    assert _faults(tight, 0.0 * power_w) == []


def test_what_a_site_draws_counts_against_its_connection_with_its_load() -> None:
    given, steps = _fleet(), len(_fleet().hours)
    sites = Sites(
        site=np.arange(DERS),
        load_w=np.full((DERS, steps), 3e3),
        pv_w=np.zeros((DERS, steps)),
        import_max_w=np.full(DERS, 4e3),
        export_max_w=np.full(DERS, 1e3),
        inverter=np.full(DERS, -1),
        inverter_pv_w=np.zeros((0, steps)),
        inverter_max_w=np.zeros(0),
        backup_wh=np.zeros(DERS),
        solar_only=np.zeros(DERS, dtype=np.bool_),
    )
    behind = replace(given, sites=sites)
    assert _faults(behind, np.full((DERS, SHARED), -0.9e3)) == []
    assert _faults(behind, np.full((DERS, SHARED), -1.1e3)) == [
        f"{DERS} sites draw more than their connection may",
    ]

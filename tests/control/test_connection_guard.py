"""Connections: what the devices behind one may do together never exceeds its limits, whoever is told first."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derms.control.connections import Reach, unheld
from derms.control.guards import GuardInput, allowed, guard
from derms.domain.arrays import FloatArray
from derms.domain.connection import Connection
from derms.domain.der import ChargeFrom, DeviceKind, Fleet
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from tests.control.values import device, snapshot_of

REVERSION_S = 1020.0
BATTERY_W, PV_W = 25e3, 30e3
SLACK_W = 1e-6


def farm(
    *kinds: DeviceKind, export_max_w: float = 40e3, import_max_w: float = 30e3, load_w: tuple[float, float] = (0.0, 0.0)
) -> Fleet:
    """Devices behind one connection: batteries of 25 kW and 200 kWh, all others of 30 kW."""
    made = [
        device(
            f"{kind}{number}",
            kind,
            p_rated_w=BATTERY_W if kind is DeviceKind.BATTERY else PV_W,
            energy_wh=200e3 if kind is DeviceKind.BATTERY else 0.0,
        )
        for number, kind in enumerate(kinds)
    ]
    point = Connection(
        id="farm", export_max_w=export_max_w, import_max_w=import_max_w, load_min_w=load_w[0], load_max_w=load_w[1]
    )
    return Fleet(tuple(replace(each, connection="farm") for each in made), (point,))


def asked(
    fleet: Fleet,
    p_w: Sequence[float],
    *,
    quality: Sequence[Quality] | None = None,
    quantity: Quantity = Quantity.P_SET,
    reach: Reach | None = None,
) -> GuardInput:
    snapshot = snapshot_of(p_w, soc_frac=[0.5] * len(fleet), quality=quality)
    return GuardInput(fleet, snapshot, REVERSION_S, quantity=quantity, reach=reach)


PV, BATTERY, CAR = DeviceKind.PV, DeviceKind.BATTERY, DeviceKind.EV_CHARGER


def test_batteries_share_what_pv_leaves_that_nobody_limits() -> None:
    """Of 40 kW the PV may give 30 at any time, whatever it is measured to give: 10 are left for two batteries."""
    found = guard(np.array([20e3, 5e3, np.nan]), asked(farm(BATTERY, BATTERY, PV), [0.0, 0.0, 1e3]))
    np.testing.assert_allclose(found.value_w, [8e3, 2e3, np.nan])
    assert found.by == ("connection", "connection", "")


def test_a_limit_that_pv_holds_makes_room_for_a_battery() -> None:
    given_ = asked(farm(BATTERY, PV), [0.0, 1e3])
    reach = unheld(given_.fleet, given_.snapshot).limited(np.array([np.nan, 16e3]))
    assert guard(np.array([25e3, np.nan]), replace(given_, reach=reach)).value_w[0] == pytest.approx(24e3)


def test_a_limit_of_pv_is_raised_into_what_batteries_leave_and_comes_down_below_it() -> None:
    """The battery gives 25 kW: 15 of 40 are left, from wherever the limit comes."""
    fleet = farm(BATTERY, PV)
    for held_w in (30e3, 10e3, 15e3):
        reach = Reach(np.array([0.0, 0.0]), np.array([25e3, held_w]))
        found = guard(np.array([np.nan, 28e3]), asked(fleet, [25e3, 1e4], quantity=Quantity.P_LIMIT, reach=reach))
        assert (found.value_w[1], found.by[1]) == (pytest.approx(15e3), "connection")


def test_a_battery_that_comes_down_makes_no_room_in_the_same_turn() -> None:
    """Nobody knows which of the two is told first."""
    reach = Reach(np.zeros(2), np.array([25e3, 15e3]))
    found = guard(np.array([0.0, 25e3]), asked(farm(BATTERY, BATTERY), [25e3, 15e3], reach=reach))
    np.testing.assert_array_equal(found.value_w, [0.0, 15e3])


def test_charging_makes_no_room_for_pv_nor_pv_for_charging() -> None:
    fleet = farm(BATTERY, PV, import_max_w=10e3, export_max_w=20e3)
    reach = Reach(np.array([-10e3, 0.0]), np.array([0.0, 20e3]))
    limit = guard(np.array([np.nan, 30e3]), asked(fleet, [-10e3, 20e3], quantity=Quantity.P_LIMIT, reach=reach))
    assert limit.value_w[1] == 20e3
    charge = guard(np.array([-20e3, np.nan]), asked(fleet, [-10e3, 20e3], reach=reach))
    assert charge.value_w[0] == -10e3


def test_the_other_load_counts_the_way_that_leaves_less() -> None:
    """At least 5 kW are drawn besides, and at most 12."""
    fleet = farm(BATTERY, export_max_w=10e3, import_max_w=20e3, load_w=(5e3, 12e3))
    given_ = asked(fleet, [0.0])
    assert guard(np.array([25e3]), given_).value_w[0] == 15e3
    assert guard(np.array([-25e3]), given_).value_w[0] == -8e3
    bounds = allowed(given_)
    assert (bounds.low_w[0], bounds.high_w[0]) == (-8e3, 15e3)


def test_a_car_counts_as_it_is_measured_and_with_its_rating_while_nobody_knows() -> None:
    fleet = farm(BATTERY, CAR)
    known = asked(fleet, [0.0, -11e3])
    assert guard(np.array([-25e3, np.nan]), known).value_w[0] == pytest.approx(-19e3)
    silent = asked(fleet, [0.0, -11e3], quality=[Quality.GOOD, Quality.STALE])
    assert guard(np.array([-25e3, np.nan]), silent).value_w[0] == 0.0


def test_where_too_much_is_under_way_those_that_are_told_come_down_to_rest_at_most() -> None:
    fleet = farm(BATTERY, BATTERY, PV, export_max_w=35e3)
    reach = Reach(np.zeros(3), np.array([10e3, 10e3, 30e3]))
    both = guard(np.array([10e3, 10e3, np.nan]), asked(fleet, [10e3, 10e3, 30e3], reach=reach))
    np.testing.assert_allclose(both.value_w[:2], [2.5e3, 2.5e3])
    one = guard(np.array([10e3, np.nan, np.nan]), asked(fleet, [10e3, 10e3, 30e3], reach=reach))
    assert (one.value_w[0], one.by[0]) == (0.0, "connection")


def test_a_battery_that_charges_from_pv_only_gets_what_that_gives_now() -> None:
    fleet = farm(BATTERY, PV)
    solar = replace(fleet.devices[0], charge_from=ChargeFrom.SOLAR)
    fleet = Fleet((solar, fleet.devices[1]), fleet.connections)
    assert guard(np.array([-20e3, np.nan]), asked(fleet, [0.0, 7e3])).value_w[0] == -7e3
    dark = asked(fleet, [0.0, 7e3], quality=[Quality.GOOD, Quality.SUSPECT])
    assert guard(np.array([-20e3, np.nan]), dark).value_w[0] == 0.0


def test_devices_with_a_connection_of_their_own_are_left_alone() -> None:
    fleet = farm(BATTERY, BATTERY, export_max_w=0.0)
    fleet = Fleet((fleet.devices[0], replace(fleet.devices[1], connection="")), fleet.connections)
    np.testing.assert_array_equal(guard(np.array([20e3, 20e3]), asked(fleet, [0.0, 0.0])).value_w, [0.0, 20e3])


WATTS = st.floats(-4e4, 4e4)
ROWS = st.lists(
    st.tuples(st.sampled_from([BATTERY, PV, CAR]), WATTS, WATTS, WATTS, st.booleans()), min_size=1, max_size=6
)


def _far_w(fleet: Fleet, held_w: FloatArray, limit_w: FloatArray) -> Reach:
    """What devices may do: batteries between rest and what they hold, PV up to its limit, cars up to their rating."""
    held_w = np.clip(held_w, -fleet.p_rated_w, fleet.p_rated_w)
    low_w = np.where(fleet.is_pv, 0.0, np.where(fleet.is_battery, np.minimum(held_w, 0.0), -fleet.p_rated_w))
    high_w = np.where(fleet.is_pv, np.clip(limit_w, 0.0, fleet.p_rated_w), np.maximum(held_w, 0.0) * fleet.is_battery)
    return Reach(low_w, high_w)


@given(ROWS, st.floats(0.0, 8e4), st.floats(0.0, 8e4), st.floats(0.0, 2e4), st.floats(0.0, 2e4))
@example([(BATTERY, 4e4, -4e4, 0.0, True), (PV, 4e4, 3e4, 0.0, True)], 3e4, 0.0, 0.0, 0.0)
def test_whatever_is_wanted_and_held_the_sum_gets_within_the_limits_and_never_further_out(
    rows: list[tuple[DeviceKind, float, float, float, bool]],
    export_max_w: float,
    import_max_w: float,
    load_min_w: float,
    more_w: float,
) -> None:
    """Both quantities are told in one turn, and any of the values may be the one that does not arrive."""
    kinds, wanted, held, limit, told = zip(*rows, strict=True)
    load_w = (load_min_w, load_min_w + more_w)
    fleet = farm(*kinds, export_max_w=export_max_w, import_max_w=import_max_w, load_w=load_w)
    before = _far_w(fleet, np.array(held), np.array(limit))
    wanted_w = np.where(told, np.array(wanted), np.nan)
    set_w = guard(np.where(fleet.is_battery, wanted_w, np.nan), asked(fleet, [0.0] * len(rows), reach=before)).value_w
    between = Reach(np.fmin(before.low_w, set_w), np.fmax(before.high_w, set_w))
    given_ = asked(fleet, [0.0] * len(rows), quantity=Quantity.P_LIMIT, reach=between)
    limit_w = guard(np.where(fleet.is_pv, wanted_w, np.nan), given_).value_w
    worst = Reach(between.low_w, np.fmax(between.high_w, limit_w))
    giving_w, taking_w = fleet.giving_max_w[0], fleet.taking_max_w[0]
    assert worst.high_w.sum() <= max(giving_w, before.high_w.sum()) + SLACK_W
    assert -worst.low_w.sum() <= max(taking_w, -before.low_w.sum()) + SLACK_W
    if all(told):
        after_w = np.where(fleet.is_pv, limit_w, np.where(fleet.is_battery, np.maximum(set_w, 0.0), 0.0))
        assert after_w.sum() <= giving_w + SLACK_W
        drawn_w = np.where(fleet.is_battery, np.maximum(-set_w, 0.0), 0.0)
        others_w = -before.low_w[fleet.is_undispatched].sum()
        assert drawn_w.sum() <= max(taking_w - others_w, 0.0) + SLACK_W

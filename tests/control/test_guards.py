"""Guards: whatever is wanted and whatever is known, what is left lies in every bound, and not knowing forbids."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from derms.control.guards import GUARDS, GuardInput, guard
from derms.domain.der import Device, DeviceKind, Fleet
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from tests.control.values import device, fleet_of, snapshot_of

REVERSION_S = 1020.0
ANY = st.floats(allow_nan=True, allow_infinity=True)

Row = tuple[DeviceKind, float, float, float, float, float, Quality]
"""Kind, rated [W], energy [Wh], wanted [W], measured [W], state of charge [0..1], quality."""

ROWS: st.SearchStrategy[list[Row]] = st.lists(
    st.tuples(
        st.sampled_from(DeviceKind),
        st.floats(0.0, 1e6),
        st.floats(1.0, 4e6),
        st.one_of(st.floats(-2e6, 2e6), ANY),
        st.one_of(st.floats(-1e6, 1e6), st.just(np.nan)),
        st.one_of(st.floats(0.0, 1.0), st.floats(-1e6, 1e6), st.sampled_from([np.nan, np.inf, -np.inf])),
        st.sampled_from([Quality.GOOD] * 4 + list(Quality)),
    ),
    min_size=1,
    max_size=8,
)


def _energy_is_inside(row: Device, soc_frac: float, p_w: float) -> bool:
    """Whether a power held for the whole reversion time leaves the state of charge within its bounds."""
    hours = REVERSION_S / 3600.0
    left_wh = soc_frac * row.energy_wh - (p_w / row.efficiency_frac if p_w > 0 else p_w * row.efficiency_frac) * hours
    slack_wh = 1e-6 * max(row.energy_wh, abs(p_w), 1.0)
    low_wh, high_wh = row.soc_min_frac * row.energy_wh, row.soc_max_frac * row.energy_wh
    return p_w == 0.0 or (left_wh >= low_wh - slack_wh if p_w > 0 else left_wh <= high_wh + slack_wh)


def _fits(row: Device, value_w: float, soc_frac: float) -> bool:
    if row.kind is DeviceKind.BATTERY:
        return abs(value_w) <= row.p_rated_w and np.isfinite(soc_frac) and _energy_is_inside(row, soc_frac, value_w)
    return row.kind is DeviceKind.PV and 0.0 <= value_w <= row.p_rated_w


@given(ROWS)
@example([(DeviceKind.BATTERY, 25e3, 100e3, 25e3, 0.0, np.nan, Quality.GOOD)])
@example([(DeviceKind.BATTERY, 25e3, 100e3, 0.0, 0.0, np.nan, Quality.GOOD)])
@example([(DeviceKind.BATTERY, 25e3, 100e3, 25e3, np.nan, 0.5, Quality.GOOD)])
def test_whatever_is_wanted_lies_in_every_bound_or_is_refused_by_name(rows: list[Row]) -> None:
    devices = [device(str(n), row[0], p_rated_w=row[1], energy_wh=row[2]) for n, row in enumerate(rows)]
    _, _, _, wanted, measured, soc, quality = zip(*rows, strict=True)
    snapshot = snapshot_of(measured, soc_frac=soc, quality=quality)
    guarded = guard(np.array(wanted), GuardInput(Fleet(tuple(devices)), snapshot, REVERSION_S))
    for row, value_w, by, wanted_w, measured_w, soc_frac, good in zip(
        devices, guarded.value_w, guarded.by, wanted, measured, soc, quality, strict=True
    ):
        believed = good is Quality.GOOD and np.isfinite(measured_w)
        assert np.isnan(value_w) or (np.isfinite(wanted_w) and believed and _fits(row, value_w, soc_frac))
        assert (by == "") == (not np.isfinite(wanted_w) or value_w == wanted_w)
        assert by in {"", *(name for name, _ in GUARDS)}


@given(
    st.sampled_from([DeviceKind.BATTERY, DeviceKind.PV]),
    st.floats(1e3, 1e6),
    st.floats(0.5, 8.0),
    st.floats(0.12, 0.93),
    st.floats(-1.0, 1.0),
)
def test_a_value_inside_all_bounds_passes_unchanged_and_names_no_guard(
    kind: DeviceKind, p_rated_w: float, hours: float, soc_frac: float, share: float
) -> None:
    row = device("one", kind, p_rated_w=p_rated_w, energy_wh=p_rated_w * hours)
    stored_h, room_h = (soc_frac - 0.11) * hours * 0.95, (0.94 - soc_frac) * hours / 0.95
    most = min(1.0, (stored_h if share > 0.0 else room_h) / (REVERSION_S / 3600.0))
    wanted_w = p_rated_w * (share * most if kind is DeviceKind.BATTERY else abs(share))
    guarded = guard(
        np.array([wanted_w]), GuardInput(Fleet((row,)), snapshot_of([0.0], soc_frac=[soc_frac]), REVERSION_S)
    )
    assert (guarded.value_w[0], guarded.by) == (wanted_w, ("",))


@pytest.mark.parametrize("wanted_w", [-25e3, 0.0, 25e3])
def test_a_battery_of_unknown_charge_is_told_nothing_not_even_zero(wanted_w: float) -> None:
    given_ = GuardInput(fleet_of(1), snapshot_of([0.0], soc_frac=[np.nan]), REVERSION_S)
    guarded = guard(np.array([wanted_w]), given_)
    assert np.isnan(guarded.value_w[0])
    assert guarded.by == ("state of charge",)


def test_a_refusal_bears_the_name_of_the_guard_that_left_nothing() -> None:
    """Clamped to nameplate first, then refused for its unknown charge: the refusal is what people must see."""
    given_ = GuardInput(fleet_of(1), snapshot_of([0.0], soc_frac=[np.nan]), REVERSION_S)
    assert guard(np.array([40e3]), given_).by == ("state of charge",)


@pytest.mark.parametrize("quality", [quality for quality in Quality if quality is not Quality.GOOD])
def test_a_device_whose_values_are_not_good_is_told_nothing(quality: Quality) -> None:
    snapshot = snapshot_of([0.0, 0.0], soc_frac=[0.5, 0.5], quality=[quality, Quality.GOOD])
    guarded = guard(np.array([5e3, 5e3]), GuardInput(fleet_of(2), snapshot, REVERSION_S))
    np.testing.assert_array_equal(guarded.value_w, [np.nan, 5e3])
    assert guarded.by == ("quality", "")


def test_a_meter_takes_nothing() -> None:
    given_ = GuardInput(fleet_of(0, meters=1), snapshot_of([1e6]), REVERSION_S)
    guarded = guard(np.array([0.0]), given_)
    assert np.isnan(guarded.value_w[0])
    assert guarded.by == ("nameplate",)


def test_values_beyond_nameplate_are_cut_to_it_both_ways() -> None:
    given_ = GuardInput(fleet_of(2, inverters=2), snapshot_of([0.0] * 4, soc_frac=[0.5, 0.5, 0, 0]), REVERSION_S)
    guarded = guard(np.array([40e3, -40e3, 40e3, -1.0]), given_)
    np.testing.assert_array_equal(guarded.value_w, [25e3, -25e3, 30e3, 0.0])
    assert set(guarded.by) == {"nameplate"}


def test_a_limit_lies_between_zero_and_the_rating_whatever_the_kind() -> None:
    snapshot = snapshot_of([0.0] * 4, soc_frac=[0.5, 0.5, 0, 0])
    given_ = GuardInput(fleet_of(2, inverters=2), snapshot, REVERSION_S, quantity=Quantity.P_LIMIT)
    guarded = guard(np.array([40e3, -10e3, 40e3, -1.0]), given_)
    np.testing.assert_array_equal(guarded.value_w, [25e3, 0.0, 30e3, 0.0])
    assert set(guarded.by) == {"nameplate"}


def test_a_device_that_says_it_is_smaller_than_the_fleet_file_is_believed() -> None:
    snapshot = snapshot_of([0.0, 0.0], soc_frac=[0.5, 0.5], p_rated_w=[10e3, 99e3])
    guarded = guard(np.array([25e3, 99e3]), GuardInput(fleet_of(2), snapshot, REVERSION_S))
    np.testing.assert_array_equal(guarded.value_w, [10e3, 25e3])
    assert guarded.by == ("device maximum", "nameplate")


@pytest.mark.parametrize(("soc_frac", "wanted_w"), [(0.1, 10e3), (0.09, 10e3), (0.95, -10e3), (0.97, -10e3)])
def test_a_battery_at_its_bound_is_held_at_rest(soc_frac: float, wanted_w: float) -> None:
    given_ = GuardInput(fleet_of(1), snapshot_of([0.0], soc_frac=[soc_frac]), REVERSION_S)
    guarded = guard(np.array([wanted_w]), given_)
    assert (guarded.value_w[0], guarded.by) == (0.0, ("state of charge",))
    away = guard(np.array([-wanted_w]), given_)
    assert (away.value_w[0], away.by) == (-wanted_w, ("",))


def test_power_tapers_towards_the_reserve_so_that_a_forgotten_setpoint_ends_above_it() -> None:
    """2 % above the reserve less half a percent of margin is 1.5 kWh: 1.425 kWh at the terminals, over the reversion
    time."""
    given_ = GuardInput(fleet_of(1), snapshot_of([0.0], soc_frac=[0.12]), REVERSION_S)
    guarded = guard(np.array([25e3]), given_)
    assert guarded.value_w[0] == pytest.approx(1425.0 * 3600.0 / REVERSION_S)
    assert guarded.by == ("state of charge",)
    longer = guard(np.array([25e3]), GuardInput(given_.fleet, given_.snapshot, 2 * REVERSION_S))
    assert longer.value_w[0] == pytest.approx(guarded.value_w[0] / 2)


def test_what_is_not_commanded_stays_so_and_blames_nobody() -> None:
    given_ = GuardInput(fleet_of(1), snapshot_of([np.nan], quality=[Quality.MISSING]), REVERSION_S)
    guarded = guard(np.array([np.nan]), given_)
    assert np.isnan(guarded.value_w[0])
    assert guarded.by == ("",)


def test_a_device_under_local_control_is_told_nothing_and_one_that_does_not_say_is_free() -> None:
    told = {"local": np.array([1.0, 0.0, np.nan])}
    snapshot = replace(snapshot_of([0.0] * 3, soc_frac=[0.5] * 3), columns=told)
    guarded = guard(np.full(3, 5e3), GuardInput(fleet_of(3), snapshot, REVERSION_S))
    np.testing.assert_array_equal(guarded.value_w, [np.nan, 5e3, 5e3])
    assert guarded.by == ("local control", "", "")

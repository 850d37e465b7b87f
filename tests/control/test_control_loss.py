"""What the fleet would do if control died now."""

import numpy as np
import pytest

from derms.control.control_loss import Hold, control_loss, default_w
from tests.control.values import fleet_of

FLEET = fleet_of(2, inverters=2, meters=1)
P_W = np.array([20e3, -10e3, 5e3, 15e3, 1e6])
HELD = np.array([True, True, True, False, False])
REVERTS_S = np.array([150.0, 400.0, 130.0, np.inf, np.inf])
PROVEN = np.array([True, False, True, True, False])
NOW_S = 100.0


def test_each_device_goes_when_its_timer_ends_and_what_is_free_stays() -> None:
    """PV beside it gives 15 of 30 kW: so would the one that is held at 5."""
    loss = control_loss(FLEET, Hold(P_W, HELD, REVERTS_S, PROVEN), NOW_S)
    assert loss.now_w == pytest.approx(30e3)
    assert loss.soon_w == pytest.approx(30e3 + 10e3 - 20e3)
    assert loss.end_w == pytest.approx(30e3 + 10e3 - 20e3 + 10e3)
    assert loss.end_s == pytest.approx(300.0)
    assert loss.largest_w == pytest.approx(10e3)
    assert loss.unproven.tolist() == [False, True, False, False, False]
    assert not loss.for_ever.any()


def test_what_no_timer_ends_stays_and_is_listed() -> None:
    loss = control_loss(FLEET, Hold(P_W, HELD, np.full(5, np.inf), PROVEN), NOW_S)
    assert (loss.now_w, loss.soon_w, loss.end_w, loss.end_s) == (30e3, 30e3, 30e3, 0.0)
    assert loss.for_ever.tolist() == [True, True, True, False, False]


def test_without_a_free_neighbour_pv_is_taken_to_give_its_rating() -> None:
    held = np.array([False, False, True, True, False])
    np.testing.assert_array_equal(default_w(FLEET, P_W, held), [20e3, -10e3, 30e3, 30e3, 1e6])


def test_a_device_of_which_nobody_knows_what_it_does_is_left_out() -> None:
    unknown_w = np.array([np.nan, -10e3, 5e3, 15e3, 1e6])
    loss = control_loss(FLEET, Hold(unknown_w, HELD, REVERTS_S, PROVEN), NOW_S)
    assert loss.now_w == pytest.approx(10e3)
    assert np.isfinite(loss.end_w)

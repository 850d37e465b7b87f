"""Sign changes: rest is no sign, and the figure is of what was together with what is planned."""

import numpy as np
import pytest

from derms.control.signs import restlessness, sign_changes


@pytest.mark.parametrize(
    ("power_w", "changes"),
    [
        ([5.0, 5.0, 5.0], 0),
        ([5.0, -5.0, 5.0], 2),
        ([5.0, 0.5, -5.0], 1),
        ([5.0, 0.5, 5.0, -0.5, 5.0], 0),
        ([0.0, 0.9, -0.9], 0),
        ([0.0, 0.0, -5.0, 0.0], 0),
        ([0.0, -5.0, 0.0, 5.0], 1),
        ([np.nan, 5.0, np.nan, -5.0], 1),
        ([5.0], 0),
    ],
)
def test_rest_is_no_sign_and_ends_none(power_w: list[float], changes: int) -> None:
    assert sign_changes(np.array(power_w), 1.0) == changes


def test_every_device_is_counted_with_its_own_rest() -> None:
    power_w = np.array([[3.0, -3.0, 3.0], [3.0, -3.0, 3.0], [np.nan] * 3])
    np.testing.assert_array_equal(sign_changes(power_w, np.array([1.0, 5.0, 1.0])), [2.0, 0.0, 0.0])


def test_the_figure_is_per_hour_of_the_fleet_and_of_its_most_restless_device() -> None:
    """Two batteries that work against each other: the fleet rests while both turn."""
    fleet_w = np.zeros(13)
    devices_w = np.array([[10e3, -10e3, 10e3, -10e3], [-10e3, 10e3, -10e3, -10e3]])
    found = restlessness(fleet_w, 3.0, devices_w, 0.5, most_w=np.array([25e3, 25e3]))
    assert (found.fleet_per_h, found.device_per_h) == (0.0, 6.0)
    found = restlessness(np.array([4e3, -4e3, 4e3]), 0.5, np.full((2, 4), np.nan), 0.5, most_w=np.array([25e3, 25e3]))
    assert (found.fleet_per_h, found.device_per_h) == (4.0, 0.0)

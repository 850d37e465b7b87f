"""Names into positions, without an engine."""

import numpy as np
import pytest

from derms.domain.grid import Between, VoltageLimits
from derms.errors import GridError, ModelError
from derms.grid.layout import column, points_of, voltage_class

SERVICE = VoltageLimits(600.0, 0.95, 1.05)
PRIMARY = VoltageLimits(35e3, 0.975, 1.05, Between.PHASES)


def test_four_wire_bus_is_measured_on_every_phase_and_never_on_its_neutral() -> None:
    assert points_of("a", [3, 1, 4], Between.NEUTRAL) == [("a.1", 1, 0), ("a.3", 3, 0)]


@pytest.mark.parametrize(
    ("phases", "points"),
    [
        ([1, 2, 3], ["701.1-2", "701.2-3", "701.3-1"]),
        ([1, 2], ["701.1-2"]),
        ([1, 3], ["701.3-1"]),
        ([2], []),
    ],
)
def test_three_wire_bus_is_measured_between_its_phases(phases: list[int], points: list[str]) -> None:
    assert [name for name, _, _ in points_of("701", phases, Between.PHASES)] == points


def test_class_follows_the_base_voltage_whatever_the_order() -> None:
    for limits in ([PRIMARY, SERVICE], [SERVICE, PRIMARY]):
        assert voltage_class(limits, 4160.0) is PRIMARY
        assert voltage_class(limits, 600.0) is voltage_class(limits, 416.0) is SERVICE


@pytest.mark.parametrize("base_v", [0.0, float("nan"), 69e3])
def test_base_voltage_without_a_class_is_a_model_error(base_v: float) -> None:
    with pytest.raises(ModelError, match="no voltage class"):
        voltage_class([SERVICE, PRIMARY], base_v)


def test_column_is_copied_and_a_bad_one_refused() -> None:
    given = np.array([1.0, 2.0])
    copied = column("load power", given, 2)
    given[0] = 9.0
    assert copied.tolist() == [1.0, 2.0]
    with pytest.raises(GridError, match="3 values expected"):
        column("load power", given, 3)
    with pytest.raises(GridError, match="1 values are not finite"):
        column("load power", np.array([np.nan, 1.0]), 2)

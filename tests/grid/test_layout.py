"""Names into positions, without an engine."""

import numpy as np
import pytest

from derms.domain.grid import VoltageLimits
from derms.errors import ModelError
from derms.grid.layout import first_phase, node_limits, nodes_of_buses

SERVICE = VoltageLimits(600.0, 0.95, 1.05)
PRIMARY = VoltageLimits(35e3, 0.975, 1.05)


def test_phases_of_a_bus_are_found_in_any_order_and_neutrals_left_out() -> None:
    buses = nodes_of_buses(["a.3", "b.1", "a.1", "b.4"])
    assert buses["a"].tolist() == [2, -1, 0]
    assert buses["b"].tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("terminal", "place"), [("47", ("47", 0)), ("65.2.3", ("65", 1)), ("Site_PV01.3", ("site_pv01", 2))]
)
def test_terminal_without_phases_starts_at_a(terminal: str, place: tuple[str, int]) -> None:
    assert first_phase(terminal) == place


def test_limits_follow_the_base_voltage_whatever_their_order() -> None:
    low, high = node_limits([PRIMARY, SERVICE], np.array([4160.0, 600.0, 416.0]))
    assert low.tolist() == [0.975, 0.95, 0.95]
    assert high.tolist() == [1.05, 1.05, 1.05]


@pytest.mark.parametrize("base_v", [0.0, 69e3])
def test_base_voltage_without_limits_is_a_model_error(base_v: float) -> None:
    with pytest.raises(ModelError, match="base voltage"):
        node_limits([SERVICE, PRIMARY], np.array([416.0, base_v]))

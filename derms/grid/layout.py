"""Names of a circuit turned into positions: which node is which phase of which bus, and what limits hold there."""

from collections.abc import Iterable, Sequence

import numpy as np

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import VoltageLimits
from derms.errors import ModelError


def nodes_of_buses(nodes: Iterable[str]) -> dict[str, IntArray]:
    """Positions of phases a, b, c of every bus among `bus.phase` names, each of shape (3,); -1 where it lacks one."""
    buses: dict[str, IntArray] = {}
    for index, node in enumerate(nodes):
        bus, _, phase = node.partition(".")
        positions = buses.setdefault(bus, np.full(3, -1, dtype=np.intp))
        if phase in ("1", "2", "3"):
            positions[int(phase) - 1] = index
    return buses


def first_phase(terminal: str) -> tuple[str, int]:
    """Bus and first phase 0..2 of a terminal as OpenDSS writes it: `65.2.3` is ("65", 1), `47` is ("47", 0)."""
    bus, *phases = terminal.lower().split(".")
    return bus, int(phases[0]) - 1 if phases else 0


def node_limits(limits: Sequence[VoltageLimits], v_base_v: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest voltage allowed [pu] for base voltages [V line to line], each of the shape of `v_base_v`.

    The class with the lowest ceiling that a base fits under holds. Raises ModelError for a base that is missing (0) or
    above all classes.
    """
    classes = sorted(limits, key=lambda limit: limit.v_base_max_v)
    row = np.searchsorted([limit.v_base_max_v for limit in classes], v_base_v)
    if (v_base_v <= 0.0).any() or (row == len(classes)).any():
        raise ModelError("a bus without a base voltage, or a base voltage without limits")
    v_min_pu = np.array([limit.v_min_pu for limit in classes])
    v_max_pu = np.array([limit.v_max_pu for limit in classes])
    return v_min_pu[row], v_max_pu[row]

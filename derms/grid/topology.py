"""The feeder as it is operated: what the utility tells of switches and taps put into the engine, and what is dark then.

What is not known stays as it stands in the engine; that it is not known is a quality of the feeder (`Topology.doubt`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from derms.domain.grid import SwitchState, Topology
from derms.domain.membership import NOWHERE
from derms.grid.engine import Engine


@dataclass(frozen=True)
class AsOperated:
    """What the feeder's switches make of it."""

    islands: tuple[tuple[str, ...], ...]
    """Buses of each part that no source reaches, largest first."""
    dark_ders: tuple[str, ...]
    """DER in these parts."""
    unbound: tuple[str, ...]
    """Switches and regulators that are told and that the feeder's package does not know."""
    told_regulators: tuple[str, ...] = ()
    """Regulators whose position is known."""

    def feeder_of(self, feeder: str, ders: tuple[str, ...]) -> dict[str, str]:
        """Where each of the feeder's DER is: on it, or nowhere."""
        return {der: NOWHERE if der in self.dark_ders else feeder for der in ders}


def follow(engine: Engine, topology: Topology) -> AsOperated:
    """Put the switches and taps that are known into the engine, and see what that leaves without a source."""
    layout = engine.layout
    regulators = [f"regcontrol.{name}" for name in layout.regulators]
    closed = {
        name: state is SwitchState.CLOSED
        for name, state in topology.switches.items()
        if state in (SwitchState.OPEN, SwitchState.CLOSED)
    }
    engine.set_switches({name: state for name, state in closed.items() if name in layout.switches})
    taps, strange = {}, []
    for element, tap in topology.taps.items():
        rows = [row for row, names in enumerate(zip(regulators, layout.regulated, strict=True)) if element in names]
        if not rows:
            strange.append(element)
        elif np.isfinite(tap):
            taps[layout.regulators[rows[0]]] = round(tap)
    engine.set_taps(taps)
    unbound = (*(name for name in topology.switches if name not in layout.switches), *strange)
    return AsOperated(islands(engine), _dark(engine), unbound, tuple(taps))


def islands(engine: Engine) -> tuple[tuple[str, ...], ...]:
    """Parts that no source reaches, each as its buses, largest first."""
    dead = ~engine.energised()
    if not dead.any():
        return ()
    _, part = connected_components(abs(engine.network().y), directed=False)
    nodes = engine.layout.nodes
    found = []
    for label in np.unique(part[dead]):
        buses = dict.fromkeys(nodes[row].rpartition(".")[0] for row in np.flatnonzero(dead & (part == label)))
        found.append(tuple(buses))
    merged = _by_bus(found)
    return tuple(sorted(merged, key=len, reverse=True))


def _by_bus(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Join parts that share a bus: phases of one line are not coupled where their charging is nothing."""
    merged: list[set[str]] = []
    for part in parts:
        touching = [other for other in merged if other & set(part)]
        merged = [other for other in merged if other not in touching]
        merged.append(set(part).union(*touching))
    return [tuple(sorted(part)) for part in merged]


def _dark(engine: Engine) -> tuple[str, ...]:
    layout, alive = engine.layout, engine.energised()
    at = layout.point_node[layout.der_point, 0]
    return tuple(der for der, node in zip(layout.ders, at, strict=True) if not alive[node])

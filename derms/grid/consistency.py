"""Whether loads and DER take from the solved circuit what was set: Kirchhoff's law at every node.

OpenDSS reads some properties in their order (`kv=` before `phases=1` keeps another base) and turns loads into
impedances outside a voltage range; such a circuit solves, and carries other powers than it was given.
"""

import numpy as np

from derms.domain.arrays import ComplexArray, FloatArray
from derms.grid.engine import PowerFlow
from derms.grid.layout import V_DEAD_PU, FeederLayout
from derms.grid.network import Network

APART_MAX_FRAC = 0.01
"""Of the current at a node: load models with several terms are followed by one exponent."""
APART_MIN_A = 0.02
PROBE_FRAC = 0.1
"""Share of its rating that each DER injects while it is looked at."""


def astray(
    layout: FeederLayout,
    network: Network,
    flow: PowerFlow,
    powers: tuple[FloatArray, FloatArray],
    *,
    source_bus: str,
) -> list[str]:
    """Names of loads and DER at nodes whose currents do not add up.

    Parameters
    ----------
    powers
        Active and reactive power as set [W, var], loads (+ = consumption) then DER (+ = injection).
    source_bus
        Where the source feeds in: its current is not part of the network.
    """
    draws = _draws(layout, flow.v_v, *powers)
    nodes = len(layout.nodes)
    drawn, meant = np.zeros(nodes, dtype=np.complex128), np.zeros(nodes)
    for end, sign in ((0, 1.0), (1, -1.0)):
        at = layout.branch_node[:, end]
        there = at >= 0
        np.add.at(drawn, at[there], sign * draws[there])
        np.add.at(meant, at[there], np.abs(draws[there]))
    apart_a = np.abs(network.y @ flow.v_v + drawn)
    fed = np.array([node.rpartition(".")[0] == source_bus for node in layout.nodes])
    wrong = (meant > 0.0) & ~fed & (apart_a > APART_MAX_FRAC * meant + APART_MIN_A)
    touching = (wrong[layout.branch_node] & (layout.branch_node >= 0)).any(axis=1)
    names = [*(f"load.{name}" for name in layout.loads), *layout.ders]
    return [names[element] for element in np.unique(layout.branch_element[touching])]


def _draws(layout: FeederLayout, v_v: ComplexArray, p_w: FloatArray, q_var: FloatArray) -> ComplexArray:
    """Current that each branch draws [A], shape (branches,); 0 on dead ones."""
    first, second = layout.branch_node.T
    u_v = v_v[first] - np.where(second >= 0, v_v[second], 0.0)
    ratio = np.abs(u_v) / layout.branch_nominal_v
    alive = ratio > V_DEAD_PU
    loads = len(layout.loads)
    exponent = np.zeros((2, loads + len(layout.ders)))
    exponent[:, :loads] = layout.load_exponent
    sign = np.where(np.arange(exponent.shape[1]) < loads, 1.0, -1.0)
    element = layout.branch_element
    p_exponent, q_exponent = exponent[:, element]
    share = sign[element] * layout.branch_share
    ratio = np.where(alive, ratio, 1.0)
    s_va = share * (p_w[element] * ratio**p_exponent + 1j * q_var[element] * ratio**q_exponent)
    draws: ComplexArray = np.where(alive, np.conj(s_va / np.where(alive, u_v, 1.0)), 0.0)
    return draws

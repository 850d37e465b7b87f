"""What is not known of a feeder's state, and how its voltages and head power change with each of it.

One column per unknown: the size of every load, its reactive power beside that, hidden PV, P and Q of every DER, the
position of every regulator that nobody tells, the impedance of every line. Sources: IEEE 1547-2018, table 3 (accuracy
of what DER report); the rest are what feeders are: see the constants.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, hstack

from derms.domain.arrays import BoolArray, FloatArray
from derms.grid.engine import Engine, PowerFlow
from derms.grid.linearise import Tangent

LOAD_SIGMA_FRAC = 0.4
"""Of a load's size, around its share of the head."""
REACTIVE_SIGMA_FRAC = 0.1
"""Of a load's apparent power: its power factor is known better than its size."""
HIDDEN_SIGMA_FRAC = 0.3
"""Of the power of PV that nobody polls: its nameplate, its tilt and the clouds over it."""
DER_SIGMA_FRAC = 0.05
"""Of a DER's apparent rating: IEEE 1547-2018, table 3."""
UNSEEN_SIGMA_FRAC = 0.5
"""Of the rating of a DER that does not answer."""
TAP_SIGMA = 0.5
"""Steps of a regulator whose position nobody tells: one in eight is a step above, one in eight a step below."""
LINE_SIGMA_FRAC = 0.1
"""Of a line's impedance: lengths and conductors of maps."""


@dataclass(frozen=True, eq=False)
class Unknowns:
    """States with their sigma, and what they move."""

    sigma: FloatArray
    """Prior standard deviation in each state's own unit, shape (states,)."""
    by_points: FloatArray
    """Change of the points' voltages [pu], shape (points, states)."""
    by_head: FloatArray
    """Change of head power, P a, b, c and Q a, b, c [W, var], shape (6, states)."""
    powers: int
    """States from here on are positions and impedances, which the engine keeps as it believes them."""
    regulators: tuple[str, ...]
    """Whose positions are the first of these."""


@dataclass(frozen=True, eq=False)
class Operating:
    """Powers that a feeder was solved with."""

    gross: FloatArray
    """Gross loads [W, var], shape (2, loads)."""
    hidden_w: FloatArray
    net: FloatArray
    der: FloatArray
    """DER [W, var], shape (2, ders)."""
    der_sigma: FloatArray
    """Shape (2, ders)."""


def unknowns(engine: Engine, flow: PowerFlow, at: Operating, told: Collection[str]) -> Unknowns:
    """All unknowns of a feeder at a solution; `told` are the regulators whose position is known."""
    layout, network = engine.layout, engine.network()
    tangent = Tangent(layout, network, flow.v_v, *at.net, *at.der)
    loads, ders = len(layout.loads), len(layout.ders)
    draws = tangent.draws
    count = loads + ders
    active, reactive = draws[:, :count], draws[:, count:]
    size = active[:, :loads].multiply(at.gross[0]) + reactive[:, :loads].multiply(at.gross[1])
    parts = (
        (size, np.full(loads, LOAD_SIGMA_FRAC)),
        (reactive[:, :loads], REACTIVE_SIGMA_FRAC * np.hypot(*at.gross)),
        (-active[:, :loads], HIDDEN_SIGMA_FRAC * np.abs(at.hidden_w)),
        (active[:, loads:], at.der_sigma[0]),
        (reactive[:, loads:], at.der_sigma[1]),
        (-network.line_draw(flow.v_v), np.full(network.lines, LINE_SIGMA_FRAC)),
    )
    change_v = tangent.by_current(csc_array(hstack([part for part, _ in parts])))
    by_head = (tangent.head_gradient() @ change_v).real
    untold = tuple(name for name in layout.regulators if name not in told)
    taps = _steps(engine, flow, untold)
    powers = 3 * loads + 2 * ders
    return Unknowns(
        sigma=np.insert(np.concatenate([part for _, part in parts]), [powers] * len(untold), TAP_SIGMA),
        by_points=np.insert(tangent.at_points(change_v), [powers] * len(untold), taps[: len(layout.points)], axis=1),
        by_head=np.insert(by_head, [powers] * len(untold), taps[len(layout.points) :], axis=1),
        powers=powers,
        regulators=untold,
    )


def _steps(engine: Engine, flow: PowerFlow, regulators: tuple[str, ...]) -> FloatArray:
    """What a step up of each regulator does to voltages and head power, solved, shape (points + 6, regulators).

    Solved, not linear: regulators of test feeders have next to no impedance, and their currents next to no meaning.
    """
    taps = engine.taps()
    before = np.concatenate([flow.v_pu, flow.head_w, flow.head_var])
    changes = np.zeros((len(before), len(regulators)))
    for column, name in enumerate(regulators):
        engine.set_taps(taps | {name: taps[name] + 1})
        step = engine.taps()[name] - taps[name]
        if not step:  # it stands at its upper end
            step = -1
            engine.set_taps(taps | {name: taps[name] + step})
        after = engine.solve()
        changes[:, column] = (np.concatenate([after.v_pu, after.head_w, after.head_var]) - before) / step
    engine.set_taps(taps)
    return changes


def der_sigmas(rated_va: FloatArray, known: BoolArray) -> FloatArray:
    """Standard deviation of each DER's power [W or var], shape (ders,)."""
    return np.where(known, DER_SIGMA_FRAC, UNSEEN_SIGMA_FRAC) * rated_va

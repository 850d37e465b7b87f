"""What is not known of a feeder's state, and how its voltages and head power change with each of it.

One column per unknown: the size of every load, its reactive power beside that, hidden PV, P and Q of every DER, the
level of all loads that no head measures, the position of every regulator that nobody tells, the impedance of every
line. Sources: IEEE 1547-2018, table 3 (accuracy
of what DER report); the rest are what feeders are: see the constants.
"""

from collections.abc import Collection, Mapping
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
LEVEL_SIGMA_FRAC = 0.3
"""Of the level of all loads together where no head tells it: single loads even each other out, this does not."""
LEVEL_LOWER_FRAC = 2.0 * LEVEL_SIGMA_FRAC
"""How much lower a level shows how regulators go with it: well beyond the band in which they stand still."""
REACTIVE_LEVEL_SIGMA_FRAC = 0.1
"""Of their apparent power: what their power factor may be off together."""
LEVELS = 2
"""Unknowns that are the common level: its size and its reactive part."""
TAP_SIGMA = 0.5
"""Steps of a regulator whose position nobody tells: one in eight is a step above, one in eight a step below."""
TAP_ACTING_SIGMA = 1.0
"""The same where it follows the model's loads: it stands still within a band of two to three steps (0.8 as one standard
deviation), and its line-drop compensation sees currents that the model does not quite have."""
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
    tap_slopes: FloatArray
    """Steps that each of them goes by itself per unit of the loads' level, shape (regulators,)."""

    def beside(self, deviation: FloatArray) -> FloatArray:
        """What of a deviation the engine does not have: steps of regulators, then impedances, shape (k,)."""
        found = deviation[self.powers :].copy()
        found[: len(self.regulators)] += self.tap_slopes * deviation[self.powers - LEVELS]
        return found


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
    unmeasured: FloatArray
    """Share of each load's active and reactive power that no head tells, shape (2, loads)."""


def unknowns(
    engine: Engine,
    flow: PowerFlow,
    at: Operating,
    told: Collection[str],
    *,
    tap_sigma: float = TAP_SIGMA,
    slopes: Mapping[str, float] | None = None,
) -> Unknowns:
    """All unknowns of a feeder at a solution.

    Parameters
    ----------
    told
        Regulators whose position is known.
    tap_sigma
        Of the positions of the others [steps].
    slopes
        Steps that they go per unit of the loads' level; None: they stand still.
    """
    layout, network = engine.layout, engine.network()
    tangent = Tangent(layout, network, flow.v_v, *at.net, *at.der)
    loads, ders = len(layout.loads), len(layout.ders)
    draws = tangent.draws
    count = loads + ders
    active, reactive = draws[:, :count], draws[:, count:]
    size = active[:, :loads].multiply(at.gross[0]) + reactive[:, :loads].multiply(at.gross[1])
    level = (size @ at.unmeasured[0], reactive[:, :loads] @ (np.hypot(*at.gross) * at.unmeasured[1]))
    parts = (
        (size, np.full(loads, LOAD_SIGMA_FRAC)),
        (reactive[:, :loads], REACTIVE_SIGMA_FRAC * np.hypot(*at.gross)),
        (-active[:, :loads], HIDDEN_SIGMA_FRAC * np.abs(at.hidden_w)),
        (active[:, loads:], at.der_sigma[0]),
        (reactive[:, loads:], at.der_sigma[1]),
        (csc_array(np.column_stack(level)), np.array([LEVEL_SIGMA_FRAC, REACTIVE_LEVEL_SIGMA_FRAC])),
        (-network.line_draw(flow.v_v), np.full(network.lines, LINE_SIGMA_FRAC)),
    )
    change_v = tangent.by_current(csc_array(hstack([part for part, _ in parts])))
    by_head = (tangent.head_gradient() @ change_v).real
    untold = tuple(name for name in layout.regulators if name not in told)
    taps = _steps(engine, flow, untold)
    tap_slopes = np.array([(slopes or {}).get(name, 0.0) for name in untold])
    powers = 3 * loads + 2 * ders + LEVELS
    changes = np.concatenate([tangent.at_points(change_v), by_head])
    changes[:, powers - LEVELS] += taps @ tap_slopes
    changes = np.insert(changes, [powers] * len(untold), taps, axis=1)
    return Unknowns(
        sigma=np.insert(np.concatenate([part for _, part in parts]), [powers] * len(untold), tap_sigma),
        by_points=changes[: len(layout.points)],
        by_head=changes[len(layout.points) :],
        powers=powers,
        regulators=untold,
        tap_slopes=tap_slopes,
    )


def level_slopes(engine: Engine, at: Operating) -> dict[str, float]:
    """Steps that regulators go by themselves per unit of the level that no head tells, of those that go any.

    Solved with that level lower, which has a solution where the present one has; they act. Everything is put back.
    """
    taps, steps = engine.taps(), engine.capacitors()
    try:
        engine.set_loads(*(at.net - LEVEL_LOWER_FRAC * at.unmeasured[0] * at.gross))
        engine.solve()
        lower = engine.taps()
    finally:
        engine.set_taps(taps)
        engine.set_capacitors(steps)
        engine.set_loads(*at.net)
    return {name: (tap - lower[name]) / LEVEL_LOWER_FRAC for name, tap in taps.items() if tap != lower[name]}


def _steps(engine: Engine, flow: PowerFlow, regulators: tuple[str, ...]) -> FloatArray:
    """What a step up of each regulator does to voltages and head power, solved, shape (points + 6, regulators).

    Solved, not linear: regulators of test feeders have next to no impedance, and their currents next to no meaning.
    The taps stand as before afterwards, whatever happens. Raises NotConverged.
    """
    taps = engine.taps()
    before = np.concatenate([flow.v_pu, flow.head_w, flow.head_var])
    changes = np.zeros((len(before), len(regulators)))
    try:
        for column, name in enumerate(regulators):
            engine.set_taps(taps | {name: taps[name] + 1})
            step = engine.taps()[name] - taps[name]
            if not step:  # it stands at its upper end
                step = -1
                engine.set_taps(taps | {name: taps[name] + step})
            after = engine.solve()
            changes[:, column] = (np.concatenate([after.v_pu, after.head_w, after.head_var]) - before) / step
    finally:
        engine.set_taps(taps)
    return changes


def der_sigmas(rated_va: FloatArray, known: BoolArray) -> FloatArray:
    """Standard deviation of each DER's power [W or var], shape (ders,)."""
    return np.where(known, DER_SIGMA_FRAC, UNSEEN_SIGMA_FRAC) * rated_va

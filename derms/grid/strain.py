"""How far a moment of a plan strains a feeder, and by which DER: one solution, and one tangent where it is strained.

Voltages are the model's, moved by what the estimate found beside it, and known as well as the estimate knows them: a
voltage v with standard deviation s is above its limit m by s (phi(u) + u Phi(u)) in the mean, u = (v - m) / s. So a
voltage near its limit counts before the model says that it is over. Regulators hold still, so that two plans can be
compared. W; DER power + = injection.
"""

import numpy as np
from scipy.sparse import csr_array, vstack
from scipy.special import ndtr

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import GridState
from derms.domain.strain import Strain
from derms.grid.engine import Engine, PowerFlow
from derms.grid.layout import V_DEAD_PU
from derms.grid.linearise import Tangent
from derms.grid.look_ahead import look_ahead

SIGMA_SHARE = 0.5
"""Of what the estimate says of itself. On the simulated feeder its errors are half of what it claims, since regulators
that nobody tells stay nearer to where the model has them; with all of it batteries near a limit hardly move."""
SIGMA_MIN_PU = 1e-6
"""Of a voltage that is known exactly: keeps the formula finite."""
EXCESS_MIN_PU = 1e-6
"""Below this sum a feeder is not strained, and nobody needs to know by whom."""


def strain(engine: Engine, state: GridState, der_w: FloatArray, load_factor: float) -> Strain:
    """Solve DER powers [W], shape (ders,), without reactive power, with the state's loads times a factor.

    Raises GridError for powers that are not finite, NotConverged without a solution.
    """
    flow = look_ahead(engine, state, der_w, np.zeros_like(der_w), load_factor, regulators_act=False)
    layout = engine.layout
    v_pu = flow.v_pu + state.v_bias_pu
    alive = v_pu > V_DEAD_PU
    sigma_pu = SIGMA_SHARE * state.v_sigma_pu
    above_pu, high = _expected(v_pu - layout.v_max_pu, sigma_pu)
    below_pu, low = _expected(layout.v_min_pu - v_pu, sigma_pu)
    side = np.where(alive, high - low, 0.0)
    loading = np.nan_to_num(engine.network().loading(flow.v_v))
    beyond = np.flatnonzero(loading > 1.0)
    per_w = np.zeros((2, len(der_w)))
    excess_pu = float((above_pu + below_pu)[alive].sum())
    if excess_pu > EXCESS_MIN_PU or len(beyond):
        per_w = _per_w(engine, state, flow, der_w, load_factor, side, beyond)
    return Strain(
        violations=int(np.count_nonzero(layout.violating(v_pu))),
        excess_pu=excess_pu,
        excess_per_w=per_w[0],
        overload=float((loading[beyond] - 1.0).sum()),
        overload_per_w=per_w[1],
    )


def _expected(beyond_pu: FloatArray, sigma_pu: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Mean of how far a voltage is beyond a limit [pu], and the chance that it is, both of shape (points,).

    From the distance of its own mean beyond the limit, and its standard deviation [pu].
    """
    sigma_pu = np.maximum(sigma_pu, SIGMA_MIN_PU)
    u = beyond_pu / sigma_pu
    chance: FloatArray = ndtr(u)
    density = np.exp(-0.5 * u**2) / np.sqrt(2.0 * np.pi)
    return np.maximum(sigma_pu * (density + u * chance), 0.0), chance


def _per_w(
    engine: Engine,
    state: GridState,
    flow: PowerFlow,
    der_w: FloatArray,
    load_factor: float,
    side: FloatArray,
    beyond: IntArray,
) -> FloatArray:
    """Slopes of excess and overload by every DER [1/W], shape (2, ders), from two adjoint rows."""
    load_w, load_var = load_factor * state.load_w, load_factor * state.load_var
    tangent = Tangent(engine.layout, engine.network(), flow.v_v, load_w, load_var, der_w, np.zeros_like(der_w))
    excess = csr_array(side[None, :]) @ tangent.voltage_gradient()
    share = csr_array(1.0 / engine.network().rating_a[beyond][None, :])
    overload = share @ tangent.current_gradient(beyond)
    rows = tangent.rows(csr_array(vstack([excess, overload])))
    loads = len(state.load_w)
    return rows[:, loads : loads + len(der_w)]

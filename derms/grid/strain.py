"""How far a moment of a plan strains a feeder, and by which DER: one solution, and one tangent where it is strained.

Voltages are the model's, moved by what the estimate found beside it; regulators hold still, so that two plans can be
compared. W; DER power + = injection.
"""

import numpy as np
from scipy.sparse import csr_array, vstack

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.grid import GridState
from derms.domain.strain import Strain
from derms.grid.engine import Engine, PowerFlow
from derms.grid.linearise import Tangent
from derms.grid.look_ahead import look_ahead


def strain(engine: Engine, state: GridState, der_w: FloatArray, load_factor: float) -> Strain:
    """Solve DER powers [W], shape (ders,), without reactive power, with the state's loads times a factor.

    Raises GridError for powers that are not finite, NotConverged without a solution.
    """
    flow = look_ahead(engine, state, der_w, np.zeros_like(der_w), load_factor, regulators_act=False)
    layout = engine.layout
    v_pu = flow.v_pu + state.v_bias_pu
    side = np.where(layout.violating(v_pu), np.sign(v_pu - layout.v_min_pu), 0.0)
    loading = np.nan_to_num(engine.network().loading(flow.v_v))
    beyond = np.flatnonzero(loading > 1.0)
    per_w = np.zeros((2, len(der_w)))
    if side.any() or len(beyond):
        per_w = _per_w(engine, state, flow, der_w, load_factor, side, beyond)
    return Strain(
        violations=int(np.count_nonzero(side)),
        excess_pu=float(layout.excess_pu(v_pu).sum()),
        excess_per_w=per_w[0],
        overload=float((loading[beyond] - 1.0).sum()),
        overload_per_w=per_w[1],
    )


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

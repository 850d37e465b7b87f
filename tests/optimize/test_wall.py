"""Why the problem has no cvxpy parameters: what they map to its data grows with the square of the fleet."""

import cvxpy as cp
import numpy as np
from scipy.sparse import csc_array, csr_matrix

from derms.domain.settings import PlanWeights
from derms.optimize.horizon import FleetShape, fleet_form
from derms.optimize.master import Master
from derms.optimize.zones import singletons
from tests.optimize.territory import territory

STEPS = 24
PER_FEEDER = 4
FLEETS = (16, 32, 64)


def _bytes(matrix: csc_array | csr_matrix) -> int:
    """Of a sparse matrix."""
    return int(matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes)


def _shape(ders: int) -> FleetShape:
    """Each store a zone of its own, and the voltages of all feeders."""
    portfolio = territory(ders=ders, feeders=ders // PER_FEEDER, congested=ders // PER_FEEDER, seed=1)
    shape = Master(portfolio, singletons(portfolio), PlanWeights(), scale_w=1e6).built.shape
    return FleetShape(
        hours=shape.hours[-STEPS:],
        efficiency_frac=shape.efficiency_frac,
        power=shape.power,
        block=shape.block,
        blocks=shape.blocks,
        zone_effect=shape.zone_effect,
        pv_effect=shape.pv_effect,
    )


def _form_bytes(shape: FleetShape) -> int:
    """All that our problem is: matrices, vectors, bounds."""
    form = fleet_form(shape, PlanWeights())
    vectors = (form.c, form.b, form.h, form.low, form.high)
    return sum(map(_bytes, (form.p, form.a, form.g))) + sum(vector.nbytes for vector in vectors)


def _map_bytes(shape: FleetShape) -> int:
    """cvxpy's map from parameters to the equations and limits of the same stores, rows and peak, with all that is known
    of them as parameters: what one writes who wants to solve again and again. A parameter knows no zeros."""
    zones, steps, rows = len(shape.block), len(shape.hours), shape.zone_effect.shape[0]
    ones = np.ones((zones, 1))
    gain, loss = cp.Parameter((zones, 1), value=ones), cp.Parameter((zones, 1), value=ones)
    effect = cp.Parameter((rows, zones), value=shape.zone_effect.toarray())
    load = cp.Parameter(steps, value=np.ones(steps))
    low, high, start = cp.Parameter((rows, steps)), cp.Parameter((rows, steps)), cp.Parameter(zones)
    low.value, high.value, start.value = -np.ones((rows, steps)), np.ones((rows, steps)), np.ones(zones)
    charge, discharge = cp.Variable((zones, steps), nonneg=True), cp.Variable((zones, steps), nonneg=True)
    stored, peak = cp.Variable((zones, steps)), cp.Variable()
    lost = cp.multiply(gain, charge) - cp.multiply(loss, discharge)
    moved = effect @ (discharge - charge)
    limits = [
        stored[:, 0] == start + lost[:, 0],
        stored[:, 1:] == stored[:, :-1] + lost[:, 1:],
        moved <= high,
        moved >= low,
        load - cp.sum(discharge - charge, axis=0) <= peak,
    ]
    problem = cp.Problem(cp.Minimize(peak), limits)
    assert problem.is_dpp()
    data, _, _ = problem.get_problem_data(cp.PIQP)
    return _bytes(data["param_prob"].reduced_A.reduced_mat)


def test_for_twice_the_fleet_the_map_of_parameters_is_near_four_times_as_large_and_our_problem_twice() -> None:
    ours, maps = (np.array([count(_shape(ders)) for ders in FLEETS]) for count in (_form_bytes, _map_bytes))
    assert (ours[1:] / ours[:-1] < 2.05).all()
    assert (maps[1:] / maps[:-1] > 3.7).all()
    assert maps[-1] > 5 * ours[-1]

"""The linear variant of a plan here and in PyPSA with HiGHS on the same data: by how much the peer takes longer.

Peak, steepest three-hour rise, cost of energy and wear of 50 virtual batteries over the planner's own steps. Here the
problem is built once and a re-plan is new data, solve and result; there the network is built once and a re-plan is new
series, `optimize` (which builds its model anew) and result. One thread each, in turn, and processor time is counted, so
that a busy machine favours nobody. All batteries are on one bus; a second case, each on its feeder behind the feeder's
limits, is printed beside it. Powers in MW on the peer's side.
"""

import logging
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanWeights
from derms.optimize.master import Master
from derms.optimize.portfolio import Portfolio
from derms.optimize.zones import Zoning
from tests.optimize.territory import START_H, territory

try:
    import pypsa
    import xarray as xr
except ModuleNotFoundError:
    pypsa = None

BATTERIES = 50
CONGESTED = 36
REPLANS = 9
SEED = 20260415
MW = 1e6
LAG = 12
EQUAL_FRAC = 1e-6
WEIGHTS = PlanWeights(ramp=0.0, throughput=10.0, curtail=0.0, change=0.0, spread=0.0, terminal=0.0)
"""Linear terms only. Energy through batteries costs enough that none burn it by charging and discharging at once to
fill the valley before a rise: here that is forbidden, a linear program of PyPSA allows it."""
WEAR = 0.01
"""Cost per pu h through a battery at a weight of one, as the planner has it."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over re-plans, ours and the peer's in turn."""

    ours_s: float
    peer_s: float
    apart_frac: float
    """Greatest difference of the two objectives, relative."""

    @property
    def ratio(self) -> float:
        return self.peer_s / self.ours_s


def problem(number: int) -> Portfolio:
    """What is known at the re-plan of this number, five minutes after the one before: a forecast that moved by 0.5 %, a
    price in the shape of the day, and no PV that could be held back."""
    given = territory(
        ders=BATTERIES, feeders=BATTERIES, congested=CONGESTED, seed=SEED, shift_h=number / 12, noise=0.005
    )
    hour = START_H + number / 12 + np.cumsum(given.hours)
    return replace(
        given,
        feeders=replace(given.feeders, pv_w=np.zeros_like(given.feeders.pv_w)),
        price=0.02 + 0.01 * np.sin((hour - 13.0) / 24.0 * 2.0 * np.pi),
    )


class Ours:
    """The planner's system problem with every battery a zone of its own."""

    def __init__(self, given: Portfolio, *, scale_w: float, limits: bool) -> None:
        every, nobody = np.arange(BATTERIES), np.zeros(0, dtype=np.intp)
        block = every if limits else np.zeros(BATTERIES, dtype=np.intp)
        zones = Zoning(zone=every, block=block, feeders=every if limits else nobody, rows=nobody)
        self._master = Master(given, zones, WEIGHTS, scale_w=scale_w)

    def replan(self, given: Portfolio) -> tuple[float, FloatArray]:
        """The objective, and the power of every battery [W]."""
        found = self._master.solve(given.checked(), np.zeros((0, len(given.hours))))
        assert found.slacks == ()
        return found.objective, found.injected_w


class Peer:
    """A PyPSA network of the same batteries: storage units, loads, an import with a price, links for feeders."""

    def __init__(self, given: Portfolio, *, scale_w: float, limits: bool) -> None:
        self._pu = MW / scale_w
        self._names = [f"feeder {number}" for number in range(BATTERIES)]
        self._limits = limits
        devices = given.devices
        p_mw = devices.discharge_max_w[:, 0] / MW
        network = self._network = pypsa.Network()
        network.set_snapshots(pd.RangeIndex(len(given.hours)))
        network.snapshot_weightings = pd.DataFrame(
            dict.fromkeys(network.snapshot_weightings.columns, given.hours), index=network.snapshots
        )
        network.add("Bus", "system")
        network.add("Generator", "import", bus="system", p_nom=2.0 * scale_w / MW, p_min_pu=-1.0)
        if limits:
            network.add("Bus", self._names)
            network.add("Link", self._names, bus0="system", bus1=self._names)
            network.add("Load", self._names, bus=self._names)
        else:
            network.add("Load", "system", bus="system")
        # A storage unit's energy counts from zero: from the least that the battery may hold.
        network.add(
            "StorageUnit",
            self._names,
            bus=self._names if limits else "system",
            p_nom=p_mw,
            max_hours=(devices.stored_max_wh - devices.stored_min_wh) / MW / p_mw,
            efficiency_store=devices.efficiency_frac,
            efficiency_dispatch=devices.efficiency_frac,
            marginal_cost=WEIGHTS.throughput * WEAR * self._pu,
        )

    def replan(self, given: Portfolio) -> tuple[float, FloatArray]:
        """The objective, and the power of every battery [W]."""
        network, devices, feeders = self._network, given.devices, given.feeders
        load_w = feeders.net_load_w if self._limits else feeders.net_load_w.sum(axis=0, keepdims=True)
        network.loads_t.p_set = pd.DataFrame(load_w.T / MW, index=network.snapshots, columns=network.loads.index)
        network.generators_t.marginal_cost = pd.DataFrame({"import": given.price * self._pu}, index=network.snapshots)
        network.storage_units["state_of_charge_initial"] = (devices.stored_wh - devices.stored_min_wh) / MW
        if self._limits:
            network.links["p_nom"] = feeders.high_w / MW
            network.links["p_min_pu"] = feeders.low_w / feeders.high_w
        status, condition = network.optimize(
            solver_name="highs",
            io_api="direct",  # faster than by way of a file, which is the default
            solver_options={"threads": 1, "output_flag": False},
            include_objective_constant=False,
            extra_functionality=lambda network, _: self._add_peak_and_rise(network, given),
        )
        assert (status, condition) == ("ok", "optimal")
        return float(network.objective), MW * network.storage_units_t.p[self._names].to_numpy().T

    def _add_peak_and_rise(self, network: Any, given: Portfolio) -> None:
        model, hours = network.model, given.hours
        power = model.variables["Generator-p"].sel(name="import")
        peak, rise = model.add_variables(name="peak"), model.add_variables(lower=0.0, name="rise")
        model.add_constraints(power - peak <= 0.0, name="peak")
        place = ((np.cumsum(hours) - 0.5 * hours) / 0.25).astype(np.intp)
        of_step = xr.DataArray(place, coords={"snapshot": network.snapshots}, name="quarter")
        steps = xr.DataArray(np.bincount(place), dims="quarter")
        course = power.to_linexpr().groupby(of_step).sum() / steps
        past = xr.DataArray(given.past_net_w / MW, coords={"quarter": np.arange(LAG)})
        model.add_constraints(course.isel(quarter=slice(0, LAG)) - rise <= past, name="across")
        before = course.isel(quarter=slice(0, -LAG)).assign_coords(quarter=np.arange(LAG, len(steps)))
        model.add_constraints(course.isel(quarter=slice(LAG, None)) - before - rise <= 0.0, name="rise")
        charge = model.variables["StorageUnit-p_store"] * xr.DataArray(hours, coords={"snapshot": network.snapshots})
        model.objective += self._pu * (peak + rise + WEIGHTS.throughput * WEAR * charge.sum())


def compared(*, limits: bool) -> Comparison:
    """Re-plans here and there in turn, after one that warms up both."""
    first = problem(0)
    scale_w = float(first.feeders.net_load_w.sum(axis=0).max())
    ours, peer = Ours(first, scale_w=scale_w, limits=limits), Peer(first, scale_w=scale_w, limits=limits)
    ours.replan(first)
    peer.replan(first)
    ours_s, peer_s, apart = [], [], []
    for number in range(1, REPLANS + 1):
        given = problem(number)
        spent_s, mine = _timed(ours, given)
        ours_s.append(spent_s)
        spent_s, theirs = _timed(peer, given)
        peer_s.append(spent_s)
        apart.append(abs(mine - theirs) / abs(theirs))
    return Comparison(statistics.median(ours_s), statistics.median(peer_s), max(apart))


def _timed(planner: Ours | Peer, given: Portfolio) -> tuple[float, float]:
    """Processor time, never more than the time that passed, and the objective."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    objective, _ = planner.replan(given)
    return min(time.process_time() - began_cpu_s, time.perf_counter() - began_s), objective


def ratio_vs_pypsa() -> float | None:
    """How many times our time PyPSA takes; None, and a word on it, where PyPSA is not installed.

    Raises
    ------
    AssertionError
        The objectives are not the same.
    """
    if pypsa is None:
        print("ratio_vs_pypsa is null: PyPSA is not installed; .venv/bin/uv pip install 'pypsa>=1.4,<1.5' does it")
        return None
    for library in ("pypsa", "linopy"):
        logging.getLogger(library).setLevel(logging.ERROR)
    pypsa.options.api.legacy_string_dtype = True
    told = compared(limits=False)
    for words, found in (("on one bus", told), ("on their feeders", compared(limits=True))):
        print(
            f"{BATTERIES} batteries {words}: ours {found.ours_s * 1e3:.0f} ms, PyPSA {found.peer_s * 1e3:.0f} ms,"
            f" ratio {found.ratio:.1f}, objectives {found.apart_frac:.0e} apart"
        )
    assert told.apart_frac <= EQUAL_FRAC
    return told.ratio

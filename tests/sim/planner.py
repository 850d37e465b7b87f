"""A light planner in place of the optimizer: random legal plans, and hostile ones while it is told so.

It has as much of FleetPlanner's interface as the brain uses. One zone holds all stores; powers in W, + = injection.
"""

import random
from collections.abc import Callable

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import PlanError
from derms.optimize.fleet import FleetPlan, FleetPlanner, PlannerState, narrowed
from derms.optimize.master import Solution
from derms.optimize.portfolio import Portfolio
from derms.optimize.share import share
from derms.optimize.zones import Zoning

HOSTILE: tuple[Callable[[FloatArray, random.Random], FloatArray], ...] = (
    lambda planned_w, chance: np.full_like(planned_w, np.nan),
    lambda planned_w, chance: 10.0 * planned_w + 1e6,
    lambda planned_w, chance: 1e6 * np.where(np.arange(planned_w.size).reshape(planned_w.shape) % 2, 1.0, -1.0),
    lambda planned_w, chance: -planned_w * chance.uniform(1.0, 3.0),
    lambda planned_w, chance: np.where(np.arange(planned_w.size).reshape(planned_w.shape) == 0, np.inf, planned_w),
    lambda planned_w, chance: planned_w[:, ::-1] + chance.uniform(-5e4, 5e4),
)
"""What is made of the powers of a plan, shape (zones, steps), and of stores, shape (n, steps)."""
REFUSES = 0.05
"""Part of the plans that are none."""


class LightPlanner:
    """Plans for the brain; see the module's text."""

    def __init__(self, behind: FleetPlanner, chance: random.Random, now_s: Callable[[], float], *, light: bool) -> None:
        self._behind = behind
        self._chance = chance
        self._now_s = now_s
        self._light = light
        self.hostile: int | None = None
        """Kind of HOSTILE."""
        self.steady = False
        """The same legal plan again and again."""
        self.asked_s: list[float] = []
        """When a plan was asked for [s]."""

    def state(self) -> PlannerState:
        return self._behind.state()

    def plan(
        self, portfolio: Portfolio, *, iterations: int = 100, late: Callable[[], bool] = lambda: False
    ) -> FleetPlan:
        """A plan for what is known now; raises PlanError as the optimizer does."""
        self.asked_s.append(self._now_s())
        if not (self._light or self.hostile is not None or self.steady):
            return self._behind.plan(portfolio, iterations=iterations, late=late)
        chance = self._chance
        if not self.steady and chance.random() < REFUSES:
            raise PlanError("no plan: the solver has none that it calls solved")
        given, _ = narrowed(portfolio.checked())
        if self.steady:
            return self._made(given, 0.2, 0.0)
        return self._made(given, chance.uniform(-0.9, 0.9), max(0.0, chance.uniform(-0.5, 0.9)))

    def _made(self, given: Portfolio, frac: float, held_frac: float) -> FleetPlan:
        """Batteries at a part of their power as long as they can, and a part of the sun held back."""
        devices, steps = given.devices, len(given.hours)
        shared = self._behind.state().shared_steps
        most_w = np.where(frac > 0.0, devices.discharge_max_w, devices.charge_max_w)
        most_w = np.broadcast_to(most_w, (len(devices), steps))
        wanted_w = frac * most_w.sum(axis=0)[None, :]
        zone = np.zeros(len(devices), dtype=np.intp)
        zones = Zoning(zone=zone, block=np.zeros(1, np.intp), feeders=np.zeros(0, np.intp), rows=np.zeros(0, np.intp))
        every = share(wanted_w, devices, zone, given.hours)
        injected_w = every.power_w.sum(axis=0)[None, :]
        shares = share(injected_w[:, :shared], devices, zone, given.hours)
        if self.hostile is not None and not self.steady:
            distort = HOSTILE[self.hostile]
            injected_w = distort(injected_w, self._chance)
            shares = type(shares)(
                power_w=distort(shares.power_w, self._chance),
                shortfall_w=shares.shortfall_w,
                stored_wh=shares.stored_wh,
            )
        loss = np.where(every.power_w > 0.0, 1.0 / devices.efficiency_frac[:, None], devices.efficiency_frac[:, None])
        stored_wh = devices.stored_wh.sum() - np.cumsum((every.power_w * loss * given.hours).sum(axis=0))
        feeders = len(given.feeders.low_w)
        feeder_w = np.zeros((feeders, steps))
        feeder_w[0] = injected_w[0]
        held_w = held_frac * np.maximum(given.feeders.pv_w, 0.0)
        solution = Solution(
            injected_w=injected_w,
            held_w=held_w.sum(axis=0)[None, :],
            stored_wh=stored_wh[None, :],
            net_w=given.feeders.net_load_w.sum(axis=0) - injected_w[0] + held_w.sum(axis=0),
            slacks=(),
            binding=(),
            solver="light",
            iterations=1,
            objective=0.0,
        )
        return FleetPlan(
            solution=solution,
            zones=zones,
            shares=shares,
            feeder_w=feeder_w,
            held_w=held_w,
            rounds=1,
            agreed=True,
            gave_way=(),
        )

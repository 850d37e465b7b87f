"""How a feeder does while it is watched: what its scorecard is made of, taken from every estimate and every plan.

Harm is judged in hindsight, with the loads and the sun that came: at each estimate the feeder is solved with what the
latest plan wants now and with batteries at rest. Only what lasts counts: voltage limits are about what is sustained
(EN 50160 takes means over ten minutes), and regulators and the next plan end what is shorter. Powers in W, + =
injection; voltages in pu; times in s.
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np

from derms.control.connections import unheld
from derms.control.cycle import Decision
from derms.control.guards import GuardInput, guard
from derms.control.modes import ControlMode, Scorecard
from derms.control.scorecard import WATCHED, Ahead, Tally
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.forecast import Forecast
from derms.domain.grid import GridState
from derms.domain.plan import PlanSource
from derms.domain.quality import Quality
from derms.domain.scope import Level, Scope
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import GridError
from derms.grid.estimate import Voltages
from derms.historian.store import Store
from derms.link.messages import Observed
from derms.optimize.verify import EXCESS_TOLERANCE_PU, FeederLookAhead
from derms.ports import Clock
from derms.service.config import Site

GAP_ESTIMATES = 3.0
"""An interval of more estimates than this was not watched."""
LASTS_S = 600.0
"""Harm that has lasted for less is none."""
MOVED_FRAC = 0.01
"""A guard that moves a value by less of the device's nameplate leaves it as it is."""


class Shadowing:
    """Keeps the scorecard of a site's feeder; see the module's text."""

    def __init__(self, site: Site, der_rows: tuple[int, ...], store: Store, clock: Clock) -> None:
        self._site = site
        self._der_rows = np.array(der_rows, dtype=np.intp)
        self._store = store
        self._clock = clock
        self._tally = Tally(store.watched_hours(site.package.id, site.package.digest))
        self._ahead = Ahead()
        self._dispatch: Dispatch | None = None
        self._before: GridState | None = None
        """The estimate before, as long as it is of the feeder as it is now."""
        self._harm = deque[tuple[float, float]]()
        """Points harmed at the estimates of the last LASTS_S, and the one before, with their times [s]."""
        self._looked_s = math.nan
        """When the feeder was last watched [s]; NaN where it was not at the last estimate."""

    def cards(self) -> Mapping[Scope, Scorecard]:
        """What has been shown, by scope."""
        card = self._tally.card(self._clock.utc(), self._clock.monotonic_s())
        return {} if card is None else {Scope(Level.FEEDER, self._site.package.id): card}

    def harm_nodes(self, state: GridState, snapshot: TelemetrySnapshot, look_ahead: FeederLookAhead) -> float:
        """Voltage points beyond their limits that the latest plan adds now; NaN where that cannot be told.

        Less than the verifier tolerates is none; a plan with which the feeder has no solution harms every point.
        """
        now_s, rows, dispatch = self._clock.monotonic_s(), self._der_rows, self._dispatch
        if dispatch is None or dispatch.valid_until_s < now_s:
            return math.nan
        set_w, limit_w = (dispatch.wanted_w(each, now_s)[rows] for each in (Quantity.P_SET, Quantity.P_LIMIT))
        measured_w = np.where(snapshot.good("p_w")[rows], snapshot.p_w[rows], 0.0)
        planned_w = np.fmin(np.where(np.isfinite(set_w), set_w, measured_w), limit_w)
        bare_w = np.where(np.isfinite(set_w), 0.0, measured_w)
        if np.array_equal(planned_w, bare_w):
            return 0.0
        try:
            bare = look_ahead(bare_w, 1.0)
        except GridError:
            return math.nan
        try:
            planned = look_ahead(planned_w, 1.0)
        except GridError:
            return float(len(state.points))
        if planned.excess_pu - bare.excess_pu <= EXCESS_TOLERANCE_PU:
            return 0.0
        return float(max(0, planned.violations - bare.violations))

    def estimated(
        self, seen: Observed, state: GridState, voltages: Voltages, fresh: BoolArray, harm_nodes: float
    ) -> None:
        """Count an estimate: `fresh` says which voltages are of this snapshot, shape (k,)."""
        now_s, snapshot = self._clock.monotonic_s(), seen.snapshot
        errors_w = self._ahead.came(snapshot.at, self._unmanaged_w(seen))
        watched = self._watched(seen) and not state.topology.doubt
        before, self._before = self._before, state if watched else None
        looked_s, self._looked_s = self._looked_s, now_s if watched else math.nan
        if not watched:
            return
        past_s = now_s - looked_s
        past_s = past_s if past_s <= GAP_ESTIMATES * self._site.estimate.every_s else 0.0
        awake = snapshot.quality != Quality.EXPECTED_SILENT
        self._count(
            snapshot.at,
            watched_s=past_s,
            forecasts=float(len(errors_w)),
            forecast_error_w=sum(errors_w),
            peak_w=abs(seen.reading.net_load_w) if math.isfinite(seen.reading.net_load_w) else 0.0,
            devices=float(awake.sum()),
            seen=float((snapshot.quality == Quality.GOOD).sum()),
            **_voltage_errors(before, voltages, fresh),
            **self._lasting(now_s, harm_nodes, past_s / 60.0),
        )

    def decided(self, decision: Decision, forecast: Forecast, seen: Observed) -> None:
        """Count a plan: whether it was verified, and what of it guards would have moved."""
        self._dispatch = decision.dispatch
        self._ahead.say(forecast)
        if self._watched(seen) and self._before is not None:
            wanted, clamped = self._clamped(decision.dispatch, seen.snapshot)
            verified = float(decision.plan.source is PlanSource.OPTIMIZER)
            self._count(self._clock.utc(), plans=1.0, verified=verified, wanted=wanted, clamped=clamped)

    def _lasting(self, now_s: float, nodes: float, past_min: float) -> dict[str, float]:
        """Points harmed all the time for LASTS_S; where it could not be told in between, it starts anew."""
        harm = self._harm
        if math.isnan(nodes):
            harm.clear()
            return {}
        harm.append((now_s, nodes))
        while len(harm) > 1 and harm[1][0] <= now_s - LASTS_S:
            harm.popleft()
        lasts = harm[0][0] <= now_s - LASTS_S
        return {"judged_min": past_min, "harm_node_min": past_min * min(it for _, it in harm) if lasts else 0.0}

    def _watched(self, seen: Observed) -> bool:
        return seen.modes.get(self._site.package.id, ControlMode.OFF) in WATCHED

    def _count(self, at: datetime, **more: float) -> None:
        package = self._site.package
        self._store.watched(package.id, package.digest, self._tally.count(at, **more))

    def _clamped(self, dispatch: Dispatch, snapshot: TelemetrySnapshot) -> tuple[float, float]:
        """Values that a dispatch wants now, and how many of them guards would move or refuse.

        Guards of what people have laid down are left out, and ramps: what those hold back goes on with the next turn. A
        value is taken to live until the next plan. That guards make the last of a charge slower, since it may live for
        the whole reversion time, is no fault of a plan.
        """
        fleet, now_s = self._site.fleet, self._clock.monotonic_s()
        wanted = clamped = 0
        # PV is taken to hold the plan's limits already.
        reach = unheld(fleet, snapshot).limited(dispatch.wanted_w(Quantity.P_LIMIT, now_s))
        given = GuardInput(fleet, snapshot, self._site.plan.every_s, reach=reach)
        for quantity in Quantity:
            wanted_w = dispatch.wanted_w(quantity, now_s)
            left_w = guard(wanted_w, replace(given, quantity=quantity)).value_w
            asked = np.isfinite(wanted_w)
            wanted += int(asked.sum())
            clamped += int((asked & ~(np.abs(left_w - wanted_w) <= MOVED_FRAC * fleet.p_rated_w)).sum())
        return float(wanted), float(clamped)

    def _unmanaged_w(self, seen: Observed) -> float:
        """Net load as forecasts mean it: as if no battery moved [W]; NaN where a plan may hold PV back."""
        fleet, snapshot = self._site.fleet, seen.snapshot
        limited = self._dispatch is not None and bool(self._dispatch.holds_back(snapshot.p_w, fleet.p_rated_w).any())
        acts = seen.modes.get(self._site.package.id) in (ControlMode.ADVISE, ControlMode.AUTO)
        if limited and acts:
            return math.nan
        return seen.reading.net_load_w + float(snapshot.p_w[fleet.is_battery & snapshot.good("p_w")].sum())


def _voltage_errors(before: GridState | None, voltages: Voltages, fresh: BoolArray) -> dict[str, float]:
    """Fresh readings against the estimate before, which had not seen them; each counts by how exact it is."""
    if before is None:
        return {}
    error_pu: FloatArray = (voltages.v_pu - before.v_pu[voltages.points])[fresh]
    weight = voltages.sigma_pu[fresh] ** -2.0
    return {"voltages": float(weight.sum()), "voltage_error_pu2": float((weight * error_pu**2).sum())}

"""A decision as it was recorded, with a type for everything that explanations and replays look for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from derms.control.signs import SignChanges
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.dispatch import Dispatch
from derms.domain.forecast import Forecast
from derms.domain.grid import StateSummary
from derms.domain.plan import Plan
from derms.domain.telemetry import TelemetrySnapshot
from derms.historian.store import StoredDecision
from derms.optimize.fleet import FleetPlan, PlannerState, energy_due
from derms.optimize.master import feeder_limit
from derms.optimize.portfolio import Portfolio


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A plan, and what `Store.decision` was given by these names; None or empty where it was not."""

    plan: Plan
    device_ids: tuple[str, ...]
    made_with: Mapping[str, str]
    snapshot: TelemetrySnapshot | None = None
    forecast: Forecast | None = None
    known: StateSummary | None = None
    available: BoolArray | None = None
    rejected: Sequence[str] = ()
    """Why each higher rung was not used."""
    portfolio: Portfolio | None = None
    fleet_plan: FleetPlan | None = None
    """None on the rungs below the optimizer."""
    planner_state: PlannerState | None = None
    """Before the plan was made."""
    iterations: int = 100
    """Most that each solve was allowed."""
    store_rows: IntArray | None = None
    """Row in the fleet of each store of the portfolio."""
    feeder_ids: tuple[str, ...] = ()
    """Of each feeder of the portfolio."""
    dispatch: Dispatch | None = None
    caps: FloatArray | None = None
    """Share of its rating that the look-ahead left each device, shape (n,)."""
    contingency: str = ""
    """What would be worse than without the plan if all control were lost."""
    sign_changes: SignChanges | None = None
    notes: tuple[str, ...] = ()
    """How it was found, where that needs a word."""

    @classmethod
    def of(cls, stored: StoredDecision) -> "Decided":
        """The record as it is read; names that are not known here are left out."""
        names = {field.name for field in fields(cls)}
        inputs: dict[str, Any] = {name: value for name, value in stored.inputs.items() if name in names}
        return cls(plan=stored.plan, device_ids=stored.device_ids, made_with=stored.made_with, **inputs)

    def feeder_name(self, feeder: int) -> str:
        """A feeder of the portfolio as people call it."""
        return self.feeder_ids[feeder] if feeder < len(self.feeder_ids) else str(feeder)

    def feeder_of(self, limit: str) -> int | None:
        """The feeder whose power a limit bounds; None for another limit."""
        count = 0 if self.portfolio is None else len(self.portfolio.feeders.low_w)
        return next((feeder for feeder in range(count) if feeder_limit(feeder) == limit), None)

    def limit_name(self, limit: str) -> str:
        """A limit of the plan as people call it."""
        feeder, (_, _, store) = self.feeder_of(limit), limit.rpartition(" ")
        if feeder is not None:
            return f"power of feeder {self.feeder_name(feeder)}"
        if self.store_rows is not None and store.isdecimal() and limit == energy_due(int(store)):
            return f"energy due of {self.device_ids[self.store_rows[int(store)]]}"
        return limit

    def store_of(self, row: int) -> int | None:
        """The store in the portfolio of a row of the fleet."""
        if self.store_rows is None or not (at := self.store_rows == row).any():
            return None
        return int(at.argmax())

    def time_of(self, step: int) -> datetime:
        """When a step of the plan begins."""
        return self.plan.start + timedelta(seconds=float(self.plan.edges_s[step]))

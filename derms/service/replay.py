"""`derms replay`: make a decision again from what it was made from, and hold every number against the record."""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derms.domain.arrays import FloatArray
from derms.domain.plan import PlanSource
from derms.errors import PlanError
from derms.historian.store import made_with
from derms.optimize.fleet import FleetPlan, FleetPlanner
from derms.optimize.share import fairness_of, share
from derms.optimize.sites import within_sites
from derms.service.decided import Decided

SHOWN_MAX = 20
"""Places that differ, in the text."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A place where a replay and the record are not the same."""

    where: str
    count: int
    """Numbers that differ."""
    of: int
    most: float
    """Greatest difference of two numbers; NaN where there is no such thing."""

    def __str__(self) -> str:
        by = f", by {self.most:.3g} at most" * bool(np.isfinite(self.most))
        return f"{self.where}: {self.count:,} of {self.of:,} differ{by}"


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found."""

    plan_id: int
    numbers: int = 0
    """That were held against the record."""
    differences: tuple[Difference, ...] = ()
    other_versions: tuple[str, ...] = ()
    """Of what made the record, where it was not what makes the replay."""
    words: str = ""
    """What there is to say besides."""
    undone: bool = False
    """Nothing could be made again."""
    notes: tuple[str, ...] = ()
    """How the decision was found, where that needs a word."""

    @property
    def same(self) -> bool:
        return not (self.differences or self.undone)


def replayed(decided: Decided) -> Replayed:
    """Plan again from the stored inputs, and share out; the record is not touched."""
    return replace(_replayed(decided), notes=decided.notes)


def _replayed(decided: Decided) -> Replayed:
    number, others = decided.plan.id, tuple(_others(decided.made_with, made_with()))
    if decided.portfolio is None or decided.planner_state is None:
        words = f"the record has no inputs of the optimizer; the plan is of {decided.plan.source}"
        return Replayed(number, other_versions=others, words=words, undone=True)
    again: FleetPlan | str
    try:
        planner = FleetPlanner.resumed(decided.planner_state)
        again = planner.plan(decided.portfolio, iterations=decided.iterations)
    except PlanError as error:
        again = str(error)
    if decided.fleet_plan is None:
        return replace(_without(decided, again), other_versions=others)
    found: list[Difference] = []
    count = sum(_compare(decided.fleet_plan, again, "fleet_plan", found))
    if isinstance(again, FleetPlan) and (both := _setpoints(decided, again)) is not None:
        count += sum(_compare(*both, "dispatch.p_set_w", found))
    return Replayed(number, count, tuple(found), others)


def _others(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, version in was.items():
        if now.get(name) != version:
            yield f"{name} {version}, here {now.get(name, 'none')}"


def _without(decided: Decided, again: FleetPlan | str) -> Replayed:
    """Of a record that has no plan of the optimizer: whether there is none again, for the same reason."""
    number, told = decided.plan.id, " | ".join(decided.rejected[:1])
    if isinstance(again, str):
        if told == f"{PlanSource.OPTIMIZER}: {again}":
            return Replayed(number, words=f"the optimizer has no plan again: {again}")
        return Replayed(number, differences=(Difference(f"why there is no plan ({told}; now {again})", 1, 1, np.nan),))
    words = f"the record does not keep the plan of the optimizer, which was not used: {told}"
    return Replayed(number, words=words, undone=True)


def _setpoints(decided: Decided, plan: FleetPlan) -> tuple[FloatArray, FloatArray] | None:
    """Setpoints of the stores in the shared steps as they are recorded, and as they come of a plan."""
    dispatch, portfolio, rows, caps = decided.dispatch, decided.portfolio, decided.store_rows, decided.caps
    state = decided.planner_state
    if dispatch is None or portfolio is None or rows is None or caps is None or state is None:
        return None
    cap = caps[rows, None]
    devices = within_sites(portfolio.devices, portfolio.sites, len(portfolio.hours))
    devices = replace(devices, charge_max_w=devices.charge_max_w * cap, discharge_max_w=devices.discharge_max_w * cap)
    steps = plan.shares.power_w.shape[1]
    wanted_w = plan.solution.injected_w[:, :steps]
    fairness = fairness_of(portfolio.desk, state.fairness)
    power_w = share(wanted_w, devices, plan.zones.zone, portfolio.hours, fairness=fairness).power_w
    again_w = np.where(devices.available[:, None], power_w, np.nan)
    return np.ascontiguousarray(dispatch.p_set_w[rows, 1:]), again_w


def _compare(was: Any, now: Any, where: str, found: list[Difference]) -> Iterator[int]:
    """Counts of numbers that were compared; what differs in a bit goes to `found`."""
    if type(was) is not type(now):
        words = now if isinstance(now, str) else type(now).__name__
        found.append(Difference(f"{where} ({type(was).__name__}, now {words})", 1, 1, np.nan))
        yield 1
    elif is_dataclass(was):
        for field in fields(was):
            yield from _compare(getattr(was, field.name), getattr(now, field.name), f"{where}.{field.name}", found)
    elif isinstance(was, np.ndarray):
        yield _compare_arrays(was, now, where, found)
    elif isinstance(was, tuple) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _compare(one, other, f"{where}[{number}]", found)
    elif isinstance(was, float):
        if struct.pack(">d", was) != struct.pack(">d", now):
            found.append(Difference(where, 1, 1, abs(was - now)))
        yield 1
    else:
        if was != now:
            found.append(Difference(f"{where} ({was}, now {now})", 1, 1, np.nan))
        yield 1


def _compare_arrays(was: NDArray[Any], now: NDArray[Any], where: str, found: list[Difference]) -> int:
    if (was.dtype, was.shape) != (now.dtype, now.shape):
        shapes = f"{was.dtype} {was.shape}, now {now.dtype} {now.shape}"
        found.append(Difference(f"{where} ({shapes})", was.size, was.size, np.nan))
        return was.size
    one, other = (np.ascontiguousarray(array).reshape(-1) for array in (was, now))
    bits = f"u{was.dtype.itemsize}"
    apart = one.view(bits) != other.view(bits)
    if apart.any():
        most = np.abs(one[apart].astype(np.float64) - other[apart].astype(np.float64)).max()
        found.append(Difference(where, int(apart.sum()), was.size, float(most)))
    return was.size


def as_text(result: Replayed) -> str:
    """The result for people."""
    if result.undone:
        lines = [f"plan {result.plan_id} cannot be made again: {result.words}"]
    elif result.same:
        told = result.words or f"{result.numbers:,} numbers, all the same to the last bit"
        lines = [f"plan {result.plan_id}: made again: {told}"]
    else:
        lines = [f"plan {result.plan_id}: made again, and it is not the same"]
        lines += [f"  {difference}" for difference in result.differences[:SHOWN_MAX]]
        if (more := len(result.differences) - SHOWN_MAX) > 0:
            lines.append(f"  and {more} more places")
    if not result.same and result.other_versions:
        lines.append("made with other versions: " + "; ".join(result.other_versions))
    return "\n".join([*result.notes, *lines])


def as_json(result: Replayed) -> str:
    """The result for programs: one JSON object."""
    return json.dumps({"same": result.same, **plain(asdict(result))})


def plain(value: Any) -> Any:
    """A value as strict JSON knows it: what is not finite is null."""
    match value:
        case Mapping():
            return {key: plain(item) for key, item in value.items()}
        case Sequence() if not isinstance(value, str):
            return [plain(item) for item in value]
        case float():
            return value if np.isfinite(value) else None
    return value

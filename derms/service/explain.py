"""`derms explain`: when and from what a decision was made, which limits shaped it and what they cost, and why."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, tzinfo
from math import isfinite
from pathlib import Path

from derms.control.signs import SignChanges
from derms.domain.der import Fleet
from derms.domain.desk import Headroom
from derms.domain.dispatch import CommandRecord
from derms.domain.plan import Reason
from derms.domain.quality import Quality
from derms.errors import ConfigError, HistorianError, Problem
from derms.historian.store import Store
from derms.optimize.desk import headroom
from derms.optimize.verify_fleet import check_shares
from derms.service.asked import TIME_TEXT, look_up, unknown_device, unreadable
from derms.service.decided import Decided
from derms.service.device_why import DeviceWhy, device_reasons
from derms.service.explain_text import device_text, effects_text, limits_text, reasons_text
from derms.service.headroom_text import headroom_text
from derms.service.reasons import counted, fleet_reasons
from derms.service.replay import plain
from derms.service.words import kw
from derms.service.worth import Effect, Worth, at_rest, effects, worths

RECORDS = "historian.sqlite"
NOTHING_FRAC = 1e-4
"""Of the peak: a smaller difference of two plans is the solver's."""
OUTCOMES_FOR = timedelta(hours=1)
"""After a decision in which its commands have ended."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a decision was made from, in short."""

    devices: dict[str, int]
    """How many of each quality."""
    oldest_good_s: float
    """Age of the oldest value that counted; NaN for none."""
    available: int | None
    """Devices that could be commanded."""
    forecast: str
    """How it was made."""
    forecast_made_at: datetime | None
    grid: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything that is said of a decision."""

    plan_id: int
    notes: tuple[str, ...]
    """How it was found, where that needs a word."""
    made_at: datetime
    source: str
    solver: str
    iterations: int
    objective: float
    battery_w: float
    """Of the fleet in the first step, + = injection."""
    net_load_w: float
    """Of the system in the first step, with the plan."""
    peak_w: float
    """Highest net load of the plan."""
    not_higher: tuple[str, ...]
    """Why each higher rung was not used."""
    inputs: Inputs
    reasons: tuple[Reason, ...]
    limits: tuple[Worth, ...]
    peak_price: float
    """[$/kW]"""
    effects: tuple[Effect, ...]
    at_rest: Effect | None
    """What would be if no battery moved for an hour; None where the optimizer's plan is not in the record."""
    findings: tuple[str, ...] | None
    """What the verifier says of the shares; None where they are not in the record."""
    desk: Headroom | None
    """What the fleet could still do beside the plan or instead of it, as seen then; None without the optimizer's."""
    contingency: str
    """What would be worse than without the plan if all control were lost; empty when nothing would, or not told."""
    sign_changes: SignChanges | None
    outcomes: dict[str, int]
    """Ends of its commands by kind."""
    device: DeviceWhy | None


def find(
    storage: Path, word: str, zone: tzinfo, *, der: str | None = None, now: datetime | None = None
) -> tuple[Decided, list[CommandRecord]]:
    """The decision that a word names, and the ends of its commands.

    `word` is a plan's number, `last`, or a time: then the decision that was the latest at it. Times without offset are
    local ones; `now` is the wall clock, by which a time is still to come. `der` is a device of that decision, or of
    the last one where there is none like that.

    Raises
    ------
    ConfigError
        There are no records, none like that, or they cannot be read; no such device was in the fleet.
    """
    path = storage / RECORDS
    if not path.is_file():
        right = "run the service on this site first, or name the folder with its records as [storage] directory"
        raise ConfigError([Problem(str(path), "file", "there are no records", right)])
    try:
        store = Store(f"sqlite:///{path}", Fleet(()))
        try:
            stored, notes, problems = look_up(store, path, word, zone, now)
            whose = stored or store.latest()
            problems += () if whose is None else unknown_device(der, whose.device_ids)
            if stored is None or problems:
                raise ConfigError(problems)
            ended = store.outcomes(stored.at, stored.at + OUTCOMES_FOR)
        finally:
            store.close()
    except HistorianError as error:
        raise unreadable(path, word, error) from error
    own = [record for record in ended if record.plan_id == stored.plan.id]
    return replace(Decided.of(stored), notes=notes), own


def explained(
    decided: Decided, outcomes: Sequence[CommandRecord], zone: tzinfo, *, peak_price: float, der: str | None = None
) -> Explanation:
    """What there is to say of a decision; limits are tried wider by solving again.

    Raises
    ------
    KeyError
        The fleet of the record has no device `der`.
    """
    plan = decided.plan
    own = [record for record in outcomes if record.device_id == der]
    return Explanation(
        plan_id=plan.id,
        notes=decided.notes,
        made_at=plan.made_at,
        source=plan.source.value,
        solver=plan.solver,
        iterations=plan.iterations,
        objective=plan.objective,
        battery_w=float(plan.battery_w[0]),
        net_load_w=float(plan.net_load_w[0]),
        peak_w=float(plan.net_load_w.max()),
        not_higher=tuple(decided.rejected),
        inputs=_inputs(decided),
        reasons=fleet_reasons(decided, zone),
        limits=worths(decided, peak_price),
        peak_price=peak_price,
        effects=tuple(effects(decided, peak_price)),
        at_rest=at_rest(decided, peak_price),
        findings=_findings(decided),
        desk=_desk(decided),
        contingency=decided.contingency,
        sign_changes=decided.sign_changes,
        outcomes=dict(Counter(type(record.outcome).__name__ for record in outcomes)),
        device=None if der is None else device_reasons(decided, der, own, zone),
    )


def _inputs(decided: Decided) -> Inputs:
    snapshot, forecast = decided.snapshot, decided.forecast
    devices: dict[str, int] = {}
    oldest_s = float("nan")
    if snapshot is not None:
        counts = Counter(snapshot.quality.tolist())
        devices = {quality.name.lower(): counts[quality] for quality in Quality if counts[quality]}
        good = snapshot.quality == Quality.GOOD
        oldest_s = float(snapshot.age_s[good].max()) if good.any() else oldest_s
    return Inputs(
        devices=devices,
        oldest_good_s=oldest_s,
        available=None if decided.available is None else int(decided.available.sum()),
        forecast="" if forecast is None else forecast.method,
        forecast_made_at=None if forecast is None else forecast.made_at,
        grid="" if decided.known is None else str(decided.known),
    )


def _findings(decided: Decided) -> tuple[str, ...] | None:
    portfolio, plan = decided.portfolio, decided.fleet_plan
    if portfolio is None or plan is None:
        return None
    named = {slack.limit for slack in plan.gave_way}
    power_w, held_w, promised_w = plan.shares.power_w, plan.held_w, plan.promised_w
    return tuple(check_shares(portfolio, power_w, held_w, promised_w, named, plan.reactive_var))


def _desk(decided: Decided) -> Headroom | None:
    portfolio, plan = decided.portfolio, decided.fleet_plan
    return None if portfolio is None or plan is None else headroom(portfolio, plan)


def as_json(found: Explanation) -> str:
    """One JSON object; times are UTC, what is not known is null."""
    return json.dumps(plain(asdict(found)), default=datetime.isoformat)


def as_text(found: Explanation, decided: Decided, zone: tzinfo) -> str:
    """For people; a device that was asked for comes first."""
    lines = [*found.notes, *_head(found, zone)]
    if found.device is not None:
        lines += device_text(found.device)
    lines += ["made from", *_inputs_text(found.inputs, zone), "why", *reasons_text(found.reasons)]
    if decided.fleet_plan is not None:
        lines += limits_text(found.limits, found.peak_price, decided)
    lines += effects_text(found.effects, found.at_rest, decided, NOTHING_FRAC * abs(found.peak_w))
    if found.findings is not None:
        lines.append("verifier: " + ("; ".join(found.findings) or "nothing wrong"))
    if found.contingency:
        lines.append(found.contingency)
    lines += headroom_text(found.desk)
    if (signs := found.sign_changes) is not None:
        of_each = f"{signs.device_per_h:.2f} of the most restless device"
        lines.append(f"changes of sign in an hour: {signs.fleet_per_h:.2f} of the fleet, {of_each}")
    if found.outcomes:
        lines.append("commands: " + ", ".join(f"{count} {kind.lower()}" for kind, count in found.outcomes.items()))
    return "\n".join(lines)


def _head(found: Explanation, zone: tzinfo) -> Iterable[str]:
    how = f" ({found.solver}, {counted(found.iterations, 'iteration')})" * bool(found.solver)
    yield f"plan {found.plan_id}, made {found.made_at.astimezone(zone):{TIME_TEXT}} by: {found.source}{how}"
    now = f"  now: batteries {kw(found.battery_w)} (+ gives, - takes), net load {kw(found.net_load_w)}"
    yield f"{now}; highest of the plan {kw(found.peak_w)}"
    for why in found.not_higher:
        yield f"  not higher: {why}"


def _inputs_text(inputs: Inputs, zone: tzinfo) -> Iterable[str]:
    if inputs.devices:
        counts = ", ".join(f"{count} {quality.replace('_', ' ')}" for quality, count in inputs.devices.items())
        age = f"; oldest good value {inputs.oldest_good_s:.0f} s" * isfinite(inputs.oldest_good_s)
        able = f"; {inputs.available} can be commanded" * (inputs.available is not None)
        yield f"  devices: {counts}{age}{able}"
    if inputs.forecast_made_at is not None:
        yield f"  forecast: {inputs.forecast}, made {inputs.forecast_made_at.astimezone(zone):{TIME_TEXT}}"
    if inputs.grid:
        yield f"  {inputs.grid}"

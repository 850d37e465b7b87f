"""`derms explain`: when and from what a decision was made, which limits shaped it and what they cost, and why."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from math import isfinite, isnan
from pathlib import Path

import numpy as np

from derms.control.signs import SignChanges
from derms.domain.der import Fleet
from derms.domain.dispatch import CommandRecord
from derms.domain.plan import Reason
from derms.domain.quality import Quality
from derms.errors import ConfigError, Problem
from derms.historian.store import Store
from derms.optimize.desk import Headroom, headroom
from derms.optimize.verify_fleet import check_shares
from derms.service.decided import Decided
from derms.service.reasons import DeviceWhy, counted, device_reasons, fleet_reasons, kw
from derms.service.replay import plain
from derms.service.worth import Effect, Worth, at_rest, effects, worths

RECORDS = "historian.sqlite"
LAST = "last"
NOTHING_FRAC = 1e-4
"""Of the peak: a smaller difference of two plans is the solver's."""
OUTCOMES_FOR = timedelta(hours=1)
"""After a decision in which its commands have ended."""
TIME_TEXT = "%Y-%m-%d %H:%M:%S %Z"
HOW_NAMED = f"a plan's number, {LAST}, or a time such as 2026-04-15T14:05"
"""How people name a decision."""


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


def find(storage: Path, word: str, zone: tzinfo) -> tuple[Decided, list[CommandRecord]]:
    """The decision that a word names, and the ends of its commands.

    `word` is a plan's number, `last`, or a time: then the decision that was the latest at it. Times without offset are
    local ones.

    Raises
    ------
    ConfigError
        There are no records, or none like that.
    HistorianError
        The records cannot be read.
    """
    path = storage / RECORDS
    if not path.is_file():
        right = "run the service on this site first, or name the folder with its records as [storage] directory"
        raise ConfigError([Problem(str(path), "file", "there are no records", right)])
    number, until = _meant(word, zone)
    store = Store(f"sqlite:///{path}", Fleet(()))
    try:
        stored = store.latest(plan_id=number, until=until)
        if stored is None:
            last = store.latest()
            right = "there is none at all yet" if last is None else f"the last one is {last.plan.id}"
            raise ConfigError([Problem(str(path), f"decision '{word}'", "there is none like that", right)])
        ended = store.outcomes(stored.at, stored.at + OUTCOMES_FOR)
    finally:
        store.close()
    return Decided.of(stored), [record for record in ended if record.plan_id == stored.plan.id]


def _meant(word: str, zone: tzinfo) -> tuple[int | None, datetime | None]:
    """The plan's number or the time that a word stands for; neither for the last decision."""
    if word == LAST:
        return None, None
    if word.isdecimal():
        return int(word), None
    try:
        at = datetime.fromisoformat(word)
    except ValueError:
        wrong = "is nothing that a decision can be named by"
        raise ConfigError([Problem("DECISION", f"'{word}'", wrong, f"give {HOW_NAMED}")]) from None
    return None, (at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC)


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
    """For people."""
    lines = [*_head(found, zone), "made from", *_inputs_text(found.inputs, zone), "why", *_reasons_text(found.reasons)]
    lines += [*_limits_text(found, decided), *_effects_text(found, decided)]
    if found.findings is not None:
        lines.append("verifier: " + ("; ".join(found.findings) or "nothing wrong"))
    if found.contingency:
        lines.append(found.contingency)
    lines += _desk_text(found.desk)
    if (signs := found.sign_changes) is not None:
        of_each = f"{signs.device_per_h:.2f} of the most restless device"
        lines.append(f"changes of sign in an hour: {signs.fleet_per_h:.2f} of the fleet, {of_each}")
    if found.outcomes:
        lines.append("commands: " + ", ".join(f"{count} {kind.lower()}" for kind, count in found.outcomes.items()))
    if found.device is not None:
        lines += _device_text(found.device)
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


def _desk_text(desk: Headroom | None) -> Iterable[str]:
    if desk is None:
        return
    sure, silent = desk.answers.confidence_frac, desk.answers.silent_frac
    yield f"beside the plan batteries could do; sure is {sure:.0%}, if each stays silent with {silent:.0%}"
    for offer in desk.offers:
        time = f"{offer.lasting_h * 60.0:.0f} min" if offer.lasting_h < 1.0 else f"{offer.lasting_h:g} h"
        beside = offer.beside
        up = f"up {kw(beside.up_w)} (sure {kw(beside.up_sure_w)})"
        yield f"  for {time}: {up}, down {kw(beside.down_w)} (sure {kw(beside.down_sure_w)})"
    give, take = desk.energy_up_wh / 1e3, desk.energy_down_wh / 1e3
    yield f"  energy reserve: {give:.0f} kWh to give, {take:.0f} kWh to take"


def _reasons_text(reasons: Iterable[Reason]) -> Iterable[str]:
    return [f"  {reason.why}: {reason.text}" for reason in reasons] or ["  nothing that the record tells"]


def _limits_text(found: Explanation, decided: Decided) -> Iterable[str]:
    if not found.limits:
        return
    yield f"limits that bind, with the shadow price of a little more room, at ${found.peak_price:g} a kW of system peak"
    for worth in found.limits:
        money = "no price, " if isnan(worth.usd_per_kw) else f"${worth.usd_per_kw:.3g} per kW {worth.of}, "
        name = decided.limit_name(worth.limit)
        steps = counted(worth.steps, "step")
        yield f"  {name}: {money}{worth.per_kw:.3g} of the objective per kW, in {steps}"


def _effects_text(found: Explanation, decided: Decided) -> Iterable[str]:
    if found.effects or found.at_rest:
        yield "planned again"
    for effect in (*found.effects, *([found.at_rest] if found.at_rest else [])):
        name = f"  {decided.limit_name(effect.limit)}, {effect.wider}: "
        gives_way = "".join(f"; {decided.limit_name(limit)} gives way" for limit in effect.gives_way)
        yield name + (effect.wrong or _changes(effect, NOTHING_FRAC * abs(found.peak_w))) + gives_way


def _changes(effect: Effect, seen_w: float) -> str:
    """What a re-plan does differently, as far as it can be told from the solver's tolerance."""
    told = (
        ("peak", -effect.peak_less_w),
        ("steepest rise in three hours", -effect.rise_less_w),
        ("most that the fleet gives", effect.gives_more_w),
        ("most that it takes", effect.takes_more_w),
    )
    parts = [f"{what} {'+' * (power_w > 0.0)}{kw(power_w)}" for what, power_w in told if abs(power_w) > seen_w]
    parts += [f"stores of a feeder up to {kw(effect.moved_w)} otherwise"] * (effect.moved_w > seen_w)
    parts += [f"PV held back {-effect.held_less_wh / 1e3:+.3g} kWh"] * (abs(effect.held_less_wh) > seen_w)
    money = f"; {'costs' if effect.usd < 0.0 else 'worth'} ${abs(effect.usd):.3g}" * isfinite(effect.usd)
    return (", ".join(parts) or "the same plan") + money


def _device_text(device: DeviceWhy) -> Iterable[str]:
    state = f"values {device.quality}, {device.age_s:.0f} s old" if device.quality else "values not recorded"
    soc = f", charged to {device.soc_frac:.1%}" * isfinite(device.soc_frac)
    share = device.share
    yield f"device {device.der}: {state}{soc}" + (f", on feeder {share.feeder}" if share else "")
    if isfinite(device.p_set_w):
        yield f"  setpoint: {kw(device.p_set_w)} (+ gives, - takes)"
    if isfinite(device.p_limit_w):
        yield f"  limit: {kw(device.p_limit_w)}"
    if share is not None:
        power_w = np.array(share.power_w)
        course = f"{kw(power_w[0])} at first, {kw(power_w.min())} to {kw(power_w.max())} in all"
        yield f"  share: {course}; zone {share.zone} of {counted(share.zone_stores, 'store')}; rule: {share.rule}"
    yield from _reasons_text(device.reasons)

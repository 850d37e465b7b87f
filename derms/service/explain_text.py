"""An explanation's parts as lines for people."""

from collections.abc import Iterable, Sequence
from math import isfinite, isnan

import numpy as np

from derms.domain.plan import Reason
from derms.service.decided import Decided
from derms.service.device_why import DeviceWhy
from derms.service.reasons import counted
from derms.service.words import kw
from derms.service.worth import Effect, Worth

PART_MIN_FRAC = 0.01
"""Of a sum of money: a smaller part is not named."""


def usd(value: float) -> str:
    """Money for people, without sign or exponent."""
    amount = abs(value)
    if amount >= 100.0:
        return f"${amount:,.0f}"
    return f"${amount:.2f}" if amount >= 0.01 else f"${amount:.4f}"


def reasons_text(reasons: Iterable[Reason]) -> Iterable[str]:
    """A line for each reason."""
    return [f"  {reason.why}: {reason.text}" for reason in reasons] or ["  nothing that the record tells"]


def limits_text(limits: Sequence[Worth], peak_price: float, decided: Decided) -> Iterable[str]:
    """The limits that bind with their prices, or that there are none."""
    if not limits:
        yield "no limit binds"
        return
    yield f"limits that bind, with the shadow price of a little more room, at ${peak_price:g} a kW of system peak"
    for worth in limits:
        name, steps = decided.limit_name(worth.limit), counted(worth.steps, "step")
        price = "no price" if isnan(worth.usd_per_kw) else f"{usd(worth.usd_per_kw)} per kW {worth.of}"
        yield f"  {name}: {price}, in {steps}"


def effects_text(effects: Iterable[Effect], at_rest: Effect | None, decided: Decided, seen_w: float) -> Iterable[str]:
    """What re-plans do differently; differences up to `seen_w` [W] are the solver's."""
    every = [*effects, *([at_rest] if at_rest else [])]
    if every:
        yield "planned again"
    for effect in every:
        name = f"  {decided.limit_name(effect.limit)}, {effect.wider}: "
        gives_way = "".join(f"; {decided.limit_name(limit)} gives way" for limit in effect.gives_way)
        yield name + (effect.wrong or _changes(effect, seen_w) + _money(effect)) + gives_way


def _changes(effect: Effect, seen_w: float) -> str:
    """What a re-plan does differently, as far as it can be told from the solver's tolerance."""
    told = (
        ("highest net load", -effect.peak_less_w),
        ("steepest rise in three hours", -effect.rise_less_w),
        ("most that the fleet gives", effect.gives_more_w),
        ("most that it takes", effect.takes_more_w),
    )
    parts = [f"{what} {'+' * (power_w > 0.0)}{kw(power_w)}" for what, power_w in told if abs(power_w) > seen_w]
    moved = f"battery power of a feeder differs from the plan's by up to {kw(effect.moved_w)} in a step"
    parts += [moved] * (effect.moved_w > seen_w)
    parts += [f"PV held back {-effect.held_less_wh / 1e3:+.3g} kWh"] * (abs(effect.held_less_wh) > seen_w)
    return ", ".join(parts) or "the same plan"


def _money(effect: Effect) -> str:
    """What a re-plan is worth or costs, and for which aims, where they are several."""
    if not isfinite(effect.usd):
        return ""
    rest = effect.usd - effect.usd_peaks - effect.usd_rises
    aims = (
        ("peaks of all days", effect.usd_peaks),
        ("their steepest rises", effect.usd_rises),
        ("other aims (smoothness, wear, PV held back, energy left)", rest),
    )
    named = [
        f"{name} {'cost' if part < 0.0 else 'win'} {usd(part)}"
        for name, part in aims
        if abs(part) > max(PART_MIN_FRAC * abs(effect.usd), 0.01)
    ]
    what = "costs" if effect.usd < 0.0 else "worth"
    return f"; {what} {usd(effect.usd)}" + f": {', '.join(named)}" * bool(named)


def device_text(device: DeviceWhy) -> Iterable[str]:
    """What a device does, and why."""
    state = f"values {device.quality}, {device.age_s:.0f} s old" if device.quality else "values not recorded"
    soc = f", charged to {device.soc_frac:.1%}" * isfinite(device.soc_frac)
    share = device.share
    yield f"device {device.der}: {state}{soc}" + (f", on feeder {share.feeder}" if share else "")
    if isfinite(device.p_set_w):
        yield f"  setpoint: {kw(device.p_set_w)} (+ gives, - takes)" + "".join(
            f"; {why}" for why in device.setpoint_why
        )
    if isfinite(device.p_limit_w):
        yield f"  limit: {kw(device.p_limit_w)}"
    if share is not None:
        power_w = np.array(share.power_w)
        course = f"{kw(power_w[0])} on average in the first step, {kw(power_w.min())} to {kw(power_w.max())} in all"
        yield f"  share: {course}; zone {share.zone} of {counted(share.zone_stores, 'store')}; rule: {share.rule}"
    yield from (f"  sent: {sent}" for sent in device.sent)
    yield from reasons_text(device.reasons)

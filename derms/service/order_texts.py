"""What people read of orders: how things stand, and why something is not possible."""

import math
from collections.abc import Sequence

from derms.domain.refusal import Reason
from derms.link.orders import Shown, ShownDevice, ShownScorecard, WhyNot

NAMED_MAX = 5
"""Devices without proven reversion that are named; programs get more of them."""


def why_text(why: WhyNot) -> str:
    """Everything that stands in the way, of a person and of plans."""
    lines = ["by hand:", *_reasons(why.person, "nothing stands in the way")]
    lines += ["plans:", *_reasons(why.plan, "nothing stands in the way")]
    return "\n".join([*lines, "to know:", *_reasons(why.notes, "")] if why.notes else lines)


def _reasons(reasons: Sequence[Reason], otherwise: str) -> list[str]:
    return [f"  {reason.by}: {reason.text}" for reason in reasons] or [f"  {otherwise}"]


def modes_text(shown: Shown) -> str:
    """The modes, and what is there and what is missing for AUTO."""
    first = f"site {shown.site}; a feeder of which nobody has said anything is in {shown.start} as far as that allows"
    modes = (f"{area.scope}: {area.mode}, {area.author} {area.why}" for area in shown.modes)
    return "\n".join([first, *modes, *(line for card in shown.scorecards for line in _scorecard(card))])


def _scorecard(card: ShownScorecard) -> list[str]:
    if not card.marks:
        return [f"scorecard of feeder {card.feeder}: nothing yet"]
    marks = [f"  {'met' if it.met else 'MISSED':7}{it.what}: {it.value:g}, needed {it.needed}" for it in card.marks]
    return [f"scorecard of feeder {card.feeder}, {card.age_s / 60.0:.0f} min old:", *marks]


def shown_text(shown: Shown) -> str:
    """How things stand, as lines."""
    loss = shown.loss
    lines = [f"{shown.at:%Y-%m-%d %H:%M:%S} UTC, site {shown.site}, {shown.rung}: {shown.rung_text}"]
    if shown.unsaved:
        lines.append("something holds that could not be saved: it ends with this process")
    plan = "none" if shown.plan_id is None else str(shown.plan_id)
    lines.append(f"plan offered: {plan}; approved: {shown.approved_plan_id or 'none'}")
    lines += [f"mode: {it.scope} {it.mode}, {it.author} {it.why}".rstrip() for it in shown.modes]
    lines += [f"stop {it.number}: {it.how}, {it.scope}, {it.author}" for it in shown.latches]
    lines += [str(tag) for tag in shown.tags]
    lines += [f"lock: {it.scope}, {it.owner}, another {it.left_s:.0f} s" for it in shown.locks]
    lines += [
        f"substituted: {it.device} {it.column} {it.value:g}, {it.author}, another {it.left_s:.0f} s: {it.text}"
        for it in shown.substitutes
    ]
    lines.append(str(loss))
    if loss.for_ever:
        lines.append(f"hold a command that no timer ends: {', '.join(loss.for_ever)}")
    if loss.unproven_count:
        more = ", ..." if loss.unproven_count > NAMED_MAX else ""
        lines.append(f"without proven reversion: {loss.unproven_count} ({', '.join(loss.unproven[:NAMED_MAX])}{more})")
    lines += ["", *(_device(it) for it in shown.devices)]
    if shown.left_out:
        lines.append(f"and {shown.left_out} more: name a feeder, group or device")
    return "\n".join(lines)


def _device(it: ShownDevice) -> str:
    until = f" for another {it.until_s:.0f} s, next {it.next_owner}" if math.isfinite(it.until_s) else ""
    limited = f", limited by {it.limited_by}" if it.limited_by else ""
    flags = "".join(
        f", {flag}"
        for flag, holds in (
            ("stopped", it.stopped),
            (it.service, bool(it.service)),
            ("holds a command that is not ours", it.foreign),
            ("left to another master", it.handed_over),
            ("under local control", it.local),
            (f"locked by {it.locked_by}", bool(it.locked_by)),
            (f"tags {', '.join(map(str, it.tags))}", bool(it.tags)),
        )
        if holds
    )
    powers = f"wanted {_kw(it.wanted_w)}, holds {_kw(it.held_w)}, gives {_kw(it.p_w)} ({it.quality})"
    return f"{it.id}: {it.mode}; {it.owner}{until}{limited}; {powers}, reversion {it.reversion}{flags}"


def _kw(power_w: float) -> str:
    return "nothing" if math.isnan(power_w) else f"{power_w / 1e3:.2f} kW"

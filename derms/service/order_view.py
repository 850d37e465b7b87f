"""What people are shown: who has each device, until when, and who is next; tags, modes, stops; what loss would do."""

import math
from collections.abc import Callable
from datetime import datetime, timedelta

import numpy as np

from derms.control.authority import NOBODY, ownership
from derms.control.control_loss import SOON_S, Hold, control_loss
from derms.control.modes import MARKS, ControlMode
from derms.domain.certificate import Certificate, ReversionClass, Standing, assumed_reversion, standing
from derms.domain.dispatch import Quantity
from derms.domain.quality import Quality
from derms.domain.scope import Scope
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.orders import Orders
from derms.field.reconcile import Reconciler
from derms.field.wants import defaults_w
from derms.link.orders import (
    Shown,
    ShownDevice,
    ShownLatch,
    ShownLock,
    ShownLoss,
    ShownMark,
    ShownMode,
    ShownScorecard,
    ShownSubstitute,
)

DEVICES_MAX = 1000
"""That are shown at a time."""
NAMED_MAX = 50
"""Devices without proven reversion that are named; all are counted."""
MODES = tuple(ControlMode)


def shown(orders: Orders, reconciler: Reconciler, scope: Scope, service_of: Callable[[int], str]) -> Shown:
    """How things stand now, with the devices of a scope; `service_of` says how one stands that is out of service."""
    snapshot, now = reconciler.poller.snapshot(), orders.clock.utc()
    now_s, kept, position, plans = snapshot.now_s, orders.kept, orders.ladder.position, reconciler.wishes.plans
    rows = np.flatnonzero(orders.places.under(scope) & (reconciler.fleet.is_battery | reconciler.fleet.is_pv))
    return Shown(
        at=now,
        site=orders.site,
        rung="normal" if position is None else position.rung.word,
        rung_text="" if position is None else position.text,
        start=kept.start,
        modes=tuple(
            ShownMode(it.scope, it.mode, it.author, it.why, now - timedelta(seconds=now_s - it.since_s))
            for it in kept.areas
        ),
        scorecards=tuple(_scorecard(orders, feeder, now_s) for feeder in orders.feeders()),
        plan_id=None if plans.latest is None else plans.latest.plan_id,
        approved_plan_id=None if plans.approved is None else plans.approved.plan_id,
        tags=orders.board.tags,
        locks=tuple(ShownLock(it.scope, it.owner, it.until_s - now_s) for it in kept.locks.live(now_s)),
        latches=tuple(
            ShownLatch(it.number, it.how, it.scope, it.author, "" if it.first is None else it.first.person)
            for it in orders.latches
        ),
        substitutes=tuple(
            ShownSubstitute(orders.places.devices[it.row], it.column, it.value, it.author, it.text, it.until_s - now_s)
            for it in kept.substitutes
            if now_s < it.until_s
        ),
        loss=_loss(reconciler, snapshot, now),
        unsaved=orders.unsaved,
        devices=_devices(orders, reconciler, snapshot, rows[:DEVICES_MAX].tolist(), service_of),
        left_out=max(0, len(rows) - DEVICES_MAX),
    )


def _scorecard(orders: Orders, feeder: Scope, now_s: float) -> ShownScorecard:
    """What was shown of a feeder, mark by mark."""
    card = orders.card(feeder)
    if card is None:
        return ShownScorecard(feeder.name, math.inf, ())
    marks = tuple(ShownMark(it.what, it.value(card), it.needed, not it.misses(card)) for it in MARKS)
    return ShownScorecard(feeder.name, now_s - card.taken_s, marks)


def _loss(reconciler: Reconciler, snapshot: TelemetrySnapshot, now: datetime) -> ShownLoss:
    """What the fleet would do if control died now."""
    fleet, count = reconciler.fleet, len(reconciler.fleet)
    held, reverts_at_s = np.zeros(count, dtype=np.bool_), np.full(count, np.inf)
    for (row, _), holding in reconciler.holdings.items():
        held[row], reverts_at_s[row] = True, holding.armed_s + holding.reversion_s
    proven = np.array([is_proven(reconciler, row, now) for row in range(count)], dtype=np.bool_)
    p_w = np.where(snapshot.good("p_w"), snapshot.p_w, np.nan)
    loss = control_loss(fleet, Hold(p_w, held, reverts_at_s, proven), snapshot.now_s)
    names = [device.id for device in fleet.devices]
    unproven = np.flatnonzero(loss.unproven).tolist()
    return ShownLoss(
        now_w=loss.now_w,
        soon_s=SOON_S,
        soon_w=loss.soon_w,
        end_w=loss.end_w,
        end_s=loss.end_s,
        end_at=now + timedelta(seconds=loss.end_s),
        largest_w=loss.largest_w,
        for_ever=tuple(names[row] for row in np.flatnonzero(loss.for_ever).tolist()),
        unproven=tuple(names[row] for row in unproven[:NAMED_MAX]),
        unproven_count=len(unproven),
    )


def is_proven(reconciler: Reconciler, row: int, now: datetime) -> bool:
    """Whether commissioning has proven that a device lets go of what it was told by itself."""
    return assumed_reversion(*_certified(reconciler, row, now))[0] is not ReversionClass.C


def proven_class(reconciler: Reconciler, row: int, now: datetime) -> ReversionClass:
    """The class that a certificate proves which counts for the device; without one it is unproven."""
    certificate, found = _certified(reconciler, row, now)
    return ReversionClass.UNPROVEN if certificate is None or found is not Standing.VALID else certificate.reversion


def _certified(reconciler: Reconciler, row: int, now: datetime) -> tuple[Certificate | None, Standing]:
    identity = reconciler.poller.identity(row)
    if identity is None:
        return None, Standing.MISSING
    certificate = reconciler.wishes.certificates.get(identity.serial)
    return certificate, standing(certificate, identity, now)


def _devices(
    orders: Orders,
    reconciler: Reconciler,
    snapshot: TelemetrySnapshot,
    rows: list[int],
    service_of: Callable[[int], str],
) -> tuple[ShownDevice, ...]:
    fleet, now_s, claims = reconciler.fleet, snapshot.now_s, reconciler.wishes.claims(snapshot.now_s)
    owned = {each: ownership(claims, each, defaults_w(fleet, each), now_s) for each in Quantity}
    tags = [(tag.number, orders.places.under(tag.scope)) for tag in orders.board.tags]
    locks = [(lock.owner, orders.places.under(lock.scope)) for lock in orders.kept.locks.live(now_s)]
    found, foreign = [], reconciler.custody.foreign
    for row in rows:
        usual = Quantity.P_SET if fleet.is_battery[row] else Quantity.P_LIMIT
        quantity = next((each for each in Quantity if owned[each].owner[row] != NOBODY), usual)
        holding, who = reconciler.holdings.get((row, quantity)), owned[quantity]
        held_w = None if holding is None else holding.held.value_w
        found.append(
            ShownDevice(
                id=fleet.devices[row].id,
                mode=MODES[orders.laid.levels[row]],
                owner=who.name(int(who.owner[row])),
                until_s=float(who.until_s[row]) - now_s,
                limited_by="" if who.limited_by[row] == NOBODY else who.name(int(who.limited_by[row])),
                next_owner=who.name(int(who.next_owner[row])),
                wanted_w=float(who.value_w[row]),
                held_w=float("nan") if held_w is None else held_w,
                p_w=float(snapshot.p_w[row]),
                quality=Quality(int(snapshot.quality[row])).name.lower().replace("_", " "),
                tags=tuple(number for number, under in tags if under[row]),
                locked_by=", ".join(owner for owner, under in locks if under[row]),
                stopped=bool(orders.stopped()[row]),
                service=service_of(row),
                foreign=row in foreign,
                handed_over=row in reconciler.custody.handed_over,
                local=bool(snapshot.local[row]),
                reversion=proven_class(reconciler, row, orders.clock.utc()),
            )
        )
    return tuple(found)

"""Wishes: from what is wanted of devices to what is to be written, past authority, guards and thrift.

Plans and people want; authority makes one value of it; the guards are the last word on that, and thrift says whether
it is worth a write. Devices whose control has ended are restored to their defaults, ramped and staggered.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from derms.control.authority import Claims, Rank
from derms.control.connections import Reach
from derms.control.guards import RAMPS, Guarded, GuardInput, Permits, guard
from derms.control.handover import faults
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.certificate import Certificate, ReversionClass, Standing, standing
from derms.domain.der import Fleet
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.health import Health
from derms.domain.quality import Quality
from derms.domain.refusal import Reason, Refused
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.custody import Custody
from derms.field.holdings import Key
from derms.field.ledger import Ledger, Pending
from derms.field.orders import Orders
from derms.field.pace import Pace
from derms.field.poller import Poller
from derms.field.reach import reach_of
from derms.field.restorer import Restorer
from derms.field.thrift import Thrift, Verdict
from derms.field.wants import Plans, Wants, wants

SILENT = (Quality.STALE, Quality.EXPECTED_SILENT, Quality.MISSING)
"""Qualities of a device that does not answer."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A value that a device is wanted to hold."""

    key: Key
    value_w: float
    """What the guards left of it [W], NaN for nothing."""
    wanted_w: float
    by: str
    """The guard or authority that changed or refused it; empty for none."""
    plan_id: int
    """0 for what is no plan's."""
    valid_until_s: float


@dataclass(frozen=True, slots=True)
class Due:
    """What comes of a turn."""

    writes: Sequence[Pending]
    kept: Sequence[Wish]
    """What devices may keep, if they still hold it."""
    again: Sequence[int]
    """Rows that a ramp has held back: they go on with the next turn."""


@dataclass(slots=True)
class Wishes:
    """Judges what is wanted; see the module's text."""

    fleet: Fleet
    orders: Orders
    poller: Poller
    settings: DispatchSettings
    ledger: Ledger
    custody: Custody
    thrift: Thrift
    on_event: Callable[[Event], None]
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    """What commissioning has proven, by serial number."""
    plans: Plans = field(default_factory=Plans)
    pace: Pace = field(init=False)
    restorer: Restorer = field(init=False)
    _refused: int | None = None
    """The plan that was refused last."""

    def __post_init__(self) -> None:
        self.pace = Pace(self.fleet, self.settings)
        self.restorer = Restorer(self.fleet, self.pace.ramp_w_per_min)

    def adopt(self, dispatch: Dispatch) -> tuple[Reason, ...]:
        """Take a newer dispatch; one that nobody could follow is refused, and the one before goes on until its end."""
        reasons = faults(dispatch, len(self.fleet), self.orders.clock.monotonic_s(), self.settings.validity_s)
        if not reasons:
            self.plans.adopt(dispatch)
        elif dispatch.plan_id != self._refused:
            self._refused = dispatch.plan_id
            text = f"plan {dispatch.plan_id} is refused: {'; '.join(reason.text for reason in reasons)}"
            self._event(Severity.ALARM, "plan-refused", text)
        return reasons

    def approve(self, plan_id: int, author: str) -> Refused | None:
        """Let the plan that is offered go out where the mode is ADVISE."""
        now_s = self.orders.clock.monotonic_s()
        if not self.plans.approve(plan_id, now_s):
            latest = self.plans.latest
            offered = "no plan is offered" if latest is None else f"the plan that is offered is {latest.plan_id}"
            return Refused((Reason("plan", f"plan {plan_id} cannot be approved: {offered}"),))
        self._event(Severity.INFO, "plan-approved", f"{author}: plan {plan_id} is approved")
        return None

    def claims(self, now_s: float) -> Claims:
        """All that plans and people want, where modes and tags let it pass."""
        laid = self.orders.laid
        people = laid.passing(Rank.OPERATOR)
        manual = [claim.among(people) for claim in self.orders.claims.live(now_s)]
        return Claims().joined([*manual, *self.plans.claims(laid, now_s)])

    def expire(self, now_s: float) -> None:
        """Drop a dispatch that is over."""
        if self.plans.expire(now_s):
            text = "the dispatch has expired: devices are handed back to their defaults"
            self._event(Severity.ALARM, "dispatch-expired", text)

    def restore(self, now_s: float) -> BoolArray:
        """See which devices are to go back to their defaults, and which of them have something to do now.

        That is where something is held that nobody wants any more, and no plan is followed that could say so.
        """
        held_w = np.full(len(self.fleet), np.nan)
        laid = self.orders.laid
        left = ~self.plans.followed(laid) & ~laid.alone & (self.fleet.is_battery | self.fleet.is_pv)
        if left.any():
            claims = self.claims(now_s)
            wanted = {quantity: self._wants(claims, quantity, now_s).value_w for quantity in Quantity}
            for (row, _), holding in self.custody.holdings.items():
                value_w = holding.held.value_w
                if left[row] and value_w is not None and all(np.isnan(wanted[each][row]) for each in Quantity):
                    held_w[row] = value_w
        self.restorer.take(held_w, now_s)
        acts: BoolArray = self.restorer.due(self._ahead_s(now_s)) | np.isfinite(self._moving_w(now_s))
        return acts

    def _ahead_s(self, now_s: float) -> float:
        """Until when a turn restores: there is none before the next."""
        return now_s + self.settings.group_s

    def _moving_w(self, now_s: float) -> FloatArray:
        return self.restorer.moving_w(self._ahead_s(now_s))

    def due(self, rows: Sequence[int], snapshot: TelemetrySnapshot) -> Due:
        """What is to be written to some devices now, and what they may keep."""
        writes, kept, again = list[Pending](), list[Wish](), list[int]()
        claims, now_s = self.claims(snapshot.now_s), snapshot.now_s
        waiting = self.restorer.on_way & ~self.restorer.due(self._ahead_s(now_s))
        for quantity in Quantity:
            found = self._wants(claims, quantity, now_s)
            moving_w = self._moving_w(now_s) if quantity is Quantity.P_SET else np.full(len(self.fleet), np.nan)
            wanted_w = np.full(len(self.fleet), np.nan)
            wanted_w[rows] = np.where(np.isnan(found.value_w), moving_w, found.value_w)[rows]
            guarded, moves_w = self._guarded(wanted_w, quantity, found, rows, snapshot)
            held = self.held(quantity, rows, snapshot)
            changes_w: dict[int, float] = {}
            releases: list[int] = []
            for row in rows:
                key = (row, quantity)
                if np.isfinite(found.value_w[row]) and not self.orders.ladder.setpoints:
                    continue  # what it holds stays until its end
                if np.isfinite(wanted_w[row]):
                    wish = self._wish(key, float(wanted_w[row]), guarded, found)
                    if guarded.by[row] in RAMPS:
                        again.append(row)
                    match self._judged(wish, held.by[row]):
                        case Verdict.WRITE:
                            writes.append(self.intended(wish))
                            changes_w[row] = float(moves_w[row])
                        case Verdict.KEEP:
                            kept.append(wish)
                        case Verdict.LET_GO:
                            writes.append(self.ledger.intend(key, None, dispatch=wish))
                elif key in self.custody.held and snapshot.quality[row] not in SILENT and not waiting[row]:
                    # One that does not answer is left to its own reversion timer until it is back.
                    releases.append(row)
            changes_w |= (released_w := self._releases_w(releases, quantity, changes_w, snapshot))
            writes += [self.ledger.intend((row, quantity), None, dispatch=self.plans.latest) for row in released_w]
            again += [row for row in releases if row not in released_w]
            again += self._beside(released_w, quantity)
            self.pace.moved(changes_w, found, now_s)
        return Due(writes, kept, again)

    def _releases_w(
        self, rows: Sequence[int], quantity: Quantity, changes_w: Mapping[int, float], snapshot: TelemetrySnapshot
    ) -> dict[int, float]:
        """Which devices are released now, and how far each is expected to move [W].

        Those that a plan lets go move the fleet as its values do, and wait where its ramp is used up. All others go.
        """
        followed, released_w = self.plans.followed(self.orders.laid), dict[int, float]()
        moved_w = sum(changes_w.values())
        for row in rows:
            holding = self.custody.holdings.get((row, quantity))
            if holding is None or holding.held.value_w is None or not followed[row]:
                released_w[row] = 0.0
                continue
            change_w = self.pace.release_w(row, quantity, holding.held.value_w, float(snapshot.p_w[row]))
            if self.pace.lets(change_w, moved_w, snapshot.now_s):
                released_w[row] = change_w
                moved_w += change_w
        return released_w

    def intended(self, wish: Wish) -> Pending:
        """Enter the intent of a wish."""
        return self.ledger.intend(wish.key, wish.value_w, wanted_w=wish.wanted_w, by=wish.by, dispatch=wish)

    def _wants(self, claims: Claims, quantity: Quantity, now_s: float) -> Wants:
        return wants(claims, quantity, self.fleet, self.orders.laid, now_s)

    def _wish(self, key: Key, wanted_w: float, guarded: Guarded, found: Wants) -> Wish:
        row = key[0]
        value_w, by = float(guarded.value_w[row]), guarded.by[row]
        if np.isnan(found.value_w[row]):  # on its way back to its default
            return Wish(key, value_w, wanted_w, by, 0, self.restorer.end_s(row) + self.settings.interval_s)
        by, wished_w = by or found.limited_by[row], float(found.wish_w[row])
        return Wish(key, value_w, wished_w, by, int(found.plan_id[row]), float(found.until_s[row]))

    def _guarded(
        self, wanted_w: FloatArray, quantity: Quantity, found: Wants, rows: Sequence[int], snapshot: TelemetrySnapshot
    ) -> tuple[Guarded, FloatArray]:
        """What the guards leave, and how far that moves each device [W]."""
        moves = self.pace.moves(quantity, self.custody.holdings, found, snapshot, rows)
        given = replace(self.guard_input(quantity, snapshot), permits=self._permits(found, rows), moves=moves)
        guarded = guard(wanted_w, given)
        return guarded, moves.change_w(guarded.value_w)

    def _permits(self, found: Wants, rows: Sequence[int]) -> Permits:
        matched, reverts = np.ones(len(self.fleet), dtype=np.bool_), np.ones(len(self.fleet), dtype=np.bool_)
        for row in rows:
            matched[row] = self.poller.health(row) is not Health.QUARANTINED
            reverts[row] = not self.certificates or not self._keeps_for_ever(row)
        laid = self.orders.laid
        return Permits(matched, reverts, found.open, laid.tag_bounds, laid.stop_bounds)

    def _keeps_for_ever(self, row: int) -> bool:
        """Whether a device was proven not to let go of what it was told by itself."""
        identity = self.poller.identity(row)
        certificate = None if identity is None else self.certificates.get(identity.serial)
        if identity is None or certificate is None or certificate.reversion is not ReversionClass.C:
            return False
        return standing(certificate, identity, self.orders.clock.utc()) is Standing.VALID

    def held(self, quantity: Quantity, rows: Iterable[int], snapshot: TelemetrySnapshot) -> Guarded:
        """What some devices hold of ours, passed through the guards as if it were to go out now."""
        held_w = np.full(len(self.fleet), np.nan)
        for row in rows:
            holding = self.custody.holdings.get((row, quantity))
            if holding is not None:
                held_w[row] = holding.held.value_w
        return guard(held_w, self.guard_input(quantity, snapshot))

    def guard_input(self, quantity: Quantity, snapshot: TelemetrySnapshot) -> GuardInput:
        """What the guards look at, whoever wants something."""
        reversion_s = self.settings.reversion_s + self.settings.reversion_jitter_s
        return GuardInput(self.fleet, snapshot, reversion_s, quantity=quantity, reach=self._reach(snapshot))

    def _reach(self, snapshot: TelemetrySnapshot) -> Reach | None:
        if not self.fleet.connections:
            return None
        return reach_of(self.fleet, snapshot, self.custody, self.ledger, self.settings.interval_s)

    def _beside(self, released: Iterable[int], quantity: Quantity) -> list[int]:
        """Batteries that share a connection with PV that is not limited any more: they go on with the next turn."""
        fleet, freed = self.fleet, [row for row in released if self.fleet.is_pv[row]]
        if quantity is not Quantity.P_LIMIT or not freed:
            return []
        points = fleet.connection[freed]
        beside = fleet.is_battery & (fleet.connection >= 0) & np.isin(fleet.connection, points)
        return np.flatnonzero(beside).tolist()

    def _judged(self, wish: Wish, outside: str) -> Verdict:
        """Whether a value is to be written; where the device keeps its own, that is valid for this wish too.

        What a guard would not let out any more (`outside`) is nobody's to keep: the heartbeat does not refresh it.
        """
        key, custody = wish.key, self.custody
        if np.isnan(wish.value_w):
            return Verdict.WRITE
        holding = None if key in self.ledger.unheeded else custody.holdings.get(key)
        verdict = self.thrift.judge(key, wish.value_w, wish.by or outside, holding, holds=key in custody.held)
        if verdict is Verdict.KEEP and key in custody.holdings:
            custody.holdings[key] = custody.holdings[key].prolonged(wish.valid_until_s)
        return verdict

    def _event(self, severity: Severity, kind: str, text: str) -> None:
        self.on_event(Event(self.orders.clock.utc(), severity, "gateway", kind, text))

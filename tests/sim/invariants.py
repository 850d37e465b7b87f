"""The invariants, each a small check with its number; those that wait stand in `WAITING` with what they wait for.

Source: reliability reference, section 3. Bounds are those that the product states: plates, settings, and the margins
by which readings lag behind the truth.
"""

import numpy as np

from derms.domain.dispatch import Quantity
from hil.fault_kinds import Fault
from tests.sim.oracle import Check, Facts, Found
from tests.sim.people_checks import ON_THE_WAY_S, UNSAVED_S, HandsHold, StopsHold, leaves
from tests.sim.schedule import BRAIN, CLOCK, DISK, GATEWAY, LINK, PLANNER, SERVICE, Kind
from tests.sim.watch import Write

WAITING = {
    "I-6": "operators' commands with accounts: acknowledged ones end as executed or failed",
    "I-14": "PostgreSQL: each sample once, without a gap",
    "I-15": "accounts: the audit log",
    "I-18": "modes published by the service",
    "I-23": "accounts: permissions",
}
"""Invariants that are not checked here yet, and what they wait for."""
ELSEWHERE = {
    "I-9": "tests/control: ramps are a guard's, tested as a property",
    "I-22": "tests/sim/test_simulation.py: the same seed gives the same trace",
    "I-24": "tests/sim/test_isolation.py: a fault of one device leaves the commands of others as they are",
}

SOC_EPS_FRAC = 0.015
"""What a state of charge moves while its reading is on the way, or frozen and not yet noticed to be."""
ROUNDING_FRAC = 1e-3
"""Of rating: steps of registers."""
STEP_SLACK_S = 15.0
"""Physics steps of 5 s, groups of 15 s."""
ERRAND_S = 40.0
HANDED_OVER_S = 3600.0
"""For which a device may be left to another master."""
CONNECTS_MOST = 12
"""To one endpoint in ten seconds."""
TASKS_MOST = 120
OUTCOME_S = 900.0
"""An intent has its outcome by then."""
PLAN_SLACK_S = 90.0
"""On top of two intervals between plans: the first polls and estimates after a start."""
REPOLL_S = 150.0
"""A device that is well again is polled by then: the longest back-off and a poll."""
DEAF = frozenset(
    {
        *(Fault.STOP, Fault.REFUSE, Fault.GARBAGE, Fault.HANG, Fault.HALF_OPEN, Fault.REBOOT, Fault.EXCEPTION),
        *(Fault.WRONG_TRANSACTION, Fault.WRONG_PROTOCOL, Fault.WRONG_FUNCTION, Fault.DROP_MID_FRAME),
    }
)
"""Faults in which nothing that a device says can be believed."""


class WithinPlates(Check):
    """Every setpoint lies within what device and plate allow."""

    id = "I-1"

    def on_write(self, facts: Facts, write: Write) -> Found:
        device, value_w = facts.device(write.device), write.value_w
        if value_w is None or not write.whole:
            return []
        most_w = device.p_rated_w * (1.0 + ROUNDING_FRAC)
        if write.quantity is Quantity.P_LIMIT:
            return [] if 0.0 <= value_w <= most_w else [(write.device, f"a limit of {value_w:.0f} W")]
        if not device.energy_wh > 0.0:
            return [(write.device, "a setpoint to a device without a battery")]
        return [] if abs(value_w) <= most_w else [(write.device, f"a setpoint of {value_w:.0f} W, beyond nameplate")]


class WithinCharge(Check):
    """No battery is told to leave its bounds, nor does one leave them by what it was told."""

    id = "I-2"

    def on_write(self, facts: Facts, write: Write) -> Found:
        device, value_w = facts.device(write.device), write.value_w
        if write.quantity is not Quantity.P_SET or value_w is None or not write.whole or not write.is_command:
            return []
        soc_frac, small_w = facts.soc_frac(write.device), ROUNDING_FRAC * device.p_rated_w
        if value_w > small_w and soc_frac <= device.soc_min_frac - SOC_EPS_FRAC:
            return [(write.device, f"told to discharge {value_w:.0f} W at {soc_frac:.3f}")]
        if value_w < -small_w and soc_frac >= device.soc_max_frac + SOC_EPS_FRAC:
            return [(write.device, f"told to charge {-value_w:.0f} W at {soc_frac:.3f}")]
        efficiency = 0.95 if value_w < 0.0 else 1.0 / 0.95
        left_frac = soc_frac - value_w * efficiency * write.reversion_s / 3600.0 / device.energy_wh
        low_frac, high_frac = device.soc_min_frac - 2 * SOC_EPS_FRAC, device.soc_max_frac + 2 * SOC_EPS_FRAC
        if abs(value_w) > small_w and not low_frac <= left_frac <= high_frac:
            return [(write.device, f"{value_w:.0f} W until it reverts would leave it at {left_frac:.3f}")]
        return []


class WithinConnections(Check):
    """What devices behind a connection truly do together is within its limits, but for as long as a turn takes.

    While one of them or the gateway is ill, stopped or another master's, nobody can tell it to come down.
    """

    id = "I-3"

    def __init__(self) -> None:
        self._since_s: dict[str, float] = {}

    def each_second(self, facts: Facts) -> Found:
        now_s, found = facts.now_s(), list[tuple[str, str]]()
        for connection in facts.fleet.connections:
            names = [device.id for device in facts.fleet.devices if device.connection == connection.id]
            power_w = sum(float(facts.world.state.p_w[facts.rows[name]]) for name in names)
            slack_w = ROUNDING_FRAC * sum(facts.device(name).p_rated_w for name in names)
            within = -connection.taking_max_w - slack_w <= power_w <= connection.giving_max_w + slack_w
            if within or GATEWAY not in facts.up_s or any(facts.stopped(name) for name in names):
                self._since_s.pop(connection.id, None)
                continue
            others_s = max(facts.meddled_s.get(name, -np.inf) + HANDED_OVER_S for name in names)
            well_s = max(facts.well_since_s(*names, GATEWAY, SERVICE), facts.up_s[GATEWAY], others_s)
            since_s = max(self._since_s.setdefault(connection.id, now_s), well_s)
            if now_s - since_s > facts.dispatch.interval_s + 2.0 * ERRAND_S:
                self._since_s[connection.id] = np.inf
                found.append((connection.id, f"{power_w:.0f} W since {since_s:.0f} s"))
        return found


class JournalFirst(Check):
    """A durable intent with the same value stands in the journal before a command is on the wire."""

    id = "I-4"

    def on_write(self, facts: Facts, write: Write) -> Found:
        if write.value_w is None or not write.whole or self._unheard(facts, write):
            return []
        device, known = facts.device(write.device), facts.journal.last.get(write.key, [])
        step_w = ROUNDING_FRAC * device.p_rated_w
        same = [i for i in known if i.value_w is not None and abs(i.value_w - write.value_w) <= step_w]
        if write.is_command:
            same = [intent for intent in same if intent.seq not in facts.journal.outcomes]
        return [] if same else [(write.device, f"{write.value_w:.0f} W on the wire without a durable intent")]

    @staticmethod
    def _unheard(facts: Facts, write: Write) -> bool:
        """Whether a stop goes out without the journal: it does not wait for a disk that fails."""
        failed = DISK in facts.active and write.at_s - facts.well_since_s(DISK) < UNSAVED_S
        small_w = ROUNDING_FRAC * facts.device(write.device).p_rated_w
        value_w = 0.0 if write.value_w is None else write.value_w
        stops = (it for it in facts.stops if it.at_work(write.device, write.at_s, ON_THE_WAY_S))
        return failed and any(leaves(stop, write.quantity, value_w, small_w) for stop in stops)

    def each_second(self, facts: Facts) -> Found:
        wrong, facts.journal.wrong = facts.journal.wrong, []
        return [("journal", text) for text in wrong]


class OneOutcome(Check):
    """Every intent ends once, in time, whatever crashes."""

    id = "I-5"

    def __init__(self) -> None:
        self._late: set[int] = set()

    def each_second(self, facts: Facts) -> Found:
        if int(facts.now_s()) % 30 or GATEWAY not in facts.up_s:
            return []
        since_s = max(facts.up_s[GATEWAY], facts.well_since_s(DISK))
        found = []
        for intent in facts.journal.open():
            if facts.now_s() - max(intent.at_s, since_s) > OUTCOME_S and intent.seq not in self._late:
                self._late.add(intent.seq)
                found.append((intent.key[0], f"command {intent.seq} has no outcome after {OUTCOME_S:.0f} s"))
        return found


class OneHolder(Check):
    """Tokens never fall in the order of the wire."""

    id = "I-7"

    def __init__(self) -> None:
        self._greatest: dict[str, int] = {}

    def on_write(self, facts: Facts, write: Write) -> Found:
        known = facts.journal.last.get(write.key, [])
        step_w = ROUNDING_FRAC * facts.device(write.device).p_rated_w
        same = [i for i in known if i.value_w is not None and abs(i.value_w - (write.value_w or np.nan)) <= step_w]
        if not (write.is_command and write.whole and same):
            return []
        token, before = same[-1].token, self._greatest.get(write.device, 0)
        self._greatest[write.device] = max(token, before)
        return [(write.device, f"token {token} after {before}")] if token < before else []


class LetsGo(Check):
    """Every value ends by itself: timers are armed as stated, and nothing outlives them."""

    id = "I-8"

    def on_write(self, facts: Facts, write: Write) -> Found:
        most_s = facts.dispatch.reversion_s + facts.dispatch.reversion_jitter_s + 1.0
        if write.value_w is None or not write.whole or 0.0 < write.reversion_s <= most_s:
            return []
        return [(write.device, f"a value with a reversion time of {write.reversion_s:.0f} s")]

    def each_second(self, facts: Facts) -> Found:
        now_s, found = facts.now_s(), []
        for key, order in facts.orders.items():
            most_s = facts.dispatch.reversion_s + facts.dispatch.reversion_jitter_s + STEP_SLACK_S
            if order.foreign or now_s - order.armed_s <= most_s or not facts.holds(key):
                continue
            if facts.well_since_s(key[0]) <= order.armed_s:
                found.append((key[0], f"holds a {key[1].value} {now_s - order.armed_s:.0f} s after the last write"))
                order.foreign = True
        return found


class NoOldPlan(Check):
    """Nothing is written for a plan that has ended."""

    id = "I-13"

    def on_write(self, facts: Facts, write: Write) -> Found:
        if write.value_w is None or facts.ordered(write.device):
            return []
        age_s = write.at_s - (facts.asked_s[-1] if facts.asked_s else -np.inf)
        if age_s <= facts.dispatch.validity_s + ERRAND_S:
            return []
        return [(write.device, f"written {age_s:.0f} s after the last plan")]


class NothingBlind(Check):
    """No command to a device that has said nothing to be believed for too long."""

    id = "I-12"

    def on_write(self, facts: Facts, write: Write) -> Found:
        deaf = facts.has(write.device, *DEAF)
        if deaf is None or not write.is_command or facts.stopped(write.device):
            return []
        blind_s = write.at_s - deaf.start_s
        most_s = facts.polling.stale_after_s + ERRAND_S + STEP_SLACK_S
        return [] if blind_s <= most_s else [(write.device, f"commanded after {blind_s:.0f} s of {deaf.kind.value}")]


class WriteBudget(Check):
    """Registers are not worn: writes a day are bounded, and what is held is not written again without a reason."""

    id = "I-16"

    def __init__(self) -> None:
        self._writes: dict[tuple[str, Quantity, int], int] = {}

    def on_write(self, facts: Facts, write: Write) -> Found:
        day = facts.world.now.toordinal()
        count = self._writes[*write.key, day] = self._writes.get((*write.key, day), 0) + 1
        found = []
        if count == int(facts.dispatch.writes_per_day) + 1 and write.value_w is not None and write.is_command:
            found.append((write.device, f"{write.quantity.value} written more than {count - 1} times in a day"))
        order = facts.orders.get(write.key)
        if order is None or order.foreign or not write.whole or write.value_w is None or write.is_command:
            return found
        quiet_s = max(facts.well_since_s(write.device, DISK, PLANNER, CLOCK), facts.started_s.get(GATEWAY, 0.0))
        worth = facts.dispatch.deadband_frac > 0.0 and not facts.ordered(
            write.device
        )  # else every value is written in every turn
        if worth and write.at_s - order.armed_s < 30.0 and quiet_s < order.armed_s - 600.0:
            found.append((write.device, f"the same value again after {write.at_s - order.armed_s:.0f} s"))
        return found


class RightDevice(Check):
    """Nothing is written to a device that says it is another one."""

    id = "I-17"

    def on_write(self, facts: Facts, write: Write) -> Found:
        swapped = facts.has(write.device, Fault.SERIAL_CHANGE)
        return [] if swapped is None else [(write.device, "written to, and it is another device")]


class Bounded(Check):
    """Tasks and new connections have bounds."""

    id = "I-19"

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def each_second(self, facts: Facts) -> Found:
        if int(facts.now_s()) % 10:
            return []
        found = []
        for device, port in facts.ports.items():
            count = facts.wire.connects[port]
            if count - self._before.get(device, 0) > CONNECTS_MOST:
                found.append((device, f"{count - self._before[device]} new connections in 10 s"))
            self._before[device] = count
        if facts.tasks() > TASKS_MOST:
            found.append((SERVICE, f"{facts.tasks()} tasks"))
        return found


class InTime(Check):
    """Plans, polls and timers keep their periods, whatever the wall clock does."""

    id = "I-20"

    def __init__(self) -> None:
        self._told_s: dict[str, float] = {}

    def each_second(self, facts: Facts) -> Found:
        if GATEWAY not in facts.up_s or int(facts.now_s()) % 5:
            return []
        found = [*self._plans(facts), *self._polls(facts), *self._timers(facts)]
        return [(name, text) for name, text in found if self._first(name, facts.now_s())]

    def _first(self, name: str, now_s: float) -> bool:
        told_s = self._told_s.get(name, -np.inf)
        self._told_s[name] = now_s
        return now_s - told_s > 60.0

    def _plans(self, facts: Facts) -> Found:
        if BRAIN not in facts.up_s or facts.has(PLANNER, Kind.HANG):
            return []
        measured_s = facts.well_since_s("system") + REPOLL_S
        hung_s = facts.ended_s.get(PLANNER, 0.0)
        linked_s = facts.well_since_s(LINK)
        since_s = max(
            facts.up_s[GATEWAY],
            facts.up_s[BRAIN],
            measured_s,
            hung_s,
            linked_s,
            facts.asked_s[-1] if facts.asked_s else 0.0,
        )
        late_s = facts.now_s() - since_s
        most_s = 2.0 * facts.plan_every_s + PLAN_SLACK_S
        return [(PLANNER, f"no plan for {late_s:.0f} s")] if late_s > most_s else []

    def _polls(self, facts: Facts) -> Found:
        found: Found = []
        for device, port in facts.ports.items():
            since_s = max(facts.up_s[GATEWAY], facts.well_since_s(device)) + REPOLL_S
            heard_s = facts.wire.answered_s.get(port, 0.0)
            late_s = facts.now_s() - max(since_s, heard_s)
            if late_s > 3.0 * facts.polling.poll_s:
                found.append((device, f"well, and not polled for {facts.now_s() - heard_s:.0f} s"))
        return found

    def _timers(self, facts: Facts) -> Found:
        found: Found = []
        most_s = facts.dispatch.refresh_every_s + facts.dispatch.group_s + ERRAND_S
        planned_s = facts.asked_s[-1] if facts.asked_s else -np.inf
        if facts.now_s() - planned_s > facts.dispatch.validity_s:
            return []
        for key, order in facts.orders.items():
            released_s = max((it.over_s for it in facts.stops if key[0] in it.devices), default=0.0)
            since_s = max(facts.up_s[GATEWAY], facts.well_since_s(key[0], DISK), released_s) + 2 * REPOLL_S + 300.0
            late_s = facts.now_s() - max(since_s, order.armed_s)
            if late_s > most_s and not order.foreign and facts.holds(key) and not facts.stopped(key[0]):
                found.append((key[0], f"{key[1].value} is held, and not armed anew for {late_s:.0f} s"))
        return found


class Heals(Check):
    """Some time after the last mishap every device is polled, holds what it should and does it."""

    id = "I-21"

    def at_end(self, facts: Facts) -> Found:
        found: Found = []
        now_s, tolerance_frac = facts.now_s(), facts.dispatch.tolerance_frac
        if missing := [part for part in facts.parts if part not in facts.up_s]:
            return [(part, "does not run") for part in missing]
        for device, port in facts.ports.items():
            quiet_s = now_s - facts.wire.answered_s.get(port, -np.inf)
            if quiet_s > 2.0 * facts.polling.poll_s + 2.0:
                found.append((device, f"not polled for {quiet_s:.0f} s"))
            if not facts.device(device).energy_wh > 0.0 or now_s - facts.meddled_s.get(device, -np.inf) < 3900.0:
                continue
            key, rated_w = (device, Quantity.P_SET), facts.device(device).p_rated_w
            order, known = facts.orders.get(key), facts.journal.last.get(key)
            if not facts.holds(key) or order is None or order.write.value_w is None or not known:
                found.append((device, "holds nothing, and a plan wants it"))
                continue
            true_w = float(facts.world.state.p_w[facts.rows[device]])
            told_w = order.write.value_w
            if abs(true_w - told_w) > tolerance_frac * rated_w:
                found.append((device, f"was told {told_w:.0f} W and does {true_w:.0f} W"))
            intended_w = next((i.value_w for i in reversed(known) if i.value_w is not None), np.nan)
            if not abs(intended_w - told_w) <= ROUNDING_FRAC * rated_w:
                found.append((device, f"holds {told_w:.0f} W, and the last intent is {intended_w:.0f} W"))
        return found


class NothingUnexpected(Check):
    """No exception goes unheard, and the service does not end by itself."""

    id = "I-25"

    def each_second(self, facts: Facts) -> Found:
        found = [(SERVICE, text) for text in facts.unexpected]
        facts.unexpected.clear()
        return found


def checks() -> tuple[Check, ...]:
    """All of them, fresh."""
    return (
        *(
            WithinPlates(),
            WithinCharge(),
            WithinConnections(),
            JournalFirst(),
            OneOutcome(),
            OneHolder(),
            LetsGo(),
            NothingBlind(),
        ),
        *(NoOldPlan(), WriteBudget(), RightDevice(), Bounded(), InTime(), Heals(), NothingUnexpected()),
        *(StopsHold(), HandsHold()),
    )

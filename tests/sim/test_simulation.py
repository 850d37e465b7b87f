"""The simulation itself: nothing is violated, the same seed is the same run, and the oracle catches what it is for."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from derms.control import cycle, guards, latch
from derms.control.authority import Claims
from derms.domain.dispatch import Command
from derms.field.ledger import Ledger, Pending
from derms.field.orders_file import Kept, OrdersFile, Saved
from derms.field.stop_desk import StopDesk
from derms.field.wishes import Wish, Wishes
from derms.field.writer import Writer
from drivers.sunspec import control
from drivers.sunspec.codec import Image
from tests.sim.disk import DiskFault, SimDisk
from tests.sim.invariants import ELSEWHERE, WAITING, checks
from tests.sim.run import LEAN, WIRE, Result, Tier, run_seed
from tests.sim.schedule import CLOCK, DISK, FEEDER, GATEWAY, PEOPLE, Kind, Mishap, Schedule
from tests.sim.sweep import points, swept, trials, tried

pytestmark = pytest.mark.slow

SHORT_H = 0.25
QUIET = Schedule(1, (), 600.0)
"""Nothing goes wrong."""


@pytest.mark.parametrize(("seed", "tier"), [(1, WIRE), (2, WIRE), (3, LEAN)])
def test_nothing_is_violated_whatever_goes_wrong(seed: int, tier: Tier) -> None:
    found = run_seed(seed, hours=0.5, tier=tier)
    assert [str(violation) for violation in found.violations] == []
    assert found.faults > 5
    assert found.intents > 5


def test_the_same_seed_is_the_same_run_however_sets_hash() -> None:
    here = run_seed(5, hours=SHORT_H).trace
    program = f"from tests.sim.run import run_seed; print(run_seed(5, hours={SHORT_H}).trace)"
    there = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONHASHSEED": "99"},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert there.stdout.strip() == here
    assert run_seed(6, hours=SHORT_H).trace != here


def test_every_invariant_is_checked_or_waits_or_is_looked_at_elsewhere() -> None:
    checked = [check.id for check in checks()]
    assert sorted([*checked, *WAITING, *ELSEWHERE]) == sorted(f"I-{number}" for number in range(1, 26))


def test_one_cycle_survives_whatever_fails_at_any_of_its_points() -> None:
    counted = points()
    assert counted["await"] > 200
    assert counted["sync"] >= 1
    assert counted["send"] > 30
    assert [(str(trial), str(found[0])) for trial, found in swept(list(trials(counted, every=60)))] == []


def _found(result: Result) -> set[str]:
    return {violation.invariant for violation in result.violations}


def test_the_oracle_catches_an_intent_that_is_not_made_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "sync", lambda self, fd: None)
    assert "I-4" in _found(run_seed(1, hours=SHORT_H, schedule=QUIET))


def test_the_oracle_catches_a_command_that_is_sent_before_the_journal_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def later(self: Ledger, due: Sequence[Pending]) -> None:
        """Nothing is committed before the wire."""

    monkeypatch.setattr(Ledger, "make_durable", later)
    assert "I-4" in _found(run_seed(1, hours=SHORT_H, schedule=QUIET))


def test_the_oracle_catches_that_nobody_keeps_to_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "GUARDS", tuple(row for row in guards.GUARDS if row[0] != "connection"))
    monkeypatch.setattr(cycle, "pv_ceiling_w", lambda fleet, snapshot, available, told_w: np.full_like(told_w, np.nan))
    assert "I-3" in _found(run_seed(3, hours=SHORT_H, schedule=Schedule(3, (), 600.0)))


def test_the_oracle_catches_a_sign_that_is_flipped_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    rightly = control.WattSetpoint.change

    def flipped(self: control.WattSetpoint, image: Image, command: Command) -> control.Change:
        value_w = command.value_w
        return rightly(
            self, image, Command(command.quantity, None if value_w is None else -value_w, command.reversion_s)
        )

    monkeypatch.setattr(control.WattSetpoint, "change", flipped)
    assert "I-4" in _found(run_seed(1, hours=SHORT_H, schedule=QUIET))


def test_the_oracle_catches_a_value_that_would_stay_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "seconds", lambda image, timer, reversion_s: 0)
    assert "I-8" in _found(run_seed(1, hours=SHORT_H, schedule=QUIET))


def test_the_oracle_catches_that_nobody_reads_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def blindly(self: Writer, pending: Pending, driver: object) -> None:
        """Say that it was written, and write nothing."""
        self.ledger.counts.writes += 1

    monkeypatch.setattr(Writer, "_write", blindly)
    assert {"I-5", "I-21"} & _found(run_seed(1, hours=0.5, schedule=Schedule(1, (), 600.0)))


def test_a_stop_and_a_value_by_hand_hold_and_the_oracle_catches_a_stop_of_which_no_device_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = Mishap(450.0, 140.0, Kind.EMERGENCY, PEOPLE + FEEDER, 1.0)
    hand = Mishap(60.0, 370.0, Kind.BY_HAND, PEOPLE + "bat02", 0.05)
    ordered = Schedule(1, (hand, stop), 600.0)
    held = run_seed(1, hours=SHORT_H, schedule=ordered)
    assert (held.stops, held.by_hand, _found(held)) == (1, 1, set())
    monkeypatch.setattr(StopDesk, "_turn", lambda self: None)
    assert "I-10" in _found(run_seed(1, hours=SHORT_H, schedule=ordered))


def test_the_oracle_catches_a_plan_that_overrides_a_value_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    hand = Mishap(60.0, 530.0, Kind.BY_HAND, PEOPLE + "bat02", 0.05)

    def of_plans(self: Wishes, now_s: float) -> Claims:
        """Leave out what people want."""
        return Claims().joined(self.plans.claims(self.orders.laid, now_s))

    monkeypatch.setattr(Wishes, "claims", of_plans)
    assert "I-11" in _found(run_seed(1, hours=SHORT_H, schedule=Schedule(1, (hand,), 600.0)))


def test_a_value_by_hand_outlives_a_wall_clock_that_is_put_and_the_oracle_sees_where_it_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hand = Mishap(60.0, 900.0, Kind.BY_HAND, PEOPLE + "bat02", 0.05)
    step = Mishap(400.0, 560.0, Kind.CLOCK, CLOCK, 3600.0)
    crash = Mishap(450.0, 20.0, Kind.CRASH, GATEWAY)
    put = Schedule(1, (hand, step, crash), 960.0)
    kept = run_seed(1, hours=0.3, schedule=put)
    assert (kept.by_hand, _found(kept)) == (1, set())
    by_the_wall = Saved.moved_s
    monkeypatch.setattr(Saved, "moved_s", lambda self, clock, boot: by_the_wall(self, clock, ""))
    assert "I-11" in _found(run_seed(1, hours=0.3, schedule=put))


CEASED = Mishap(100.0, 240.0, Kind.EMERGENCY, PEOPLE + FEEDER, 2.0)


def test_the_oracle_catches_a_stop_that_a_restart_forgets_though_the_disk_had_failed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failed = Mishap(200.0, 15.0, next(iter(DiskFault)), DISK, 2.0)
    schedule = Schedule(1, (CEASED, failed, Mishap(240.0, 5.0, Kind.CRASH, GATEWAY)), 600.0)
    assert _found(run_seed(1, hours=SHORT_H, schedule=schedule)) == set()
    rightly = OrdersFile.load

    def forgets(self: OrdersFile, devices: tuple[str, ...], *, before: bool = False) -> Kept:
        return replace(rightly(self, devices, before=before), latches=())

    monkeypatch.setattr(OrdersFile, "load", forgets)
    assert "I-10" in _found(run_seed(1, hours=SHORT_H, schedule=schedule))


def test_the_oracle_catches_a_stop_that_one_person_releases_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_once(it: latch.Latch, person: str, now_s: float, *, remote: bool = False) -> latch.Released:
        return latch.Released(it, (person,), now_s)

    monkeypatch.setattr(latch, "approve", at_once)
    assert "I-10" in _found(run_seed(1, hours=SHORT_H, schedule=Schedule(1, (CEASED,), 600.0)))


def test_the_oracle_catches_a_battery_that_rests_where_a_value_stands_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    hand, rightly = Mishap(60.0, 530.0, Kind.BY_HAND, PEOPLE + "bat02", 0.05), Wishes.intended

    def rests(self: Wishes, wish: Wish) -> Pending:
        return rightly(self, wish if wish.plan_id else replace(wish, value_w=0.0))

    monkeypatch.setattr(Wishes, "intended", rests)
    assert "I-11" in _found(run_seed(1, hours=SHORT_H, schedule=Schedule(1, (hand,), 600.0)))


BOUNDING = ("nameplate", "device maximum", "connection", "state of charge")


def test_guards_hold_back_a_hostile_dispatch_and_the_oracle_sees_where_they_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten times what a device can, straight to the gateway."""
    whole = {violation.invariant for violation in tried(None, frac=10.0)}
    assert whole & {"I-1", "I-2", "I-4", "I-8"} == set()
    left = tuple(row for row in guards.GUARDS if row[0] not in BOUNDING)
    assert len(left) == len(guards.GUARDS) - len(BOUNDING)
    monkeypatch.setattr(guards, "GUARDS", left)
    assert {violation.invariant for violation in tried(None, frac=10.0)} >= {"I-1"}

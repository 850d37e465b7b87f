"""The health of a device as one pure state machine: what it is after each fact, and nothing else.

Hysteresis: one failure makes a device uncertain, a second in a row not working; what is not working or quarantined
must answer twice in a row before it is working again, and is uncertain between.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

FAILURES_TO_LOSE = 2
"""Failures in a row after which a device is not working."""
ANSWERS_TO_TRUST = 2
"""Answers in a row after which a lost device is working."""
CRASHES_TO_QUARANTINE = 3
"""Unexpected errors in a row after which nobody trusts our own handling of a device."""


class Health(StrEnum):
    """What the control room may expect of a device."""

    WORKING = "working"
    UNCERTAIN = "uncertain"
    """Failed lately, or has only just come back."""
    NOT_WORKING = "not-working"
    QUARANTINED = "quarantined"
    """Another device than expected, or one that our own code cannot cope with: tried again seldom."""
    EXPECTED_SILENT = "expected-silent"
    """Does not answer, for a known reason: a PV inverter at night."""


class Fact(StrEnum):
    """What happened at one poll."""

    ANSWERED = "answered"
    FAILED = "failed"
    """No connection, no answer, an answer that cannot be believed, or its gateway does not reach it."""
    BUSY = "busy"
    """Asked to be tried again later (exception 6)."""
    REFUSED = "refused"
    """Does not have what it is asked for (exceptions 1 to 3): a mistake in the configuration, or another map."""
    MISMATCHED = "mismatched"
    """Somebody else answers: another serial number or kind."""
    CRASHED = "crashed"
    """The handling of the device ended in an error that nobody expected."""


@dataclass(frozen=True, slots=True)
class Condition:
    """Health with what the next fact needs to know of the past."""

    health: Health = Health.UNCERTAIN
    failures: int = 0
    """In a row."""
    answers: int = 0
    """In a row, since the last failure."""
    crashes: int = 0
    """In a row."""
    lost: bool = False
    """Not working or quarantined, or not yet trusted again after it: said once, taken back once."""

    def after(self, fact: Fact, *, asleep: bool) -> "Condition":
        """The condition after a fact; `asleep` says that silence would be no surprise."""
        if fact is Fact.ANSWERED:
            return self._answered()
        failed = replace(
            self,
            failures=self.failures + 1,
            answers=0,
            crashes=self.crashes + 1 if fact is Fact.CRASHED else 0,
        )
        health = _health(failed, fact, asleep)
        if health is Health.EXPECTED_SILENT:
            return replace(failed, health=health, failures=0)
        return replace(failed, health=health, lost=self.lost or health in (Health.NOT_WORKING, Health.QUARANTINED))

    def _answered(self) -> "Condition":
        answers = self.answers + 1
        trusted = not self.lost or answers >= ANSWERS_TO_TRUST
        return Condition(
            health=Health.WORKING if trusted else Health.UNCERTAIN, answers=answers, lost=self.lost and not trusted
        )


def _health(now: Condition, fact: Fact, asleep: bool) -> Health:
    """Health after a failure, the failure counted already."""
    if fact is Fact.MISMATCHED or now.crashes >= CRASHES_TO_QUARANTINE:
        return Health.QUARANTINED
    if now.health is Health.QUARANTINED or now.lost:
        return now.health if now.health is Health.QUARANTINED else Health.NOT_WORKING
    if fact is Fact.FAILED and asleep:
        return Health.EXPECTED_SILENT
    enough = fact is not Fact.CRASHED and now.failures >= FAILURES_TO_LOSE
    return Health.NOT_WORKING if fact is Fact.REFUSED or enough else Health.UNCERTAIN

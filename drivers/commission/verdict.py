"""What a case says in the end, and what a case is."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from derms.domain.certificate import CaseState
from drivers.commission.subject import Subject

SHOWN = 6
"""Mistakes that a verdict names one by one."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of one case."""

    state: CaseState
    text: str
    reversion_s: float | None = None
    """Measured time until the device was back at its default [s]; None when none was measured."""


@dataclass(frozen=True, slots=True)
class Case:
    """One conformance case by its SunSpec name."""

    name: str
    title: str
    run: Callable[[Subject], Awaitable[Verdict]]
    does: str = ""
    """What it writes, for people to read beforehand; empty for a case that only reads."""


def absent(why: str) -> Verdict:
    """The device has nothing that the case could be about."""
    return Verdict(CaseState.NOT_APPLICABLE, why)


def failed(why: str) -> Verdict:
    return Verdict(CaseState.FAILED, why)


def judged(mistakes: Sequence[str], passed: str) -> Verdict:
    """Passed without mistakes; else failed with the first of them and how many more there are."""
    if not mistakes:
        return Verdict(CaseState.PASSED, passed)
    more = len(mistakes) - SHOWN
    return failed("; ".join(mistakes[:SHOWN]) + (f"; and {more} more" if more > 0 else ""))

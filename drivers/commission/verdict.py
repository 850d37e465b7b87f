"""What a case says in the end, and what a case is."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from derms.domain.certificate import CaseState
from drivers.commission.subject import APART, Subject


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of one case."""

    state: CaseState
    text: str
    reversion_s: float | None = None
    """Measured time until the device was back at its default [s]; None when none was measured."""
    company: str = ""
    """What somebody else has changed during the case; empty when nobody did."""


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
    """Passed without mistakes; else failed with all of them."""
    return failed(APART.join(mistakes)) if mistakes else Verdict(CaseState.PASSED, passed)

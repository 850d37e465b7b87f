"""Which feeder each DER is on, as a relation in time: feeders are switched daily, and what was must be known later."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

NOWHERE = ""
"""In place of a feeder: no source reaches the DER."""


@dataclass(frozen=True, slots=True)
class Span:
    """From `since` on a DER is on a feeder, until its next span."""

    der: str
    feeder: str
    """NOWHERE while it is dark."""
    since: datetime


@dataclass(frozen=True, slots=True)
class Membership:
    """All spans so far, in order of time."""

    spans: tuple[Span, ...] = ()

    def moved(self, feeder_of: Mapping[str, str], at: datetime) -> "Membership":
        """With a span for every DER that is elsewhere than before; the same object when none has moved.

        The past stays as it was: a clock that was put back dates a change to the last one.
        """
        last = {span.der: span.feeder for span in self.spans}
        since = max(at, self.spans[-1].since) if self.spans else at
        new = tuple(Span(der, feeder, since) for der, feeder in feeder_of.items() if last.get(der) != feeder)
        return Membership(self.spans + new) if new else self

    def feeder(self, der: str, at: datetime) -> str | None:
        """The feeder of a DER at a time; None before anything is known of it."""
        held = [span.feeder for span in self.spans if span.der == der and span.since <= at]
        return held[-1] if held else None

    def on(self, feeder: str, at: datetime) -> tuple[str, ...]:
        """All DER on a feeder at a time."""
        held = {span.der: span.feeder for span in self.spans if span.since <= at}
        return tuple(der for der, place in held.items() if place == feeder)

"""Watches how far the service has come down the degraded ladder, and tells every step of it.

The brain says with its messages what it has. While it is silent, forecast and plan get older; of model and database it
says nothing then, and that it is silent is a step of its own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from derms.control.degraded import LADDER, Position, Presence, Rung, position
from derms.domain.alarm import Event, Severity
from derms.domain.presence import BrainTold
from derms.ports import Clock


@dataclass(slots=True)
class Ladder:
    """Where the service stands; see the module's text."""

    clock: Clock
    on_event: Callable[[Event], None]
    stopped: Callable[[], bool]
    """Whether a stop of everything is latched."""
    on_doubt: Callable[[str, str], None]
    """Called with what speaks against the topology and the model whenever the brain has said something."""
    position: Position | None = None
    """None before it was looked at."""
    _started_s: float = field(init=False)
    _heard_s: float | None = None
    _told: BrainTold | None = None

    def __post_init__(self) -> None:
        self._started_s = self.clock.monotonic_s()

    @property
    def setpoints(self) -> bool:
        """New setpoints go out."""
        return self.position is None or self.position.setpoints

    def heard(self, told: BrainTold | None = None) -> None:
        """The brain was heard; what it told about itself the last time counts if it says nothing of it now."""
        self._heard_s = self.clock.monotonic_s()
        if told is None:
            return
        self._told = told
        model = next(step for step in LADDER if step.rung is Rung.NO_MODEL)
        # A silent brain, or one that has only begun, says nothing against its model: what it planned goes on.
        away = math.isfinite(told.model_s) and told.model_s > model.enter_s
        text = f"the feeder model has not been believable for {told.model_s:.0f} s" if away else ""
        self.on_doubt(told.topology, text)

    def presence(self) -> Presence:
        """How long each thing has been away; what never was there counts from the start of this gateway."""
        now_s = self.clock.monotonic_s()
        up_s, told = now_s - self._started_s, self._told
        silent_s = up_s if self._heard_s is None else now_s - self._heard_s

        def age_s(told_s: float) -> float:
            return told_s + silent_s if math.isfinite(told_s) else up_s

        def said_s(told_s: float) -> float:
            return told_s if math.isfinite(told_s) else up_s

        return Presence(
            forecast_s=age_s(told.forecast_s) if told else up_s,
            model_s=said_s(told.model_s) if told else 0.0,
            optimizer_s=age_s(told.optimizer_s) if told else up_s,
            database_s=said_s(told.database_s) if told else 0.0,
            brain_s=silent_s,
            stopped=self.stopped(),
        )

    def look(self) -> Position:
        """Find the place of this moment; a change of it is an event."""
        before = self.position
        self.position = now = position(before, self.presence(), self.clock.monotonic_s())
        if now.rung is not (Rung.NORMAL if before is None else before.rung):
            severity = Severity.INFO if now.rung is Rung.NORMAL else Severity.WARNING
            if now.rung >= Rung.ISOLATED:
                severity = Severity.ALARM
            self._event(severity, f"ladder-{now.rung.word}", now.text)
        return now

    def _event(self, severity: Severity, kind: str, text: str) -> None:
        self.on_event(Event(self.clock.utc(), severity, "gateway", kind, text))

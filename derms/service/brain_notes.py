"""What the brain tells people: each thing once when it begins, and once when it is over."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from derms.control.cycle import Decision
from derms.domain.alarm import Event, Severity
from derms.domain.grid import GridState
from derms.domain.plan import PlanSource
from derms.domain.quality import Quality
from derms.forecast.gates import Refusal
from derms.grid.topology import AsOperated


@dataclass
class BrainNotes:
    """Remembers what was told last."""

    on_event: Callable[[Event], None]
    _dark: tuple[str, ...] = field(default=(), init=False)
    _quality: Quality = field(default=Quality.GOOD, init=False)
    _missed: int = field(default=0, init=False)
    """Plans in a row that could not be made."""
    _risky: bool = field(default=False, init=False)
    _source: PlanSource = field(default=PlanSource.OPTIMIZER, init=False)

    def operated(self, feeder: str, seen: AsOperated, at: datetime) -> None:
        """When some DER lose their source, and when all have it."""
        if seen.dark_ders == self._dark:
            return
        self._dark = seen.dark_ders
        if self._dark:
            buses = sum(map(len, seen.islands))
            names = ", ".join(self._dark)
            text = f"feeder {feeder}: {len(self._dark)} DER and {buses} buses have no source: {names}"
            self._tell(at, Severity.WARNING, "der-dark", text)
        else:
            self._tell(at, Severity.INFO, "der-lit", f"feeder {feeder}: every DER has its source again")

    def state(self, state: GridState) -> None:
        """When the feeder's state starts or stops to rest on measurements that are all there."""
        if state.quality is self._quality:
            return
        self._quality = state.quality
        good = state.quality is Quality.GOOD
        text = f"the state of feeder {state.feeder} is {state.quality.name.lower()}"
        if not good:
            text += ": its head or some of its DER are not measured, or the model does not meet the head"
            text += ", or is not what stands outside" * bool(state.topology.doubt)
            text += f"; left out, for they contradict all others: {', '.join(state.bad)}" if state.bad else ""
        self._tell(state.at, Severity.INFO if good else Severity.WARNING, "feeder-state", text)

    def history(self, refused: Sequence[Refusal], at: datetime) -> None:
        """When some of the utility's records cannot be believed."""
        if refused:
            text = "records of net load are left out: " + "; ".join(refusal.text for refusal in refused)
            self._tell(at, Severity.WARNING, "forecast-history", text)

    def waiting(self, now: datetime) -> None:
        """At the second plan in a row that could not be made; right after the start the first may be early."""
        self._missed += 1
        if self._missed == 2:
            text = "no plan: system net load or the feeder's state is not known"
            self._tell(now, Severity.ALARM, "plan-waits", text)

    def decided(self, decision: Decision) -> None:
        """When plans come from another rung, and when loss of all control starts or stops to be worse than no plan."""
        self._missed = 0
        at, source = decision.plan.made_at, decision.plan.source
        if source is not self._source:
            self._source = source
            severity = Severity.INFO if source is PlanSource.OPTIMIZER else Severity.ALARM
            text = f"plans now come from: {source}" + "".join(f"; {why}" for why in decision.rejected)
            self._tell(at, severity, "plan-source", text)
        if bool(decision.contingency) != self._risky:
            self._risky = bool(decision.contingency)
            severity = Severity.WARNING if self._risky else Severity.INFO
            text = decision.contingency or "loss of all control would be no worse than no plan"
            self._tell(at, severity, "control-loss", text)

    def _tell(self, at: datetime, severity: Severity, kind: str, text: str) -> None:
        self.on_event(Event(at, severity, "brain", kind, text))

"""What the utility tells of switches, carried into the feeder's state, the decision and the events."""

from collections.abc import Iterator
from dataclasses import replace

from derms.control.cycle import Decision
from derms.domain.alarm import Event, Severity
from derms.domain.grid import GridState, Topology
from derms.domain.quality import Quality


def as_operated(state: GridState, topology: Topology) -> GridState:
    """The state with the topology as told; SUSPECT at best where the model may not be what stands outside."""
    quality = max(state.quality, Quality.SUSPECT) if topology.doubt else state.quality
    return replace(state, topology=topology, quality=quality)


def with_doubt(decision: Decision, topology: Topology) -> Decision:
    """The decision with the doubt in the model that it was made with among its reasons."""
    if not topology.doubt:
        return decision
    reasons = [reason for reason in (decision.plan.reason, topology.doubt) if reason]
    return replace(decision, plan=replace(decision.plan, reason=" | ".join(reasons)))


def changes(before: Topology, state: GridState) -> Iterator[Event]:
    """One event for all switches that become unknown, that leave the model's state, and that come back to it."""
    after = state.topology
    for kind, old, new, what in (
        ("switch-unknown", before.unknown, after.unknown, "are not known to be open or closed"),
        ("switch-abnormal", before.abnormal, after.abnormal, "are not as in the feeder's model"),
    ):
        if came := sorted(set(new) - set(old)):
            text = f"feeder {state.feeder}: switches {', '.join(came)} {what}"
            yield Event(state.at, Severity.WARNING, "brain", kind, text)
    if settled := sorted({*before.unknown, *before.abnormal} - {*after.unknown, *after.abnormal}):
        text = f"feeder {state.feeder}: switches {', '.join(settled)} are as in the feeder's model"
        yield Event(state.at, Severity.INFO, "brain", "switch-normal", text)

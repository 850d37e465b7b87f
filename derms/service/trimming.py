"""Trimming: keeps the reconciler's dispatch trimmed to the net load that is measured.

The reconciler stays the only writer: it is given the dispatch of the latest plan again, with the trim of the moment.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from derms.control.guards import allowed
from derms.control.trim import Measured, TrimState, Turns, trimmed
from derms.domain.alarm import Event, Severity
from derms.domain.dispatch import Dispatch, Quantity
from derms.domain.quality import Quality
from derms.domain.refusal import Reason
from derms.domain.scada import NOTHING, PointKind, ScadaReading
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.reconcile import Reconciler

Measure = Callable[[TelemetrySnapshot], Measured]


def measured(reading: ScadaReading, head_w: float = math.nan) -> Measured:
    """Net load as the utility's system or a meter tells it: as good and as new as the worst of its parts.

    The feeder's head is what a meter of ours says [W], else what the utility's system does.
    """
    parts = [reading.values.get(point.id, NOTHING) for point in reading.points if point.kind is PointKind.NET_LOAD]
    quality = max((part.quality for part in parts), default=Quality.MISSING)
    at_s = min((part.received_s for part in parts), default=NOTHING.received_s)
    told_w = reading.head(PointKind.HEAD_P)
    heads_w = np.array([head_w if math.isfinite(head_w) or not told_w else sum(told_w)])
    return Measured(reading.net_load_w, quality, at_s, heads_w)


def head_meter_w(snapshot: TelemetrySnapshot, rows: Sequence[int]) -> float:
    """Power into the feeder by the first of its meters that is good [W]; NaN where none is."""
    good = snapshot.good("p_w")
    return next((float(snapshot.p_w[row]) for row in rows if good[row]), math.nan)


class Trimmer:
    """Stands between whoever has plans and the reconciler."""

    def __init__(self, reconciler: Reconciler, measure: Measure, on_event: Callable[[Event], None]) -> None:
        self._reconciler = reconciler
        self._measure = measure
        self._on_event = on_event
        self._dispatch: Dispatch | None = None
        self._state = TrimState()
        self._stopped = False

    @property
    def trim_w(self) -> float:
        """What is added to the plan's battery power now [W], + = injection."""
        return self._state.trim_w

    def adopt(self, dispatch: Dispatch) -> tuple[Reason, ...]:
        """Take a newer dispatch and hand it on, trimmed; or why it is refused, and the one before goes on."""
        reasons = self._reconciler.adopt(dispatch)
        if not reasons:
            self._dispatch = dispatch
            self.trim()
        return reasons

    def trim(self) -> None:
        """Hand the dispatch on with the trim of this moment; nothing once it has expired."""
        dispatch, reconciler = self._dispatch, self._reconciler
        snapshot, settings = reconciler.poller.snapshot(), reconciler.settings
        if dispatch is None or dispatch.valid_until_s <= snapshot.now_s:
            self._dispatch, self._state = None, TrimState()
            return
        found = self._measure(snapshot)
        dispatch, self._state = trimmed(
            dispatch,
            allowed(reconciler.wishes.guard_input(Quantity.P_SET, snapshot)),
            self._state,
            found,
            snapshot.now_s,
            turns=Turns(reconciler.given_w(snapshot), reconciler.soon(settings.trim_every_s)),
            settings=settings,
        )
        self._note(snapshot, stopped=dispatch.leeway is not None and not found.serves(snapshot.now_s))
        reconciler.adopt(dispatch)

    def _note(self, snapshot: TelemetrySnapshot, *, stopped: bool) -> None:
        """An event when the trim stops for want of a measurement, and when it goes on."""
        if stopped is self._stopped:
            return
        self._stopped = stopped
        kind = "trim-stopped" if stopped else "trim-on"
        text = (
            "net load is not known well enough: batteries follow the plan without trim"
            if stopped
            else ("net load is known: batteries are trimmed to it again")
        )
        self._on_event(Event(snapshot.at, Severity.INFO, "gateway", kind, text))

"""The utility's system behind any link: polled on the cadence, every point judged, kept and aged on its own."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from derms.domain.alarm import Event, Severity
from derms.domain.quality import Quality
from derms.domain.scada import NOTHING, PointKind, PointValue, Sample, ScadaPoint, ScadaReading
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import FieldError, ScadaError
from derms.ports import Clock, ScadaLink
from derms.scada.intake import Limits, QualityMap, aged, judge, kept
from derms.scada.meter import MeterScada

LOST_AFTER = 2
"""Polls in a row without an answer, or without one that can be read: a file may be half written once."""
NAMED_MAX = 3
"""Points that an event names; the others are counted."""


class LinkedScada:
    """A ScadaSource over a link and its point map; net load comes from `meter` where no point tells it."""

    def __init__(
        self,
        link: ScadaLink,
        points: Sequence[ScadaPoint],
        qualities: QualityMap,
        limits: Limits,
        *,
        clock: Clock,
        on_event: Callable[[Event], None],
        meter: MeterScada | None,
    ) -> None:
        self._link = link
        self._points = tuple(points)
        self._qualities = qualities
        self._limits = limits
        self._clock = clock
        self._on_event = on_event
        self._meter = None if any(point.kind is PointKind.NET_LOAD for point in points) else meter
        self._values: dict[str, PointValue] = {}
        self._leapt: dict[str, PointValue] = {}
        """Values that moved too far at once, each until it is told again or not."""
        self._failures = 0
        self._refused: dict[str, str] = {}
        self._stale: dict[str, str] = {}
        self._strange: set[str] = set()

    async def poll(self) -> None:
        """Fetch and take over what can be believed; each change for better or worse is one event."""
        try:
            samples = await self._link.fetch()
        except (ScadaError, FieldError) as error:
            self._failed(error)
        else:
            self._worked()
            if samples is not None:
                self._take(samples)
        self._note_stale()

    def reading(self, snapshot: TelemetrySnapshot) -> ScadaReading:
        """Every point, aged to now; with the meter's net load where it has to stand in."""
        points, values = self._points, self._aged()
        if self._meter is not None:
            metered = self._meter.reading(snapshot)
            points, values = (*points, *metered.points), {**values, **metered.values}
        return ScadaReading(self._clock.utc(), points, values)

    def _aged(self) -> dict[str, PointValue]:
        now, now_s = self._clock.utc(), self._clock.monotonic_s()
        return {id_: aged(value, self._limits, now=now, now_s=now_s) for id_, value in self._values.items()}

    def _take(self, samples: Iterable[Sample]) -> None:
        now, now_s = self._clock.utc(), self._clock.monotonic_s()
        delivered = defaultdict(list)
        for sample in samples:
            delivered[sample.where].append(sample)
        refused, known = {}, self._aged()
        for point in self._points:
            before, leapt = known.get(point.id, NOTHING), self._leapt.pop(point.id, NOTHING)
            verdict = judge(
                point,
                delivered[point.where],
                self._qualities,
                self._limits,
                now=now,
                now_s=now_s,
                before=before,
                leapt=leapt,
            )
            self._values[point.id] = kept(before, verdict)
            if verdict.leapt:
                self._leapt[point.id] = verdict.value
            if verdict.refused:
                refused[point.id] = f"{point.id}: {verdict.refused}"
            self._note_word(verdict.strange_word, now)
        self._changed(self._refused, refused, "points-refused", "not believed", now)
        self._refused = refused

    def _note_word(self, word: str, now: datetime) -> None:
        if word and word not in self._strange:
            self._strange.add(word)
            text = f"the utility's system says quality '{word}', which its table does not have: taken as suspect"
            self._on_event(Event(now, Severity.WARNING, "scada", "quality-unknown", text))

    def _note_stale(self) -> None:
        stale = {id_: id_ for id_, value in self._aged().items() if value.quality is Quality.STALE}
        self._changed(self._stale, stale, "points-stale", "too old to be used", self._clock.utc())
        self._stale = stale

    def _changed(self, before: dict[str, str], after: dict[str, str], kind: str, what: str, now: datetime) -> None:
        """One event for all points that are in trouble since now, one for all that are out of it."""
        if new := [text for id_, text in after.items() if id_ not in before]:
            text = f"points of the utility's system {what}: {_some(new)}"
            self._on_event(Event(now, Severity.WARNING, "scada", kind, text))
        if gone := [id_ for id_ in before if id_ not in after]:
            text = f"points of the utility's system no longer {what}: {_some(gone)}"
            self._on_event(Event(now, Severity.INFO, "scada", f"{kind}-over", text))

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == LOST_AFTER:
            text = f"the utility's system cannot be read: {error}"
            self._on_event(Event(self._clock.utc(), Severity.ALARM, "scada", "scada-lost", text))

    def _worked(self) -> None:
        if self._failures >= LOST_AFTER:
            text = "the utility's system can be read again"
            self._on_event(Event(self._clock.utc(), Severity.INFO, "scada", "scada-back", text))
        self._failures = 0


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - NAMED_MAX
    return "; ".join(texts[:NAMED_MAX]) + (f"; and {more} more" if more > 0 else "")

"""The historian's store: takes samples, decisions, outcomes and events, writes them in batches, reads them back.

What is given waits in bounded memory until `flush` writes all of it in one transaction, so that a database that is
slow or away holds nobody up. Reading shows what has been flushed. Periods are half open: start <= time < end.
"""

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import machine, python_version
from typing import Any, get_args

import numpy as np
from sqlalchemy import Connection, Dialect, Engine, Select, Table, create_engine, delete, event, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from derms.control.scorecard import WINDOW_H, Hour
from derms.domain.alarm import Event, Severity
from derms.domain.arrays import ByteArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.dispatch import CommandRecord, Outcome, Quantity
from derms.domain.forecast import Forecast
from derms.domain.membership import Membership, Span
from derms.domain.plan import Plan
from derms.domain.quality import Quality
from derms.domain.records import Position, Records
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import HistorianError, RecordError
from derms.historian import replay, schema
from derms.historian.schema import from_us, to_us

WAITING_MAX = 100_000
"""Entries of one kind that may wait for a flush; what comes beyond is dropped, and counted."""
SAMPLES_WAITING_MAX = 500_000
"""The same for samples: devices times snapshots."""
FORECASTS_WAITING_MAX = 10_000
"""The same for forecasts: each is some ten kilobytes."""
DECISIONS_WAITING_MAX = 288
"""The same for decisions, a day of them: each of a large fleet is some megabytes."""
MADE_WITH = ("derms", "numpy", "scipy", "cvxpy", "piqp", "clarabel")
"""Packages of whose versions the last bit of a plan may depend."""

_OUTCOMES = {kind.__name__: kind for kind in get_args(Outcome)}


@dataclass(frozen=True, slots=True)
class Series:
    """One point's history."""

    times: tuple[datetime, ...]
    values: FloatArray
    """NaN where the value was missing, shape (k,)."""
    quality: ByteArray
    """The device's; NOT_IMPLEMENTED where a good device had no such value."""


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """A plan, and by name all that it was made from."""

    at: datetime
    plan: Plan
    inputs: Mapping[str, Any]
    device_ids: tuple[str, ...] = ()
    """Of every row of the fleet; empty in old records."""
    made_with: Mapping[str, str] = field(default_factory=dict)
    """Versions of what made it, and its machine; empty in old records."""


class Store:
    """A historian on any database URL of SQLAlchemy. Taking and flushing may happen in two threads."""

    def __init__(self, url: str, fleet: Fleet) -> None:
        """Open the database and create what is missing in it; raises HistorianError."""
        self.dropped = 0
        """Entries lost because the database was away for too long."""
        self._engine = _engine(url)
        self._flushing = threading.Lock()
        self._samples: list[tuple[int, FloatArray, ByteArray]] = []
        self._decisions: list[tuple[Plan, Mapping[str, object]]] = []
        self._outcomes: list[CommandRecord] = []
        self._events: list[Event] = []
        self._spans: list[Span] = []
        self._drained: dict[str, Position] = {}
        self._forecasts: list[Forecast] = []
        self._watched: list[tuple[str, str, Hour]] = []
        self._names = tuple(device.id for device in fleet.devices)
        self._sample_insert = _sample_insert(self._engine.dialect)
        with _translated():
            schema.metadata.create_all(self._engine)
            with self._engine.begin() as connection:
                self._device_ids = _device_ids(connection, self._names)

    def samples(self, snapshot: TelemetrySnapshot) -> None:
        """Take a snapshot of the fleet that the store was opened for."""
        s = snapshot
        columns = (s.p_w, s.q_var, s.v_pu, s.soc_frac, s.p_phase_w, s.q_phase_var, s.v_phase_pu)
        entry = (to_us(s.at), np.column_stack(columns), s.quality.copy())
        self._take(self._samples, entry, SAMPLES_WAITING_MAX // max(1, len(s.quality)))

    def decision(self, plan: Plan, **inputs: object) -> None:
        """Take a plan with everything it was made from, of the types that `derms.historian.replay` knows.

        Nothing that is given may be changed afterwards: it is packed at the next flush. What `derms explain` and
        `derms replay` look for, and by which names, says `derms.service.decided.Decided`.
        """
        self._take(self._decisions, (plan, inputs), DECISIONS_WAITING_MAX)

    def forecast(self, made: Forecast) -> None:
        """Take a forecast."""
        self._take(self._forecasts, made, FORECASTS_WAITING_MAX)

    def outcome(self, record: CommandRecord) -> None:
        """Take the end of a command."""
        self._take(self._outcomes, record)

    def event(self, event: Event) -> None:
        """Take an event."""
        self._take(self._events, event)

    @property
    def has_room(self) -> bool:
        """Whether a gateway's records may be taken: what waits too long would be dropped, and there it keeps."""
        return max(len(self._outcomes), len(self._events)) < WAITING_MAX // 2

    def records(self, gateway: str, found: Records) -> None:
        """Take outcomes and events of a gateway's journal, and with them how far it has been taken."""
        for entry in found.entries:
            if isinstance(entry, Event):
                self.event(entry)
            else:
                self.outcome(entry)
        self._drained[gateway] = found.until

    def position(self, gateway: str) -> Position:
        """How far the journal of a gateway has been taken."""
        if gateway not in self._drained:
            rows = self._read(select(schema.drains).where(schema.drains.c.gateway == gateway))
            self._drained[gateway] = Position(rows[0].origin, rows[0].place) if rows else Position()
        return self._drained[gateway]

    def spans(self, spans: Sequence[Span]) -> None:
        """Take what has changed in which feeder the DER are on."""
        for span in spans:
            self._take(self._spans, span)

    def watched(self, feeder: str, model: str, hour: Hour) -> None:
        """Take what was counted of a feeder in an hour, in the place of what was taken of that hour before."""
        self._take(self._watched, (feeder, model, hour))

    def watched_hours(self, feeder: str, model: str) -> list[Hour]:
        """What was counted of a feeder while it had this model."""
        c = schema.watched_hours.c
        rows = self._read(select(c.sums).where(c.feeder == feeder, c.model == model).order_by(c.hour))
        known = {each.name for each in fields(Hour)}
        return [Hour(**{name: sum_ for name, sum_ in json.loads(row.sums).items() if name in known}) for row in rows]

    def _take(self, waiting: list[Any], entry: object, most: int = WAITING_MAX) -> None:
        if len(waiting) < most:
            waiting.append(entry)
        else:
            self.dropped += 1

    def flush(self) -> None:
        """Write everything taken so far in one transaction; after a HistorianError all of it goes on waiting."""
        with self._flushing:
            samples, decisions = self._samples[:], self._decisions[:]
            outcomes, events, spans = self._outcomes[:], self._events[:], self._spans[:]
            forecasts, drained, watched = self._forecasts[:], dict(self._drained), self._watched[:]
            batches = (
                (schema.decisions, [_decision_row(plan, inputs, self._names) for plan, inputs in decisions]),
                (schema.forecasts, [_forecast_row(made) for made in forecasts]),
                (schema.outcomes, [_outcome_row(record) for record in outcomes]),
                (schema.events, [_event_row(entry) for entry in events]),
                (schema.memberships, [_span_row(span) for span in spans]),
                (schema.drains, [{"gateway": name, **asdict(position)} for name, position in drained.items()]),
            )
            with _translated(), self._engine.begin() as connection:
                if samples:
                    self._write_samples(connection, samples)
                connection.execute(delete(schema.drains).where(schema.drains.c.gateway.in_(list(drained))))
                _write_watched(connection, watched)
                for table, rows in batches:
                    if rows:
                        connection.execute(insert(table), rows)
            del self._samples[: len(samples)], self._decisions[: len(decisions)]
            del self._outcomes[: len(outcomes)], self._events[: len(events)], self._spans[: len(spans)]
            del self._forecasts[: len(forecasts)], self._watched[: len(watched)]

    def _write_samples(self, connection: Connection, samples: list[tuple[int, FloatArray, ByteArray]]) -> None:
        """Write samples in the order of the table's key; NaN becomes NULL."""
        values = np.stack([values for _, values, _ in samples], axis=1).reshape(-1, len(schema.POINTS))
        quality = np.stack([quality for _, _, quality in samples], axis=1).ravel()
        stored = values.astype(np.object_)
        stored[np.isnan(values)] = None
        times = [at_us for at_us, _, _ in samples] * len(self._device_ids)
        ids = np.repeat(self._device_ids, len(samples)).tolist()
        rows = zip(ids, times, quality.tolist(), *stored.T.tolist(), strict=True)
        statement, by_position = self._sample_insert
        names = schema.samples.c.keys()
        connection.exec_driver_sql(
            statement, list(rows) if by_position else [dict(zip(names, row, strict=True)) for row in rows]
        )

    def series(self, device: str, point: str, start: datetime, end: datetime) -> Series:
        """The history of one of POINTS, in order of time, empty when there is none; KeyError for another point."""
        samples, devices = schema.samples.c, schema.devices.c
        query = (
            select(samples.at_us, samples[point], samples.quality)
            .join_from(schema.devices, schema.samples, devices.id == samples.device_id)
            .where(devices.device == device, samples.at_us >= to_us(start), samples.at_us < to_us(end))
            .order_by(samples.at_us)
        )
        rows = self._read(query)
        values = np.array([value for _, value, _ in rows], dtype=np.float64)
        quality = np.array([quality for _, _, quality in rows], dtype=np.uint8)
        quality[np.isnan(values) & (quality == Quality.GOOD)] = Quality.NOT_IMPLEMENTED
        return Series(tuple(from_us(at_us) for at_us, _, _ in rows), values, quality)

    def outcomes(self, start: datetime, end: datetime, device: str | None = None) -> list[CommandRecord]:
        """Commands that ended in a period, of all devices or of one, in the order in which they ended."""
        c = schema.outcomes.c
        query = select(schema.outcomes).where(c.ended_us >= to_us(start), c.ended_us < to_us(end))
        if device is not None:
            query = query.where(c.device == device)
        return [
            CommandRecord(
                seq=row.seq,
                at=from_us(row.at_us),
                device_id=row.device,
                quantity=Quantity(row.quantity),
                plan_id=row.plan_id,
                wanted_w=_or_nan(row.wanted_w),
                value_w=None if row.is_release else _or_nan(row.value_w),
                outcome=_OUTCOMES[row.outcome](**json.loads(row.detail)),
                ended_at=from_us(row.ended_us),
            )
            for row in self._read(query.order_by(c.ended_us, c.id))
        ]

    def events(self, start: datetime, end: datetime) -> list[Event]:
        """Events of a period, in order of time."""
        c = schema.events.c
        query = select(schema.events).where(c.at_us >= to_us(start), c.at_us < to_us(end))
        return [
            Event(from_us(row.at_us), Severity(row.severity), row.source, row.kind, row.text)
            for row in self._read(query.order_by(c.at_us, c.id))
        ]

    def membership(self) -> Membership:
        """Which feeder each DER was on, since the records began."""
        c = schema.memberships.c
        rows = self._read(select(schema.memberships).order_by(c.since_us, c.id))
        return Membership(tuple(Span(row.der, row.feeder, from_us(row.since_us)) for row in rows))

    def decisions(self, start: datetime, end: datetime) -> Iterator[StoredDecision]:
        """Decisions of a period in order of time, each exactly as it was taken."""
        c = schema.decisions.c
        query = select(c.plan_id, c.at_us, c.body).where(c.at_us >= to_us(start), c.at_us < to_us(end))
        for row in self._read(query.order_by(c.at_us, c.id)):
            yield _decision(row)

    def latest(self, *, plan_id: int | None = None, until: datetime | None = None) -> StoredDecision | None:
        """The latest decision, of those with a plan's number, and of those made until a time; None for none.

        Numbers of plans begin anew with each start of the service.
        """
        c = schema.decisions.c
        query = select(c.plan_id, c.at_us, c.body).order_by(c.at_us.desc(), c.id.desc()).limit(1)
        if plan_id is not None:
            query = query.where(c.plan_id == plan_id)
        if until is not None:
            query = query.where(c.at_us <= to_us(until))
        rows = self._read(query)
        return _decision(rows[0]) if rows else None

    def first_decision_at(self) -> datetime | None:
        """When the first decision was made; None for none."""
        rows = self._read(select(schema.decisions.c.at_us).order_by(schema.decisions.c.at_us).limit(1))
        return from_us(rows[0].at_us) if rows else None

    def forecast_known_at(self, at: datetime) -> Forecast | None:
        """The newest forecast that was made by a time: what was known then; None for none."""
        c = schema.forecasts.c
        query = select(c.body).where(c.made_us <= to_us(at)).order_by(c.made_us.desc(), c.id.desc()).limit(1)
        rows = self._read(query)
        if not rows:
            return None
        made: Forecast = replay.unpack(rows[0].body)
        return made

    def _read(self, query: Select[Any]) -> Sequence[Any]:
        with _translated(), self._engine.connect() as connection:
            return connection.execute(query).all()

    def close(self) -> None:
        """Flush, and close the database even when that raises HistorianError."""
        try:
            self.flush()
        finally:
            self._engine.dispose()


def _engine(url: str) -> Engine:
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        if engine.url.database:
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _set_up_sqlite)
    return engine


def _set_up_sqlite(connection: Any, record: object) -> None:
    """Readers never wait for the writer; a commit survives the process, if not always the power supply."""
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "busy_timeout = 5000"):
        connection.execute(f"PRAGMA {pragma}")


def _sample_insert(dialect: Dialect) -> tuple[str, bool]:
    """The insert of samples in the words of the database's driver, and whether that takes rows by position.

    Given to the driver as it is, it costs a fifth of the same through SQLAlchemy. Samples that are there already
    stay as they are, where the database knows how.
    """
    makers: Mapping[str, Callable[[Table], Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
    maker = makers.get(dialect.name)
    statement = maker(schema.samples).on_conflict_do_nothing() if maker else insert(schema.samples)
    compiled = statement.compile(dialect=dialect)
    return str(compiled), bool(compiled.positional)


@contextmanager
def _translated() -> Iterator[None]:
    """Errors of the database as ours."""
    try:
        yield
    except SQLAlchemyError as error:
        raise HistorianError(str(error).partition("\n")[0]) from error


def _device_ids(connection: Connection, names: Sequence[str]) -> IntArray:
    """Numbers of devices in the database, new ones entered."""
    query = select(schema.devices.c.device, schema.devices.c.id)
    known = {row.device for row in connection.execute(query)}
    fresh = [{"device": name} for name in names if name not in known]
    if fresh:
        connection.execute(insert(schema.devices), fresh)
    ids = {row.device: row.id for row in connection.execute(query)}
    return np.array([ids[name] for name in names], dtype=np.intp)


def _decision_row(plan: Plan, inputs: Mapping[str, object], names: tuple[str, ...]) -> dict[str, Any]:
    body = replay.pack([plan, inputs, names, made_with()])
    return {"at_us": to_us(plan.made_at), "plan_id": plan.id, "source": plan.source.value, "body": body}


def _decision(row: Any) -> StoredDecision:
    try:
        plan, inputs, *more = replay.unpack(row.body)
    except RecordError as error:
        at = from_us(row.at_us)
        raise HistorianError(f"decision {row.plan_id}, made {at:%Y-%m-%dT%H:%M:%SZ}: {error}") from error
    return StoredDecision(plan.made_at, plan, inputs, *more)


@cache
def made_with() -> dict[str, str]:
    """Versions of what plans are made with here, and the machine."""
    found = {}
    for name in MADE_WITH:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {**found, "python": python_version(), "machine": machine()}


def _forecast_row(made: Forecast) -> dict[str, object]:
    return {"made_us": to_us(made.made_at), "body": replay.pack(made)}


def _outcome_row(record: CommandRecord) -> dict[str, Any]:
    return {
        "seq": record.seq,
        "at_us": to_us(record.at),
        "device": record.device_id,
        "quantity": record.quantity.value,
        "plan_id": record.plan_id,
        "wanted_w": _or_null(record.wanted_w),
        "value_w": _or_null(record.value_w),
        "is_release": record.value_w is None,
        "outcome": type(record.outcome).__name__,
        "detail": json.dumps(asdict(record.outcome)),
        "ended_us": to_us(record.ended_at),
    }


def _write_watched(connection: Connection, watched: list[tuple[str, str, Hour]]) -> None:
    """Write the latest of each hour of a feeder, and forget the hours that do not count any more."""
    c = schema.watched_hours.c
    for (feeder, number), (model, hour) in {(name, it.number): (model, it) for name, model, it in watched}.items():
        gone = (c.hour == number) | (c.hour <= number - WINDOW_H)
        connection.execute(delete(schema.watched_hours).where(c.feeder == feeder, gone))
        row = {"feeder": feeder, "hour": number, "model": model, "sums": json.dumps(asdict(hour), allow_nan=False)}
        connection.execute(insert(schema.watched_hours), [row])


def _span_row(span: Span) -> dict[str, object]:
    return {"der": span.der, "feeder": span.feeder, "since_us": to_us(span.since)}


def _event_row(entry: Event) -> dict[str, Any]:
    return {
        "at_us": to_us(entry.at),
        "severity": entry.severity.value,
        "source": entry.source,
        "kind": entry.kind,
        "text": entry.text,
    }


def _or_null(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value

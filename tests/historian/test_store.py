"""What the historian took is read back as it was; a database that is away costs nothing but patience."""

import math
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.dialects import postgresql

from derms.domain.alarm import Event, Severity
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import (
    Applied,
    Clamped,
    CommandRecord,
    Expired,
    Failed,
    NotFollowing,
    Outcome,
    Quantity,
    Rejected,
    Superseded,
    Unknown,
)
from derms.domain.forecast import Forecast
from derms.domain.membership import NOWHERE, Membership
from derms.domain.plan import Plan, PlanSource
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot
from derms.errors import HistorianError
from derms.historian import store as historian_store
from derms.historian.store import Store
from derms.ports import Historian

START = datetime(2026, 4, 15, 7, 0, tzinfo=UTC)
END = START + timedelta(days=1)
KINDS = (DeviceKind.PV, DeviceKind.BATTERY, DeviceKind.HEAD_METER, DeviceKind.VOLTAGE_SENSOR)
NAN3 = np.full((4, 3), np.nan)


def fleet_of(*names: str) -> Fleet:
    return Fleet(
        tuple(
            Device(id=name, kind=kind, driver="sunspec", endpoint=Endpoint("10.0.0.1", 502, unit), bus="150")
            for unit, (name, kind) in enumerate(zip(names, KINDS, strict=False), start=1)
        )
    )


FLEET = fleet_of("pv01", "bat01", "head", "vs1")


def snapshot_after(seconds: float) -> TelemetrySnapshot:
    """The four devices; the voltage sensor is missing."""
    phases = NAN3.copy()
    phases[2] = [1e5, 2e5, 3.3e5]
    volts = NAN3.copy()
    volts[2] = [1.01, 0.99, 1.0]
    return TelemetrySnapshot(
        at=START + timedelta(seconds=seconds),
        now_s=seconds,
        p_w=np.array([48_000.1 + seconds, -25e3, 6.3e5, np.nan]),
        q_var=np.array([0.0, 1e3, 2e5, np.nan]),
        v_pu=np.array([1.02, 1.0, np.nan, np.nan]),
        soc_frac=np.array([np.nan, 0.55, np.nan, np.nan]),
        p_phase_w=phases,
        q_phase_var=phases / 3,
        v_phase_pu=volts,
        quality=np.array([Quality.GOOD, Quality.SUSPECT, Quality.GOOD, Quality.MISSING], dtype=np.uint8),
        age_s=np.array([1.0, 2.0, 3.0, np.inf]),
        p_rated_w=np.array([50e3, 25e3, np.nan, np.nan]),
        energy_wh=np.array([np.nan, 1e5, np.nan, np.nan]),
    )


@pytest.fixture(name="url")
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/data/history.db"


@pytest.fixture(name="store")
def open_store(url: str) -> Iterator[Store]:
    store = Store(url, FLEET)
    yield store
    store.close()


def test_samples_come_back_point_by_point_in_order_of_time(store: Store) -> None:
    historian: Historian = store
    for seconds in (0, 10, 20.25):
        historian.samples(snapshot_after(seconds))
    store.flush()
    series = store.series("pv01", "p_w", START, END)
    assert series.times == (START, START + timedelta(seconds=10), START + timedelta(seconds=20.25))
    np.testing.assert_array_equal(series.values, [48_000.1, 48_010.1, 48_020.35])
    np.testing.assert_array_equal(store.series("head", "p_c_w", START, END).values, [3.3e5] * 3)
    np.testing.assert_array_equal(store.series("head", "v_b_pu", START, END).values, [0.99] * 3)
    np.testing.assert_array_equal(store.series("bat01", "soc_frac", START, END).values, [0.55] * 3)


def test_what_is_missing_is_null_with_a_quality_and_never_zero(store: Store, url: str) -> None:
    store.samples(snapshot_after(0))
    store.flush()
    sensor = store.series("vs1", "v_pu", START, END)
    assert (str(sensor.values), list(sensor.quality)) == ("[nan]", [Quality.MISSING])
    battery = store.series("bat01", "p_w", START, END)
    assert (list(battery.values), list(battery.quality)) == ([-25e3], [Quality.SUSPECT])
    no_storage = store.series("pv01", "soc_frac", START, END)
    assert (str(no_storage.values), list(no_storage.quality)) == ("[nan]", [Quality.NOT_IMPLEMENTED])
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        rows = raw.execute("SELECT device, p_w IS NULL, v_pu IS NULL FROM samples JOIN devices ON id = device_id")
        assert sorted(rows) == [("bat01", 0, 0), ("head", 0, 1), ("pv01", 0, 0), ("vs1", 1, 1)]


def test_a_period_includes_its_start_and_not_its_end(store: Store) -> None:
    for seconds in (0, 10, 20):
        store.samples(snapshot_after(seconds))
    store.flush()
    series = store.series("pv01", "p_w", START + timedelta(seconds=10), START + timedelta(seconds=20))
    assert series.times == (START + timedelta(seconds=10),)
    assert store.series("pv99", "p_w", START, END).times == ()
    with pytest.raises(KeyError):
        store.series("pv01", "p_kw", START, END)


def test_a_snapshot_taken_later_changed_does_not_change_what_was_taken(store: Store) -> None:
    snapshot = snapshot_after(0)
    store.samples(snapshot)
    snapshot.p_w[0] = 0.0
    snapshot.quality[0] = Quality.STALE
    store.flush()
    series = store.series("pv01", "p_w", START, END)
    assert (list(series.values), list(series.quality)) == ([48_000.1], [Quality.GOOD])


def test_history_outlives_restarts_and_changes_of_the_fleet(url: str) -> None:
    before = Store(url, FLEET)
    before.samples(snapshot_after(0))
    before.close()
    after = Store(url, fleet_of("pv02", "bat01", "head", "vs1"))
    after.samples(snapshot_after(10))
    after.samples(snapshot_after(10))
    after.flush()
    assert [len(after.series(name, "p_w", START, END).times) for name in ("pv01", "pv02", "bat01")] == [1, 1, 2]
    after.close()


OUTCOMES: tuple[Outcome, ...] = (
    Applied(-12_480.5),
    Clamped("soc", -12_500.0, -3_000.0),
    NotFollowing(0.0),
    Rejected("device: busy"),
    Superseded(),
    Expired(),
    Failed("reset"),
    Unknown("no answer"),
)


def record_of(seq: int, outcome: Outcome, wanted_w: float = -12_500.0, value_w: float | None = -3e3) -> CommandRecord:
    at = START + timedelta(seconds=seq, microseconds=1)
    return CommandRecord(seq, at, "bat01", Quantity.P_SET, 3, wanted_w, value_w, outcome, at + timedelta(seconds=40))


def test_outcomes_of_every_kind_come_back_equal(store: Store) -> None:
    taken = [record_of(seq, outcome) for seq, outcome in enumerate(OUTCOMES)]
    for record in taken:
        store.outcome(record)
    store.flush()
    assert store.outcomes(START, END) == taken
    assert store.outcomes(START, START + timedelta(seconds=41)) == taken[:1]


def test_a_release_and_an_unknown_value_stay_what_they_are(store: Store) -> None:
    store.outcome(record_of(1, Applied(math.nan), wanted_w=math.nan, value_w=None))
    store.outcome(record_of(2, Rejected("guard"), wanted_w=math.nan, value_w=math.nan))
    store.flush()
    release, unknown = store.outcomes(START, END)
    assert release.value_w is None
    assert isinstance(release.outcome, Applied)
    assert math.isnan(release.outcome.effect_w)
    assert unknown.value_w is not None
    assert math.isnan(unknown.value_w)
    assert math.isnan(unknown.wanted_w)


def test_events_come_back_in_order_of_time(store: Store) -> None:
    later = Event(START + timedelta(hours=2), Severity.INFO, "pv01", "device-back", "pv01 answers again")
    first = Event(START, Severity.ALARM, "gateway", "command-failed", "bat01: „Ω“")
    for event in (later, first):
        store.event(event)
    assert store.events(START, END) == []
    store.flush()
    assert store.events(START, END) == [first, later]


def test_where_each_der_was_is_known_after_a_restart(store: Store) -> None:
    before = Membership().moved({"pv01": "f1", "bat01": "f1"}, START)
    after = before.moved({"pv01": NOWHERE}, START + timedelta(hours=1))
    store.spans(before.spans)
    store.spans(after.spans[len(before.spans) :])
    assert store.membership() == Membership()
    store.flush()
    assert store.membership() == after


def plan_of(number: int) -> Plan:
    return Plan(
        id=number,
        made_at=START + timedelta(minutes=5 * number),
        start=START,
        hours=np.full(96, 0.25),
        battery_w=np.linspace(-1e5, 1e5, 96) / 3,
        curtail_w=np.zeros(96),
        energy_wh=np.full(96, np.nan),
        net_load_w=np.linspace(3e6, 1e6, 96),
        source=PlanSource.RULES,
        reason="solver gave nothing",
        solver="OSQP",
        iterations=4000,
        objective=math.inf,
    )


def forecast_of() -> Forecast:
    steps = np.arange(96) / 7
    return Forecast(START, START, np.full(96, 0.25), steps * 1e5, steps, np.clip(steps / 20, 0, 1), "clear sky")


def test_a_decision_keeps_its_inputs_to_the_last_bit(store: Store) -> None:
    snapshot, forecast, scale = snapshot_after(0), forecast_of(), np.array([1.1, 1 / 3, np.nan])
    store.decision(plan_of(1), snapshot=snapshot, forecast=forecast, load_scale=scale, note=None)
    store.decision(plan_of(2))
    store.flush()
    first, second = store.decisions(START, END)
    np.testing.assert_equal(vars(first.plan), vars(plan_of(1)))
    np.testing.assert_equal(vars(first.inputs["snapshot"]), vars(snapshot))
    np.testing.assert_equal(vars(first.inputs["forecast"]), vars(forecast))
    assert first.inputs["load_scale"].tobytes() == scale.tobytes()
    assert first.inputs["note"] is None
    assert (second.plan.id, second.inputs, second.at) == (2, {}, START + timedelta(minutes=10))
    assert [decision.plan.id for decision in store.decisions(START + timedelta(minutes=6), END)] == [2]


def test_a_decision_says_of_which_devices_it_was_and_what_made_it(store: Store) -> None:
    store.decision(plan_of(1))
    store.flush()
    (found,) = store.decisions(START, END)
    assert found.device_ids == ("pv01", "bat01", "head", "vs1")
    assert {"derms", "numpy", "cvxpy", "python", "machine"} <= found.made_with.keys()


def test_the_latest_decision_is_found_by_number_and_by_time(store: Store) -> None:
    assert store.latest() is None
    for number in (1, 2, 3):
        store.decision(plan_of(number))
    store.decision(replace(plan_of(1), made_at=START + timedelta(hours=1), solver="PIQP"))  # after a restart
    store.flush()

    def found(**which: Any) -> tuple[int, str] | None:
        decision = store.latest(**which)
        return None if decision is None else (decision.plan.id, decision.plan.solver)

    assert found() == found(plan_id=1) == (1, "PIQP")
    assert found(plan_id=2) == (2, "OSQP")
    assert found(until=START + timedelta(minutes=14)) == (2, "OSQP")
    assert found(until=START) is None
    assert found(plan_id=9) is None


def test_outcomes_can_be_had_of_one_device(store: Store) -> None:
    mine, other = record_of(1, Expired()), replace(record_of(2, Expired()), device_id="pv01")
    for record in (mine, other):
        store.outcome(record)
    store.flush()
    assert store.outcomes(START, END, "bat01") == [mine]
    assert store.outcomes(START, END) == [mine, other]


def test_decisions_that_wait_are_bounded_by_a_day_of_them(store: Store) -> None:
    for number in range(historian_store.DECISIONS_WAITING_MAX + 2):
        store.decision(plan_of(number))
    assert store.dropped == 2


def test_while_the_database_is_away_everything_waits(store: Store, url: str) -> None:
    store.samples(snapshot_after(0))
    store.outcome(record_of(1, Expired()))
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        raw.execute("ALTER TABLE outcomes RENAME TO away")
    with pytest.raises(HistorianError, match="no such table: outcomes"):
        store.flush()
    assert store.series("pv01", "p_w", START, END).times == ()
    with sqlite3.connect(url.removeprefix("sqlite:///")) as raw:
        raw.execute("ALTER TABLE away RENAME TO outcomes")
    store.samples(snapshot_after(10))
    store.flush()
    store.flush()
    assert len(store.series("pv01", "p_w", START, END).times) == 2
    assert len(store.outcomes(START, END)) == 1


def test_what_waits_is_bounded_and_what_is_lost_is_counted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(historian_store, "SAMPLES_WAITING_MAX", 3 * len(FLEET))
    for seconds in range(5):
        store.samples(snapshot_after(seconds))
    store.flush()
    assert store.dropped == 2
    assert len(store.series("pv01", "p_w", START, END).times) == 3


def test_a_place_without_a_database_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "history.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(HistorianError, match="file is not a database"):
        Store(f"sqlite:///{tmp_path}/history.db", FLEET)


def test_a_naive_time_is_refused(store: Store) -> None:
    with pytest.raises(TypeError):
        store.samples(replace(snapshot_after(0), at=datetime(2026, 4, 15)))  # noqa: DTZ001


def test_samples_that_are_there_stay_on_postgresql_too() -> None:
    statement, by_position = historian_store._sample_insert(postgresql.dialect())  # type: ignore[no-untyped-call]
    assert "INSERT INTO samples (device_id, at_us, quality, p_w" in statement
    assert statement.endswith("ON CONFLICT DO NOTHING")
    assert not by_position

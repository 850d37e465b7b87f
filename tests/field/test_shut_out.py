"""Who is asked whether it is in service: only those at rest, few at a time, and those that are not until they are."""

import numpy as np
import pytest

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.dispatch import Ceasing
from derms.domain.scope import Places
from derms.field import shut_out
from derms.field.shut_out import AGAIN_S, ShutOut
from tests.field.test_orders_file import Clocks

RESTS_W, SMALL_W = np.array([0.0, 5e3, np.nan, 10.0]), np.full(4, 100.0)
"""At rest, at work, silent, at rest."""
NONE = np.zeros(4, dtype=np.bool_)


def found() -> tuple[ShutOut, list[Event]]:
    events = list[Event]()
    places = Places(tuple(f"pv{row}" for row in range(4)), ("f1",) * 4, {})
    return ShutOut(places, Clocks(), events.append, ~NONE), events


def rows(asked: BoolArray) -> list[int]:
    return np.flatnonzero(asked).tolist()


def test_one_at_work_is_in_service_and_one_that_is_silent_is_asked_when_it_is_back() -> None:
    search, events = found()
    assert rows(search.due(RESTS_W, SMALL_W, NONE, 0.0)) == [0, 3]
    for row in (0, 3):
        search.heard(row, [])
    back_w = np.zeros(4)
    assert rows(search.due(back_w, SMALL_W, NONE, 10.0)) == [2], "the one at work is in service whatever it does later"
    search.heard(2, [Ceasing.CONNECT])
    search.tell()
    assert [(event.source, event.kind) for event in events] == [("pv2", "out-of-service")]
    assert rows(search.due(back_w, SMALL_W, NONE, 10.0 + AGAIN_S)) == [2]
    search.heard(2, [Ceasing.CONNECT])
    search.tell()
    assert len(events) == 1
    search.heard(2, [])
    assert search.looks, "that it is back is to be told"
    search.tell()
    assert events[-1].kind == "in-service"
    assert not search.looks


def test_what_an_order_has_out_of_service_is_not_asked_before_that_ends_and_few_are_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shut_out, "ASKED_MAX", 2)
    search, _ = found()
    assert rows(search.due(np.zeros(4), SMALL_W, ~NONE, 0.0)) == []
    ordered = np.array([True, False, False, False])
    assert rows(search.due(np.zeros(4), SMALL_W, ordered, 10.0)) == [1, 2]
    assert rows(search.due(np.zeros(4), SMALL_W, ordered, 20.0)) == [3]


def test_many_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shut_out, "APART_MAX", 2)
    search, events = found()
    for row in range(3):
        search.heard(row, [Ceasing.PERMIT_SERVICE])
    search.tell()
    assert [(event.source, event.severity) for event in events] == [("gateway", Severity.ALARM)]
    assert events[0].text.startswith("3 devices (pv0, pv1, pv2) are out of service, and no order says so")

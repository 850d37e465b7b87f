"""When a doubt about a device's values is told, and when its end: once each, and many with one reason together."""

import numpy as np

from derms.domain.alarm import Event
from derms.domain.der import Fleet
from derms.field.doubts import FEW, Doubts
from derms.field.judge import Judgement
from derms.field.rollup import Rollup
from derms.field.watch import Watch
from tests.field.scripted import device
from tests.field.test_judge import BATTERY, weighed
from tests.scada.rig import HandClock

TURN_S = 12.0


def doubts_of(count: int) -> Doubts:
    return Doubts(Fleet(tuple(device(f"bat{number}") for number in range(count))), TURN_S)


def test_a_doubt_is_told_after_a_turn_and_its_end_when_belief_has_lasted() -> None:
    doubts = doubts_of(2)
    doubts.raised(1, 4, "0 V with 8 kW", 100.0)
    assert (doubts.due_s, doubts.told(111.0)) == (112.0, [])
    (raised,) = doubts.told(112.0)
    assert (raised.source, raised.kind) == ("bat1", "values-suspect")
    assert raised.text == "the values of bat1 are not believed: 0 V with 8 kW"
    doubts.over(1, 200.0)
    assert (doubts.due_s, doubts.told(247.0)) == (248.0, [])
    assert [(notice.source, notice.kind) for notice in doubts.told(248.0)] == [("bat1", "values-good")]
    assert (doubts.due_s, doubts.told(1e6)) == (np.inf, [])


def test_values_that_go_to_and_fro_are_told_of_once() -> None:
    doubts, told = doubts_of(1), []
    for now_s in np.arange(0.0, 600.0, 20.0):
        doubts.raised(0, 1, "30 kW", now_s)
        doubts.over(0, now_s + 10.0)
        told += [notice.kind for at_s in (now_s, now_s + 10.0) for notice in doubts.told(at_s)]
    assert told == ["values-suspect"]
    assert [notice.kind for notice in doubts.told(1000.0)] == ["values-good"]


def test_a_single_glitch_is_told_and_taken_back() -> None:
    doubts = doubts_of(1)
    doubts.raised(0, 1, "30 kW", 0.0)
    doubts.over(0, 10.0)
    assert [notice.kind for at_s in (12.0, 58.0) for notice in doubts.told(at_s)] == [
        "values-suspect",
        "values-good",
    ]


def test_hundreds_with_one_reason_are_one_event_and_so_is_their_end() -> None:
    doubts = doubts_of(300)
    for row in range(300):
        doubts.raised(row, 12 if row else 1, "nothing has changed", 0.01 * row)
    alone, many = doubts.told(20.0)
    assert (alone.source, many.source) == ("bat0", "gateway")
    assert "299 devices (bat1, bat2, bat3 and 296 more), as of bat1, are not believed" in many.text
    for row in range(300):
        doubts.over(row, 100.0)
    assert len(doubts.told(200.0)) == 1


def test_a_few_are_named_each() -> None:
    doubts = doubts_of(FEW)
    for row in range(FEW):
        doubts.raised(row, 1, "30 kW", 0.0)
    assert [notice.source for notice in doubts.told(20.0)] == [f"bat{row}" for row in range(FEW)]


class Watched:
    """A watch over three devices, and what it says."""

    def __init__(self) -> None:
        fleet = Fleet(tuple(device(f"bat{number}") for number in range(3)))
        self.clock, self.events = HandClock(), list[Event]()
        rollup = Rollup(fleet, lost_within_s=1.0, back_within_s=1.0)
        self.watch = Watch(fleet, self.clock, self.events.append, rollup, TURN_S)

    def judged(self, rows: list[int], judgement: Judgement, *, asleep: bool = False) -> list[str]:
        """Hand it readings; the events that come of it until all is told."""
        self.events.clear()
        self.watch.judged(np.array(rows), judgement, lambda rows: np.full(len(rows), asleep))
        self.clock.pass_(4.0 * TURN_S)
        self.watch.tell(self.clock.monotonic_s())
        return [f"{event.kind}: {event.text}" for event in self.events]


def test_each_transition_is_one_event_however_long_it_lasts() -> None:
    watched, bad, good = Watched(), weighed({**BATTERY, "p_w": 31e3}), weighed(BATTERY)
    assert watched.judged([1], good) == []
    assert watched.judged([1], bad) == [
        "values-suspect: the values of bat1 are not believed: 31 kW, where 12 kW are the most that can be"
    ]
    assert watched.judged([1], bad) == []
    assert watched.judged([1], good) == ["values-good: the values of bat1 are believed again"]
    assert watched.judged([1], good) == []


def test_of_two_readings_of_a_device_in_one_batch_the_last_counts() -> None:
    watched = Watched()
    assert watched.judged([2, 2], weighed({**BATTERY, "p_w": 31e3}, BATTERY)) == []
    assert len(watched.judged([2, 2], weighed(BATTERY, {**BATTERY, "p_w": 31e3}))) == 1


def test_what_sleeps_is_no_news_until_it_should_be_awake() -> None:
    watched, still = Watched(), weighed(BATTERY, still_s=500.0)
    assert watched.judged([0], still, asleep=True) == []
    assert len(watched.judged([0], still)) == 1

"""A watched file: what is whole and right is taken over, the rest is said once, and what was good ages."""

import asyncio
import math
import os
import threading
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from derms.domain.grid import SwitchState
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, Sample, ScadaPoint
from derms.errors import ScadaError
from derms.scada import file
from derms.scada.file import FileScada
from derms.scada.formats import from_csv
from tests.scada.rig import LOAD, STALE_S, START, SW1, SW7, TAP, Room, room, write_at

POINTS = (LOAD, SW1, SW7, TAP)


def long_csv(load: object = 2500, *, sw1: str = "closed", sw7: str = "open", tap: object = 3) -> str:
    rows = (f"load,{load}", f"sw1,{sw1}", f"sw7,{sw7}", f"tap,{tap}")
    return "\n".join(("point,value", *rows, ""))


def watched(path: Path, *points: ScadaPoint) -> Room:
    return room(FileScada(path, points or POINTS, timeout_s=5.0), points or POINTS)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ems.csv"


def test_every_point_of_a_good_file_is_known_and_the_topology_is_normal(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(), START)
    reading = told.poll()
    assert reading.net_load_w == 2.5e6
    assert reading.topology.switches == {"line.sw1": SwitchState.CLOSED, "line.sw7": SwitchState.OPEN}
    assert reading.topology.taps == {"regcontrol.creg1a": 3.0}
    assert (reading.topology.quality, reading.topology.doubt) == (Quality.GOOD, "")
    assert reading.values["load"].source_at == START
    assert told.kinds == []


def test_a_file_that_nobody_writes_any_more_grows_stale_by_its_own_time(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(), START)
    told.poll()
    reading = told.poll(after_s=STALE_S)
    assert math.isnan(reading.net_load_w)
    assert told.quality() is Quality.STALE
    assert reading.topology.unknown == ("line.sw1", "line.sw7")
    assert told.kinds == ["points-stale"]
    write_at(path, long_csv(), told.clock.now)
    assert told.poll().net_load_w == 2.5e6
    assert told.kinds == ["points-stale", "points-stale-over"]


def test_a_file_left_over_from_yesterday_is_never_taken_for_now(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(), START - timedelta(days=1))
    assert math.isnan(told.poll().net_load_w)
    assert told.kinds == ["points-refused"]
    assert "1440 min old" in told.events[0].text


@pytest.mark.parametrize("cut", [7, 20, 21, 30])
def test_a_half_written_file_is_passed_over_once_in_silence(path: Path, cut: int) -> None:
    told = watched(path)
    write_at(path, long_csv(), START)
    told.poll()
    write_at(path, long_csv(2600)[:cut], START + timedelta(seconds=10))
    reading = told.poll()
    assert reading.net_load_w == 2.5e6
    write_at(path, long_csv(2600), START + timedelta(seconds=20))
    assert told.poll().net_load_w == 2.6e6
    assert [kind for kind in told.kinds if not kind.startswith("points-refused")] == []


def test_a_malformed_row_costs_its_own_point_alone_and_only_once_it_is_old(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(2500, tap=3), START)
    told.poll()
    write_at(path, long_csv(2600, tap="three").replace("sw1,closed", "sw1"), START + timedelta(seconds=10))
    reading = told.poll()
    assert reading.net_load_w == 2.6e6
    assert reading.topology.switches["line.sw1"] is SwitchState.CLOSED
    assert reading.topology.taps == {"regcontrol.creg1a": 3.0}
    told.poll()
    assert told.kinds == ["points-refused"]
    assert "sw1" in told.events[0].text
    assert "'three' is not a value" in told.events[0].text
    write_at(path, long_csv(2600, tap="three"), told.clock.now + timedelta(seconds=55))
    reading = told.poll(after_s=55.0)
    assert reading.net_load_w == 2.6e6
    assert math.isnan(reading.topology.taps["regcontrol.creg1a"])


@pytest.mark.parametrize("value", [2_500_000, 2.5, "nan"])
def test_a_file_in_another_unit_is_caught_and_said_once(path: Path, value: object) -> None:
    told = watched(path)
    for _ in range(3):
        write_at(path, long_csv(value), told.clock.now + timedelta(seconds=10))
        assert math.isnan(told.poll().net_load_w)
    assert told.kinds == ["points-refused"]
    write_at(path, long_csv(2500), told.clock.now + timedelta(seconds=10))
    assert told.poll().net_load_w == 2.5e6
    assert told.kinds == ["points-refused", "points-refused-over"]


def with_time(value: float, at: datetime) -> str:
    return f"time,load\n{at.isoformat()},{value}\n"


@pytest.mark.parametrize(("hours", "word"), [(1, "60 min in the future"), (-1, "60 min old"), (-7, "420 min old")])
def test_an_hour_shifted_file_is_not_believed_and_says_why(path: Path, hours: int, word: str) -> None:
    told = watched(path, LOAD)
    write_at(path, with_time(2500, START), START)
    assert told.poll().net_load_w == 2.5e6
    write_at(path, with_time(2600, told.clock.now + timedelta(hours=hours)), told.clock.now)
    assert told.poll().net_load_w == 2.5e6
    assert word in told.events[0].text
    assert math.isnan(told.poll(after_s=STALE_S).net_load_w)


def test_times_without_a_zone_are_utc_so_local_ones_show_up_as_old(path: Path) -> None:
    told = watched(path, LOAD)
    write_at(path, "time,load\n2026-04-15T12:00:00,2500\n", START)
    told.poll()
    assert "420 min old" in told.events[0].text


def test_a_wall_clock_set_back_makes_no_old_value_young_and_locks_no_new_one_out(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(2500), START)
    told.poll()
    told.clock.now -= timedelta(hours=1)
    assert math.isnan(told.poll(after_s=STALE_S + 1.0).net_load_w)
    assert told.quality() is Quality.STALE
    write_at(path, long_csv(2600), told.clock.now)
    assert told.poll().net_load_w == 2.6e6


def test_wide_csv_takes_the_last_moment_and_the_quality_of_each_column(path: Path) -> None:
    told = watched(path, LOAD, SW1)
    rows = ("time,load,load.quality,sw1", f"{START.isoformat()},2500,good,1", "2026-04-15T18:59:30Z,9999,bad,0", "")
    write_at(path, "\n".join(rows), START)
    reading = told.poll()
    assert (reading.net_load_w, reading.topology.switches["line.sw1"]) == (2.5e6, SwitchState.CLOSED)
    write_at(path, f"time,load,load.quality,sw1\n{told.clock.now.isoformat()},2500,bad,1\n", told.clock.now)
    assert math.isnan(told.poll().net_load_w)


def test_json_points_are_found_by_pointer_with_value_quality_and_time(tmp_path: Path) -> None:
    path = tmp_path / "ems.json"
    load = ScadaPoint(id="load", kind=PointKind.NET_LOAD, element="system", where="/areas/0/a~1b", scale=1e3)
    switch = ScadaPoint(id="sw", kind=PointKind.SWITCH, element="line.sw1", where="/switches/sw1")
    told = room(FileScada(path, (load, switch), timeout_s=5.0), (load, switch))
    text = '{"areas": [{"a/b": {"value": 2500, "quality": "ok", "time": %d}}], "switches": {"sw1": true}}'
    write_at(path, text % int(START.timestamp()), START)
    reading = told.poll()
    assert reading.net_load_w == 2.5e6
    assert reading.values["load"].source_at == START
    assert reading.topology.switches == {"line.sw1": SwitchState.CLOSED}
    for broken in ("{", '{"areas": NaN}', "[" * 100_000, '{"areas": [{"a/b": {"value": [1]}}]}', '"text"', "\xff"):
        told.clock.pass_(1.0)
        path.write_bytes(broken.encode("latin1"))
        os.utime(path, (told.clock.now.timestamp(),) * 2)
        assert told.poll(after_s=1.0).net_load_w == 2.5e6


def test_a_file_that_is_not_there_is_one_alarm_and_one_word_when_it_comes(path: Path) -> None:
    told = watched(path)
    for _ in range(4):
        told.poll()
    assert told.kinds == ["scada-lost"]
    write_at(path, long_csv(), told.clock.now)
    assert told.poll().net_load_w == 2.5e6
    assert told.kinds == ["scada-lost", "scada-back"]


def test_an_unchanged_file_is_not_read_again_and_a_replaced_one_of_equal_size_is(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(2500), START)
    told.poll()
    before = told.read().values["load"].received_s
    told.poll()
    assert told.read().values["load"].received_s == before
    beside = path.with_suffix(".new")
    write_at(beside, long_csv(2600), START)
    beside.replace(path)
    assert told.poll().net_load_w == 2.6e6


def test_what_a_reading_that_was_given_up_found_is_read_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_at(path, long_csv(), START)
    released = threading.Event()

    def slow(text: str, *, written_at: datetime) -> list[Sample]:
        assert released.wait(10.0)
        return from_csv(text, written_at=written_at)

    async def scenario() -> None:
        link = FileScada(path, POINTS, timeout_s=0.3)
        monkeypatch.setattr(file, "from_csv", slow)
        with pytest.raises(ScadaError, match=r"no end within 0\.3 s"):
            await link.fetch()
        released.set()
        while True:
            with suppress(ScadaError):
                found = await link.fetch()
                break
        assert found is not None
        assert len(found) == len(POINTS)
        assert await link.fetch() is None

    asyncio.run(asyncio.wait_for(scenario(), 10.0))


def test_a_strange_quality_word_is_said_once_and_the_value_is_suspect(path: Path) -> None:
    told = watched(path, LOAD)
    for value in (2500, 2600):
        write_at(path, f"point,value,quality\nload,{value},superb\n", told.clock.now + timedelta(seconds=10))
        assert math.isnan(told.poll().net_load_w)
    assert told.quality() is Quality.SUSPECT
    assert told.kinds == ["quality-unknown"]


def test_a_switch_that_moves_or_is_stuck_is_unknown_and_one_out_of_place_is_abnormal(path: Path) -> None:
    told = watched(path)
    write_at(path, long_csv(sw1="intermediate", sw7="closed"), START)
    topology = told.poll().topology
    assert (topology.unknown, topology.abnormal) == (("line.sw1",), ("line.sw7",))
    assert topology.quality is Quality.SUSPECT
    assert topology.doubt == "switches not known: line.sw1; switches not as in the model: line.sw7"

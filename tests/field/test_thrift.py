"""Thrift: what is not worth a write is not written, what safety asks for is, and a day's writes are counted."""

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.der import DeviceKind, Fleet
from derms.domain.dispatch import Applied, Command, Held, Quantity
from derms.domain.settings import DispatchSettings
from derms.field.holdings import Holding, Key
from derms.field.journal import Journal
from derms.field.tally import Tally
from derms.field.thrift import Thrift, Verdict
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.control.values import device
from tests.field.rig import QUICK, Rig, in_the_field

SPARING = replace(QUICK, deadband_frac=0.01)
"""Batteries have 25 kW: changes under 250 W are not worth a write."""
BATTERY: Key = (0, Quantity.P_SET)
LIMIT: Key = (1, Quantity.P_LIMIT)
EVENING = datetime(2026, 4, 15, 22, 0, tzinfo=UTC)


@dataclass
class Still:
    """A clock that moves when it is told to."""

    now: datetime = EVENING
    now_s: float = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return self.now


@dataclass
class Bench:
    """A battery and an inverter of 10 kW each, and what they hold."""

    clock: Still = field(default_factory=Still)
    events: list[Event] = field(default_factory=list)
    settings: DispatchSettings = field(default_factory=DispatchSettings)
    tally: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        rows = (
            device("bat", DeviceKind.BATTERY, p_rated_w=10e3, energy_wh=20e3),
            device("pv", DeviceKind.PV, p_rated_w=10e3),
        )
        self.thrift = Thrift(Fleet(rows), self.clock, self.settings, self.events.append, self.tally)

    def judge(self, key: Key, value_w: float, held_w: float | None, by: str = "", *, armed_s: float = 900.0) -> Verdict:
        holding = None
        if held_w is not None:
            held = Held(held_w, 900.0, np.nan, 10.0)
            holding = Holding(Command(key[1], held_w, 900.0), held, armed_s, armed_s, 1e9)
        return self.thrift.judge(key, value_w, by, holding, holds=held_w is not None)

    def write(self, key: Key, times: int) -> None:
        for _ in range(times):
            self.thrift.wrote(key)


@pytest.mark.parametrize(
    ("key", "value_w", "held_w", "by", "verdict"),
    [
        (BATTERY, 5099.0, 5000.0, "", Verdict.KEEP),
        (BATTERY, 4901.0, 5000.0, "", Verdict.KEEP),
        (BATTERY, 5101.0, 5000.0, "", Verdict.WRITE),
        (BATTERY, -5101.0, -5000.0, "", Verdict.WRITE),
        (BATTERY, 0.0, 50.0, "", Verdict.WRITE),
        (BATTERY, 0.0, 0.0, "", Verdict.KEEP),
        (BATTERY, 50.0, 0.0, "", Verdict.KEEP),
        (BATTERY, -30.0, 30.0, "", Verdict.WRITE),
        (BATTERY, 4950.0, 5000.0, "state of charge", Verdict.WRITE),
        (BATTERY, -4950.0, -5000.0, "state of charge", Verdict.WRITE),
        (BATTERY, 5050.0, 5000.0, "nameplate", Verdict.KEEP),
        (BATTERY, 5000.0, None, "", Verdict.WRITE),
        (LIMIT, 4950.0, 5000.0, "", Verdict.WRITE),
        (LIMIT, 4995.0, 5000.0, "", Verdict.KEEP),
        (LIMIT, 5050.0, 5000.0, "", Verdict.KEEP),
        (LIMIT, 5150.0, 5000.0, "", Verdict.WRITE),
    ],
)
def test_what_is_worth_a_write(key: Key, value_w: float, held_w: float | None, by: str, verdict: Verdict) -> None:
    assert Bench().judge(key, value_w, held_w, by) is verdict


def test_without_a_dead_band_everything_is_written() -> None:
    bench = Bench(settings=DispatchSettings(deadband_frac=0.0))
    assert bench.judge(BATTERY, 5000.0, 5000.0) is Verdict.WRITE


def test_a_value_whose_timer_was_not_armed_in_time_is_written_though_it_is_the_same() -> None:
    bench = Bench()
    assert bench.judge(BATTERY, 5000.0, 5000.0, armed_s=1000.0 - 310.0) is Verdict.KEEP
    assert bench.judge(BATTERY, 5000.0, 5000.0, armed_s=1000.0 - 320.0) is Verdict.WRITE


def test_as_the_budget_goes_down_the_dead_band_widens() -> None:
    bench = Bench(settings=DispatchSettings(writes_per_day=100))
    widths = []
    for _ in range(100):
        near = [change for change in range(50, 1100, 50) if bench.judge(BATTERY, 5e3 + change, 5e3) is Verdict.KEEP]
        widths.append(max(near))
        bench.write(BATTERY, 1)
    assert widths[:50] == [50] * 50
    assert widths == sorted(widths)
    assert widths[75] == pytest.approx(550, abs=50)
    assert widths[99] >= 900
    assert bench.judge(LIMIT, 5150.0, 5000.0) is Verdict.WRITE, "every register has its own budget"


def test_when_it_is_used_up_only_what_safety_asks_for_is_written_and_that_is_said_once_a_day() -> None:
    bench = Bench(settings=DispatchSettings(writes_per_day=20))
    bench.write(BATTERY, 20)
    bench.write(LIMIT, 20)
    assert bench.events == []
    for _ in range(3):
        assert bench.judge(BATTERY, 5500.0, 5000.0) is Verdict.KEEP
        assert bench.judge(BATTERY, -5000.0, 5000.0) is Verdict.LET_GO, (
            "a battery does not go on with what is not wanted"
        )
        assert bench.judge(BATTERY, 5000.0, None) is Verdict.KEEP
        assert bench.judge(BATTERY, 3000.0, 5000.0, "state of charge") is Verdict.WRITE
        assert bench.judge(BATTERY, 5000.0, 5000.0, armed_s=0.0) is Verdict.WRITE
        assert bench.judge(LIMIT, 4000.0, 5000.0) is Verdict.WRITE
        assert bench.judge(LIMIT, 9000.0, 5000.0) is Verdict.KEEP, "a limit stays"
        bench.thrift.tell()
    (event,) = bench.events
    assert event.kind == "writes-used-up"
    assert event.text.startswith("bat, pv: written 20 times today, ")
    bench.clock.now += timedelta(hours=3)
    assert bench.judge(BATTERY, 5500.0, 5000.0) is Verdict.WRITE, "a new day"
    bench.write(BATTERY, 20)
    assert bench.judge(BATTERY, 5500.0, 5000.0) is Verdict.KEEP
    bench.thrift.tell()
    assert len(bench.events) == 2


def test_a_clock_that_is_set_back_gives_no_second_budget() -> None:
    tally = Tally()
    for hours in (0, 24, 0):
        tally.add(EVENING + timedelta(hours=hours), ("bat", Quantity.P_SET))
    assert tally.count(EVENING + timedelta(hours=24), ("bat", Quantity.P_SET)) == 2
    assert tally.count(EVENING, ("bat", Quantity.P_SET)) == 2
    assert tally.count(EVENING + timedelta(hours=48), ("bat", Quantity.P_SET)) == 0


@pytest.fixture(name="path")
def journal_path(tmp_path: Path) -> Path:
    return tmp_path / "commands.journal"


def _enter(journal: Journal, commands: Iterator[Command] | list[Command], at: datetime = EVENING) -> None:
    for command in commands:
        seq = journal.intend(at, 1.0, "bat", command, 1)
        journal.commit()
        journal.outcome(at, 1.0, seq, Applied(5e3))
    journal.commit()


def test_the_writes_of_a_day_are_counted_across_restarts_and_full_files(path: Path) -> None:
    write, release = Command(Quantity.P_SET, 5e3, 900.0), Command(Quantity.P_SET, None, 900.0)
    refused, limit = Command(Quantity.P_SET, float("nan"), 900.0), Command(Quantity.P_LIMIT, 5e3, 900.0)
    with closing(Journal.open(path, max_bytes=1000)) as journal:
        _enter(journal, [write] * 3, EVENING - timedelta(days=1))
        for _ in range(15):
            _enter(journal, [write, refused])
        _enter(journal, [release, limit, limit])
    assert len(list(path.parent.iterdir())) > 3, "some files were full"
    with closing(Journal.open(path)) as journal:
        tally = journal.tally()
    assert tally.count(EVENING, ("bat", Quantity.P_SET)) == 16
    assert tally.count(EVENING, ("bat", Quantity.P_LIMIT)) == 2


def test_a_journal_of_the_version_before_is_gone_on_with(path: Path) -> None:
    with closing(Journal.open(path)) as journal:
        _enter(journal, [Command(Quantity.P_SET, 5e3, 900.0)])
    crc, lines = 0, []
    for line in path.read_bytes().splitlines():
        payload = line[9:].replace(b'"version":2', b'"version":1')
        crc = zlib.crc32(payload, crc)
        lines.append(b"%08x %s\n" % (crc, payload))
    path.write_bytes(b"".join(lines))
    with closing(Journal.open(path)) as journal:
        _enter(journal, [Command(Quantity.P_SET, 6e3, 900.0)])
    with closing(Journal.open(path)) as journal:
        assert journal.tally().count(EVENING, ("bat", Quantity.P_SET)) == 2
        assert not journal.unfinished


def test_a_value_near_what_the_device_holds_is_not_written_and_outlives_its_timer(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3, "bat03": -5e3}, {"pv01": 10e3}, valid_s=62.0)
        await rig.turns_and_beats(61.0)
        outcomes = len(rig.outcomes)
        written_s = {name: at_s for at_s, name in rig.wire}
        for value_w in np.linspace(5e3, 5.2e3, 6):
            rig.want({"bat01": value_w, "bat03": -value_w}, {"pv01": 10e3}, valid_s=600.0)
            await rig.turns_and_beats(60.0)
        assert len(rig.outcomes) == outcomes
        assert set(written_s) == {"bat01", "bat03", "pv01"}
        assert rig.holding() == {"bat01", "bat03", "pv01"}, "360 s, and timers of 240 to 300 s"
        assert rig.reconciler.thrift.spared == 18
        assert rig.true_w("bat01") == pytest.approx(5e3)
        assert rig.events == []
        rig.want({"bat01": 5.3e3, "bat03": -5.2e3}, {"pv01": 9.9e3})
        await rig.turns_and_beats(60.0)
        assert {record.device_id for record in rig.outcomes[outcomes:]} == {"bat01", "pv01"}

    in_the_field(scenario, tmp_path, devices=("bat01", "bat03", "pv01"), dispatch=SPARING)


class Slow(SunSpecDriver):
    """A driver that takes its time to arm a timer."""

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        held = await super().refresh(quantity, reversion_s)
        await asyncio.sleep(25.0)
        return held


def test_a_timer_that_is_armed_while_a_turn_keeps_the_value_is_known_to_be(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        async def planning() -> None:
            while True:
                rig.want({"bat01": 5e3}, valid_s=120.0)
                await asyncio.sleep(60.0)

        plans = asyncio.ensure_future(planning())
        await rig.turns_and_beats(720.0)
        plans.cancel()
        assert rig.heartbeat.refreshed > 5
        assert rig.reconciler.thrift.spared > 5
        assert rig.events == []
        holding = rig.reconciler.holdings[0, Quantity.P_SET]
        assert rig.clock.monotonic_s() - holding.armed_s < 110.0

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=SPARING, driver=Slow)


def test_without_a_heartbeat_a_turn_arms_the_timer_of_a_value_that_did_not_change(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        for _ in range(12):
            await rig.turns(60.0)
            assert rig.holding() == {"bat01"}
        assert 4 <= len(rig.ended("bat01")) <= 8, "every other interval"

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=SPARING)


def test_a_device_that_lost_what_it_may_keep_gets_it_again_in_the_same_interval(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        await rig.sessions["bat01"].write(Command(Quantity.P_SET, -2e3, 3000.0))
        await asyncio.sleep(15.0)
        assert rig.true_w("bat01") == pytest.approx(-2e3)
        await rig.turns(61.0)
        assert rig.true_w("bat01") == pytest.approx(6e3)
        assert rig.events_of("bat01") == ["command-overwritten"]
        writes = rig.reconciler.counts.writes
        await rig.turns(61.0)
        assert rig.reconciler.counts.writes == writes, "and then it keeps it"

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=replace(SPARING, reversion_s=3000.0))


def test_a_device_that_does_not_follow_is_told_again(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.commands.permitted[rig.world_row("bat01")] = False
        rig.want({"bat01": 5e3})
        await rig.turns(300.0)
        assert rig.ended("bat01").count("NotFollowing") >= 4
        rig.world.commands.permitted[rig.world_row("bat01")] = True
        await rig.turns(120.0)
        rig.outcomes.clear()
        await rig.turns(90.0)
        assert rig.outcomes == []

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=replace(SPARING, reversion_s=3000.0))


def test_a_device_that_cannot_be_asked_keeps_what_it_may_keep(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3, "bat02": 5e3})
        await rig.turns(61.0)
        rig.world.servers["bat01"].fault(Fault.STOP)
        await rig.turns(50.0)
        assert {*rig.ended("bat01"), *rig.ended("bat02")} == {"Applied"}
        await rig.world.servers["bat01"].heal()
        await asyncio.sleep(60.0)
        await rig.turns(61.0)
        assert rig.holding() == {"bat01", "bat02"}

    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), dispatch=replace(SPARING, reversion_s=3000.0))


def test_a_battery_whose_writes_are_used_up_goes_back_to_its_default_and_its_inverter_keeps_its_limit(
    tmp_path: Path,
) -> None:
    async def scenario(rig: Rig) -> None:
        for minute in range(8):
            rig.want({"bat01": 2e3 + 2e3 * minute}, {"pv01": 5e3 + 3e3 * minute})
            await rig.turns(60.0)
        writes = [record for record in rig.outcomes if record.device_id == "bat01"]
        assert len(writes) == 6
        assert writes[-1].value_w is None, "the fifth value was the last"
        assert rig.holding() == {"pv01"}
        assert [record.value_w for record in rig.outcomes if record.device_id == "pv01"][-1] == pytest.approx(17e3)
        assert rig.events_of("gateway").count("writes-used-up") in (1, 2)
        rig.want({"bat01": 2e3}, {"pv01": 5e3})
        await rig.turns(60.0)
        assert rig.last("pv01").value_w == pytest.approx(5e3)
        assert rig.holding() == {"pv01"}

    few = replace(SPARING, writes_per_day=5, reversion_s=3000.0)
    in_the_field(scenario, tmp_path, devices=("bat01", "pv01"), dispatch=few)

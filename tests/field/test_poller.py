"""The poller on a simulated fleet: nobody waits for anybody, and nothing old or odd is shown as good."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import ByteArray, FloatArray
from derms.domain.dispatch import Command, Quantity
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.domain.telemetry import Identity, Reading, TelemetryLayout
from derms.errors import DeviceUnreachable
from drivers.sunspec.driver import SunSpecDriver
from hil.server import Fault
from tests.field.rig import Rig, in_the_field

FIVE = ("pv01", "pv04", "bat01", "bat03", "head")
FAILING = [Fault.STOP, Fault.REFUSE, Fault.GARBAGE, Fault.HANG]


@pytest.mark.parametrize("fault", FAILING)
def test_a_dead_device_does_not_slow_the_others(fault: Fault, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(fault)
        counts = rig.poller.counts
        good_before, failed_before = counts.polls - counts.failed, counts.failed
        oldest_s = []
        for _ in range(300):
            await asyncio.sleep(1.0)
            age_s = rig.poller.snapshot().age_s
            oldest_s.append(np.delete(age_s, rig.fleet.index["bat01"]).max())
        assert counts.failed - failed_before >= 5
        assert counts.polls - counts.failed - good_before == pytest.approx(4 * 30, abs=2)
        assert max(oldest_s) < 10.2

    in_the_field(scenario, tmp_path, devices=FIVE)


def test_waits_for_a_dead_device_grow_to_their_cap_and_no_further(tmp_path: Path) -> None:
    polling = FieldSettings(backoff_min_s=5.0, backoff_max_s=60.0)

    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.STOP)
        failed_s: list[float] = []
        for _ in range(8000):
            await asyncio.sleep(0.05)
            if rig.poller.counts.failed > len(failed_s):
                failed_s.append(rig.clock.monotonic_s())
        waits_s = np.diff(failed_s[:9])
        assert len(waits_s) == 8
        longest_s = np.minimum(5.0 * 2.0 ** np.arange(8), 60.0)
        assert (waits_s >= 0.5 * longest_s - 0.1).all()
        assert (waits_s <= longest_s + 0.2).all()
        assert np.ptp(waits_s[-4:]) > 1.0  # with a jitter, so that a fleet does not come back as one

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=polling)


def test_a_device_that_is_back_is_polled_at_once_in_its_usual_rhythm(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.STOP)
        await asyncio.sleep(300.0)
        await rig.world.servers["bat01"].heal()
        await asyncio.sleep(120.0)
        polls = rig.poller.counts.polls
        await asyncio.sleep(100.0)
        assert rig.poller.counts.polls - polls == 10
        rig.world.servers["bat01"].fault(Fault.STOP)
        failed = rig.poller.counts.failed
        await asyncio.sleep(16.0)
        assert rig.poller.counts.failed - failed >= 2  # the wait starts small again

    in_the_field(scenario, tmp_path, devices=("bat01",))


@pytest.mark.parametrize("fault", FAILING)
def test_lost_is_said_once_and_back_once(fault: Fault, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        for _ in range(2):
            rig.world.servers["pv01"].fault(fault)
            await asyncio.sleep(400.0)
            await rig.world.servers["pv01"].heal()
            await asyncio.sleep(150.0)
        lost = "other-master" if fault is Fault.REFUSE else "device-lost"
        assert [event.kind for event in rig.events] == [lost, "device-back"] * 2
        assert {event.source for event in rig.events} == {"pv01"}
        assert rig.quality("pv01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"))


def test_a_silent_device_is_stale_after_its_time_and_keeps_its_last_value_to_look_at(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        row = rig.fleet.index["pv01"]
        rig.world.servers["pv01"].fault(Fault.STOP)
        last_w = rig.poller.snapshot().p_w[row]
        at_s = rig.poller.requested_s(row)
        await asyncio.sleep(at_s + 34.9 - rig.clock.monotonic_s())
        assert rig.quality("pv01") is Quality.GOOD
        await asyncio.sleep(0.2)
        snapshot = rig.poller.snapshot()
        assert snapshot.quality[row] == Quality.STALE
        assert snapshot.p_w[row] == last_w
        assert snapshot.age_s[row] == pytest.approx(35.1)
        assert not snapshot.good("p_w")[row]
        await rig.world.servers["pv01"].heal()
        await asyncio.sleep(60.0)
        assert rig.quality("pv01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"))


def test_a_device_that_never_answered_is_missing_not_zero(tmp_path: Path) -> None:
    class Dead(SunSpecDriver):
        async def connect(self) -> Identity:
            if self._device.id == "pv01":
                raise DeviceUnreachable("no route")
            return await super().connect()

    async def scenario(rig: Rig) -> None:
        row = rig.fleet.index["pv01"]
        snapshot = rig.poller.snapshot()
        assert snapshot.quality[row] == Quality.MISSING
        for name in ("p_w", "q_var", "v_pu", "soc_frac"):
            assert np.isnan(getattr(snapshot, name)[row])
        assert rig.poller.identity(row) is None
        assert rig.quality("bat01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"), driver=Dead)


def test_a_frozen_device_is_suspect_after_its_time_and_good_again_when_it_moves(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await asyncio.sleep(200.0)
        rig.world.servers["bat01"].fault(Fault.FREEZE)
        await asyncio.sleep(100.0)
        assert rig.quality("bat01") is Quality.GOOD
        await asyncio.sleep(45.0)
        assert rig.quality("bat01") is Quality.SUSPECT
        assert rig.quality("pv01") is Quality.GOOD
        assert rig.events == []  # it answers all the time
        await rig.world.servers["bat01"].heal()
        await asyncio.sleep(10.5)
        assert rig.quality("bat01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("pv01", "bat01"))


def test_a_device_that_was_away_for_long_is_good_as_soon_as_it_is_back(tmp_path: Path) -> None:
    """Away is not frozen: the time without an answer does not count as a time without change."""

    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.STOP)
        await asyncio.sleep(600.0)
        assert rig.quality("bat01") is Quality.STALE
        await rig.world.servers["bat01"].heal()
        qualities = []
        for _ in range(150):
            await asyncio.sleep(1.0)
            qualities.append(rig.quality("bat01"))
        assert set(qualities) == {Quality.STALE, Quality.GOOD}
        assert qualities[-1] is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("bat01",))


@pytest.mark.parametrize(
    ("device", "point", "value", "quality"),
    [
        ("bat01", "701.W", 29e3, Quality.GOOD),
        ("bat01", "701.W", 31e3, Quality.SUSPECT),
        ("bat01", "701.W", -31e3, Quality.SUSPECT),
        ("pv01", "701.W", 37e3, Quality.SUSPECT),
        ("bat03", "103.W", 39e3, Quality.SUSPECT),
        ("bat01", "713.SoC", 100.0, Quality.GOOD),
        ("bat01", "713.SoC", 101.0, Quality.SUSPECT),
        ("head", "203.W", 9e6, Quality.GOOD),
    ],
)
def test_values_that_cannot_be_are_suspect(
    device: str, point: str, value: float, quality: Quality, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        server = rig.world.servers[device]
        values = server.bank.get(point)
        usual = values[server.row]
        values[server.row] = value
        server.bank.put(point, values)
        await asyncio.sleep(20.5)  # a jump is doubted once, until the next poll confirms it
        assert rig.quality(device) is quality
        values[server.row] = usual
        server.bank.put(point, values)
        await asyncio.sleep(20.5)  # a jump is doubted once, until the next poll confirms it
        assert rig.quality(device) is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=FIVE, standing=True)


def test_polls_of_a_fleet_are_spread_over_the_interval_each_at_its_own_place(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        slots = Counter(int(rig.poller.requested_s(row)) % 10 for row in range(65))
        assert len(slots) == 10
        assert max(slots.values()) <= 15
        await asyncio.sleep(10.0)
        second_s = np.array([rig.poller.requested_s(row) for row in range(65)])
        await asyncio.sleep(100.0)
        later_s = np.array([rig.poller.requested_s(row) for row in range(65)])
        np.testing.assert_allclose(later_s - second_s, 100.0, atol=0.05)
        assert rig.poller.counts.failed == 0

    in_the_field(scenario, tmp_path)


@dataclass(frozen=True)
class Scaled:
    """A layout that sees twice the voltage in the same bytes, or not."""

    inner: TelemetryLayout
    factor: float

    @property
    def width(self) -> int:
        return self.inner.width

    def measured(self, raw: bytes) -> bytes:
        return self.inner.measured(raw)

    def scales(self, raw: ByteArray) -> ByteArray:
        return self.inner.scales(raw)

    def decode(self, raw: ByteArray) -> Mapping[str, FloatArray]:
        return {name: values * self.factor for name, values in self.inner.decode(raw).items()}


class Renewed(SunSpecDriver):
    """A device whose registers may mean something else after the next connect."""

    factor = 1.0

    async def read(self) -> Reading:
        reading = await super().read()
        return reading._replace(layout=Scaled(reading.layout, self.factor))


def test_a_reading_is_decoded_with_the_map_that_it_was_read_with(tmp_path: Path) -> None:
    """A device comes back with another map of the same size: its old bytes never meet the new map."""

    async def scenario(rig: Rig) -> None:
        session = rig.sessions["bat01"]
        assert isinstance(session, Renewed)
        before_pu = rig.poller.snapshot().v_pu[0]
        renewed_s = rig.clock.monotonic_s()
        session.factor = 2.0
        session.disconnect()
        new = set()
        while rig.clock.monotonic_s() < renewed_s + 15.0:
            await asyncio.sleep(0.004)
            is_new = rig.poller.requested_s(0) > renewed_s
            new.add(is_new)
            assert rig.poller.snapshot().v_pu[0] == pytest.approx(before_pu * (2.0 if is_new else 1.0))
        assert new == {False, True}

    in_the_field(scenario, tmp_path, devices=("bat01",), standing=True, driver=Renewed)


def test_measurements_that_stand_still_are_suspect_though_the_controls_beside_them_move(tmp_path: Path) -> None:
    class StuckMeter(SunSpecDriver):
        """Its measuring model has hung; its control model, with the timers in it, has not."""

        first: bytes = b""

        async def read(self) -> Reading:
            reading = await super().read()
            measured = reading.layout.measured(reading.raw)
            self.first = self.first or measured
            return reading._replace(raw=self.first + reading.raw[len(measured) :])

    async def scenario(rig: Rig) -> None:
        await rig.sessions["bat01"].write(Command(Quantity.P_SET, 5e3, 900.0))
        await asyncio.sleep(100.0)
        assert rig.poller.snapshot().quality[0] == Quality.GOOD
        await asyncio.sleep(60.0)
        assert rig.poller.snapshot().quality[0] == Quality.SUSPECT

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=StuckMeter)

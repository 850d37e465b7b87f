"""Networks that fail: cut, cut in one direction, slow, lossy, or back all at once after an outage.

Numbers are those of the failure catalogue in `test_fault_catalogue`.
"""

import asyncio
import random
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.alarm import Event
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.quality import Quality
from derms.domain.settings import FieldSettings
from derms.field.poller import Poller
from derms.service.clock import LoopClock
from derms.service.simulated import SimulatedLoop, SimulatedNetwork, Trouble, run_simulated
from drivers.registry import drivers
from drivers.sunspec.models import layout
from hil.registers import Bank
from hil.server import DeviceServer, Fault
from hil.unit import nothing
from tests.field.rig import NOON, OPTIONS, Rig, in_the_field

QUICKLY = FieldSettings(backoff_min_s=2.0, backoff_max_s=10.0)
CUT = Trouble(to_cut=True, back_cut=True)
SITE = ("bat01", "pv01", "pv02")
ELSEWHERE = ("bat02", "pv03")


def trouble(rig: Rig, devices: Collection[str], what: Trouble) -> None:
    """Let the ways to some devices be in trouble."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    for device in rig.fleet.devices:
        if device.id in devices:
            loop.network.disturb((device.endpoint.host, device.endpoint.port), what)


def qualities(rig: Rig, devices: Collection[str]) -> set[Quality]:
    return {rig.quality(device) for device in devices}


def test_fault_25_a_site_that_is_cut_off_goes_stale_alone_and_lives_on_its_own_timers(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3, "bat02": 4e3})
        await rig.turns(61.0)
        assert rig.holding() == {"bat01", "bat02"}
        trouble(rig, SITE, CUT)
        rig.wire.clear()
        for _ in range(40):
            await rig.turns_and_beats(10.0)
            assert qualities(rig, ELSEWHERE) == {Quality.GOOD}
        assert qualities(rig, SITE) == {Quality.STALE}
        assert {device for _, device in rig.wire} == {"bat02"}
        assert rig.holding() == {"bat02"}  # the battery that nobody reaches has let go by itself
        trouble(rig, SITE, Trouble())
        await rig.turns_and_beats(121.0)
        assert qualities(rig, SITE + ELSEWHERE) == {Quality.GOOD}
        assert rig.true_w("bat01") == pytest.approx(6e3)
        assert rig.ended("bat01")[-1] == "Applied"
        for device in SITE:
            assert rig.events_of(device).count("device-lost") == rig.events_of(device).count("device-back") == 1

    in_the_field(scenario, tmp_path, devices=SITE + ELSEWHERE, polling=QUICKLY)


def test_fault_27_where_questions_get_through_and_answers_do_not_nothing_counts_as_done(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        rig.on_wire = lambda device: trouble(rig, ("bat01",), Trouble(back_cut=True))
        await rig.turns(61.0)
        assert rig.true_w("bat01") == pytest.approx(6e3)  # the device obeyed, and nobody knows
        assert set(rig.ended("bat01")) == {"Unknown"}
        rig.on_wire = lambda device: None
        await asyncio.sleep(60.0)
        assert rig.quality("bat01") is Quality.STALE
        trouble(rig, ("bat01",), Trouble())
        await asyncio.sleep(30.0)
        await rig.turns(121.0)
        assert rig.quality("bat01") is Quality.GOOD
        assert rig.ended("bat01")[-1] == "Applied"
        await rig.reconciler.hand_back()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=QUICKLY)


def test_fault_27_where_answers_would_get_through_and_questions_do_not_nothing_is_written(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        trouble(rig, ("bat01",), Trouble(to_cut=True))
        rig.want({"bat01": 6e3})
        await rig.turns(181.0)
        assert rig.wire == []
        assert "Applied" not in rig.ended("bat01")
        assert rig.quality("bat01") is Quality.STALE
        trouble(rig, ("bat01",), Trouble())
        await rig.turns(121.0)
        assert rig.quality("bat01") is Quality.GOOD
        assert rig.ended("bat01")[-1] == "Applied"

    in_the_field(scenario, tmp_path, devices=("bat01",), polling=QUICKLY)


def test_fault_28_answers_that_take_five_seconds_are_never_taken_for_others(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        row = rig.fleet.index["bat01"]
        trouble(rig, ("bat01",), Trouble(latency_s=2.5))
        await asyncio.sleep(5.0)
        last_s = rig.poller.requested_s(row)
        for _ in range(60):
            await asyncio.sleep(1.0)
            assert rig.poller.requested_s(row) == last_s
            assert rig.quality("pv01") is Quality.GOOD
        assert rig.quality("bat01") is Quality.STALE
        trouble(rig, ("bat01",), Trouble())
        await asyncio.sleep(45.0)
        assert rig.quality("bat01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("bat01", "pv01"), polling=QUICKLY)


@pytest.mark.parametrize(
    "what",
    [Trouble(loss_frac=0.3), Trouble(jitter_s=0.2), Trouble(latency_s=0.5, jitter_s=0.1, loss_frac=0.05)],
    ids=["30 % lost", "jitter", "all of it"],
)
def test_fault_28_loss_and_jitter_cost_single_polls_and_no_device(what: Trouble, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        trouble(rig, rig.fleet.index, what)
        for _ in range(300):
            await asyncio.sleep(1.0)
            assert qualities(rig, rig.fleet.index) == {Quality.GOOD}
        counts = rig.poller.counts
        assert counts.failed < 0.1 * counts.polls

    in_the_field(scenario, tmp_path, devices=SITE + ELSEWHERE)


def test_fault_28_at_9600_bit_per_s_an_answer_takes_its_time_and_comes(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.world.servers["bat01"].fault(Fault.DRIBBLE, 11.0 / 9600.0)  # eleven bits a byte
        failed = rig.poller.counts.failed
        await asyncio.sleep(60.0)
        assert rig.poller.counts.failed == failed
        assert rig.quality("bat01") is Quality.GOOD

    in_the_field(scenario, tmp_path, devices=("bat01",))


@pytest.mark.parametrize(
    ("devices", "rate_per_s", "cut"),
    [pytest.param(1000, 100.0, False, marks=pytest.mark.slow), (100, 10.0, True)],
    ids=["a thousand, switched off", "a hundred, cut off"],
)
def test_fault_30_a_fleet_that_comes_back_at_once_is_connected_at_a_bounded_rate(
    devices: int, rate_per_s: float, cut: bool
) -> None:
    polling = replace(QUICKLY, frozen_after_s=3600.0)  # these meters say the same for ever
    options = replace(OPTIONS, read_only=True, reconnects_per_s=rate_per_s, backoff_max_s=10.0)

    async def main(loop: SimulatedLoop) -> None:
        clock, events = LoopClock(loop, NOON), list[Event]()
        servers, fleet = await meters(devices)
        opened = drivers().open(fleet.devices, clock, options, random.Random(1))
        poller = Poller(fleet, opened, clock, polling, random.Random(1), events.append)
        running = asyncio.ensure_future(poller.run())
        await asyncio.sleep(30.0)
        assert (poller.snapshot().quality == Quality.GOOD).all()
        await out(loop.network, fleet, servers, cut=cut, length_s=60.0)
        assert (poller.snapshot().quality == Quality.STALE).all()
        connected = []
        for _ in range(500):
            await asyncio.sleep(0.1)
            connected.append(sum(len(server.links) for server in servers))
        new_in_a_second = np.convolve(np.diff(connected, prepend=0), np.ones(10), "valid")
        under_way = rate_per_s * options.connect_timeout_s if cut else 0.0  # which all get through at that moment
        assert new_in_a_second[0] <= 1.1 * rate_per_s + under_way
        assert new_in_a_second[10:].max() <= 1.1 * rate_per_s
        assert connected[-1] == devices
        assert (poller.snapshot().quality == Quality.GOOD).all()
        assert {event.kind for event in events} == {"fleet-lost", "fleet-back"}
        assert len(events) <= 4  # and not one for each device
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run_simulated(main, seed=1)


async def out(
    network: SimulatedNetwork, fleet: Fleet, servers: Sequence[DeviceServer], *, cut: bool, length_s: float
) -> None:
    """An outage of all devices: the network is cut, or they are switched off; what they had of us is gone after it."""
    for device, server in zip(fleet.devices, servers, strict=True):
        server.fault(Fault.STOP)
        if cut:
            network.disturb((device.endpoint.host, device.endpoint.port), CUT)
    await asyncio.sleep(length_s)
    for device, server in zip(fleet.devices, servers, strict=True):
        await server.heal()
        network.disturb((device.endpoint.host, device.endpoint.port), Trouble())


async def meters(count: int) -> tuple[list[DeviceServer], Fleet]:
    """Meters of one make, each behind a port of its own."""
    bank = Bank(count, [layout(1), layout(203)], {"203.W_SF": 1, "203.V_SF": -1})
    bank.put("203.W", np.linspace(0.0, 9e3, count))
    bank.put("203.PhV", 240.0)
    bank.text("1.SN", [f"SN-{row}" for row in range(count)])
    chance = np.random.default_rng(1)
    servers = [DeviceServer(bank, row, rng=chance, on_write=nothing, tap=nothing) for row in range(count)]
    ports = [await server.start("10.0.0.1", 0) for server in servers]
    devices = (
        Device(
            id=f"m{row}",
            kind=DeviceKind.HEAD_METER,
            driver="sunspec",
            endpoint=Endpoint("10.0.0.1", port),
            bus="b1",
            serial=f"SN-{row}",
        )
        for row, port in enumerate(ports)
    )
    return servers, Fleet(tuple(devices))

"""The poller's conduct: what it makes of silence, night, refusals, crashes and odd values, and what it says of them."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from derms.domain.der import DeviceKind, Link
from derms.domain.health import Health
from derms.domain.quality import Quality
from derms.errors import DeviceMismatch, DeviceRefused, DeviceUnreachable
from tests.field.scripted import NOON, QUICK, UNREACHABLE, Scripted, Story, device, polled

UNITS = [device(f"unit{number}", host="site.example", unit=number) for number in range(1, 6)]


def refused(code: int) -> DeviceRefused:
    return DeviceRefused(f"refused with {code}", code)


async def next_read(session: Scripted) -> None:
    """Wait until a device has been asked once more."""
    reads = len(session.reads)
    for _ in range(200):
        if len(session.reads) > reads:
            break
        await asyncio.sleep(0.1)
    assert len(session.reads) == reads + 1


def test_silence_of_pv_at_night_is_expected_and_raises_no_event() -> None:
    def until_dusk(at: datetime) -> bool:
        return at < NOON + timedelta(seconds=100)

    async def story(story: Story) -> None:
        await asyncio.sleep(60.0)
        story.devices["pv1"].values["p_w"] = 0.0
        await asyncio.sleep(45.0)
        for name in ("pv1", "pv2", "bat1"):
            story.devices[name].error = UNREACHABLE
        await asyncio.sleep(600.0)
        assert story.quality("pv1") is Quality.EXPECTED_SILENT
        assert story.quality("pv2") is Quality.STALE  # it was producing when it was lost
        assert story.quality("bat1") is Quality.STALE
        assert [story.poller.health(row) for row in range(3)] == [
            Health.EXPECTED_SILENT,
            Health.NOT_WORKING,
            Health.NOT_WORKING,
        ]
        assert sorted(story.kinds()) == [("bat1", "device-lost"), ("pv2", "device-lost")]

    polled(story, [device("pv1"), device("pv2"), device("bat1", DeviceKind.BATTERY)], sun_is_up=until_dusk)


def test_pv_that_stays_silent_after_sunrise_is_lost_and_told() -> None:
    def night(at: datetime) -> bool:
        return not NOON + timedelta(seconds=50) <= at < NOON + timedelta(seconds=900)

    async def story(story: Story) -> None:
        story.devices["pv1"].values["p_w"] = 0.0
        await asyncio.sleep(60.0)
        story.devices["pv1"].error = UNREACHABLE
        await asyncio.sleep(830.0)
        assert story.quality("pv1") is Quality.EXPECTED_SILENT
        assert story.events == []
        await asyncio.sleep(300.0)
        assert story.quality("pv1") is Quality.STALE
        assert story.kinds() == [("pv1", "device-lost")]

    polled(story, [device("pv1")], sun_is_up=night)


def test_pv_that_answers_all_night_with_the_same_zeros_is_not_called_frozen() -> None:
    async def story(story: Story) -> None:
        pv = story.devices["pv1"]
        pv.values["p_w"], pv.noisy = 0.0, False
        await asyncio.sleep(300.0)
        assert story.quality("pv1") is Quality.EXPECTED_SILENT

    polled(story, [device("pv1")], sun_is_up=lambda at: False)


def test_a_lost_endpoint_is_one_event_and_its_return_one() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        for unit in story.devices.values():
            unit.error = UNREACHABLE
        await asyncio.sleep(200.0)
        assert story.kinds() == [("site.example:502", "endpoint-lost")]
        assert "5 devices" in story.events[0].text
        for unit in story.devices.values():
            unit.error = None
        await asyncio.sleep(200.0)
        assert [kind for _, kind in story.kinds()] == ["endpoint-lost", "endpoint-back"]
        assert "5 of 5" in story.events[1].text

    polled(story, UNITS)


def test_units_lost_behind_an_endpoint_that_still_answers_are_told_one_by_one() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        for name in ("unit2", "unit4"):
            story.devices[name].error = refused(11)
        await asyncio.sleep(200.0)
        assert story.kinds() == [("unit2", "device-lost"), ("unit4", "device-lost")]

    polled(story, UNITS)


def test_a_large_share_of_the_fleet_lost_at_once_is_one_event() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        for number in range(20):
            story.devices[f"pv{number}"].error = UNREACHABLE
        await asyncio.sleep(200.0)
        assert story.kinds() == [("gateway", "fleet-lost")]
        for number in range(15):
            story.devices[f"pv{number}"].error = None
        await asyncio.sleep(200.0)
        assert story.kinds() == [("gateway", "fleet-lost"), ("gateway", "fleet-back")]
        assert "15 of 20" in story.events[1].text
        story.devices["pv19"].error = None
        await asyncio.sleep(200.0)
        assert story.kinds()[2:] == [("pv19", "device-back")]

    polled(story, [device(f"pv{number}") for number in range(40)])


def test_a_lost_system_meter_is_an_alarm_of_its_own_at_once() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        story.devices["grid"].error = UNREACHABLE
        await asyncio.sleep(25.0)
        assert story.kinds() == [("grid", "system-meter-lost")]
        story.devices["grid"].error = None
        await asyncio.sleep(100.0)
        assert story.kinds()[1:] == [("grid", "device-back")]

    polled(story, [device("grid", DeviceKind.SYSTEM_METER, p_rated_w=0.0), device("pv1")])


def test_one_lost_answer_makes_a_device_uncertain_and_is_no_event() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        pv = story.devices["pv1"]
        pv.error = UNREACHABLE
        await next_read(pv)
        assert story.poller.health(0) is Health.UNCERTAIN
        pv.error = None
        await asyncio.sleep(30.0)
        assert story.poller.health(0) is Health.WORKING
        assert story.events == []

    polled(story, [device("pv1")])


def test_a_busy_device_keeps_its_connection_and_is_asked_again_after_a_while() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        pv = story.devices["pv1"]
        pv.error, reads = refused(6), len(pv.reads)
        await next_read(pv)
        assert pv.connected
        pv.error = None
        await asyncio.sleep(5.1)
        assert len(pv.reads) == reads + 2
        assert story.events == []

    polled(story, [device("pv1")])


@pytest.mark.parametrize("code", [2, 3])
def test_a_device_that_refuses_addresses_is_a_configuration_alarm_and_is_not_hammered(code: int) -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        pv = story.devices["pv1"]
        pv.error, reads = refused(code), len(pv.reads)
        await asyncio.sleep(300.0)
        assert story.kinds() == [("pv1", "device-refuses")]
        assert 5 <= len(pv.reads) - reads <= 12  # at the longest wait, 30 to 60 s

    polled(story, [device("pv1")])


def test_a_device_whose_serial_number_changed_is_quarantined_with_an_alarm() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        pv = story.devices["pv1"]
        pv.error, pv.connected = DeviceMismatch("serial number '8', expected '7'"), False
        await asyncio.sleep(300.0)
        assert story.kinds() == [("pv1", "device-mismatch")]
        assert "'8'" in story.events[0].text
        assert story.poller.health(0) is Health.QUARANTINED
        assert story.quality("pv1") is Quality.STALE
        pv.error = None
        await asyncio.sleep(120.0)
        assert story.poller.health(0) is Health.WORKING
        assert story.kinds()[1:] == [("pv1", "device-back")]

    polled(story, [device("pv1")])


def test_a_device_that_crashes_our_code_three_times_is_quarantined_and_the_others_go_on() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(30.0)
        story.devices["pv1"].error = ZeroDivisionError("a bug")
        await asyncio.sleep(300.0)
        assert story.kinds() == [("pv1", "device-quarantined")]
        assert "ZeroDivisionError: a bug" in story.events[0].text
        assert story.poller.health(0) is Health.QUARANTINED
        assert story.quality("pv2") is Quality.GOOD
        assert len(story.devices["pv2"].reads) >= 32
        story.devices["pv1"].error = None
        await asyncio.sleep(120.0)
        assert story.poller.health(0) is Health.WORKING

    polled(story, [device("pv1"), device("pv2")])


def test_drift_of_settings_is_said_once_with_what_changed() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(130.0)
        assert story.events == []
        story.devices["pv1"].told["705.Ena"] = 0.0
        await asyncio.sleep(180.0)
        assert story.kinds() == [("pv1", "settings-drift")]
        assert "705.Ena" in story.events[0].text

    polled(story, [device("pv1")])


def test_a_device_that_does_not_tell_its_settings_is_polled_all_the_same_and_said_once() -> None:
    async def story(story: Story) -> None:
        story.devices["pv1"].settings_error = refused(2)
        await asyncio.sleep(300.0)
        assert story.kinds() == [("pv1", "settings-refused")]
        assert len(story.devices["pv1"].reads) >= 29
        assert story.poller.health(0) is Health.WORKING

    polled(story, [device("pv1")])


def test_settings_are_read_once_after_a_long_silence_and_not_for_each_time_that_was_missed() -> None:
    async def story(story: Story) -> None:
        device = story.devices["pv1"]
        await asyncio.sleep(130.0)
        device.error = DeviceUnreachable("gone")
        await asyncio.sleep(3600.0)
        before, device.error = device.settings_reads, None
        await asyncio.sleep(100.0)
        assert 1 <= device.settings_reads - before <= 2

    polled(story, [device("pv1")])


def test_a_state_of_charge_that_jumps_is_suspect_until_the_next_poll_confirms_it() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(35.0)
        story.devices["bat1"].values["soc_frac"] = 0.9
        qualities = []
        for _ in range(50):
            await asyncio.sleep(0.5)
            qualities.append(story.quality("bat1"))
        assert qualities[-1] is Quality.GOOD
        assert qualities.count(Quality.SUSPECT) == pytest.approx(20, abs=1)

    polled(story, [device("bat1", DeviceKind.BATTERY)])


def test_power_that_jumps_with_its_scale_factor_is_suspect_once_and_without_it_is_not() -> None:
    async def story(story: Story) -> None:
        await asyncio.sleep(35.0)
        for name in ("pv1", "pv2"):
            story.devices[name].values["p_w"] = 100.0
        story.devices["pv1"].scale = 1
        seen: dict[str, set[Quality]] = {"pv1": set(), "pv2": set()}
        for _ in range(50):
            await asyncio.sleep(0.5)
            for name, found in seen.items():
                found.add(story.quality(name))
        assert seen == {"pv1": {Quality.GOOD, Quality.SUSPECT}, "pv2": {Quality.GOOD}}
        assert story.quality("pv1") is Quality.GOOD

    polled(story, [device("pv1"), device("pv2")])


def test_pv_that_draws_power_has_its_sign_turned_and_is_suspect() -> None:
    async def story(story: Story) -> None:
        story.devices["pv1"].values["p_w"] = -900.0
        story.devices["bat1"].values["p_w"] = -900.0
        await asyncio.sleep(30.0)
        assert story.quality("pv1") is Quality.SUSPECT
        assert story.quality("bat1") is Quality.GOOD

    polled(story, [device("pv1"), device("bat1", DeviceKind.BATTERY)])


def test_the_smaller_of_the_two_ratings_bounds_what_is_plausible() -> None:
    async def story(story: Story) -> None:
        pv = story.devices["pv1"]
        pv.identity = replace(pv.identity, p_rated_w=5e3)
        pv.values["p_w"] = 7e3
        await asyncio.sleep(30.0)
        assert story.quality("pv1") is Quality.SUSPECT

    polled(story, [device("pv1", p_rated_w=10e3)])


def test_cellular_devices_are_polled_each_minute_and_large_plants_each_four_seconds() -> None:
    slow = replace(device("far"), link=Link.CELLULAR)

    async def story(story: Story) -> None:
        await asyncio.sleep(600.0)
        polls = {name: np.diff(session.reads) for name, session in story.devices.items()}
        for name, period_s in {"far": 60.0, "plant": 4.0, "near": 10.0}.items():
            np.testing.assert_allclose(polls[name], period_s, atol=0.05)
        await asyncio.sleep(50.0)
        assert story.quality("far") is Quality.GOOD  # not stale before 3.5 of its own polls
        assert story.poller.counts.missed == 0

    polled(story, [slow, device("plant", p_rated_w=2e6), device("near")], settings=replace(QUICK, settings_s=1e6))

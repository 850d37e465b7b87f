"""What people are told when polled values cannot be: once, with the reason, and once when they are believed again."""

import asyncio

from derms.domain.der import DeviceKind
from derms.domain.quality import Quality
from tests.field.scripted import Story, device, polled


def test_fault_14_values_that_cannot_be_are_one_event_with_their_reason_and_one_when_they_can_again() -> None:
    async def story(told: Story) -> None:
        await asyncio.sleep(25.0)
        told.devices["bat"].values["soc_frac"] = 2.0
        await asyncio.sleep(300.0)
        assert told.quality("bat") is Quality.SUSPECT
        assert told.kinds() == [("bat", "values-suspect")]
        assert "a state of charge of 200 %, outside of 0 to 100 %" in told.events[0].text
        told.devices["bat"].values["soc_frac"] = 0.5
        await asyncio.sleep(300.0)
        assert told.quality("bat") is Quality.GOOD
        assert told.kinds() == [("bat", "values-suspect"), ("bat", "values-good")]

    polled(story, [device("bat", DeviceKind.BATTERY), device("pv")])


def test_fault_13_hundreds_that_stand_still_are_one_event_and_one_when_they_move() -> None:
    async def story(told: Story) -> None:
        for scripted in told.devices.values():
            scripted.noisy = False
        await asyncio.sleep(400.0)
        assert told.kinds() == [("gateway", "values-suspect")]
        assert "200 devices" in told.events[0].text
        assert "nothing has changed for" in told.events[0].text
        for scripted in told.devices.values():
            scripted.noisy = True
        await asyncio.sleep(100.0)
        assert told.kinds() == [("gateway", "values-suspect"), ("gateway", "values-good")]

    polled(story, [device(f"pv{number}") for number in range(200)])


def test_pv_that_stands_still_at_night_is_no_news() -> None:
    async def story(told: Story) -> None:
        told.devices["pv"].values["p_w"] = 0.0
        told.devices["pv"].noisy = False
        await asyncio.sleep(400.0)
        assert told.quality("pv") is Quality.EXPECTED_SILENT
        assert told.kinds() == []

    polled(story, [device("pv")], sun_is_up=lambda at: False)


def test_fault_14_a_meter_that_lost_its_measurements_is_suspect_and_on_a_dead_feeder_it_is_believed() -> None:
    async def story(told: Story) -> None:
        await asyncio.sleep(25.0)
        for scripted in told.devices.values():
            scripted.noisy = False
        told.devices["head"].values |= {"p_w": 0.0, "v_v": 0.0}
        await asyncio.sleep(30.0)
        assert told.quality("head") is Quality.SUSPECT
        assert "while others on the feeder are under voltage" in told.events[0].text
        told.devices["pv"].values |= {"p_w": 0.0, "v_v": 0.0}
        await asyncio.sleep(75.0)
        assert told.quality("head") is Quality.GOOD
        assert told.kinds() == [("head", "values-suspect"), ("head", "values-good")]

    polled(story, [device("head", DeviceKind.HEAD_METER, p_rated_w=0.0), device("pv")])


def test_fault_14_a_meter_without_a_rating_that_shows_what_no_system_has_is_suspect() -> None:
    async def story(told: Story) -> None:
        await asyncio.sleep(25.0)
        told.devices["grid"].values["p_w"] = 1e30
        await asyncio.sleep(30.0)
        assert told.quality("grid") is Quality.SUSPECT
        assert told.kinds() == [("grid", "values-suspect")]

    polled(story, [device("grid", DeviceKind.SYSTEM_METER, p_rated_w=0.0)])


def test_fault_14_a_feeder_that_trips_is_doubted_for_one_poll_and_then_believed() -> None:
    async def story(told: Story) -> None:
        told.devices["head"].values["p_w"] = 3e6
        await asyncio.sleep(25.0)
        told.devices["head"].values["p_w"] = 0.0
        found = []
        for _ in range(3):
            await asyncio.sleep(10.0)
            found.append(told.quality("head"))
        assert found == [Quality.SUSPECT, Quality.GOOD, Quality.GOOD]

    polled(story, [device("head", DeviceKind.HEAD_METER, p_rated_w=4e6), device("pv")])

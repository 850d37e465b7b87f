"""Stops over the link: every request and reply in the bytes that travel, on real drivers in simulated time."""

import asyncio
import random
from pathlib import Path

import pytest

from derms.control.stopping import How
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.field.stop_desk import StopDesk
from derms.link.answering import Answering
from derms.link.inprocess import BOOT, InProcessLink
from derms.link.stops import StopHurry, StopPreview, StopRelease, StopReply, StopRequest, StopStatus
from derms.service.stop_handlers import handlers
from tests.field.rig import Rig
from tests.field.test_stop_desk import DEVICES, told

NOBODY = Scope(Level.DEVICE, "pv99")


def test_a_stop_from_its_preview_to_its_release_by_two_people(tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        answering, chance = Answering(rig.clock, BOOT, handlers(desk)), random.Random(1)

        async def ask(request: object, author: str = "ann") -> StopReply:
            link = InProcessLink(rig.clock, chance, author=author, packed=True)
            link.answering = answering
            return await link.ask(request, StopReply, within_s=1.0)

        preview = (await ask(StopPreview(How.CEASE, EVERYTHING))).preview
        assert preview is not None
        assert preview.devices == len(DEVICES)
        (given,) = (await ask(StopRequest("a", How.CEASE, EVERYTHING))).stops
        assert (await ask(StopRequest("a", How.CEASE, EVERYTHING))).stops[0].number == given.number
        await asyncio.sleep(1.0)
        (found,) = (await ask(StopStatus(given.number, detail=True))).stops
        assert (found.tally.confirmed, found.devices, found.author) == (len(DEVICES), DEVICES, "ann")
        assert found.confirmed_s is not None
        assert [stop.number for stop in (await ask(StopStatus())).stops] == [given.number]
        assert "another person" in (await ask(StopRelease(given.number))).text
        refused = (await ask(StopRelease(given.number))).refused
        assert refused is not None
        assert "released by ann and ben" in (await ask(StopRelease(given.number, remote=True), "ben")).text
        await asyncio.sleep(10.0)
        assert (await ask(StopStatus())).stops == ()

    told(story, tmp_path)


@pytest.mark.parametrize(
    "request_",
    [
        StopPreview(How.CEASE, NOBODY),
        StopRequest("a", How.CEASE, NOBODY),
        StopHurry(7),
        StopStatus(7),
        StopRelease(7),
        StopRelease(7, broken_glass="night"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_cannot_be_is_refused_with_a_reason(request_: object, tmp_path: Path) -> None:
    async def story(rig: Rig, desk: StopDesk) -> None:
        reply = await handlers(desk)[type(request_)](request_, "ann")
        assert isinstance(reply, StopReply)
        assert reply.refused is not None
        assert reply.refused.reasons[0].text

    told(story, tmp_path)

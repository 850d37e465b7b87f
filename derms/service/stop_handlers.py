"""The gateway's answers to requests about stops: each asks the stop desk, and replies with what it says."""

from collections.abc import Mapping

from derms.control.latch import Latch
from derms.control.stop_report import Progress
from derms.domain.refusal import Refused
from derms.field.stop_desk import StopDesk
from derms.link.answering import Handler
from derms.link.stops import StopHurry, StopPreview, StopRelease, StopReply, StopRequest, StopStatus

DURABLE_S = 0.2
"""For a latch to become durable before a stop is answered: it goes out meanwhile."""


def handlers(desk: StopDesk) -> Mapping[type, Handler]:
    """The table of requests about stops."""

    async def preview(request: StopPreview, author: str) -> StopReply:
        found = desk.preview(request.how, request.scope)
        return StopReply(refused=found) if isinstance(found, Refused) else StopReply(preview=found)

    async def stop(request: StopRequest, author: str) -> StopReply:
        number = desk.stop(
            request.how, request.scope, author, immediate=request.immediate, request=f"{author} {request.id}"
        )
        if isinstance(number, Refused):
            return StopReply(refused=number)
        reply = _told(desk.status(number))
        await desk.orders.settle(DURABLE_S)
        return reply

    async def hurry(request: StopHurry, author: str) -> StopReply:
        return _told(desk.hurry(request.number))

    async def status(request: StopStatus, author: str) -> StopReply:
        if request.number is None:
            return StopReply(stops=desk.standing())
        return _told(desk.status(request.number, detail=request.detail))

    async def release(request: StopRelease, author: str) -> StopReply:
        step = await desk.release(request.number, author, remote=request.remote, why=request.broken_glass)
        if isinstance(step, Refused):
            return StopReply(refused=step)
        if isinstance(step, Latch):
            first = step.first.person if step.first else author
            return StopReply(text=f"the release of stop {step.number} is approved by {first}; it takes another person")
        return StopReply(text=f"{step}: devices are let in stage by stage")

    return {StopPreview: preview, StopRequest: stop, StopHurry: hurry, StopStatus: status, StopRelease: release}


def _told(found: Progress | Refused) -> StopReply:
    return StopReply(refused=found) if isinstance(found, Refused) else StopReply(stops=(found,))

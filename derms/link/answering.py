"""The answering end of the link: whatever brought a request, it is acted on once, in time, and answered."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from derms.errors import DermsError
from derms.link.messages import VERSION, Answer, Envelope, NotDone
from derms.ports import Clock

Handler = Callable[[Any, str], Awaitable[object]]
"""Acts on one kind of request, for its author, and replies."""

REMEMBERED = 256
"""Latest requests whose answers are kept for those who ask again."""


class Answering:
    """Finds the handler of a request; see the module's text."""

    def __init__(self, clock: Clock, boot: str, handlers: Mapping[type, Handler]) -> None:
        self._clock = clock
        self._boot = boot
        self._handlers = handlers
        self._answers: OrderedDict[tuple[str, str], asyncio.Future[Answer]] = OrderedDict()

    async def answer(self, envelope: Envelope, author: str) -> Answer:
        """The answer to a request; one that came before is not acted on again."""
        key = author, envelope.id
        if key not in self._answers:
            self._answers[key] = asyncio.ensure_future(self._act(envelope, author))
            while len(self._answers) > REMEMBERED and next(iter(self._answers.values())).done():
                self._answers.popitem(last=False)
        return await asyncio.shield(self._answers[key])

    async def _act(self, envelope: Envelope, author: str) -> Answer:
        return Answer(envelope.id, await self._reply(envelope, author))

    async def _reply(self, envelope: Envelope, author: str) -> object:
        handler = self._handlers.get(type(envelope.request))
        if envelope.version != VERSION:
            return NotDone(f"a message of version {envelope.version}, and this process speaks version {VERSION}")
        if handler is None:
            return NotDone(f"nobody here answers {type(envelope.request).__name__}")
        if envelope.stamp.boot != self._boot:
            return NotDone("it was sent from another machine, or before this one was started")
        age_s = self._clock.monotonic_s() - envelope.stamp.sent_s
        if age_s > envelope.valid_s:
            return NotDone(f"it arrived {age_s - envelope.valid_s:.1f} s after its end")
        try:
            return await handler(envelope.request, author)
        except DermsError as error:
            return NotDone(str(error))

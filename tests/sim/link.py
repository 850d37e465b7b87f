"""The link in a simulation: messages as bytes between lives, late, doubled, lost, or with nobody at the other end."""

import asyncio
import random
from contextvars import Context, copy_context

from derms.errors import LinkError
from derms.link.answering import Answering
from derms.link.asking import Reply, opened
from derms.link.messages import PACKER, Answer, Envelope, Stamp
from derms.ports import Clock
from tests.sim.loop import LIFE, SimLoop

BOOT = "simulation"
LATENCY_S = 0.001


class Exchange:
    """Where the gateway is found, if it is there, and what is wrong with the way to it."""

    def __init__(self, loop: SimLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.answering: Answering | None = None
        self.context = Context()
        """Of the gateway."""
        self.cut = False
        self.late_s = 0.0
        self.double_frac = 0.0

    def latency_s(self) -> float:
        return LATENCY_S + self.late_s * self.chance.random()

    def arrive(self, data: bytes, author: str, reply: asyncio.Future[bytes], context: Context) -> None:
        """A request has come; what is cut off is lost."""
        life = self.context.get(LIFE)
        if self.cut or (life is not None and life.halted and life.alive):
            return
        if self.answering is None or life is None or not life.alive:
            self._send(context, _fail, reply)
            return
        for _ in range(2 if self.chance.random() < self.double_frac else 1):
            self.loop.create_task(self._answer(data, author, reply, context), context=self.context)

    async def _answer(self, data: bytes, author: str, reply: asyncio.Future[bytes], context: Context) -> None:
        assert self.answering is not None
        answer = await self.answering.answer(PACKER.unpack(data), author)
        if not self.cut:
            self._send(context, _succeed, reply, PACKER.pack(answer))

    def _send(self, context: Context, what: object, *args: object) -> None:
        assert callable(what)
        self.loop.call_at(self.loop.time() + self.latency_s(), what, *args, context=context)


def _succeed(reply: asyncio.Future[bytes], data: bytes) -> None:
    if not reply.done():
        reply.set_result(data)


def _fail(reply: asyncio.Future[bytes]) -> None:
    if not reply.done():
        reply.set_exception(LinkError("the gateway is not there"))


class SimLink:
    """One asker's end; see derms.link.asking.Link."""

    def __init__(self, exchange: Exchange, clock: Clock, chance: random.Random, author: str) -> None:
        self._exchange = exchange
        self._clock = clock
        self._author = author
        self._name = f"{chance.getrandbits(64):016x}"
        self._asked = 0

    async def ask(self, request: object, kind: type[Reply], *, within_s: float) -> Reply:
        loop = self._exchange.loop
        self._asked += 1
        stamp = Stamp(BOOT, self._clock.monotonic_s())
        envelope = Envelope(f"{self._name}-{self._asked}", stamp, within_s, request)
        reply: asyncio.Future[bytes] = loop.create_future()
        arrive, data = self._exchange.arrive, PACKER.pack(envelope)
        back = copy_context()
        loop.call_later(self._exchange.latency_s(), arrive, data, self._author, reply, back, context=Context())
        try:
            async with asyncio.timeout(within_s):
                came = await reply
        except TimeoutError as error:
            raise LinkError(f"{type(request).__name__}: no answer within {within_s:g} s") from error
        answer = PACKER.unpack(came)
        assert isinstance(answer, Answer)
        return opened(answer, envelope, kind)

"""The link inside one process: for simulated time and tests, where gateway and brain share a loop."""

import asyncio
import random

from derms.errors import LinkError
from derms.link.answering import Answering
from derms.link.asking import Envelopes, Reply, opened
from derms.link.messages import PACKER
from derms.ports import Clock

BOOT = "this process"


class InProcessLink:
    """Asks an answering end that is in the same process, or nobody while there is none."""

    def __init__(self, clock: Clock, chance: random.Random, *, author: str, packed: bool = False) -> None:
        """`packed` sends every message through the bytes that the other adapter would send."""
        self._clock = clock
        self._author = author
        self._packed = packed
        self._envelopes = Envelopes(BOOT, f"{chance.getrandbits(64):016x}")
        self.answering: Answering | None = None
        """None: nobody is there, or nothing gets through."""

    async def ask(self, request: object, kind: type[Reply], *, within_s: float) -> Reply:
        envelope = self._envelopes.sealed(request, self._clock.monotonic_s(), within_s)
        if self.answering is None:
            raise LinkError(f"{type(request).__name__}: the gateway is not there")
        sent = PACKER.unpack(PACKER.pack(envelope)) if self._packed else envelope
        try:
            async with asyncio.timeout(within_s):
                answer = await self.answering.answer(sent, self._author)
        except TimeoutError as error:
            raise LinkError(f"{type(request).__name__}: no answer within {within_s:g} s") from error
        return opened(PACKER.unpack(PACKER.pack(answer)) if self._packed else answer, envelope, kind)

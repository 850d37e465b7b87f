"""What comes over the link is not believed unseen: answers to other requests, frames of any length."""

import asyncio
import random
from pathlib import Path

import pytest

from derms.errors import LinkError
from derms.link.answering import Answering
from derms.link.asking import Envelopes, opened
from derms.link.local import LocalLink, LocalServer, this_boot
from derms.link.messages import Answer, Lead, Led
from derms.service.clock import SystemClock


def test_the_answer_to_another_request_is_not_taken() -> None:
    envelopes = Envelopes("here", "sim")
    first, second = (envelopes.sealed(Lead("brain"), 100.0, 5.0) for _ in range(2))
    assert opened(Answer(first.id, Led(1)), first, Led) == Led(1)
    with pytest.raises(LinkError, match="not its answer"):
        opened(Answer(first.id, Led(1)), second, Led)


def test_a_frame_beyond_all_size_is_not_read_and_nothing_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        led: list[str] = []

        async def lead(request: Lead, author: str) -> object:
            led.append(request.owner)
            return Led(1)

        clock, path = SystemClock(asyncio.get_running_loop()), tmp_path / "gateway.sock"
        server = LocalServer(path, Answering(clock, this_boot(), {Lead: lead}))
        await server.start()
        link = LocalLink(path, clock, random.Random(1))
        assert await link.ask(Lead("brain"), Led, within_s=5.0) == Led(1)
        monkeypatch.setattr("derms.link.local.FRAME_MAX_BYTES", 16)
        with pytest.raises(LinkError, match="closed the connection without an answer"):
            await link.ask(Lead("another"), Led, within_s=5.0)
        server.close()
        assert led == ["brain"]

    asyncio.run(main())

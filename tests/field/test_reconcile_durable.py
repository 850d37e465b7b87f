"""A journal that takes its time: no command is on the wire before it."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from derms.field.ledger import Ledger, Pending
from tests.field.rig import Rig, in_the_field

SLOW_S = 4.0
WANTED = {"bat01": 6e3, "bat03": -4e3}


def test_no_errand_begins_before_the_journal_has_its_intents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = Ledger.make_durable

    async def slowly(self: Ledger, due: Sequence[Pending]) -> None:
        await asyncio.sleep(SLOW_S if due else 0.0)
        await at_once(self, due)

    async def scenario(rig: Rig) -> None:
        monkeypatch.setattr(Ledger, "make_durable", slowly)
        began_s = rig.clock.monotonic_s()
        rig.want(WANTED)
        await rig.turns(70.0)
        assert {device for _, device in rig.wire} == set(WANTED)
        turned_s = {began_s + turn * rig.reconciler.settings.group_s for turn in range(5)}
        for at_s, _ in rig.wire:
            assert at_s - max(turn_s for turn_s in turned_s if turn_s <= at_s) >= SLOW_S

    in_the_field(scenario, tmp_path, devices=tuple(WANTED))

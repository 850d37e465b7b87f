"""Control goes on and nobody takes its records: what the gateway's parts hold in memory does not grow."""

import gc
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest

import derms
import drivers
from derms.field import journal
from tests.field.rig import QUICK, Rig, in_the_field

DEVICES = ("bat01", "bat02", "bat03", "pv01", "pv04", "head")
OURS = [str(Path(package.__path__[0]) / "*") for package in (derms, drivers)]
TURNS, TURN_S = 12, 75.0
"""Changes of what is wanted in one part of the time, and how long each lasts."""
LEEWAY_BYTES = 4_000
"""Caches and what is under way at one moment and not at another."""


async def _held_after_a_while(rig: Rig) -> int:
    """Move everybody to and fro; bytes that our own code has allocated and still holds."""
    for turn in range(TURNS):
        sign = 1.0 if turn % 2 else -1.0
        rig.want({"bat01": 5e3 * sign, "bat02": 2e3 * sign, "bat03": -4e3 * sign}, {"pv01": 9e3, "pv04": 5e3 * turn})
        await rig.turns_and_beats(TURN_S)
    for listed in (rig.events, rig.outcomes, rig.wire):
        listed.clear()
    gc.collect()
    ours = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, pattern) for pattern in OURS])
    return sum(statistic.size for statistic in ours.statistics("filename"))


@pytest.mark.slow
def test_what_the_gateway_holds_in_memory_is_the_same_later_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The latest records are kept up to a number that is reached at once here."""
    monkeypatch.setattr(journal, "ENTRIES_KEPT", 5)

    async def scenario(rig: Rig) -> None:
        tracemalloc.start()
        try:
            held = [await _held_after_a_while(rig) for _ in range(3)]
        finally:
            tracemalloc.stop()
        assert rig.reconciler.counts.writes > 100
        assert held[2] - held[1] < LEEWAY_BYTES

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=replace(QUICK, deadband_frac=0.01))

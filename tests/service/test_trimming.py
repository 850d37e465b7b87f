"""Trimming at work: the reconciler's own turns carry it to devices, and it ends with what it stands on."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.control.trim import Measured
from derms.domain.dispatch import Dispatch, Leeway
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, PointValue, ScadaPoint, ScadaReading
from derms.domain.settings import DispatchSettings
from derms.domain.telemetry import TelemetrySnapshot
from derms.service.trimming import Trimmer, measured
from tests.field.rig import NOON, QUICK, Rig, in_the_field

FOUR = ("bat01", "bat02", "bat03", "bat06")
EXPECTED_W = 1e6


class Utility:
    """Net load as it is, and as the utility tells it."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.extra_w = 0.0
        self.quality = Quality.GOOD

    def measure(self, snapshot: TelemetrySnapshot) -> Measured:
        batteries_w = sum(self.rig.true_w(device) for device in FOUR)
        net_w = EXPECTED_W + 4 * 5e3 - batteries_w + self.extra_w + 1e-3 * snapshot.now_s
        return Measured(net_w, self.quality, snapshot.now_s)


def _adopted(rig: Rig, trimmer: Trimmer, *, valid_s: float = 3600.0, leeway: bool = True) -> Dispatch:
    """A plan in which each battery gives 5 kW, for the net load of that."""
    now_s = rig.clock.monotonic_s()
    rows, count = [rig.fleet.index[device] for device in FOUR], len(rig.fleet)
    powers_w, most_w = np.full((count, 2), np.nan), np.full(count, 25e3)
    powers_w[rows] = 5e3
    dispatch = Dispatch(
        plan_id=9,
        issued_at=rig.clock.utc(),
        valid_until_s=now_s + valid_s,
        times_s=np.array([now_s, now_s + 3600.0]),
        p_set_w=powers_w,
        p_limit_w=np.full((count, 2), np.nan),
        leeway=Leeway(np.full(2, EXPECTED_W), most_w) if leeway else None,
    )
    trimmer.adopt(dispatch)
    return dispatch


async def _trimming(rig: Rig, trimmer: Trimmer, seconds: float) -> None:
    """Turns, and a trim each ten seconds."""

    async def job() -> None:
        while True:
            trimmer.trim()
            await asyncio.sleep(rig.reconciler.settings.trim_every_s)

    task = asyncio.ensure_future(job())
    await rig.turns(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _told(
    scenario: Callable[[Rig, Trimmer, Utility], Awaitable[None]],
    folder: Path,
    *,
    settings: DispatchSettings = replace(QUICK, trim_every_s=10.0, trim_response_s=20.0),  # noqa: B008
) -> None:
    async def with_trimmer(rig: Rig) -> None:
        utility = Utility(rig)
        await scenario(rig, Trimmer(rig.reconciler, utility.measure, rig.events.append), utility)

    in_the_field(with_trimmer, folder, devices=FOUR, dispatch=settings)


def test_load_beyond_the_plan_is_carried_by_the_devices_in_their_own_turns(tmp_path: Path) -> None:
    async def scenario(rig: Rig, trimmer: Trimmer, utility: Utility) -> None:
        _adopted(rig, trimmer)
        await _trimming(rig, trimmer, 360.0)
        assert [rig.true_w(device) for device in FOUR] == pytest.approx([5e3] * 4, rel=0.05)
        writes = rig.reconciler.counts.writes
        utility.extra_w = 12e3
        await _trimming(rig, trimmer, 240.0)
        assert sum(rig.true_w(device) for device in FOUR) == pytest.approx(32e3, abs=1.5e3)
        assert trimmer.trim_w == pytest.approx(12e3, abs=1.5e3)
        assert rig.reconciler.counts.writes - writes == 4 * 4, "each once in an interval of a minute, as ever"
        assert {record.plan_id for record in rig.outcomes} == {9}
        assert rig.world.tap.violations == []
        assert rig.events == []

    _told(scenario, tmp_path)


def test_when_net_load_is_not_known_any_more_devices_go_back_to_the_plan_and_it_is_said(tmp_path: Path) -> None:
    async def scenario(rig: Rig, trimmer: Trimmer, utility: Utility) -> None:
        _adopted(rig, trimmer)
        utility.extra_w = 12e3
        await _trimming(rig, trimmer, 240.0)
        assert trimmer.trim_w > 9e3
        utility.quality = Quality.STALE
        await _trimming(rig, trimmer, 90.0)
        assert trimmer.trim_w == 0.0
        assert [rig.true_w(device) for device in FOUR] == pytest.approx([5e3] * 4, rel=0.01)
        utility.quality = Quality.GOOD
        await _trimming(rig, trimmer, 20.0)
        assert rig.events_of("gateway") == ["trim-stopped", "trim-on"]

    _told(scenario, tmp_path)


def test_a_dispatch_that_has_expired_is_not_brought_back_by_the_trim(tmp_path: Path) -> None:
    async def scenario(rig: Rig, trimmer: Trimmer, utility: Utility) -> None:
        _adopted(rig, trimmer, valid_s=90.0)
        utility.extra_w = 12e3
        await _trimming(rig, trimmer, 300.0)
        assert rig.events_of("gateway") == ["dispatch-expired"]
        assert rig.holding() == set()
        assert trimmer.trim_w == 0.0

    _told(scenario, tmp_path, settings=replace(QUICK, trim_every_s=10.0, reversion_s=3000.0))


def test_a_plan_that_does_not_say_what_it_expects_goes_out_as_it_is(tmp_path: Path) -> None:
    async def scenario(rig: Rig, trimmer: Trimmer, utility: Utility) -> None:
        _adopted(rig, trimmer, leeway=False)
        utility.extra_w, utility.quality = 12e3, Quality.STALE
        await _trimming(rig, trimmer, 90.0)
        assert [rig.true_w(device) for device in FOUR] == pytest.approx([5e3] * 4, rel=0.01)
        assert rig.events == []

    _told(scenario, tmp_path)


def test_net_load_in_parts_is_as_good_and_as_new_as_the_worst_of_them() -> None:
    points = [ScadaPoint(id=name, kind=PointKind.NET_LOAD, element="system", where=name) for name in ("a", "b")]
    head = ScadaPoint(id="h", kind=PointKind.HEAD_P, element="f", where="h")
    values = {
        "a": PointValue(2e6, Quality.GOOD, None, NOON, 100.0),
        "b": PointValue(1e6, Quality.GOOD, None, NOON, 90.0),
        "h": PointValue(5e6, Quality.MISSING, None, None, 10.0),
    }
    found = measured(ScadaReading(NOON, [*points, head], values))
    assert (found.net_load_w, found.quality, found.at_s) == (3e6, Quality.GOOD, 90.0)
    assert np.isnan(found.heads_w).all()
    assert measured(ScadaReading(NOON, [*points, head], values), 4e6).heads_w.tolist() == [4e6]
    values["h"] = replace(values["h"], quality=Quality.GOOD)
    assert measured(ScadaReading(NOON, [*points, head], values)).heads_w.tolist() == [5e6]
    values["b"] = replace(values["b"], quality=Quality.SUSPECT)
    assert not measured(ScadaReading(NOON, [*points, head], values)).serves(100.0)
    assert not measured(ScadaReading(NOON, [head], values)).serves(100.0)

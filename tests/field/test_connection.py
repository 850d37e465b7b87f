"""A battery and PV behind one connection, on simulated devices: who is told first, and what is not limited any more."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.connection import Connection
from derms.domain.dispatch import Clamped, Quantity
from derms.field.reach import reach_of
from hil.server import Fault
from tests.field.rig import QUICK, Rig, in_the_field

PAIR = ("bat01", "pv01")
POINT = Connection(id="farm", export_max_w=40e3, import_max_w=5e3)
STEP_S = 5.0


def held_w(rig: Rig, device: str, quantity: Quantity) -> float | None:
    seen = rig.reconciler.holdings.get((rig.fleet.index[device], quantity))
    return None if seen is None else seen.held.value_w


async def most_w(rig: Rig, seconds: float) -> list[float]:
    """What both truly give together, step by step, while the gateway has its turns and beats."""
    turning = asyncio.gather(rig.reconciler.run(), rig.heartbeat.run())
    given_w = []
    for _ in range(int(seconds / STEP_S)):
        await asyncio.sleep(STEP_S)
        given_w.append(sum(rig.true_w(device) for device in PAIR))
    turning.cancel()
    with suppress(asyncio.CancelledError):
        await turning
    return given_w


def test_a_battery_waits_for_the_limit_of_pv_and_comes_down_when_that_is_let_go(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rated_w = float(rig.fleet.p_rated_w[rig.fleet.index["pv01"]])
        left_w = POINT.export_max_w - rated_w
        assert 0.0 < left_w < 24e3
        rig.want({"bat01": 24e3})
        over = max(await most_w(rig, 70.0)) - POINT.export_max_w
        assert held_w(rig, "bat01", Quantity.P_SET) == pytest.approx(left_w, abs=20.0)
        outcome = rig.last("bat01").outcome
        assert isinstance(outcome, Clamped)
        assert outcome.by == "connection"
        rig.want({"bat01": 24e3}, {"pv01": 14e3})
        over = max(over, max(await most_w(rig, 130.0)) - POINT.export_max_w)
        assert held_w(rig, "bat01", Quantity.P_SET) == pytest.approx(24e3, abs=20.0)
        assert held_w(rig, "pv01", Quantity.P_LIMIT) == pytest.approx(14e3, abs=50.0)
        assert over <= 100.0
        rig.want({"bat01": 24e3})
        beyond = [power_w > POINT.export_max_w + 100.0 for power_w in await most_w(rig, 90.0)]
        assert sum(beyond) * STEP_S <= QUICK.group_s + 2 * STEP_S
        assert held_w(rig, "bat01", Quantity.P_SET) == pytest.approx(left_w, abs=20.0)

    in_the_field(scenario, tmp_path, devices=PAIR, behind=POINT)


@pytest.mark.parametrize("deadband_frac", [0.0, 0.05])
def test_a_battery_comes_down_before_the_limit_of_pv_ends_that_does_not_answer_any_more(
    tmp_path: Path, deadband_frac: float
) -> None:
    """Whether its limit is written anew when it falls silent, or is only kept."""

    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 24e3}, {"pv01": 14e3})
        await most_w(rig, 130.0)
        assert held_w(rig, "bat01", Quantity.P_SET) == pytest.approx(24e3, abs=20.0)
        rig.world.servers["pv01"].fault(Fault.STOP)
        given_w = await most_w(rig, QUICK.reversion_s + QUICK.reversion_jitter_s + 60.0)
        assert max(given_w) <= POINT.export_max_w + 100.0
        assert rig.true_w("pv01") > 20e3, "its limit has ended"
        assert rig.true_w("bat01") < 16e3

    in_the_field(scenario, tmp_path, devices=PAIR, behind=POINT, dispatch=replace(QUICK, deadband_frac=deadband_frac))


def test_a_limit_of_pv_counts_only_as_long_as_it_lasts_until_others_have_had_their_turn(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({}, {"pv01": 14e3})
        await most_w(rig, 70.0)
        row, reconciler = rig.fleet.index["pv01"], rig.reconciler
        (holding,) = reconciler.holdings.values()
        ends_s = holding.armed_s + holding.reversion_s
        for now_s, most in ((ends_s - 61.0, 14e3), (ends_s - 59.0, 30e3)):
            snapshot = replace(rig.poller.snapshot(), now_s=now_s)
            reach = reach_of(rig.fleet, snapshot, reconciler.custody, reconciler.ledger, 60.0)
            assert reach.high_w[row] == pytest.approx(most, abs=50.0)

    in_the_field(scenario, tmp_path, devices=("pv01",), behind=POINT)


def test_what_is_drawn_together_stays_within_the_import_limit(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": -20e3, "bat02": -20e3})
        await rig.turns(130.0)
        drawn_w = [held_w(rig, device, Quantity.P_SET) for device in ("bat01", "bat02")]
        assert sum(power_w for power_w in drawn_w if power_w is not None) == pytest.approx(-5e3, abs=20.0)

    in_the_field(scenario, tmp_path, devices=("bat01", "bat02"), behind=POINT)

"""What a guard would not let out any more is neither kept by the dead-band nor left until the next turn."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.field.rig import QUICK, Rig, in_the_field

SLOW = replace(QUICK, interval_s=300.0, deadband_frac=0.05, reversion_s=900.0)
SLOWER = replace(SLOW, interval_s=1200.0, reversion_s=3600.0)
LONG_H = (SLOW.reversion_s + SLOW.reversion_jitter_s) / 3600.0


def leave(rig: Rig, power_w: float) -> None:
    """Have the battery near its reserve, so that its state of charge leaves about so much for the reversion time."""
    row = rig.fleet.index["bat01"]
    left_frac = power_w * LONG_H / float(rig.fleet.energy_wh[row]) / float(rig.fleet.efficiency_frac[row])
    rig.world.state.soc_frac[rig.world_row("bat01")] = float(rig.fleet.soc_min_frac[row]) + 0.006 + left_frac


def held_w(rig: Rig) -> float | None:
    (holding,) = rig.reconciler.holdings.values()
    return holding.held.value_w


def test_a_value_beyond_a_guard_is_not_kept_though_what_is_wanted_is_near_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 3000.0})
        await rig.turns(310.0)
        assert held_w(rig) == pytest.approx(3000.0, abs=20.0)
        leave(rig, 2000.0)
        rig.want({"bat01": 1800.0})
        await rig.turns(310.0)
        assert held_w(rig) == pytest.approx(1800.0, abs=50.0)

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=SLOW)


def test_a_device_has_its_turn_at_once_when_its_timer_cannot_be_armed_anew(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 5e3})
        await rig.turns(1210.0)
        leave(rig, 1e3)
        await rig.turns_and_beats(SLOWER.refresh_every_s + 20.0)
        (holding,) = rig.reconciler.holdings.values()
        assert holding.command.value_w is not None
        assert holding.command.value_w < 2.5e3
        assert rig.clock.monotonic_s() - holding.armed_s < SLOWER.refresh_every_s

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=SLOWER)

"""A planner gone mad: what it orders reaches devices only as far as the guards let it, and a little at a time.

Dispatches go to the real trimmer, reconciler and heartbeat, and through real drivers to simulated devices. The judges
are the world's tap, which decodes every write frame, and the world itself, which knows what devices hold and do.
Powers in W, + = injection.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.control.trim import Measured
from derms.domain.arrays import FloatArray
from derms.domain.dispatch import Dispatch, Leeway
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings
from derms.field.poller import phase
from derms.service.trimming import Trimmer
from tests.field.rig import Rig, in_the_field

EMPTY, FULL = ("bat01", "bat03"), ("bat02", "bat04")
INVERTERS, METERS = ("pv01", "pv04"), ("head", "system")
DEVICES = (*EMPTY, *FULL, *INVERTERS, *METERS)
BATTERIES = tuple(f"bat{number:02}" for number in range(1, 13))
NAN, INF = np.nan, np.inf


def _judge(rig: Rig) -> None:
    """Nothing was written beyond nameplate and energy, and no device holds or does what it must not."""
    world = rig.world
    assert world.tap.violations == []
    rated_w, is_battery = world.ratings.p_rated_w, world.ratings.is_battery
    setpoint, limit = world.commands.setpoint, world.commands.limit
    assert not (setpoint.enabled & ~is_battery).any()
    assert (np.abs(setpoint.value_w[setpoint.enabled]) <= rated_w[setpoint.enabled] * (1.0 + 1e-6)).all()
    assert (limit.value_w[limit.enabled] >= 0.0).all()
    assert (limit.value_w[limit.enabled] <= rated_w[limit.enabled] * (1.0 + 1e-6)).all()
    assert (np.isfinite(setpoint.left_s) | ~setpoint.enabled).all()
    assert (np.abs(world.state.p_w) <= rated_w * (1.0 + 1e-6)).all()
    soc_frac = world.state.soc_frac[is_battery]
    assert ((soc_frac >= 0.05) & (soc_frac <= 1.0)).all()
    assert {device for _, device in rig.wire} <= {device.id for device in rig.fleet.devices if device.is_dispatched}


async def _endure(rig: Rig, dispatch: Dispatch, seconds: float, trimmer: Trimmer | None = None) -> None:
    """Give a dispatch to whoever follows it, and let them run for a while, even where that ends by an error."""
    running = [asyncio.ensure_future(part) for part in (rig.reconciler.run(), rig.heartbeat.run())]
    (trimmer or rig.reconciler).adopt(dispatch)
    for _ in range(round(seconds / 5.0)):
        await asyncio.sleep(5.0)
        _judge(rig)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


def _even(rig: Rig, per_nameplate: float) -> FloatArray:
    """The same of everybody's nameplate at two support points, and 10 MW of whoever has none, shape (n, 2)."""
    rated_w = rig.fleet.p_rated_w
    return per_nameplate * np.where(rated_w > 0.0, rated_w, 10e6)[:, None] * np.ones(2)


def _dispatch(
    rig: Rig,
    p_set_w: FloatArray,
    p_limit_w: FloatArray | None = None,
    *,
    times_s: tuple[float, ...] = (0.0, 600.0),
    valid_s: float = 600.0,
) -> Dispatch:
    """A dispatch as the planner says it; times count from now."""
    now_s = rig.clock.monotonic_s()
    return Dispatch(
        plan_id=13,
        issued_at=rig.clock.utc(),
        valid_until_s=now_s + valid_s,
        times_s=now_s + np.array(times_s),
        p_set_w=p_set_w,
        p_limit_w=p_set_w if p_limit_w is None else p_limit_w,
    )


def _nearly_empty_and_full(rig: Rig) -> None:
    """Batteries next to the bounds of what the guards let them hold, so that both directions matter."""
    for names, soc_frac in ((EMPTY, 0.12), (FULL, 0.93)):
        for name in names:
            rig.world.state.soc_frac[rig.world_row(name)] = soc_frac


@pytest.mark.slow
@pytest.mark.parametrize("per_nameplate", [10.0, -10.0, 1e9, -1e9])
def test_ten_times_nameplate_for_everything_on_the_site_ends_at_the_guards(
    tmp_path: Path, per_nameplate: float
) -> None:
    async def scenario(rig: Rig) -> None:
        _nearly_empty_and_full(rig)
        await asyncio.sleep(61.0)  # so that the state of charge has been read, and been believed
        await _endure(rig, _dispatch(rig, _even(rig, per_nameplate), valid_s=3600.0), 900.0)
        assert rig.world.tap.writes > 0
        assert {type(record.outcome).__name__ for record in rig.outcomes} <= {"Clamped", "Rejected", "Superseded"}
        assert {record.device_id for record in rig.outcomes} == {*EMPTY, *FULL, *INVERTERS}

    in_the_field(scenario, tmp_path, devices=DEVICES)


NOTHING = ("no number", "infinite", "minus infinite", "past its end", "never valid", "times without a number")
MALFORMED = ("rows of another fleet", "fewer steps than times", "one row", "no time at all")


def _hostile(rig: Rig) -> Mapping[str, Dispatch]:
    """What must move nothing: full power for everybody, in a form that nobody can follow."""
    full, none = _even(rig, 1.0), np.full((len(rig.fleet), 2), NAN)
    return {
        "no number": _dispatch(rig, none),
        "infinite": _dispatch(rig, none + INF, np.full_like(none, INF)),
        "minus infinite": _dispatch(rig, np.full_like(none, -INF)),
        "past its end": _dispatch(rig, full, valid_s=-1.0),
        "never valid": _dispatch(rig, full, valid_s=NAN),
        "times without a number": _dispatch(rig, full, times_s=(NAN, NAN)),
        "rows of another fleet": _dispatch(rig, full[:3]),
        "fewer steps than times": _dispatch(rig, full[:, :1]),
        "one row": _dispatch(rig, full[:, 0]),
        "no time at all": _dispatch(rig, full[:, :0], times_s=()),
    }


@pytest.mark.parametrize("name", [*NOTHING, *MALFORMED])
def test_what_is_no_number_no_time_or_of_no_shape_moves_nothing(tmp_path: Path, name: str) -> None:
    async def scenario(rig: Rig) -> None:
        await _endure(rig, _hostile(rig)[name], 150.0)
        assert rig.wire == []
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=DEVICES)


def test_a_plan_that_commands_nobody_hands_back_and_one_that_is_none_leaves_the_one_before_it(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await _endure(rig, _dispatch(rig, _even(rig, 0.5)), 75.0)
        assert rig.holding() == {*EMPTY, *FULL, *INVERTERS}
        await _endure(rig, _hostile(rig)["infinite"], 75.0)
        assert rig.holding() == {*EMPTY, *FULL, *INVERTERS}
        await _endure(rig, _hostile(rig)["no number"], 75.0)
        assert rig.holding() == set()

    in_the_field(scenario, tmp_path, devices=DEVICES)


@pytest.mark.parametrize(
    ("times_s", "valid_s"), [((600.0, 0.0), 600.0), ((0.0, 0.0), 600.0), ((0.0, 1e-300), 600.0), ((-1e12, 1e12), INF)]
)
def test_times_that_make_no_sense_carry_nothing_beyond_the_guards(
    tmp_path: Path, times_s: tuple[float, ...], valid_s: float
) -> None:
    async def scenario(rig: Rig) -> None:
        _nearly_empty_and_full(rig)
        await asyncio.sleep(61.0)
        full = np.concatenate([_even(rig, 10.0)[:, :1], _even(rig, -10.0)[:, :1]], axis=1)
        await _endure(rig, _dispatch(rig, full, times_s=times_s, valid_s=valid_s), 300.0)

    in_the_field(scenario, tmp_path, devices=DEVICES)


@pytest.mark.slow
def test_whatever_a_planner_raves_no_write_and_no_device_leaves_the_guards(tmp_path: Path) -> None:
    # What is infinite is refused whole, at the entrance: that is another test.
    menu = np.array([NAN, 0.0, -0.0, 1e-9, 1.0, -1.0, 10.0, -10.0, 1e6, -1e6, 1e300, -1e300])
    dice = np.random.default_rng(5)

    async def scenario(rig: Rig) -> None:
        _nearly_empty_and_full(rig)
        await asyncio.sleep(61.0)
        for _ in range(60):
            p_set_w, p_limit_w = (_even(rig, 1.0) * dice.choice(menu, (len(rig.fleet), 2)) for _ in range(2))
            times_s = tuple(np.sort(dice.uniform(-300.0, 300.0, 2)))
            await _endure(rig, _dispatch(rig, p_set_w, p_limit_w, times_s=times_s, valid_s=900.0), 30.0)
        assert rig.world.tap.writes > 100
        await rig.reconciler.hand_back()
        assert rig.holding() == set()
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES)


@pytest.mark.parametrize(("expected_w", "most_w"), [(1e12, INF), (-1e12, INF), (NAN, INF), (INF, 1e12), (0.0, NAN)])
def test_a_trim_to_an_absurd_expectation_stays_within_the_guards(
    tmp_path: Path, expected_w: float, most_w: float
) -> None:
    async def scenario(rig: Rig) -> None:
        _nearly_empty_and_full(rig)
        await asyncio.sleep(61.0)
        trimmer = Trimmer(
            rig.reconciler, lambda snapshot: Measured(1e6, Quality.GOOD, snapshot.now_s), rig.events.append
        )
        leeway = Leeway(np.full(2, expected_w), np.full(len(rig.fleet), most_w))
        planned_w = np.where(rig.fleet.is_battery, 0.0, NAN)[:, None] * np.ones(2)
        dispatch = replace(_dispatch(rig, planned_w, planned_w * NAN), leeway=leeway)
        for _ in range(8):
            await _endure(rig, dispatch, 30.0, trimmer)
        assert not np.isfinite(trimmer.trim_w) or abs(trimmer.trim_w) <= 0.2 * rig.fleet.p_rated_w.sum()

    in_the_field(scenario, tmp_path, devices=DEVICES)


OSCILLATING = DispatchSettings(
    interval_s=300.0, group_s=15.0, deadband_frac=0.01, ramp_frac_per_min=1000.0, device_ramp_frac_per_min=1000.0
)
"""As a site has it, but for the ramps: those are for `tests/faults/test_hostile_brain.py`."""
HOURS = 1.0


async def _oscillate(rig: Rig, every_s: float) -> list[FloatArray]:
    """Order the opposite of everybody so often, for an hour; what devices hold at the end of each group's turn [W]."""
    held: list[FloatArray] = []
    running = [asyncio.ensure_future(part) for part in (rig.reconciler.run(), rig.heartbeat.run())]
    for turn in range(round(HOURS * 3600.0 / OSCILLATING.group_s)):
        sign = -1.0 if turn * OSCILLATING.group_s // every_s % 2 else 1.0
        rig.reconciler.adopt(_dispatch(rig, _even(rig, sign), _even(rig, NAN), valid_s=1800.0))
        await asyncio.sleep(OSCILLATING.group_s)
        _judge(rig)
        setpoint = rig.world.commands.setpoint
        held.append(np.where(setpoint.enabled, setpoint.value_w, 0.0))
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    return held


@pytest.mark.slow
@pytest.mark.parametrize("every_s", [15.0, 45.0, 300.0])
def test_a_plan_that_swings_to_and_fro_moves_each_device_once_an_interval_and_never_all_at_once(
    tmp_path: Path, every_s: float
) -> None:
    at_once = max(Counter(int(phase(name) * 20) for name in BATTERIES).values())
    assert at_once < len(BATTERIES) / 2

    async def scenario(rig: Rig) -> None:
        held = np.array(await _oscillate(rig, every_s))
        moved = np.diff(held, axis=0, prepend=0.0) != 0.0
        assert moved.sum(axis=1).max() <= at_once
        assert moved.sum(axis=0).max() <= HOURS * 3600.0 / OSCILLATING.interval_s
        turned = np.diff(np.sign(held), axis=0) != 0.0
        assert turned.sum() > len(BATTERIES) or every_s == 15.0  # of twenty groups: each meets the same sign again

    in_the_field(scenario, tmp_path, devices=BATTERIES, dispatch=OSCILLATING)


@pytest.mark.slow
def test_a_plan_that_swings_to_and_fro_wears_no_register_beyond_its_budget(tmp_path: Path) -> None:
    budget = 6

    async def scenario(rig: Rig) -> None:
        held = np.array(await _oscillate(rig, OSCILLATING.interval_s))
        moved = np.diff(held, axis=0, prepend=0.0) != 0.0
        # The last move is the way back: a setpoint that may not be changed any more, and is not wanted, is released.
        assert moved.sum(axis=0).max() <= budget + 1
        assert max(Counter(device for _, device in rig.wire).values()) <= 2 * (budget + 2)  # older ones take two writes
        assert rig.holding() == set()
        assert "writes-used-up" in rig.events_of("gateway")

    settings = replace(OSCILLATING, writes_per_day=budget)
    in_the_field(scenario, tmp_path, devices=BATTERIES[:4], dispatch=settings)

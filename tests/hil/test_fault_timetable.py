"""Faults on the command line: how they are written, and which cannot be."""

import argparse
import asyncio
from datetime import datetime

import pytest

from derms.domain.grid import FeederPackage
from derms.service.simulated import SimulatedLoop, run_simulated
from hil.fault_kinds import VALUES, Fault
from hil.faults import FaultPlan, apply_faults, find_mistake, parse_fault, parse_kind
from hil.world import World

DEVICES = ("pv01", "pv02")


@pytest.mark.parametrize("kind", list(Fault))
def test_every_kind_can_be_written_with_its_number_where_it_has_one(kind: Fault) -> None:
    assert parse_fault(f"pv01={kind.value}@60+30") == FaultPlan("pv01", kind, 60.0, 30.0)
    if kind in VALUES:
        number = VALUES[kind].default
        assert parse_fault(f"pv01={kind.value}:{number:g}@60+30").value == number
        assert parse_kind(f"{kind.value}:{number:g}") == (kind, number)
    else:
        assert parse_kind(kind.value) == (kind, None)
        with pytest.raises(argparse.ArgumentTypeError, match="takes no number"):
            parse_fault(f"pv01={kind.value}:1@60+30")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pv01=stop", "write DEVICE=KIND@START"),
        ("pv01=burn@1+1", "kinds are stop, refuse"),
        ("pv01=stop@1+0", "lasts longer than 0 s"),
        ("pv01=exception:200@1+1", r"takes a whole number \(exception code\) from 1 to 127"),
        ("pv01=bad-scale:1.5@1+1", r"takes a whole number \(exponent\)"),
        ("pv01=delay:-1@1+1", r"takes a number \(seconds\) from 0 to 3600"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse_fault(text)


def test_faults_of_one_device_may_follow_each_other_but_not_overlap() -> None:
    first, next_ = parse_fault("pv01=stop@60+30"), parse_fault("pv01=hang@90+30")
    assert find_mistake([next_, first, parse_fault("pv02=hang@70+30")], DEVICES, 600.0) is None
    mistake = find_mistake([parse_fault("pv01=hang@89+30"), first], DEVICES, 600.0)
    assert mistake == "pv01 would fail as hang after 89 s, while it still fails as stop until 90 s: one fault at a time"


def test_a_timetable_is_kept_one_fault_after_the_other(package: FeederPackage, noon: datetime) -> None:
    async def scenario(loop: SimulatedLoop) -> list[Fault | None]:
        world = World(package, seed=1, start=noon, publish=False)
        await world.serve()
        plans = [parse_fault("pv01=hang@20+10"), parse_fault("pv01=delay:2@10+10")]
        running = asyncio.ensure_future(apply_faults(world, plans))
        seen = []
        for _ in range(4):
            await asyncio.sleep(8.0)
            seen.append(world.servers["pv01"].failing)
        await running
        world.close()
        return seen

    assert run_simulated(scenario, seed=1) == [None, Fault.DELAY, Fault.HANG, None]

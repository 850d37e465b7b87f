"""Faults on a timetable: which device fails how, when, and for how long."""

import argparse
import asyncio
import re
from dataclasses import dataclass

from hil.server import Fault
from hil.world import World

_FORM = re.compile(r"(?P<device>[\w.-]+)=(?P<kind>\w+)@(?P<start>\d+(\.\d+)?)\+(?P<length>\d+(\.\d+)?)")


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One fault of one device; times in s after the start."""

    device_id: str
    kind: Fault
    start_s: float
    length_s: float


def parse_fault(text: str) -> FaultPlan:
    """Read `pv03=stop@600+300`; raises argparse.ArgumentTypeError with what would be right."""
    found = _FORM.fullmatch(text)
    if found is None or found["kind"] not in tuple(Fault):
        kinds = ", ".join(Fault)
        raise argparse.ArgumentTypeError(f"'{text}': write DEVICE=KIND@START+LENGTH in s; kinds are {kinds}")
    return FaultPlan(found["device"], Fault(found["kind"]), float(found["start"]), float(found["length"]))


async def apply_faults(world: World, plans: tuple[FaultPlan, ...]) -> None:
    """Let devices fail and heal as planned; ends when all is done."""
    await asyncio.gather(*(_apply(world, plan) for plan in plans))


async def _apply(world: World, plan: FaultPlan) -> None:
    server = world.servers[plan.device_id]
    await asyncio.sleep(plan.start_s)
    server.fault(plan.kind)
    await asyncio.sleep(plan.length_s)
    await server.heal()

"""Faults on a timetable: which device fails how, when, and for how long."""

import argparse
import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from derms.service.files import did_you_mean
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


def find_mistake(plans: Sequence[FaultPlan], devices: Collection[str], run_s: float) -> str | None:
    """The first fault that cannot happen in a run of `run_s` with these devices, as a sentence; None when all can."""
    for plan in plans:
        if plan.device_id not in devices:
            return f"there is no device '{plan.device_id}'; {did_you_mean(plan.device_id, devices, 'see fleet.csv')}"
        if plan.start_s >= run_s:
            return f"{plan.device_id} would fail after {plan.start_s:g} s, and the run ends after {run_s:g} s"
    return None


async def apply_faults(world: World, plans: tuple[FaultPlan, ...]) -> None:
    """Let devices fail and heal as planned; ends when all is done."""
    await asyncio.gather(*(_apply(world, plan) for plan in plans))


async def _apply(world: World, plan: FaultPlan) -> None:
    server = world.servers[plan.device_id]
    await asyncio.sleep(plan.start_s)
    server.fault(plan.kind)
    await asyncio.sleep(plan.length_s)
    await server.heal()

"""Faults on a timetable: which device fails how, when, and for how long."""

import argparse
import asyncio
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from derms.service.files import did_you_mean
from hil.fault_kinds import VALUES, Fault, checked
from hil.server import DeviceServer
from hil.world import World

_NUMBER = r"\d+(\.\d+)?"
_KIND = rf"(?P<kind>[\w-]+)(:(?P<value>-?{_NUMBER}))?"
_FORM = re.compile(rf"(?P<device>[\w.-]+)={_KIND}@(?P<start>{_NUMBER})\+(?P<length>{_NUMBER})")
_KINDS = ", ".join(f"{kind.value}[:{VALUES[kind].meaning}]" if kind in VALUES else kind.value for kind in Fault)


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """One fault of one device; times in s after the start."""

    device_id: str
    kind: Fault
    start_s: float
    length_s: float
    value: float | None = None
    """The number that the kind takes, or None for its default."""

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s


def parse_fault(text: str) -> FaultPlan:
    """Read `pv03=stop@600+300` or `pv03=delay:2.5@600+300`; raises ArgumentTypeError with what would be right."""
    found = _FORM.fullmatch(text)
    if found is None or found["kind"] not in tuple(Fault):
        raise argparse.ArgumentTypeError(f"'{text}': write DEVICE=KIND@START+LENGTH in s; kinds are {_KINDS}")
    kind, value = _kind(text, found["kind"], found["value"])
    length_s = float(found["length"])
    if length_s == 0.0:
        raise argparse.ArgumentTypeError(f"'{text}': a fault lasts longer than 0 s")
    return FaultPlan(found["device"], kind, float(found["start"]), length_s, value)


def parse_kind(text: str) -> tuple[Fault, float | None]:
    """Read a kind alone, `stop` or `delay:2.5`; raises ArgumentTypeError with what would be right."""
    found = re.fullmatch(_KIND, text)
    if found is None or found["kind"] not in tuple(Fault):
        raise argparse.ArgumentTypeError(f"'{text}': write KIND or KIND:NUMBER; kinds are {_KINDS}")
    return _kind(text, found["kind"], found["value"])


def _kind(text: str, name: str, number: str | None) -> tuple[Fault, float | None]:
    value = None if number is None else float(number)
    try:
        checked(Fault(name), value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}': {error}") from error
    return Fault(name), value


def find_mistake(plans: Sequence[FaultPlan], devices: Collection[str], run_s: float) -> str | None:
    """The first fault that cannot happen in a run of `run_s` with these devices, as a sentence; None when all can."""
    for plan in plans:
        if plan.device_id not in devices:
            return f"there is no device '{plan.device_id}'; {did_you_mean(plan.device_id, devices, 'see fleet.csv')}"
        if plan.start_s >= run_s:
            return f"{plan.device_id} would fail after {plan.start_s:g} s, and the run ends after {run_s:g} s"
    for first, second in pairwise(sorted(plans, key=lambda plan: (plan.device_id, plan.start_s))):
        if first.device_id == second.device_id and second.start_s < first.end_s:
            return (
                f"{second.device_id} would fail as {second.kind.value} after {second.start_s:g} s, "
                f"while it still fails as {first.kind.value} until {first.end_s:g} s: one fault at a time"
            )
    return None


async def apply_faults(world: World, plans: Sequence[FaultPlan]) -> None:
    """Let devices fail and heal as planned; ends when all is done."""
    ordered = sorted(plans, key=lambda plan: (plan.device_id, plan.start_s))
    by_device = groupby(ordered, key=lambda plan: plan.device_id)
    await asyncio.gather(*[_befall(world.servers[device_id], list(faults)) for device_id, faults in by_device])


async def _befall(server: DeviceServer, plans: Sequence[FaultPlan]) -> None:
    """The faults of one device, one after the other."""
    at_s = 0.0
    for plan in plans:
        await asyncio.sleep(plan.start_s - at_s)
        server.fault(plan.kind, plan.value)
        await asyncio.sleep(plan.length_s)
        await server.heal()
        at_s = plan.end_s

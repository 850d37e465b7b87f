"""Schedules that Hypothesis makes up, and shrinks to the least that still violates something."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hil.fault_kinds import VALUES, Fault
from tests.sim.disk import DiskFault
from tests.sim.run import WIRE, run_seed
from tests.sim.schedule import BRAIN, CLOCK, DISK, GATEWAY, LINK, PLANNER, Kind, Mishap, Schedule, draw

HOURS, CALM_S = 0.4, 500.0
STARTS_S = st.floats(20.0, 300.0)
LENGTHS_S = st.floats(1.0, 150.0)


def _device_fault(kind: Fault, target: str, start_s: float, length_s: float) -> Mishap:
    return Mishap(start_s, length_s, kind, target, VALUES[kind].default if kind in VALUES else 0.0)


MISHAPS = st.one_of(
    st.builds(_device_fault, st.sampled_from(Fault), st.sampled_from(WIRE.devices), STARTS_S, LENGTHS_S),
    st.builds(
        Mishap,
        STARTS_S,
        LENGTHS_S,
        st.sampled_from((Kind.CUT, Kind.CUT_BACK, Kind.REFUSE, Kind.SPLIT, Kind.DAMAGE)),
        st.sampled_from(WIRE.devices),
        st.floats(0.1, 0.9),
    ),
    st.builds(
        Mishap,
        STARTS_S,
        LENGTHS_S,
        st.sampled_from((Kind.CRASH, Kind.CRASH_AT_SYNC, Kind.CRASH_AT_SEND, Kind.STOP)),
        st.sampled_from((GATEWAY, BRAIN)),
        st.integers(0, 50).map(float),
    ),
    st.builds(Mishap, STARTS_S, LENGTHS_S, st.sampled_from(DiskFault), st.just(DISK)),
    st.builds(Mishap, STARTS_S, LENGTHS_S, st.just(Kind.CUT), st.just(LINK)),
    st.builds(Mishap, STARTS_S, LENGTHS_S, st.just(Kind.CLOCK), st.just(CLOCK), st.sampled_from((3600.0, -3600.0))),
    st.builds(Mishap, STARTS_S, LENGTHS_S, st.just(Kind.PLAN), st.just(PLANNER), st.integers(0, 5).map(float)),
)


def _apart(mishaps: list[Mishap]) -> tuple[Mishap, ...]:
    """One mishap per target, in order."""
    return tuple(sorted({mishap.target: mishap for mishap in mishaps}.values(), key=lambda mishap: mishap.start_s))


@pytest.mark.slow
@settings(max_examples=4, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(MISHAPS, min_size=1, max_size=6).map(_apart), st.integers(1, 4))
def test_no_schedule_violates_anything(mishaps: tuple[Mishap, ...], seed: int) -> None:
    found = run_seed(seed, hours=HOURS, schedule=Schedule(seed, mishaps, CALM_S))
    assert [str(violation) for violation in found.violations] == []


def test_a_schedule_follows_from_its_seed_and_a_device_fails_in_one_way_at_a_time() -> None:
    first, again, other = (draw(seed, WIRE.devices, calm_s=5400.0) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    kinds = {mishap.kind for seed in range(60) for mishap in draw(seed, WIRE.devices, calm_s=5400.0).mishaps}
    assert kinds == {*Kind, *Fault, *DiskFault}
    for device in WIRE.devices:
        faults = [it for it in first.mishaps if it.target == device and isinstance(it.kind, Fault)]
        assert all(earlier.end_s < later.start_s for earlier, later in pairwise(faults))
    assert all(mishap.end_s < 5400.0 for mishap in first.mishaps)

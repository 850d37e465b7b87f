"""What goes wrong in a run: drawn from the seed alone, one source of chance per concern, readable as a table.

Times in s after the start. Each concern draws from `Random("seed:concern")`, so that a change to one leaves the
others as they are.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hil.fault_kinds import VALUES, Fault
from tests.sim.disk import DiskFault


class Kind(StrEnum):
    """Mishaps beside the faults of devices (`hil.fault_kinds`) and of the disk (`tests.sim.disk`)."""

    CUT = "cut"
    CUT_THERE = "cut-there"
    CUT_BACK = "cut-back"
    LATE = "slow-way"
    LOSSY = "lossy"
    RESET = "reset"
    REFUSE = "refuse-connects"
    SPLIT = "split-frames"
    DOUBLE = "double-answers"
    DAMAGE = "damage-answers"
    PARTITION = "partition"
    """Every way is cut."""
    MASTER = "other-master"
    """Somebody else writes a value to the device, `value` of its rating, every `PESTER_S`."""
    CRASH = "crash"
    """At the start of the mishap, or at the `value`-th await after it where that is not 0; down for its length."""
    CRASH_AT_SYNC = "crash-at-sync"
    CRASH_AT_WRITE = "crash-at-write"
    CRASH_AT_SEND = "crash-at-send"
    STOP = "sigterm"
    """Told to stop, as by SIGTERM; down for its length after it has."""
    FREEZE = "sigstop"
    """Not run for its length, as by SIGSTOP; then it goes on."""
    SLOW_DISK = "slow-disk"
    CLOCK = "clock-step"
    """The wall clock is off by `value` s until the end of the mishap."""
    HANG = "optimizer-hangs"
    PLAN = "hostile-plan"
    """Plans are of the `value`-th kind of `tests.sim.planner.HOSTILE`."""
    EMERGENCY = "emergency-stop"
    """People stop the target in the `value`-th way of `tests.sim.people.HOWS`, and release it at the end; beyond the
    last way one of them breaks the glass."""
    BY_HAND = "by-hand"
    """People set a battery to `value` of its rating until the end."""


GATEWAY, BRAIN, SERVICE = "gateway", "brain", "service"
"""Each part of the product, and both at once."""
LINK, DISK, CLOCK, PLANNER, EVERYWHERE = "link", "disk", "clock", "planner", "everywhere"
PEOPLE, FEEDER = "people:", "feeder"
"""Before the device, or the feeder, that people order something of."""
BATTERY, DER = "bat", ("bat", "pv")
"""How names of devices begin."""
STOP_KINDS = 8
HOSTILE_KINDS = 6
PESTER_S = 90.0


@dataclass(frozen=True, slots=True)
class Mishap:
    """One thing that goes wrong, from a moment on, for a while."""

    start_s: float
    length_s: float
    kind: Kind | Fault | DiskFault
    target: str
    """A device, or one of the words above."""
    value: float = 0.0

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s

    def __str__(self) -> str:
        value = f":{self.value:g}" if self.value else ""
        return f"{self.target}={self.kind.value}{value}@{self.start_s:.0f}+{self.length_s:.0f}"


@dataclass(frozen=True, slots=True)
class Schedule:
    """All mishaps of a run; two of one target and concern never overlap."""

    seed: int
    mishaps: tuple[Mishap, ...]
    calm_s: float
    """From here on nothing goes wrong any more."""

    def __str__(self) -> str:
        return f"seed {self.seed}: " + " ".join(str(mishap) for mishap in self.mishaps)


_DEVICE_KINDS = tuple(Fault)
_WAYS = (Kind.CUT, Kind.CUT_THERE, Kind.CUT_BACK, Kind.LATE, Kind.LOSSY, Kind.RESET, Kind.REFUSE)
_FRAMES = (Kind.SPLIT, Kind.DOUBLE, Kind.DAMAGE)
_CRASHES = (Kind.CRASH, Kind.CRASH, Kind.CRASH_AT_SYNC, Kind.CRASH_AT_WRITE, Kind.CRASH_AT_SEND, Kind.STOP, Kind.FREEZE)
_LINKS = (Kind.CUT, Kind.LATE, Kind.DOUBLE)
_DISKS = (*DiskFault, Kind.SLOW_DISK)
_STEPS_S = (3600.0, -3600.0, 3600.0, -3600.0, 15.0, -15.0, 700.0, -700.0)
Draw = Callable[[random.Random, str, float], Mishap]


def draw(seed: int, devices: Sequence[str], *, calm_s: float) -> Schedule:
    """The schedule of a seed for these devices."""
    found: list[Mishap] = []
    ders = [PEOPLE + device for device in devices if device.startswith(DER)]
    batteries = [PEOPLE + device for device in devices if device.startswith(BATTERY)]
    targets: dict[str, tuple[Draw, float, Sequence[str]]] = {
        "device": (_device, 900.0, devices),
        "way": (_way, 1800.0, devices),
        "frames": (_frame, 2400.0, devices),
        "master": (_master, 6000.0, devices),
        "partition": (_partition, 5000.0, (EVERYWHERE,)),
        "service": (_service, 1500.0, (GATEWAY,)),
        "mind": (_service, 2000.0, (BRAIN,)),
        "power": (_power, 6000.0, (SERVICE,)),
        "link": (_link, 1500.0, (LINK,)),
        "disk": (_disk, 1800.0, (DISK,)),
        "clock": (_clock, 2500.0, (CLOCK,)),
        "planner": (_planner, 1500.0, (PLANNER,)),
        "stop": (_stop, 8000.0, [PEOPLE + FEEDER, *ders]),
        "hand": (_hand, 2500.0, batteries),
    }
    for concern, (one, gap_s, whom) in targets.items():
        for target in whom:
            chance = random.Random(f"{seed}:{concern}:{target}")
            at_s = 60.0 + chance.expovariate(1.0 / gap_s)
            while at_s < calm_s - 1.0:
                mishap = one(chance, target, at_s)
                if mishap.end_s < calm_s:
                    found.append(mishap)
                at_s = mishap.end_s + 1.0 + chance.expovariate(1.0 / gap_s)
    return Schedule(seed, tuple(sorted(found, key=lambda mishap: (mishap.start_s, mishap.target))), calm_s)


def _device(chance: random.Random, target: str, at_s: float) -> Mishap:
    kind = chance.choice(_DEVICE_KINDS)
    takes = VALUES.get(kind)
    value = 0.0
    if takes is not None:
        value = chance.choice((takes.default, takes.low, min(takes.high, 4.0 * takes.default)))
        value = float(int(value)) if takes.whole else value
    return Mishap(at_s, _length_s(chance), kind, target, value)


def _way(chance: random.Random, target: str, at_s: float) -> Mishap:
    kind = chance.choice(_WAYS)
    value = {Kind.LATE: chance.uniform(0.05, 4.0), Kind.LOSSY: chance.uniform(0.02, 0.6)}.get(kind, 0.0)
    return Mishap(at_s, _length_s(chance), kind, target, value)


def _frame(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, _length_s(chance), chance.choice(_FRAMES), target, chance.uniform(0.05, 0.9))


def _master(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, chance.uniform(1.0, 900.0), Kind.MASTER, target, chance.uniform(-1.0, 1.0))


def _partition(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, _length_s(chance), Kind.PARTITION, target)


def _service(chance: random.Random, target: str, at_s: float) -> Mishap:
    kind = chance.choice(_CRASHES)
    down_s = chance.choice((0.5, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 400.0, 1300.0))
    value = float(chance.randrange(400)) if kind is Kind.CRASH else float(chance.randrange(6))
    return Mishap(at_s, down_s, kind, target, value)


def _power(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, chance.choice((2.0, 30.0, 200.0)), Kind.CRASH, target)


def _link(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, _length_s(chance), chance.choice(_LINKS), target, chance.uniform(0.05, 6.0))


def _disk(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, _length_s(chance), chance.choice(_DISKS), target, chance.uniform(0.5, 20.0))


def _clock(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, chance.uniform(10.0, 1800.0), Kind.CLOCK, target, chance.choice(_STEPS_S))


def _planner(chance: random.Random, target: str, at_s: float) -> Mishap:
    if chance.random() < 0.25:
        return Mishap(at_s, chance.choice((60.0, 400.0, 2400.0)), Kind.HANG, target)
    return Mishap(at_s, chance.uniform(100.0, 1200.0), Kind.PLAN, target, float(chance.randrange(HOSTILE_KINDS)))


def _stop(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, chance.uniform(60.0, 1500.0), Kind.EMERGENCY, target, float(chance.randrange(STOP_KINDS)))


def _hand(chance: random.Random, target: str, at_s: float) -> Mishap:
    return Mishap(at_s, chance.uniform(200.0, 1500.0), Kind.BY_HAND, target, chance.uniform(-0.1, 0.1))


def _length_s(chance: random.Random) -> float:
    return chance.choice((2.0, 15.0, 45.0, 130.0, 300.0, 700.0)) * chance.uniform(0.5, 1.5)

"""The oracle: owns the true state of devices, the wire, the disk and the clock, and never asks the service.

It keeps the facts that checks look at (`Facts`), runs every check of `tests.sim.invariants` after each write and in
each simulated second, and tells a violation with what happened before it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from derms.control.stopping import How
from derms.domain.der import Device, Fleet
from derms.domain.dispatch import Quantity
from derms.domain.settings import DispatchSettings, FieldSettings
from hil.fault_kinds import Fault
from hil.world import World
from tests.sim.frames import Wire
from tests.sim.schedule import BRAIN, EVERYWHERE, GATEWAY, Kind, Mishap
from tests.sim.watch import Ear, JournalView, Key, Story, Write

STORY_S = 60.0
"""What happened before a violation is told from so long before it."""
ORDERED_S = 60.0
"""What people have ordered is looked at with other eyes until so long after its end."""
PER_INVARIANT = 3
"""Violations of one invariant that a run tells; more are counted."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must never be."""

    seed: int
    at_s: float
    invariant: str
    device: str
    text: str
    story: tuple[str, ...]

    def __str__(self) -> str:
        lines = "\n    ".join(self.story)
        return f"seed {self.seed}, {self.at_s:.2f} s, {self.invariant}, {self.device}: {self.text}\n    {lines}"


@dataclass
class Order:
    """What a device was last told for one quantity."""

    write: Write
    armed_s: float
    """When its timer was last started."""
    foreign: bool = False
    """By another master."""


@dataclass(eq=False)
class Stop:
    """A stop that people have asked for."""

    how: How
    devices: frozenset[str]
    asked_s: float
    given_s: float = np.inf
    """When they were told that it holds."""
    over_s: float = np.inf
    """From when on the last of those has asked for its release who have to."""
    let_in_s: float = np.inf
    """When they were told that it is released."""
    number: int = 0
    saved: bool = False
    """The gateway that was given it has had a disk that works for long enough."""

    def at_work(self, device: str, now_s: float, late_s: float = ORDERED_S) -> bool:
        """Whether it may be at work at a device, or was up to so long ago."""
        return device in self.devices and self.asked_s <= now_s <= self.let_in_s + late_s

    def __str__(self) -> str:
        return f"{self.number} ({self.how.value}) of {self.given_s:.0f} s"


@dataclass(eq=False)
class ByHand:
    """A value that people have set by hand [W]."""

    device: str
    value_w: float
    asked_s: float
    until_s: float
    given_s: float = np.inf
    """When they were told that it goes out."""


@dataclass
class Facts:
    """All that checks may look at."""

    world: World
    fleet: Fleet
    ports: Mapping[str, int]
    wire: Wire
    journal: JournalView
    story: Story
    now_s: Callable[[], float]
    dispatch: DispatchSettings
    polling: FieldSettings
    plan_every_s: float
    asked_s: list[float]
    """When plans were asked for, over all lives."""
    unexpected: list[str]
    """Exceptions that nobody took."""
    tasks: Callable[[], int]
    """Tasks of live parts."""
    active: dict[str, dict[Mishap, None]] = field(default_factory=dict)
    """Mishaps under way, by target."""
    ended_s: dict[str, float] = field(default_factory=dict)
    """When the last mishap of a target ended."""
    begun_s: dict[str, float] = field(default_factory=dict)
    """When a target was last well."""
    orders: dict[Key, Order] = field(default_factory=dict)
    parts: tuple[str, ...] = (GATEWAY, BRAIN)
    """Parts of the product that are to run in the end."""
    up_s: dict[str, float] = field(default_factory=dict)
    """Since when each part of the product runs; those that do not are not there."""
    started_s: dict[str, float] = field(default_factory=dict)
    """When each was last started."""
    calm: bool = False
    meddled_s: dict[str, float] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    """Of each DER in the world's columns."""
    stops: list[Stop] = field(default_factory=list)
    by_hand: list[ByHand] = field(default_factory=list)

    def stopped(self, device: str) -> bool:
        """Whether a stop may be at work at a device, or was a moment ago."""
        return any(it.at_work(device, self.now_s()) for it in self.stops)

    def ordered(self, device: str) -> bool:
        """Whether people may have a device, by a stop or by hand, or had it a moment ago."""
        now_s = self.now_s()
        hands = (it for it in self.by_hand if it.device == device)
        return self.stopped(device) or any(it.asked_s <= now_s <= it.until_s + ORDERED_S for it in hands)

    def device(self, name: str) -> Device:
        return self.fleet.devices[self.fleet.index[name]]

    def soc_frac(self, device: str) -> float:
        return float(self.world.state.soc_frac[self.rows[device]])

    def holds(self, key: Key) -> bool:
        """Whether a device truly holds a command."""
        commands, row = self.world.commands, self.rows[key[0]]
        control = commands.setpoint if key[1] is Quantity.P_SET else commands.limit
        return bool(control.enabled[row])

    def well_since_s(self, *targets: str) -> float:
        """Since when nothing has been wrong with some targets; infinite while something is."""
        if any(self.active.get(target) for target in targets):
            return np.inf
        return max((self.ended_s.get(target, 0.0) for target in targets), default=0.0)

    def has(self, target: str, *kinds: Kind | Fault) -> Mishap | None:
        """The mishap of these kinds that is under way."""
        return next((mishap for mishap in self.active.get(target, {}) if mishap.kind in kinds), None)


Found = list[tuple[str, str]]
"""Devices and what is wrong with them."""


class Check:
    """One invariant; most look only at some moments."""

    id: str

    def on_write(self, facts: Facts, write: Write) -> Found:
        """After a frame that commands a device."""
        return []

    def each_second(self, facts: Facts) -> Found:
        """In every simulated second."""
        return []

    def at_end(self, facts: Facts) -> Found:
        """When everything has had time to heal."""
        return []


class Oracle:
    """Runs the checks, and keeps what they find; see the module's text."""

    def __init__(self, seed: int, facts: Facts, checks: Sequence[Check]) -> None:
        self.facts = facts
        self.violations: list[Violation] = []
        self.more = 0
        """Violations that are counted only."""
        self._seed = seed
        self._checks = checks
        self._told: dict[tuple[str, str], int] = {}

    def listen(self, ears: Sequence[Ear]) -> None:
        for ear in ears:
            ear.on_write = self.wrote

    def wrote(self, write: Write) -> None:
        """A frame has come to a device."""
        facts = self.facts
        value = "nothing" if write.value_w is None else f"{write.value_w:.0f} W for {write.reversion_s:.0f} s"
        facts.story.tell(f"{write.device} is told {write.quantity.value}: {value}{'' if write.whole else ' (a part)'}")
        for check in self._checks:
            self._note(check.id, check.on_write(facts, write))
        facts.orders[write.key] = Order(write, write.at_s)

    def durable(self, name: str, content: bytearray) -> None:
        """A file has become durable."""
        if name.endswith(".journal"):
            self.facts.journal.read(content, self.facts.now_s())

    def second(self) -> None:
        for check in self._checks:
            self._note(check.id, check.each_second(self.facts))

    def end(self) -> None:
        for check in self._checks:
            self._note(check.id, check.at_end(self.facts))

    def began(self, mishap: Mishap) -> None:
        self.facts.story.tell(f"{mishap.target}: {mishap} begins")
        self.facts.active.setdefault(mishap.target, {})[mishap] = None
        for device in self._concerned(mishap):
            self.facts.active.setdefault(device, {})[mishap] = None

    def ended(self, mishap: Mishap) -> None:
        self.facts.story.tell(f"{mishap.target}: {mishap} ends")
        for target in (mishap.target, *self._concerned(mishap)):
            self.facts.active[target].pop(mishap, None)
            self.facts.ended_s[target] = self.facts.now_s()

    def meddled(self, device: str) -> None:
        """Another master has written to a device."""
        facts = self.facts
        facts.meddled_s[device] = facts.now_s()
        facts.story.tell(f"{device} is written to by another master")
        for quantity in Quantity:
            if (device, quantity) in facts.orders:
                facts.orders[device, quantity].foreign = True

    def up(self, part: str) -> None:
        self.facts.up_s[part] = self.facts.started_s[part] = self.facts.now_s()
        self.facts.story.tell(f"{part}: starts")

    def down(self, part: str, why: str) -> None:
        self.facts.up_s.pop(part, None)
        self.facts.story.tell(f"{part}: {why}")

    def _concerned(self, mishap: Mishap) -> tuple[str, ...]:
        return tuple(self.facts.fleet.index) if mishap.target == EVERYWHERE else ()

    def _note(self, invariant: str, found: Found) -> None:
        for device, text in found:
            count = self._told.get((invariant, device), 0)
            self._told[invariant, device] = count + 1
            if count >= PER_INVARIANT:
                self.more += 1
                continue
            now_s = self.facts.now_s()
            story = tuple(self.facts.story.since(now_s - STORY_S))
            self.violations.append(Violation(self._seed, now_s, invariant, device, text, story))

"""Custody: what devices hold, of ours, of a service before us and of other masters, and whose it is to change.

What they were seen to hold of ours stands in `holdings` until the next write. What polls show of others' is asked
about and told once: without a reversion timer it stays, with one it is released. A device that another master keeps
writing to is left to it for an hour.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray
from derms.domain.der import DISPATCHED_KINDS, Fleet
from derms.domain.dispatch import Held, Quantity
from derms.domain.telemetry import TelemetrySnapshot
from derms.field.holdings import Corrections, Deviation, Finding, Holdings, Key, deviation
from derms.field.ledger import WORDS
from derms.ports import Clock

SHOWN = {Quantity.P_SET: "p_set_w", Quantity.P_LIMIT: "p_limit_frac"}
"""Columns in which polls show what devices hold; NaN while they hold nothing."""


@dataclass(slots=True)
class Custody:
    """Keeps account of what devices hold; see the module's text."""

    fleet: Fleet
    clock: Clock
    corrections_per_h: float
    on_event: Callable[[Event], None]
    holdings: Holdings = field(default_factory=Holdings)
    held: set[Key] = field(default_factory=set)
    """What may be in devices, of ours or of a service before us: to be released one day."""
    unknown: set[Key] = field(default_factory=set)
    """What nobody has asked devices about yet."""
    _commanded: BoolArray = field(init=False)
    """Rows of kinds that we command, shape (n,)."""
    _corrections: Corrections = field(init=False)
    _noticed: dict[Key, Finding] = field(default_factory=dict)
    """Deviations that have been told, each until the device is seen to hold again what it should."""
    _foreign: set[Key] = field(default_factory=set)
    """Commands of others that were seen after the start or told, each until it is gone."""

    def __post_init__(self) -> None:
        self._commanded = self.fleet.mask(*DISPATCHED_KINDS)
        self._corrections = Corrections(self.corrections_per_h)

    @property
    def handed_over(self) -> frozenset[int]:
        """Rows that are left to another master for now."""
        return self._corrections.handed_over

    @property
    def foreign(self) -> frozenset[int]:
        """Rows that hold a command which is not ours."""
        return frozenset(row for row, _ in self._foreign)

    def unasked(self, key: Key) -> bool:
        """Whether a device has not said what it holds since this service began: one that died may have sent it last."""
        return key in self.unknown and key not in self._foreign

    def keys(self, rows: Collection[int], among: Collection[Key]) -> list[Key]:
        """Those of some rows, in order."""
        return [key for row in sorted(rows) for key in sorted((row, quantity) for quantity in Quantity) if key in among]

    def sent(self, key: Key) -> None:
        """Something is being written: what the device holds from now on has to be read back."""
        self.held.add(key)
        self.holdings.pop(key, None)
        self._foreign.discard(key)

    def cannot(self, key: Key) -> None:
        """The device does not take it, so it holds nothing of it, whatever somebody tried."""
        self.held.discard(key)
        self.unknown.discard(key)

    def look(self, rows: Sequence[int], snapshot: TelemetrySnapshot) -> None:
        """See in the readings of some rows what others have them hold: devices are to be asked about it, once."""
        places = np.array(rows, dtype=np.intp)
        places = places[self._commanded[places]]
        for quantity, column in SHOWN.items():
            shows = np.isfinite(snapshot.columns[column][places])
            shown, bare = (set(zip(places[which].tolist(), repeat(quantity))) for which in (shows, ~shows))
            gone = self._foreign & bare
            new = shown - self._foreign - self.held - self.unknown
            self._foreign = self._foreign - gone | new
            self.unknown = self.unknown - gone | new

    def found(self, key: Key, held: Held) -> None:
        """What a device said when it was asked: a value that will end by itself is released, any other one stays.

        The first one at the start is of a service before us; a later one is another master's, and is told.
        """
        late = key in self._foreign
        self.unknown.discard(key)
        self._foreign.discard(key)
        if held.value_w is None or key in self.held:
            return
        text = f"holds a {WORDS[key[1]]} {held.value_w / 1e3:.2f} kW"
        if not held.reversion_s > 0.0:
            self._foreign.add(key)
            text += " without a reversion timer: it is not ours, and stays until a plan commands the device"
            shut = key[1] is Quantity.P_LIMIT and not held.value_w > held.resolution_w
            self._event(key[0], Severity.ALARM if shut else Severity.WARNING, "foreign-command", text)
            return
        self.held.add(key)
        if late:
            self._event(key[0], Severity.WARNING, "foreign-command", f"{text} that is not ours: it is released")
            self.corrected(key[0])

    def notice(self, key: Key, held: Held) -> Deviation | None:
        """Compare what a device holds now with its holding; a deviation is an event once, until it is mended."""
        holding = self.holdings.get(key)
        found = None if holding is None else deviation(holding, held, self.clock.monotonic_s())
        if found is None:
            self._noticed.pop(key, None)
        elif self._noticed.get(key) is not found.finding:
            self._noticed[key] = found.finding
            severity = Severity.ALARM if found.finding is Finding.REVERSION_LOST else Severity.WARNING
            self._event(key[0], severity, found.finding.value, f"({key[1].value}) {found.text}")
        return found

    def corrected(self, row: int) -> None:
        """What another wrote is about to be replaced; once too often in an hour, and the device is handed over."""
        if self._corrections.made(row, self.clock.monotonic_s()):
            return
        for quantity in Quantity:  # it is not ours to release either
            self.held.discard((row, quantity))
            self.holdings.pop((row, quantity), None)
            self._noticed.pop((row, quantity), None)
        text = f"was given other values more than {self.corrections_per_h:.0f} times in an hour"
        self._event(row, Severity.ALARM, "conflict", f"{text}: it is left alone for an hour")

    def take_back(self, now_s: float) -> None:
        """Let the devices be commanded again whose hour is over."""
        for row in self._corrections.ended(now_s):
            self._event(row, Severity.INFO, "conflict-over", "is commanded again after its conflict")

    def _event(self, row: int, severity: Severity, kind: str, text: str) -> None:
        device_id = self.fleet.devices[row].id
        self.on_event(Event(self.clock.utc(), severity, device_id, kind, f"{device_id} {text}"))

"""Thrift: whether a value is worth a write. Registers of some inverters stand in flash memory, and wear out.

A value within a dead-band of what the device holds is not written again. It is written all the same when it ends or
turns the power, when a limit gets tighter or a guard holds the device back further, and when the reversion timer has
not been armed anew in time. Of a budget of writes a day and register, half is free; over the second half the dead-band
widens, and beyond it only what safety asks for is written: releases, tighter limits, late timers, and what is put in
place of another master's value. A battery that holds what nobody wants any more is then released.

Counted are commands and refreshes, per device and quantity and day of UTC. Commands of the day are found in the journal
after a restart; refreshes of the time before it are not, and their number is bounded by their own cadence.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from derms.domain.alarm import Event, Severity
from derms.domain.der import Fleet
from derms.domain.dispatch import Quantity
from derms.domain.settings import DispatchSettings
from derms.field.holdings import Holding, Key
from derms.field.tally import Place, Tally
from derms.ports import Clock

FREE_FRAC = 0.5
"""Part of the budget up to which the dead-band is as it is set."""
WIDEST_FRAC = 0.1
"""Dead-band at the end of the budget, per unit of nameplate."""
NAMED_MAX = 3
"""Devices that an event names; the others are counted."""


class Verdict(Enum):
    """What is to be done with a value that is wanted."""

    WRITE = auto()
    KEEP = auto()
    """What the device holds is good enough, or cannot be changed today."""
    LET_GO = auto()
    """It cannot be changed today, and what the device holds is not wanted any more."""


@dataclass(slots=True)
class Thrift:
    """Judges values, and counts writes; see the module's text."""

    fleet: Fleet
    clock: Clock
    settings: DispatchSettings
    on_event: Callable[[Event], None]
    tally: Tally
    spared: int = 0
    """Writes that were not worth it, since the start."""
    _told: Tally = field(default_factory=Tally)
    """Registers whose budget was said to be used up."""
    _used_up: dict[str, None] = field(default_factory=dict)
    """Devices of which that is still to be said."""

    def wrote(self, key: Key) -> None:
        """Count a write that may have reached a device."""
        self.tally.add(self.clock.utc(), self._place(key))

    def judge(self, key: Key, value_w: float, by: str, holding: Holding | None, *, holds: bool) -> Verdict:
        """Whether a value [W] that the guards have passed is to be written.

        `by` names the guard that changed it; `holding` is what the device was seen to hold, and `holds` whether it may
        hold something of ours at all.
        """
        used = self._used(key)
        if holding is None:
            verdict = Verdict.WRITE if used < 1.0 else _given_up(key, holds=holds)
        elif self._is_safety(key, value_w, by, holding):
            verdict = Verdict.WRITE
        elif self._is_near(key, value_w, holding, used):
            verdict = Verdict.KEEP
        else:
            verdict = Verdict.WRITE if used < 1.0 else _given_up(key, holds=holds)
        if verdict is not Verdict.WRITE:
            self.spared += 1
            if used >= 1.0:
                self._note(key)
        return verdict

    def tell(self) -> None:
        """One event for the devices whose budget was found to be used up, each once a day."""
        if not self._used_up:
            return
        names, self._used_up = list(self._used_up), {}
        more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
        text = (
            f"{', '.join(names[:NAMED_MAX])}{more}: written {self.settings.writes_per_day:.0f} times today, "
            "so until midnight (UTC) only what safety asks for is written"
        )
        self.on_event(Event(self.clock.utc(), Severity.WARNING, "gateway", "writes-used-up", text))

    def _place(self, key: Key) -> Place:
        return self.fleet.devices[key[0]].id, key[1]

    def _used(self, key: Key) -> float:
        """Part of today's budget that is used."""
        return self.tally.count(self.clock.utc(), self._place(key)) / self.settings.writes_per_day

    def _is_safety(self, key: Key, value_w: float, by: str, holding: Holding) -> bool:
        held, settings = holding.held, self.settings
        assert held.value_w is not None
        step_w = 1.001 * held.resolution_w
        if key[1] is Quantity.P_LIMIT:
            tighter = value_w < held.value_w - step_w
        else:
            tighter = by != "" and abs(value_w) < abs(held.value_w) - step_w
        due_s = holding.refresh_within_s(settings.refresh_every_s) + settings.group_s
        return tighter or self.clock.monotonic_s() - holding.armed_s > due_s

    def _is_near(self, key: Key, value_w: float, holding: Holding, used: float) -> bool:
        """Whether a device holds a value well enough: within the dead-band, and not of another sign."""
        held_w, least_frac = holding.held.value_w, self.settings.deadband_frac
        assert held_w is not None
        late = min(max((used - FREE_FRAC) / (1.0 - FREE_FRAC), 0.0), 1.0)
        frac = least_frac + late * max(WIDEST_FRAC - least_frac, 0.0)
        turns = held_w * value_w < 0.0 or (value_w == 0.0) > (held_w == 0.0)
        if turns and used < 1.0:
            return False
        return abs(value_w - held_w) < frac * self.fleet.devices[key[0]].p_rated_w

    def _note(self, key: Key) -> None:
        at, place = self.clock.utc(), self._place(key)
        if not self._told.count(at, place):
            self._told.add(at, place)
            self._used_up[place[0]] = None


def _given_up(key: Key, *, holds: bool) -> Verdict:
    """A register that may not be written: a limit stays, a setpoint that is not wanted goes."""
    return Verdict.LET_GO if holds and key[1] is Quantity.P_SET else Verdict.KEEP

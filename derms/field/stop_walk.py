"""The walk of one stop: what has been told to each of its devices, what they were read to hold, and what comes next.

It sends nothing: the desk asks it who is due, has it told, and gives it what came back. Powers in W, + = injection;
times in s on the monotonic clock; columns of shape (n,) over the whole fleet.
"""

from dataclasses import dataclass, field

import numpy as np

from derms.control.latch import Latch
from derms.control.stop_report import Progress
from derms.control.stopping import (
    NOTHING,
    RESPONSE_S,
    How,
    Means,
    ReadBack,
    Stoppable,
    Tally,
    confirmed,
    default_meets,
    due,
    ladders,
    next_attempt,
    tally,
    trying,
)
from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.scope import Places

RETRY_S = 2.0
"""After which a device that could not be told is tried again."""
REPEAT_S = 30.0
"""After which one that has been told in every way, and does not confirm, is told from the beginning."""
LOOK_S = 60.0
"""Longest time without looking whether a device still holds what it was told."""

_RESPONSE_S = np.array([RESPONSE_S[means] for means in Means])


@dataclass
class Walk:
    """One stop on its way; see the module's text."""

    latch: Latch
    places: Places
    devices: Stoppable
    """As they were when it was given; what they take is filled in as they are met."""
    stage: IntArray
    """When each is told; NOTHING for those that need not be."""
    tolerance_w: FloatArray
    began_s: float
    every_s: float
    immediate: bool = False
    resumed: bool = False
    """It was latched before anybody here remembers: service that is withdrawn already was withdrawn for it."""
    attempt: IntArray = field(init=False)
    sent_s: FloatArray = field(init=False)
    """When this attempt was sent; inf before, -inf where it was refused and the next is due at once."""
    told_s: FloatArray = field(init=False)
    """When anything was last told to each."""
    again_s: FloatArray = field(init=False)
    """Before which it is not tried again."""
    looked_s: FloatArray = field(init=False)
    sent: BoolArray = field(init=False)
    """Means that went to each, shape (n, len(Means))."""
    held: FloatArray = field(init=False)
    """What each was read to hold, by means, shape (n, len(Means)); NaN where nothing was read."""
    p_w: FloatArray = field(init=False)
    """Power measured once the device had its time; NaN before."""
    done: BoolArray = field(init=False)
    tried: BoolArray = field(init=False)
    """It was away, or has been told in every way."""
    confirmed_s: FloatArray = field(init=False)
    why: dict[int, str] = field(default_factory=dict)
    """What went wrong last at a device."""
    _ladders: IntArray = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.places)
        self.attempt = np.zeros(count, dtype=np.intp)
        self.sent_s, self.told_s = np.full(count, np.inf), np.full(count, -np.inf)
        self.again_s, self.looked_s = np.full(count, -np.inf), np.full(count, -np.inf)
        self.sent = np.zeros((count, len(Means)), dtype=np.bool_)
        self.held = np.full((count, len(Means)), np.nan)
        self.p_w, self.confirmed_s = np.full(count, np.nan), np.full(count, np.nan)
        self.done, self.tried = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
        self._ladders = ladders(self.latch.how, self.devices)

    @property
    def how(self) -> How:
        return self.latch.how

    @property
    def wanted(self) -> BoolArray:
        """Devices that are to be stopped."""
        rows: BoolArray = self.stage != NOTHING
        return rows

    def spare(self, rows: BoolArray) -> None:
        """Leave devices as they are, since another stop or a tag holds them."""
        self.stage[rows] = NOTHING

    def meet(self, row: int, can: BoolArray) -> None:
        """Learn what a device takes, shape (len(Means),)."""
        if not np.array_equal(self.devices.can[row], can):
            self.devices.can[row] = can
            self._ladders = ladders(self.how, self.devices)

    def means(self, row: int) -> Means | None:
        """What a device is to be told now; None where it takes nothing that would stop it."""
        found = int(trying(self._ladders[row : row + 1], self.attempt[row : row + 1])[0])
        return None if found == NOTHING else Means(found)

    # What is due

    def due(self, now_s: float) -> BoolArray:
        """Devices to be told now: their stage has come, and they are not confirmed nor awaited."""
        self._step(now_s)
        called = due(self.stage, now_s - self.began_s, every_s=self.every_s, immediate=self.immediate)
        rows: BoolArray = called & ~self.done & np.isposinf(self.sent_s) & (self.again_s <= now_s)
        return rows

    def _step(self, now_s: float) -> None:
        """Go on to the next means where one had its time; from the last one, after a while, to the first."""
        moved = next_attempt(self._ladders, self.attempt, self.sent_s, self.done, now_s)
        onward = moved != self.attempt
        self.attempt = moved
        self.sent_s[onward] = np.inf
        now = trying(self._ladders, self.attempt)
        over = ~self.done & (now_s - self.sent_s >= _RESPONSE_S[now]) & (trying(self._ladders, moved + 1) == NOTHING)
        self.tried |= over
        self.again_s[over] = np.maximum(self.again_s, np.maximum(self.told_s, self.began_s) + REPEAT_S)[over]
        again = over & (self.again_s <= now_s)
        self.attempt[again] = 0
        self.sent_s[again] = np.inf

    def to_look_at(self, now_s: float) -> BoolArray:
        """Devices that were told something, and were not looked at for a while."""
        rows: BoolArray = self.wanted & self.sent.any(axis=1) & (now_s - self.looked_s >= LOOK_S)
        return rows

    # What comes back

    def telling(self, row: int, means: Means, now_s: float) -> None:
        """Something is being written: whether it arrives or not, the device may hold it."""
        self.sent[row, means] = True
        self.told_s[row] = now_s

    def told(self, row: int, now_s: float) -> None:
        """The device has taken it."""
        self.sent_s[row] = self.looked_s[row] = now_s
        self.why.pop(row, None)

    def refused(self, row: int, why: str) -> None:
        """The device does not take it: the next means is due at once."""
        self.sent_s[row] = -np.inf
        self.why[row] = why

    def missed(self, row: int, why: str, now_s: float) -> None:
        """It could not be told: it is tried again."""
        self.tried[row] = True
        self.sent_s[row] = np.inf
        self.again_s[row] = now_s + RETRY_S
        self.why[row] = why

    def cannot(self, row: int, now_s: float) -> None:
        """It takes nothing that would stop it."""
        self.tried[row] = True
        self.again_s[row] = now_s + REPEAT_S
        self.why[row] = "takes nothing that would do this"

    def read(self, row: int, means: Means, value: float, now_s: float) -> None:
        """What a device was read to hold: 0 or 1, or W, infinite for nothing."""
        self.held[row, means] = value
        self.looked_s[row] = now_s

    def lost(self, row: int) -> None:
        """A device was away: nobody knows what it holds, and it is told anew when it is back."""
        self.held[row] = np.nan
        self.attempt[row] = 0
        self.sent_s[row] = np.inf
        self.looked_s[row] = np.inf
        self.done[row] = False
        self.tried[row] = True
        self.why.setdefault(row, "went away after it had been told")

    def measured(self, p_w: FloatArray, requested_s: FloatArray) -> None:
        """Take in power; what was asked for before a device had its time says nothing of it."""
        had_time = requested_s > self.told_s + _RESPONSE_S[trying(self._ladders, self.attempt)]
        self.p_w = np.where(had_time & np.isfinite(self.told_s), p_w, np.nan)

    def judge(self, now_s: float) -> None:
        """Say of each device whether it is confirmed."""
        held = self.held
        seen = ReadBack(
            permitted=held[:, Means.PERMIT_SERVICE],
            operating=held[:, Means.OPERATION],
            connected=held[:, Means.CONNECT],
            p_set_w=held[:, Means.SETPOINT],
            p_limit_w=held[:, Means.LIMIT],
            p_w=self.p_w,
        )
        done = self.wanted & confirmed(self.how, self.sent, self.devices, seen, self.tolerance_w)
        self.confirmed_s[done & ~self.done] = now_s
        self.confirmed_s[~done] = np.nan
        contradicted = self.done & ~done
        self.attempt[contradicted] = 0
        self.sent_s[contradicted] = np.inf
        self.done = done

    # What is told

    def tally(self, reverts_in_s: FloatArray) -> Tally:
        """How far it has come."""
        meets = default_meets(self.how, self.devices.default_w)
        return tally(self.wanted, self.done, meets, reverts_in_s, self.places, waiting=~self.tried)

    def progress(self, reverts_in_s: FloatArray, *, kept_out: int, latch: Latch | None, detail: bool) -> Progress:
        """How far it has come, for people; `latch` as it is now, None once it is released."""
        found, first = self.tally(reverts_in_s), latch and latch.first
        rows = np.flatnonzero(self.wanted)
        row_of = {device: row for row, device in enumerate(self.places.devices)}
        unknown = [(device, self.why.get(row_of[device], "does not confirm")) for device in found.unknown]
        return Progress(
            number=self.latch.number,
            how=self.how,
            scope=self.latch.scope,
            author=self.latch.author,
            given_s=self.latch.at_s,
            immediate=self.immediate,
            latched=latch is not None,
            approved_by=first.person if first else "",
            tally=found,
            why=tuple(f"{device}: {text}" for device, text in unknown),
            kept_out=kept_out,
            devices=tuple(self.places.devices[row] for row in rows) if detail else (),
            confirmed_s=self.confirmed_s[rows] if detail else None,
        )

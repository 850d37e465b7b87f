"""Trim between plans: batteries take out what net load departs from the plan, within what the plan leaves them.

A plan is as good as its forecast, and a new one comes only every few minutes. The trim compares the net load that the
plan expects now with the measured one and shifts setpoints by the difference. It is integral action with a model of
what is still under way, since devices are written in turns:

    need  = measured net load + sum of what batteries hold - (expected net load + sum of planned setpoints)
    trim += share of (need - trim), outside a dead-band, within a rate and an authority

`need` is by how much the gross load is not as the plan foresaw it. What a setpoint will change once its device has had
its turn is in it already, so that waiting for turns winds nothing up; and where the fleet is saturated `need` is still
only what is missing, and the trim comes down with it. At rest all turns are over, and trim = need says that measured =
expected, whatever devices make of their setpoints. A new plan that has seen the error already needs no trim for it:
the trim moves by the difference of what both plans foresee.

How it reaches devices. Each is written in its own group, once in an interval (`derms/field/reconcile.py`), and the trim
writes nothing in between: it is an offset of the dispatch, and whoever has its turn next takes it. Shared out evenly it
would take an interval to arrive. Those whose turn comes before the next trim therefore take, beyond their own share,
a part of what the whole fleet is behind, so that its sum follows within minutes; in its next turn each is back at its
share. To make haste no device is turned from charging to discharging, nor moved by more than a small part of its power.
The writes are the same in number.

Nothing is trimmed when the plan does not say what it expects, has expired, or the measurement is not good or too old:
then the dispatch goes on without trim, at once. A value that is exactly as before is not new, as of a meter that is
frozen: the trim stands still until quality tells. Feeder heads are bounds: where a head takes as much as it may, its
batteries are not made to take more than planned; where it gives as much as it may, not to give more.

Powers in W: batteries + = injection, net load and heads + = import. Times in s on the monotonic clock.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from derms.control.guards import PowerBounds
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import Dispatch, Heads, Leeway, Quantity, Trim
from derms.domain.plan import Plan
from derms.domain.quality import Quality
from derms.domain.settings import DispatchSettings

AGE_MAX_S = 60.0
"""An older measurement is the past."""
HASTE = 0.5
"""Part of what the fleet is behind that those whose turn comes make up."""
HASTE_FRAC = 0.15
"""Of a device's power: most that it is moved for that. More would reach the fleet's sum sooner, through few places of
the feeder, whose voltages were looked at with everybody's share."""
REACH_FRAC = 0.5
"""Of a device's power: most that its setpoint is moved in all."""
LASTS = 3.0
"""Intervals for which a trim that nobody renews goes on."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Net load of the system, and power at feeder heads where it is measured."""

    net_load_w: float
    quality: Quality
    at_s: float
    """Time of the value."""
    heads_w: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Shape (f,) in the order of the plan's feeders; NaN where not known."""

    def serves(self, now_s: float) -> bool:
        """Whether it may enter control now."""
        return self.quality is Quality.GOOD and math.isfinite(self.net_load_w) and now_s - self.at_s <= AGE_MAX_S


@dataclass(frozen=True, slots=True)
class TrimState:
    """What one trim hands to the next."""

    plan_id: int = 0
    """0 before the first, and after it has stopped."""
    at_s: float = -math.inf
    trim_w: float = 0.0
    """Of the whole fleet, + = more injection."""
    foreseen_w: float = math.nan
    """Gross load at that time, as the plan foresaw it."""
    net_load_w: float = math.nan
    """As it was measured then."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What devices hold, and who is written next."""

    held_w: FloatArray
    """Setpoint that each device holds, else its power [W], shape (n,); NaN counts as nothing."""
    soon: BoolArray
    """Devices that have a turn before the next trim, shape (n,)."""


def with_leeway(dispatch: Dispatch, plan: Plan, most_w: FloatArray, heads: Heads | None = None) -> Dispatch:
    """A dispatch that says what its plan expects, so that it can be trimmed.

    Parameters
    ----------
    dispatch : Dispatch
        With support points at the start of the plan and in the middle of each of its first steps.
    plan : Plan
        Its net load is what is expected when devices do what the dispatch says.
    most_w : FloatArray
        Greatest battery power either way that the plan may use [W], shape (n,).
    heads : Heads
        Limits of the feeders, None where there are none.
    """
    times_s, means_w = dispatch.times_s, plan.net_load_w[: len(dispatch.times_s) - 1]
    # The line through the first two means, taken back to the start of the step.
    slope = (means_w[1] - means_w[0]) / (times_s[2] - times_s[1]) if len(means_w) > 1 else 0.0
    first_w = means_w[0] - slope * (times_s[1] - times_s[0])
    return replace(dispatch, leeway=Leeway(np.concatenate([[first_w], means_w]), most_w, heads))


def trimmed(
    dispatch: Dispatch,
    bounds: PowerBounds,
    state: TrimState,
    measured: Measured,
    now_s: float,
    *,
    turns: Turns,
    settings: DispatchSettings,
) -> tuple[Dispatch, TrimState]:
    """The dispatch with the trim of this moment, and the state for the next.

    Parameters
    ----------
    dispatch : Dispatch
        Of the latest plan; a trim that it already has is replaced.
    bounds : PowerBounds
        What guards allow each device now [W], shape (n,); devices that may do nothing take no part.
    state : TrimState
        Of the trim before; a fresh one at first.

    Returns
    -------
    tuple[Dispatch, TrimState]
        The same plan, with `trim` set; setpoints with it stay within `bounds` and the plan's `most_w`.
    """
    leeway = dispatch.leeway
    if leeway is None or now_s > dispatch.valid_until_s or not measured.serves(now_s):
        return replace(dispatch, trim=None), TrimState()
    planned_w = dispatch.planned_w(Quantity.P_SET, now_s)
    power_w = float(leeway.most_w[np.isfinite(planned_w)].sum())
    if not settings.trim_frac * power_w > 0.0:
        return replace(dispatch, trim=None), TrimState()
    bounds = bounds.narrowed(-leeway.most_w, leeway.most_w)
    held_w = np.where(np.isfinite(planned_w), np.nan_to_num(turns.held_w), 0.0)
    base_w = _possible(planned_w, bounds, held_w)
    foreseen_w = leeway.expected_w(dispatch.times_s, now_s) + float(base_w.sum())
    before_w = state.trim_w
    if state.plan_id not in (0, dispatch.plan_id):
        then_w = _possible(dispatch.planned_w(Quantity.P_SET, state.at_s), bounds, held_w)
        before_w += state.foreseen_w - leeway.expected_w(dispatch.times_s, state.at_s) - float(then_w.sum())
    need_w = measured.net_load_w + float(held_w.sum()) - foreseen_w
    total_w = before_w
    if measured.net_load_w != state.net_load_w:
        since_s = min(now_s - state.at_s, settings.trim_every_s)
        total_w += _step_w(need_w - before_w, since_s, power_w, settings)
    most_w = settings.trim_frac * power_w
    narrow = _within_heads(bounds, base_w, dispatch, measured)
    room = _Room.around(base_w, narrow, np.where(np.isfinite(planned_w), REACH_FRAC * leeway.most_w, 0.0))
    total_w = room.clipped(min(max(total_w, -most_w), most_w))
    haste_w = HASTE_FRAC * leeway.most_w
    offset_w = _shared(total_w, base_w, held_w, room, turns.soon, haste_w)
    trim = Trim(offset_w, now_s + LASTS * settings.trim_every_s)
    after = TrimState(dispatch.plan_id, now_s, total_w, foreseen_w, measured.net_load_w)
    return replace(dispatch, trim=trim), after


def _possible(planned_w: FloatArray, bounds: PowerBounds, held_w: FloatArray) -> FloatArray:
    """What devices will hold of a plan: what guards leave of it, and what they have where these leave nothing."""
    possible_w: FloatArray = np.where(bounds.empty, held_w, np.clip(planned_w, bounds.low_w, bounds.high_w))
    return np.where(np.isfinite(planned_w), possible_w, 0.0)


def _step_w(error_w: float, since_s: float, power_w: float, settings: DispatchSettings) -> float:
    """By how much the trim of the fleet moves towards what is needed."""
    band_w = settings.trim_deadband_frac * power_w
    beyond_w = math.copysign(max(abs(error_w) - band_w, 0.0), error_w)
    ramp_w = settings.trim_ramp_frac_per_min * power_w * since_s / 60.0
    return min(max(beyond_w * -math.expm1(-since_s / settings.trim_response_s), -ramp_w), ramp_w)


def _within_heads(bounds: PowerBounds, base_w: FloatArray, dispatch: Dispatch, measured: Measured) -> PowerBounds:
    """Bounds that let no battery carry its feeder's head further beyond its limits than the plan does."""
    leeway = dispatch.leeway
    heads = None if leeway is None else leeway.heads
    if heads is None or measured.heads_w.shape != heads.low_w.shape:
        return bounds
    # Nothing is beyond a limit where no head is, or where it is not known.
    full, spent = (np.append(at, False) for at in (measured.heads_w >= heads.high_w, measured.heads_w <= heads.low_w))
    full, spent = full[heads.feeder], spent[heads.feeder]
    return bounds.narrowed(np.where(full, base_w, -np.inf), np.where(spent, base_w, np.inf))


@dataclass(frozen=True, slots=True)
class _Room:
    """How far each setpoint may be moved up and down from where it is planned [W], shape (n,), >= 0."""

    up_w: FloatArray
    down_w: FloatArray

    @classmethod
    def around(cls, base_w: FloatArray, bounds: PowerBounds, reach_w: FloatArray) -> "_Room":
        reach_w = np.where(bounds.empty, 0.0, reach_w)
        return cls(_up_to(bounds.high_w - base_w, reach_w), _up_to(base_w - bounds.low_w, reach_w))

    def clipped(self, total_w: float) -> float:
        """What the fleet has room for of a change."""
        return float(np.clip(total_w, -self.down_w.sum(), self.up_w.sum()))

    def share(self, total_w: float) -> FloatArray:
        """A change that it has room for, shared out in proportion to room."""
        room_w, total_w = (self.up_w if total_w > 0.0 else self.down_w), self.clipped(total_w)
        shares: FloatArray = room_w * (total_w / max(float(room_w.sum()), 1e-9))
        return shares

    def after(self, moved_w: FloatArray, base_w: FloatArray, most_w: FloatArray) -> "_Room":
        """What is left after a move, up to a bound, as long as it turns nobody from one sign to the other."""
        now_w = base_w + moved_w
        up_w = np.where(now_w < 0.0, np.minimum(self.up_w - moved_w, -now_w), self.up_w - moved_w)
        down_w = np.where(now_w > 0.0, np.minimum(self.down_w + moved_w, now_w), self.down_w + moved_w)
        return _Room(np.clip(up_w, 0.0, most_w), np.clip(down_w, 0.0, most_w))


def _up_to(room_w: FloatArray, most_w: FloatArray) -> FloatArray:
    return np.clip(np.nan_to_num(room_w, nan=0.0), 0.0, most_w)


def _shared(
    total_w: float, base_w: FloatArray, held_w: FloatArray, room: _Room, soon: BoolArray, haste_w: FloatArray
) -> FloatArray:
    """Offsets per device: its share of the trim, and for those whose turn comes a part of what the fleet is behind."""
    fair_w = room.share(total_w)
    will_hold_w = np.where(soon, base_w + fair_w, held_w)
    behind_w = float(base_w.sum()) + total_w - float(will_hold_w.sum())
    return fair_w + room.after(fair_w, base_w, np.where(soon, haste_w, 0.0)).share(HASTE * behind_w)

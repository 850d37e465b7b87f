"""Modes of control per feeder and group: OFF, SHADOW, ADVISE, AUTO; what each lets pass, and what a change of it needs.

A demotion is always allowed, in one command. A promotion is a row of PROMOTIONS, and every need in it must be met.
What the site file says (`derms/domain/mode.py`) is the ceiling: under `observe` nothing is written in any mode.
Times in s on the monotonic clock.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from derms.control.authority import Rank
from derms.domain.arrays import BoolArray, IntArray
from derms.domain.membership import NOWHERE
from derms.domain.mode import Mode
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import Level, Places, Scope


class ControlMode(StrEnum):
    """What is done to the devices of a feeder or group, the least first."""

    OFF = "off"
    """No plan, and no person's command either; protection and stops only."""
    SHADOW = "shadow"
    """Plans and writes none of it; people may command by hand."""
    ADVISE = "advise"
    """A plan goes out once a person has approved it."""
    AUTO = "auto"
    """Verified plans go out."""

    @property
    def level(self) -> int:
        return _LEVELS[self]


_LEVELS = {mode: level for level, mode in enumerate(ControlMode)}

CEILING: Mapping[Mode, ControlMode] = {Mode.OBSERVE: ControlMode.SHADOW, Mode.AUTO: ControlMode.AUTO}
"""The highest mode that the site file allows."""

_ALWAYS = frozenset({Rank.PROTECTION, Rank.EMERGENCY})
_AUTOMATIC = frozenset({Rank.PROGRAMME, Rank.OPTIMIZER, Rank.SCHEDULE})
PASSES: Mapping[ControlMode, frozenset[Rank]] = {
    ControlMode.OFF: _ALWAYS,
    ControlMode.SHADOW: _ALWAYS | {Rank.OPERATOR},
    ControlMode.ADVISE: _ALWAYS | {Rank.OPERATOR},
    ControlMode.AUTO: _ALWAYS | {Rank.OPERATOR} | _AUTOMATIC,
}
"""Whose commands reach devices."""
PASSES_APPROVED: Mapping[ControlMode, frozenset[Rank]] = {ControlMode.ADVISE: _AUTOMATIC}
"""Whose commands do as well, once a person has approved them."""

SCORECARD_AGE_S = 24 * 3600.0
"""A scorecard older than this is no evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorecard:
    """What was shown of a feeder while it was watched; NaN, for what was not measured, meets no mark."""

    taken_s: float
    shadow_h: float
    """Time for which it was watched, in SHADOW or above."""
    plans: float
    verified_frac: float
    """Plans of the optimizer in which the verifier found nothing wrong [0..1]."""
    forecast_error_frac: float
    """Mean absolute error of net load an hour ahead, per unit of its peak."""
    voltage_error_pu: float
    """Root mean square of modelled against measured voltages."""
    seen_frac: float
    """Devices with good values, over devices and time [0..1]."""
    clamped_frac: float
    """Wanted setpoints that a guard would have moved or refused [0..1]."""
    harm_node_min: float
    """Node-minutes beyond voltage limits that the plans would have added."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What one figure of a scorecard has to be."""

    figure: str
    what: str
    least: float = -math.inf
    most: float = math.inf

    def misses(self, card: Scorecard) -> str:
        """How a scorecard misses it; empty when it does not."""
        value = self.value(card)
        return "" if self.least <= value <= self.most else f"{self.what}: {value:g}, needed {self.needed}"

    def value(self, card: Scorecard) -> float:
        """Its figure; NaN where that was not measured."""
        value: float = getattr(card, self.figure)
        return value

    @property
    def needed(self) -> str:
        """What the figure has to be, in words."""
        return f"at least {self.least:g}" if math.isfinite(self.least) else f"at most {self.most:g}"


MARKS: tuple[Mark, ...] = (
    Mark("shadow_h", "hours in shadow or above", least=168.0),
    Mark("plans", "plans made", least=500.0),
    Mark("verified_frac", "share of plans that the verifier passed", least=0.99),
    Mark("forecast_error_frac", "error of the forecast an hour ahead, per unit of the peak", most=0.10),
    Mark("voltage_error_pu", "error of modelled voltages [pu]", most=0.01),
    Mark("seen_frac", "share of devices with good values", least=0.95),
    Mark("clamped_frac", "share of setpoints that guards would have moved", most=0.05),
    Mark("harm_node_min", "node-minutes beyond voltage limits added by plans", most=0.0),
)
"""What a promotion to AUTO asks for; a week has seen every day type but holidays."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a feeder or group when its mode is to change."""

    now_s: float
    site: Mode
    topology: str
    """Why its topology is in doubt, or not as modelled; empty when it is known."""
    model: str
    """Why its model is not to be believed; empty when it is healthy."""
    scorecard: Scorecard | None = None


Need = Callable[[Evidence], Iterable[Reason]]


def known_topology(evidence: Evidence) -> Iterable[Reason]:
    """It is known how the feeder is switched."""
    return [Reason("topology", evidence.topology)] if evidence.topology else []


def healthy_model(evidence: Evidence) -> Iterable[Reason]:
    """The feeder's model is to be believed."""
    return [Reason("model", evidence.model)] if evidence.model else []


def good_scorecard(evidence: Evidence) -> Iterable[Reason]:
    """There is a fresh scorecard, and it meets every mark."""
    card = evidence.scorecard
    if card is None:
        return [Reason("scorecard", "there is none: let it run in shadow first")]
    missed = [text for mark in MARKS if (text := mark.misses(card))]
    if not 0.0 <= evidence.now_s - card.taken_s <= SCORECARD_AGE_S:
        missed.append(f"it is older than {SCORECARD_AGE_S / 3600:.0f} h")
    return [Reason("scorecard", text) for text in missed]


SOUND: tuple[Need, ...] = (known_topology, healthy_model)
"""Without these a feeder in ADVISE or AUTO goes back to SHADOW by itself."""
PROMOTIONS: Mapping[tuple[ControlMode, ControlMode], tuple[Need, ...]] = {
    (ControlMode.OFF, ControlMode.SHADOW): (),
    (ControlMode.SHADOW, ControlMode.ADVISE): SOUND,
    (ControlMode.SHADOW, ControlMode.AUTO): (*SOUND, good_scorecard),
    (ControlMode.ADVISE, ControlMode.AUTO): (*SOUND, good_scorecard),
}
"""The ways up and what each needs; there is no other."""


@dataclass(frozen=True, slots=True)
class Area:
    """A feeder or group in its mode."""

    scope: Scope
    mode: ControlMode
    since_s: float
    author: str
    """Who put it there: a person, or `topology`, `model`."""
    why: str = ""


def changed(area: Area, to: ControlMode, author: str, evidence: Evidence, *, why: str = "") -> Area | Refused:
    """An area in another mode, as a person asks for it; refused with everything that is missing."""
    if to.level > area.mode.level:
        needs = PROMOTIONS.get((area.mode, to))
        reasons = [] if needs is None else [reason for need in needs for reason in need(evidence)]
        if needs is None:
            reasons.append(Reason("mode", f"there is no way from {area.mode} to {to}: go through shadow"))
        if to.level > CEILING[evidence.site].level:
            reasons.append(Reason("site", f"the site file says {evidence.site}"))
        if reasons:
            return Refused(tuple(reasons))
    return replace(area, mode=to, since_s=evidence.now_s, author=author, why=why)


def settled(area: Area, evidence: Evidence) -> Area:
    """The area after what is known now: no higher than the site file allows, and back in SHADOW when it is not sound.

    It does not come back by itself: a person promotes it again.
    """
    doubts = [reason for need in SOUND for reason in need(evidence)]
    if CEILING[evidence.site].level < area.mode.level:
        doubts.append(Reason("site", f"the site file says {evidence.site}"))
    if not doubts or area.mode.level <= ControlMode.SHADOW.level:
        return area
    first, why = doubts[0], "; ".join(reason.text for reason in doubts)
    return replace(area, mode=ControlMode.SHADOW, since_s=evidence.now_s, author=first.by, why=why)


def levels(areas: Iterable[Area], places: Places, start: ControlMode = ControlMode.SHADOW) -> IntArray:
    """Level of the mode of each device, shape (n,): the lowest of its feeder's and of its groups'.

    A feeder of which nothing is said is in `start`; a device that is on none is in SHADOW at most.
    """
    given = tuple(areas)
    nowhere = np.array([feeder == NOWHERE for feeder in places.feeders], dtype=np.bool_)
    found = np.where(nowhere, min(start.level, ControlMode.SHADOW.level), start.level)
    for area in given:
        if area.scope.level is Level.FEEDER:
            found[places.under(area.scope)] = area.mode.level
    for area in given:
        if area.scope.level is not Level.FEEDER:
            rows = places.under(area.scope)
            found[rows] = np.minimum(found[rows], area.mode.level)
    return found


def passing(rank: Rank, levels_: IntArray, site: Mode, *, approved: bool = False) -> BoolArray:
    """Devices that a rank's commands reach, shape (n,); `approved` says that a person has approved them."""
    by_level = np.array(
        [
            site is not Mode.OBSERVE
            and (rank in PASSES[mode] or (approved and rank in PASSES_APPROVED.get(mode, frozenset())))
            for mode in ControlMode
        ]
    )
    rows: BoolArray = by_level[levels_]
    return rows

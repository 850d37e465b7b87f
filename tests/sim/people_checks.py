"""Checks of what people have ordered: stops hold, and nothing of a lower class overrides a value by hand.

They look at true power and at frames; who was unreachable, or whose gateway was away, is judged some time later.
"""

import numpy as np

from derms.control.stopping import WAYS, How
from derms.domain.dispatch import Quantity
from tests.sim.oracle import ByHand, Check, Facts, Found, Stop
from tests.sim.schedule import DISK, GATEWAY, SERVICE
from tests.sim.watch import Write

WELL_S = 150.0
"""Who has been well for so long is connected: the longest back-off and a poll."""
STOPPED_S = 45.0
"""For a connected device from the stop to its effect: 30 s for setpoints and limits, a step of the physics."""
AGAIN_S = 180.0
"""For one that comes back, or that another master has written to: found, looked at every 60 s, told, in effect."""
SAVED_S = 30.0
"""For a stop to be saved by a gateway whose disk works."""
ON_THE_WAY_S = 15.0
"""For frames that were sent before a stop."""
UNSAVED_S = 60.0
"""A stop that was given while the disk failed, or so soon after, may not outlive the gateway until it is saved."""
BY_HAND_S = 300.0
"""For a value by hand to be reached: ramps, turns of groups."""
ENDLESS_S = 3600.0
"""A battery whose charge lasts so long has to have all of a value by hand."""
FOREIGN_S = 900.0
"""For so long after another master has written nobody knows from where a ramp goes on."""
ROUNDING_FRAC = 2e-3
"""Of rating: steps of registers."""


class StopsHold(Check):
    """After a stop every reachable device is at its value in time, and stays so until it is released."""

    id = "I-10"

    def __init__(self) -> None:
        self._told: set[tuple[int, str]] = set()

    def on_write(self, facts: Facts, write: Write) -> Found:
        value_w, small_w = write.value_w, ROUNDING_FRAC * facts.device(write.device).p_rated_w
        if value_w is None or not (write.whole and write.is_command):
            return []
        for stop in facts.stops:
            if write.device not in stop.devices or write.at_s - stop.given_s < ON_THE_WAY_S or _lost(facts, stop):
                continue
            if stop.over_s == np.inf and not leaves(stop, write.quantity, value_w, small_w):
                return [(write.device, f"told {write.quantity.value} {value_w:.0f} W under stop {stop}")]
        return []

    def each_second(self, facts: Facts) -> Found:
        found: Found = []
        for number, stop in enumerate(facts.stops):
            stop.saved |= _is_saved(facts, stop)
            if stop.over_s < np.inf or _lost(facts, stop) or GATEWAY not in facts.up_s:
                continue
            for device in sorted(stop.devices):
                if (number, device) not in self._told and facts.now_s() > _due_s(facts, stop, device):
                    found += (wrong := _wrong(facts, stop, device))
                    self._told.update((number, name) for name, _ in wrong)
        return found


def _lost(facts: Facts, stop: Stop) -> bool:
    """Whether a gateway has been started since, and may not have found the stop on a disk that failed."""
    again = facts.started_s.get(GATEWAY, 0.0) > stop.given_s
    return again and not stop.saved and facts.well_since_s(DISK) > stop.asked_s - UNSAVED_S


def _is_saved(facts: Facts, stop: Stop) -> bool:
    """Whether the gateway that was given it still runs, and had its time and a disk that works."""
    since_s = max(stop.given_s, facts.well_since_s(DISK, GATEWAY, SERVICE))
    same = GATEWAY in facts.up_s and facts.started_s[GATEWAY] <= stop.given_s
    return same and facts.now_s() - since_s > SAVED_S


def leaves(stop: Stop, quantity: Quantity, value_w: float, small_w: float) -> bool:
    """Whether a stop leaves a value to a device."""
    way = WAYS[stop.how]
    low_w, high_w = (0.0, 0.0) if stop.how is How.RELEASE else (way.low_w, way.high_w)
    if quantity is Quantity.P_LIMIT:
        low_w, high_w = 0.0, max(0.0, high_w)
    return low_w - small_w <= value_w <= high_w + small_w


def _due_s(facts: Facts, stop: Stop, device: str) -> float:
    """When a device has to be at the value of a stop."""
    ready_s = max(facts.well_since_s(device), facts.up_s[GATEWAY], facts.meddled_s.get(device, 0.0))
    return stop.given_s + STOPPED_S if ready_s + WELL_S <= stop.asked_s else max(stop.given_s, ready_s) + AGAIN_S


def _is_ours(facts: Facts, key: tuple[str, Quantity]) -> bool:
    """Whether what a device holds is not of another master."""
    order = facts.orders.get(key)
    return order is not None and not order.foreign


def _wrong(facts: Facts, stop: Stop, device: str) -> Found:
    if stop.how is How.RELEASE:
        others = any(other is not stop and other.at_work(device, facts.now_s()) for other in facts.stops)
        held = [
            key[1].value for key in ((device, each) for each in Quantity) if facts.holds(key) and _is_ours(facts, key)
        ]
        return [(device, f"holds {' and '.join(held)} under stop {stop}")] if held and not others else []
    way, p_w = WAYS[stop.how], float(facts.world.state.p_w[facts.rows[device]])
    small_w = facts.dispatch.tolerance_frac * facts.device(device).p_rated_w
    right = way.low_w - small_w <= p_w <= way.high_w + small_w
    return [] if right else [(device, f"does {p_w:.0f} W under stop {stop}")]


class HandsHold(Check):
    """While a value by hand stands nothing of a lower class overrides it, and it is reached."""

    id = "I-11"

    def __init__(self) -> None:
        self._told: list[ByHand] = []

    def on_write(self, facts: Facts, write: Write) -> Found:
        value_w = write.value_w
        if value_w is None or write.quantity is not Quantity.P_SET or not (write.whole and write.is_command):
            return []
        for hand in facts.by_hand:
            nearer = write.before_w is not None and abs(value_w - hand.value_w) < abs(write.before_w - hand.value_w)
            right = nearer or _towards(facts, hand, value_w)
            if hand.device == write.device and _stands(facts, hand, ON_THE_WAY_S) and not right:
                return [(write.device, f"told {value_w:.0f} W, and {hand.value_w:.0f} W stands by hand")]
        return []

    def each_second(self, facts: Facts) -> Found:
        found: Found = []
        for hand in facts.by_hand:
            ready_s = max(hand.given_s, facts.well_since_s(hand.device, DISK), facts.up_s.get(GATEWAY, np.inf))
            order = facts.orders.get((hand.device, Quantity.P_SET))
            if hand in self._told or facts.now_s() - ready_s < BY_HAND_S or not _stands(facts, hand, BY_HAND_S):
                continue
            told_w = None if order is None else order.write.value_w
            if told_w is None or not (_towards(facts, hand, told_w) and _reached(facts, hand, told_w)):
                self._told.append(hand)
                found.append((hand.device, f"was told {told_w} W, and {hand.value_w:.0f} W stands by hand"))
        return found


def _stands(facts: Facts, hand: ByHand, for_s: float) -> bool:
    """Whether a value by hand has stood for some time, and nothing but lower classes and guards could move it."""
    now_s = facts.now_s()
    clear = now_s - facts.meddled_s.get(hand.device, -np.inf) > FOREIGN_S and not facts.stopped(hand.device)
    ended = any(hand.device in stop.devices and stop.asked_s >= hand.asked_s for stop in facts.stops)
    return clear and not ended and hand.given_s + for_s < now_s < hand.until_s


def _reached(facts: Facts, hand: ByHand, value_w: float) -> bool:
    """Whether a value is the one by hand, as far as its battery's charge, or its connection, leaves it to be."""
    device, dispatch = facts.device(hand.device), facts.dispatch
    near_w = (dispatch.deadband_frac + ROUNDING_FRAC) * device.p_rated_w
    soc_frac = facts.soc_frac(hand.device)
    room_frac = soc_frac - device.soc_min_frac if hand.value_w > 0.0 else device.soc_max_frac - soc_frac
    needs_wh = abs(hand.value_w) * ENDLESS_S / 3600.0
    # What others behind a connection do, or may do while nobody hears of them, is theirs to have first.
    bound = bool(device.connection) or room_frac * device.energy_wh < needs_wh
    return bound or abs(value_w - hand.value_w) <= near_w


def _towards(facts: Facts, hand: ByHand, value_w: float) -> bool:
    """Whether a value is the one by hand, or what a guard has left of it: nearer to zero."""
    small_w = ROUNDING_FRAC * facts.device(hand.device).p_rated_w
    return min(0.0, hand.value_w) - small_w <= value_w <= max(0.0, hand.value_w) + small_w

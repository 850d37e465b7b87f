"""Cases on letting go: REV-1 to REV-3 by the device's own timer, HB by the loss of the controller's heartbeat.

A limit of 90 % (or, where there is none, a setpoint of the power of now) is armed for seconds and watched. The times
are measured from the answer to the last write; one look a second is their resolution.
Class A reverts by its timer, class B when the heartbeat stops, class C neither.
Source: SunSpec models 704, 123, 124, 715. 715 defines no behaviour on a lost heartbeat: it is proven or not there.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from derms.domain.certificate import CaseResult, CaseState, ReversionClass
from drivers.commission.subject import ModelImage, Subject
from drivers.commission.verdict import Verdict, absent, failed

TRIAL_PCT = 90.0
"""Limit that is tried [% of greatest power]."""
FIRST_S, SECOND_S = 10, 20
"""Reversion times that are armed [s]."""
LATE_S = 5.0
"""Most that a device may revert after its time [s]."""
EARLY_S = 2.0
"""Most before it: timers count whole seconds."""
LOOK_EVERY_S = 1.0
BEATS = 5
"""Heartbeats, one a second, before they stop."""
HEARTBEAT_S = 60.0
"""Longest wait for a device that misses its heartbeat [s]."""
CONTROL, HEARTBEAT = 715, "ControllerHb"


@dataclass(frozen=True, slots=True)
class Timer:
    """A function with a reversion timer."""

    model_id: int
    enable: str
    """Enabling word; also says whether the function has let go."""
    on: int
    value: str
    timer: str
    left: str | None
    cleared: tuple[str, ...] = ()
    """Points that are set to 0 with it: no window, no other function after the reversion."""
    in_percent: bool = True


TIMERS = (
    Timer(704, "WMaxLimPctEna", 1, "WMaxLimPct", "WMaxLimPctRvrtTms", "WMaxLimPctRvrtRem", ("WMaxLimPctEnaRvrt",)),
    Timer(123, "WMaxLim_Ena", 1, "WMaxLimPct", "WMaxLimPct_RvrtTms", None, ("WMaxLimPct_WinTms",)),
    Timer(704, "WSetEna", 1, "WSet", "WSetRvrtTms", "WSetRvrtRem", ("WSetEnaRvrt",), in_percent=False),
)
"""The first that a device has is tried."""


@dataclass(frozen=True, slots=True)
class Watch:
    """What was seen of a function that should let go."""

    after_s: float
    """Time until it had let go [s]; NaN when it did not."""
    left_falls: bool
    """Whether the remaining time counted down, where the device tells it."""
    company: str = ""
    """What changed although the test did not write; empty when nothing did."""


async def timeout(subject: Subject) -> Verdict:
    """REV-1: what is not refreshed is let go when its time is over, and the remaining time counts down."""
    found = await _timer(subject)
    if isinstance(found, Verdict):
        return found
    timer, image = found
    since_s = await _arm(subject, timer, image, FIRST_S)
    subject.say(f"{timer.value} armed for {FIRST_S} s; waiting for it to let go")
    seen = await _watch(subject, timer, since_s, FIRST_S + LATE_S)
    return replace(_in_time(seen, FIRST_S, f"{timer.enable} of model {timer.model_id}"), company=seen.company)


async def time_update(subject: Subject) -> Verdict:
    """REV-2: a new time written while the first runs starts the timer anew."""
    found = await _timer(subject)
    if isinstance(found, Verdict):
        return found
    timer, image = found
    await _arm(subject, timer, image, FIRST_S)
    await subject.wait(FIRST_S / 2)
    since_s = await _arm(subject, timer, image, SECOND_S)
    subject.say(f"{timer.value} armed anew for {SECOND_S} s; waiting for it to let go")
    seen = await _watch(subject, timer, since_s, SECOND_S + LATE_S)
    return replace(_in_time(seen, SECOND_S, "the time written last"), company=seen.company)


async def cancel(subject: Subject) -> Verdict:
    """REV-3: a time of 0 written while the timer runs stops it: the value stays."""
    found = await _timer(subject)
    if isinstance(found, Verdict):
        return found
    timer, image = found
    await _arm(subject, timer, image, FIRST_S)
    await subject.wait(FIRST_S / 2)
    since_s = await _arm(subject, timer, image, 0)
    subject.say(f"timer of {timer.value} stopped; watching that it stays")
    seen = await _watch(subject, timer, since_s, FIRST_S + LATE_S)
    if not math.isnan(seen.after_s):
        verdict = failed(f"{timer.enable} let go {seen.after_s:.0f} s after its timer was stopped")
    else:
        verdict = Verdict(CaseState.PASSED, f"held for {FIRST_S + LATE_S:.0f} s after the timer was stopped")
    return replace(verdict, company=seen.company)


async def heartbeat_loss(subject: Subject) -> Verdict:
    """HB: a device that was shown a heartbeat lets go when it stops, without a timer running."""
    if subject.chain.find(CONTROL) is None or not (await subject.model(CONTROL)).implements(HEARTBEAT):
        return absent("the device watches no heartbeat (715 ControllerHb)")
    found = await _timer(subject)
    if isinstance(found, Verdict):
        return found
    timer, image = found
    await _beat(subject)
    since_s = await _arm(subject, timer, image, 0)
    subject.say(f"{BEATS} heartbeats, then silence for up to {HEARTBEAT_S:.0f} s")
    for _ in range(BEATS):
        await subject.wait(LOOK_EVERY_S)
        since_s = await _beat(subject)
    if (await subject.model(timer.model_id)).whole(timer.enable) != timer.on:
        return failed(f"{timer.enable} let go while the heartbeat was there")
    seen = await _watch(subject, timer, since_s, HEARTBEAT_S)
    if math.isnan(seen.after_s):
        return absent(
            f"715 prescribes nothing: {timer.enable} is still on {HEARTBEAT_S:.0f} s after the last heartbeat"
        )
    return Verdict(CaseState.PASSED, f"let go {seen.after_s:.0f} s after the last heartbeat", seen.after_s)


async def _timer(subject: Subject) -> tuple[Timer, ModelImage] | Verdict:
    """The function to try and its model as it is, or why there is none."""
    busy = ""
    for timer in TIMERS:
        if subject.chain.find(timer.model_id) is None:
            continue
        image = await subject.model(timer.model_id)
        if not image.implements(timer.enable, timer.value, timer.timer):
            continue
        if image.whole(timer.enable) == 0:
            return timer, image
        busy = f"{timer.enable} of model {timer.model_id} is on: release the device first"
    return Verdict(CaseState.NOT_RUN, busy) if busy else absent("the device has no reversion timer")


async def _arm(subject: Subject, timer: Timer, image: ModelImage, seconds: int) -> float:
    """Switch the trial value on with a reversion time, in one block where the model allows; the time of that [s]."""
    value = image.to_register(timer.value, TRIAL_PCT) if timer.in_percent else await _present_power(subject, image)
    cleared = {name: 0 for name in timer.cleared if image.implements(name)}
    mode = {"WSetMod": 1} if timer.value == "WSet" and image.implements("WSetMod") else {}
    await subject.put(image, {timer.enable: timer.on, **mode, timer.value: value, **cleared, timer.timer: seconds})
    return subject.clock.monotonic_s()


async def _present_power(subject: Subject, image: ModelImage) -> int:
    """The power of now as a setpoint register; nothing where it is not measured."""
    measured = (await subject.model(701)).number("W") if subject.chain.find(701) else math.nan
    return image.to_register("WSet", measured) if math.isfinite(measured) else 0


async def _watch(subject: Subject, timer: Timer, since_s: float, for_s: float) -> Watch:
    """Look once a second until the function has let go or the time is over."""
    lefts: list[int] = []
    held: list[int] = []
    while (now_s := subject.clock.monotonic_s()) - since_s <= for_s:
        image = await subject.model(timer.model_id)
        if image.whole(timer.enable) != timer.on:
            return Watch(subject.clock.monotonic_s() - since_s, _falls(lefts), _company(timer, held, lefts))
        held.append(image.whole(timer.value))
        if timer.left and image.implements(timer.left):
            lefts.append(image.whole(timer.left))
        subject.say(f"{timer.enable} on for {now_s - since_s:.0f} s")
        await subject.wait(LOOK_EVERY_S)
    return Watch(math.nan, _falls(lefts), _company(timer, held, lefts))


def _falls(lefts: Sequence[int]) -> bool:
    """Whether remaining times fall from look to look; true where fewer than two are known."""
    return len(lefts) < 2 or lefts[-1] < lefts[0]


def _company(timer: Timer, held: Sequence[int], lefts: Sequence[int]) -> str:
    """What changed between looks, while the test wrote nothing."""
    if len(set(held)) > 1:
        return f"{timer.value} of model {timer.model_id} went from {held[0]} to {held[-1]} while it was watched"
    if any(after > before for before, after in pairwise(lefts)):
        return f"{timer.left} of model {timer.model_id} rose while it was watched: the timer was started anew"
    return ""


def _in_time(seen: Watch, due_s: float, what: str) -> Verdict:
    if math.isnan(seen.after_s):
        return failed(f"{what}: still on {LATE_S:.0f} s after {due_s:.0f} s")
    if seen.after_s < due_s - EARLY_S:
        return failed(f"{what}: let go after {seen.after_s:.1f} s instead of {due_s:.0f} s")
    if not seen.left_falls:
        return failed(f"{what}: let go, but the remaining time does not count down")
    return Verdict(CaseState.PASSED, f"{what}: let go after {seen.after_s:.1f} s", seen.after_s)


async def _beat(subject: Subject) -> float:
    image = await subject.model(CONTROL)
    await subject.put(image, {HEARTBEAT: (image.whole(HEARTBEAT) + 1) % 0xFFFF_FFFF}, restore=False)
    return subject.clock.monotonic_s()


def classify(results: Mapping[str, tuple[CaseResult, float | None]]) -> tuple[ReversionClass, float]:
    """The class that the cases prove, with the measured time [s]; unproven when one that matters was not run."""
    unproven = False
    for name, proves in (("REV-1", ReversionClass.A), ("HB", ReversionClass.B)):
        result, measured_s = results.get(name, (None, None))
        if result is not None and result.state is CaseState.PASSED and measured_s is not None:
            return proves, measured_s
        unproven |= result is None or result.state is CaseState.NOT_RUN
    return (ReversionClass.UNPROVEN if unproven else ReversionClass.C), math.nan

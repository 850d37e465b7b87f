"""The scorecard of a feeder while it is watched: sums by the hour, over the last two weeks.

What an hour is worth is forgotten with it, so a feeder that was bad and is not any more gets its evidence in time. An
hour is counted in parts, as they come; sums of hours are sums of everything in them. Powers in W, times in s.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime

import numpy as np

from derms.control.modes import ControlMode, Scorecard
from derms.domain.forecast import Forecast

HOUR_S = 3600.0
WINDOW_H = 14 * 24
"""Hours that count."""
AHEAD_H = 1.0
"""How far ahead forecasts are judged."""
AHEAD_MAX = 1000
"""Forecasts, and values that came, that wait to be held against each other."""

WATCHED = frozenset({ControlMode.SHADOW, ControlMode.ADVISE, ControlMode.AUTO})
"""Modes whose hours count. The same plans are made and judged in all three, and in AUTO the feeder answers to them as
well; so a feeder that a short doubt has taken down has not lost its evidence. In OFF there is no plan to judge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """What was counted in one hour, or in part of it, or in several."""

    number: int
    """Hours since 1970."""
    until_s: float
    """When something was last counted [s since 1970]."""
    watched_s: float = 0.0
    plans: float = 0.0
    verified: float = 0.0
    """Plans of the optimizer that the verifier passed."""
    forecasts: float = 0.0
    forecast_error_w: float = 0.0
    """Sum of their absolute errors."""
    peak_w: float = 0.0
    """Largest net load, either way."""
    voltages: float = 0.0
    """Readings of voltages, each by how exact it is: by 1 / sigma^2 [1/pu^2]."""
    voltage_error_pu2: float = 0.0
    """Sum of their squared errors by that weight."""
    devices: float = 0.0
    """Looks at devices that are not expected to be silent."""
    seen: float = 0.0
    wanted: float = 0.0
    """Setpoints and limits that plans would have had written."""
    clamped: float = 0.0
    judged_min: float = 0.0
    """Time for which it is known what plans would have added."""
    harm_node_min: float = 0.0

    def plus(self, other: "Hour") -> "Hour":
        """Both together."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        return replace(self, **{name: max(pair) if name in _LARGEST else sum(pair) for name, pair in pairs.items()})


_LARGEST = frozenset({"number", "until_s", "peak_w"})


class Tally:
    """Hours of one feeder, the last WINDOW_H of them."""

    def __init__(self, hours: Iterable[Hour] = ()) -> None:
        self._hours = {hour.number: hour for hour in hours}

    def count(self, at: datetime, **more: float) -> Hour:
        """Add to the hour of a time, by the names of `Hour`; that hour as it is now."""
        at_s = at.timestamp()
        part = Hour(number=int(at_s // HOUR_S), until_s=at_s, **more)
        before = self._hours.get(part.number)
        hour = self._hours[part.number] = part if before is None else before.plus(part)
        for number in [number for number in self._hours if number <= hour.number - WINDOW_H]:
            del self._hours[number]
        return hour

    def card(self, at: datetime, now_s: float) -> Scorecard | None:
        """What the hours show, at a time that is `now_s` on the monotonic clock; None before anything was counted."""
        first = int(at.timestamp() // HOUR_S) - WINDOW_H
        hours = [hour for hour in self._hours.values() if hour.number > first]
        if not hours:
            return None
        total = hours[0]
        for hour in hours[1:]:
            total = total.plus(hour)
        return Scorecard(
            taken_s=now_s - max(0.0, at.timestamp() - total.until_s),
            shadow_h=total.watched_s / HOUR_S,
            plans=total.plans,
            verified_frac=_ratio(total.verified, total.plans),
            forecast_error_frac=_ratio(_ratio(total.forecast_error_w, total.forecasts), total.peak_w),
            voltage_error_pu=math.sqrt(_ratio(total.voltage_error_pu2, total.voltages)),
            seen_frac=_ratio(total.seen, total.devices),
            clamped_frac=_ratio(total.clamped, total.wanted),
            harm_node_min=total.harm_node_min if total.judged_min > 0.0 else math.nan,
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0.0 else math.nan


class Ahead:
    """Forecasts an hour ahead that wait for what comes; of both the last AHEAD_MAX."""

    def __init__(self) -> None:
        self._said: deque[tuple[float, float, float]] = deque(maxlen=AHEAD_MAX)
        self._came: deque[tuple[float, float]] = deque(maxlen=AHEAD_MAX)

    def say(self, forecast: Forecast) -> None:
        """Keep what a forecast says of the step that begins in an hour, or of the one that has begun by then."""
        ends_h = forecast.ends_h
        step = int(np.searchsorted(ends_h, AHEAD_H + 1e-9))
        if step < len(ends_h):
            end_s = forecast.start.timestamp() + HOUR_S * float(ends_h[step])
            self._said.append((end_s - HOUR_S * float(forecast.hours[step]), end_s, float(forecast.net_load_w[step])))

    def came(self, at: datetime, net_load_w: float) -> list[float]:
        """Absolute errors [W] of forecasts whose step is over by now; NaN tells nothing of a step."""
        at_s = at.timestamp()
        if math.isfinite(net_load_w):
            self._came.append((at_s, net_load_w))
        errors = []
        while self._said and self._said[0][1] <= at_s:
            start_s, end_s, said_w = self._said.popleft()
            came_w = [value_w for time_s, value_w in self._came if start_s <= time_s < end_s]
            if came_w:
                errors.append(abs(sum(came_w) / len(came_w) - said_w))
        return errors

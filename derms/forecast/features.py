"""What a load forecast is made from: the hours before its origin, the same hours of earlier weeks, and the calendar.

Load is the logarithm less its mean over the 24 hours before the origin (its level), so that models learn shapes and
ratios. An origin is a place in a `History`: the hours before it are known, those from it on are not. A lead is a
number of hours from the origin; lead 0 is the hour that begins there. Leads are below 48, so that all hours a week
before are known.
"""

import numpy as np

from derms.domain.arrays import FloatArray
from derms.forecast.calendar import HOLIDAY_KIND, day_kinds, year_fraction
from derms.forecast.history import DAY, WEEK, History, IntArray

LEADS_MAX = 48
BEFORE = 28 * DAY
"""Hours of history that every origin needs."""
SHARES_H = (1, 3, 6, 12)
"""Lengths [h] of what has just been, compared with the same of yesterday and of a week ago."""


class Columns:
    """Features of one history, in whole arrays of origins; nothing at or after an origin is looked at."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._log = history.log_load
        self._sum = np.concatenate([[0.0], np.cumsum(self._log)])

    def level(self, origins: IntArray) -> FloatArray:
        """Mean of the 24 hours before [ln W], shape (n,)."""
        return self._mean(origins, -DAY, 0)

    def whole(self, origins: IntArray) -> FloatArray:
        """Features of the whole forecast from each origin, for a linear model, shape (n, features)."""
        level = self.level(origins)[:, None]
        day = self._history.day(origins)[:, None]
        near = day_kinds(day + np.arange(-7, 4))
        angle = 2.0 * np.pi * year_fraction(day) * np.array([1.0, 2.0, 3.0])
        months = [self._mean(origins, -15 * DAY, -13 * DAY), self._mean(origins, -BEFORE, 0)]
        return np.concatenate(
            [
                self._window(origins, -3 * DAY, 0) - level,
                self._window(origins, -WEEK, LEADS_MAX - WEEK) - level,
                self._window(origins, -2 * WEEK, LEADS_MAX - 2 * WEEK) - level,
                np.stack([*self._days(origins, 8), *months], axis=1) - level,
                np.sin(angle),
                np.cos(angle),
                np.eye(HOLIDAY_KIND)[(day[:, 0] - 1) % 7],
                np.eye(HOLIDAY_KIND + 1)[near[:, 5:10]].reshape(len(origins), -1),
                near == HOLIDAY_KIND,
                level,
            ],
            axis=1,
        )

    def single(self, origins: IntArray, leads: IntArray) -> FloatArray:
        """Features of one hour from each origin, for trees, shape (n, features)."""
        level = self.level(origins)
        targets = origins + leads
        back = DAY * (leads // DAY + 1)  # to the last hour of the same time of day that is known
        same = np.stack([self._log[targets - back - DAY * day] for day in range(7)])
        weekly = np.stack([self._log[targets - WEEK * week] for week in (1, 2, 3, 4)])
        columns = [
            *(same - level),
            same.mean(axis=0) - self._mean(origins, -WEEK, 0),
            weekly[0] - level,
            weekly[1] - level,
            weekly[2:].mean(axis=0) - level,
            weekly[0] - self._mean(origins, -DAY - WEEK, -WEEK),
            weekly[1] - self._mean(origins, -DAY - 2 * WEEK, -2 * WEEK),
            self._mean(targets, -2 - WEEK, 3 - WEEK) - level,
            *self._recent(origins, level),
            *(days - level for days in self._days(origins, 8)),
            self._mean(origins, -BEFORE, 0) - level,
            self._mean(origins, -WEEK, 0) - level,
            level,
            leads,
            targets % DAY,
            origins % DAY,
            *self._calendar(targets, targets - back),
        ]
        return np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)

    def _recent(self, origins: IntArray, level: FloatArray) -> list[FloatArray]:
        """The last hours against yesterday and last week, how they move, and the extremes of the last two days."""
        found = []
        for hours in SHARES_H:
            now = self._mean(origins, -hours, 0)
            found += [now - self._mean(origins, -lag - hours, -lag) for lag in (DAY, WEEK)]
            found.append(now - level)
        found += [self._log[origins - 1] - self._log[origins - ago] for ago in (2, 4)]
        for day in (1, 2):
            window = self._window(origins, -DAY * day, DAY - DAY * day)
            found += [window.max(axis=1) - level, window.min(axis=1) - level]
        return found

    def _calendar(self, targets: IntArray, same: IntArray) -> list[FloatArray]:
        days = self._history.day(targets)
        around = [day_kinds(days + step) == HOLIDAY_KIND for step in (-7, -2, -1, 1)]
        kinds = [day_kinds(days), (days - 1) % 7, day_kinds(self._history.day(same))]
        return [np.asarray(column, dtype=np.float64) for column in (*around, *kinds, year_fraction(days))]

    def _days(self, origins: IntArray, count: int) -> list[FloatArray]:
        """Means of the 24-hour blocks before the last one, youngest first."""
        return [self._mean(origins, -DAY * (ago + 1), -DAY * ago) for ago in range(1, count)]

    def _mean(self, places: IntArray, first: int, after: int) -> FloatArray:
        total: FloatArray = self._sum[places + after] - self._sum[places + first]
        return total / (after - first)

    def _window(self, places: IntArray, first: int, after: int) -> FloatArray:
        found: FloatArray = self._log[places[:, None] + np.arange(first, after)]
        return found

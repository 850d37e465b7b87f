"""Days as people live them: the holidays of the United States by their rules, and the kind of every day.

Holidays are the federal ones that empty offices, and the days around Thanksgiving, Christmas and New Year. One that
falls on a Saturday is kept on the Friday before, on a Sunday on the Monday after (5 U.S.C. 6103).
"""

from datetime import date, timedelta
from functools import cache

import numpy as np
import numpy.typing as npt

DayArray = npt.NDArray[np.int64]
"""Days as proleptic ordinals (`date.toordinal`)."""

MONDAY, THURSDAY = 0, 3
HOLIDAY_KIND = 7
"""Kind of a holiday; those of other days are Monday 0 to Sunday 6."""


def nth_weekday(year: int, month: int, weekday: int, n: int) -> date:
    """The n-th given weekday of a month; n = -1 is the last.

    Examples
    --------
    >>> nth_weekday(2019, 11, THURSDAY, 4)
    datetime.date(2019, 11, 28)
    >>> nth_weekday(2019, 5, MONDAY, -1)
    datetime.date(2019, 5, 27)
    """
    if n > 0:
        first = date(year, month, 1)
        return first + timedelta((weekday - first.weekday()) % 7 + 7 * (n - 1))
    last = date(year + month // 12, month % 12 + 1, 1) - timedelta(1)
    return last - timedelta((last.weekday() - weekday) % 7)


@cache
def holidays(year: int) -> frozenset[date]:
    """Days of a year on which most offices are closed or half empty, as they are kept."""
    thanksgiving = nth_weekday(year, 11, THURSDAY, 4)
    floating = {
        nth_weekday(year, 1, MONDAY, 3),
        nth_weekday(year, 2, MONDAY, 3),
        nth_weekday(year, 5, MONDAY, -1),
        nth_weekday(year, 9, MONDAY, 1),
        thanksgiving,
        thanksgiving + timedelta(1),
    }
    fixed = {date(year, 1, 1), date(year, 7, 4), date(year, 12, 25)}
    kept = {day + timedelta({5: -1, 6: 1}.get(day.weekday(), 0)) for day in fixed}
    return frozenset(floating | fixed | kept | {date(year, 12, 24), date(year, 12, 31)})


def day_kinds(days: DayArray) -> npt.NDArray[np.int64]:
    """Monday 0 to Sunday 6 and holidays 7, one for each ordinal, of the same shape."""
    first, last = int(days.min()), int(days.max())
    every = [date.fromordinal(day) for day in range(first, last + 1)]
    kinds = np.array([HOLIDAY_KIND if day in holidays(day.year) else day.weekday() for day in every])
    found: npt.NDArray[np.int64] = kinds[days - first]
    return found


def year_fraction(days: DayArray) -> npt.NDArray[np.float64]:
    """Position of each ordinal in its year [0, 1), of the same shape; a year is taken for 365.25 days."""
    since = days - date(2001, 1, 1).toordinal()
    return np.asarray((since % 365.25) / 365.25, dtype=np.float64)

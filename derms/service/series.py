"""Values over time that somebody else writes as a CSV with two columns: past net load, prices of energy."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import ConfigError
from derms.service.files import Report, parse_number, read_csv

HISTORY_COLUMNS = ("time_utc", "net_load_kw")
PRICE_COLUMNS = ("from_utc", "usd_per_mwh")
PRICE_MAX_USD_PER_MWH = 2e4
"""More than any market lets energy cost, or be worth to get rid of: beyond it a price is in another unit."""
LAST_PRICE_S = 3600.0
"""For how long the last price of a file holds."""


def read_history(path: Path) -> tuple[list[datetime], FloatArray]:
    """Past net load from a CSV with columns time_utc, net_load_kw.

    Returns the ends of the intervals (UTC, increasing) and their means [W, + = import], shape (n,). Times
    without offset are UTC. Raises ConfigError with every mistake of the file.
    """
    times, net_load_kw = _read(path, HISTORY_COLUMNS, "a power", "kW")
    return times, net_load_kw * 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Prices:
    """What energy costs at the margin of the system, from each time to the next, and an hour from the last one on."""

    from_s: FloatArray
    """[s since 1970-01-01 UTC], increasing, shape (k,)."""
    usd_per_mwh: FloatArray
    """May be negative, shape (k,)."""

    def means(self, start_s: float, hours: FloatArray) -> FloatArray:
        """Means over steps of these lengths [h] from a time on [$/MWh]; NaN for a step that is not known whole."""
        edges_s = start_s + 3600.0 * np.concatenate([[0.0], np.cumsum(hours)])
        if not len(self.from_s):
            return np.full(len(hours), np.nan)
        knots_s = np.append(self.from_s, self.from_s[-1] + LAST_PRICE_S)
        spent = np.concatenate([[0.0], np.cumsum(np.diff(knots_s) * self.usd_per_mwh)])
        known = (edges_s[:-1] >= knots_s[0]) & (edges_s[1:] <= knots_s[-1])
        return np.where(known, np.diff(np.interp(edges_s, knots_s, spent)) / np.diff(edges_s), np.nan)


def read_prices(path: Path) -> Prices:
    """Prices of energy from a CSV with columns from_utc, usd_per_mwh; raises ConfigError with every mistake of it."""
    times, usd_per_mwh = _read(path, PRICE_COLUMNS, "a price", "$/MWh", most=PRICE_MAX_USD_PER_MWH)
    return Prices(np.array([at.timestamp() for at in times], dtype=np.float64), usd_per_mwh)


def _read(
    path: Path, columns: Sequence[str], what: str, unit: str, most: float = np.inf
) -> tuple[list[datetime], FloatArray]:
    """Times that increase, and values of at most some size; every mistake at once."""
    table, report = read_csv(path), Report(str(path))
    if tuple(table.header) != tuple(columns):
        right = "the columns are " + ", ".join(columns)
        raise report.error("row 1", "the header is " + ", ".join(table.header), right)
    time_column, value_column = columns
    times: list[datetime] = []
    values: list[float] = []
    for row, cells in table.rows:
        if len(cells) != len(columns):
            report.add(f"row {row}", f"{len(cells)} cells under a header of 2", f"give a time and {what}")
            continue
        at, value = _utc(cells[0]), parse_number(cells[1])
        if at is None:
            report.add(f"row {row}, column {time_column}", f"'{cells[0]}' is not a time", "write 2026-04-15T13:00:00Z")
        elif times and at <= times[-1]:
            report.add(f"row {row}, column {time_column}", f"{cells[0]} is not after {times[-1]}", "sort rows by time")
        else:
            times.append(at)
        where = f"row {row}, column {value_column}"
        if value is None:
            wrong = f"'{cells[1]}' is not a number"
            report.add(where, wrong, f"give {unit}, or leave the row out when it is not known")
        elif abs(value) > most:
            report.add(where, f"{value:g} is more than energy can cost", f"give {unit}, {-most:g} to {most:g}")
        else:
            values.append(value)
    if report.problems:
        raise ConfigError(report.problems)
    return times, np.array(values, dtype=np.float64)


def _utc(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        return None

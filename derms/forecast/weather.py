"""A weather forecast as a plug-in: who makes one, and one that is read from a file.

A forecast of the sky is a cloud index (PV against clear sky) or global horizontal irradiance at some moments. It is
used where it is there, young enough, and passes the gates; see `derms/forecast/forecaster.py`.
"""

import csv
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import Problem
from derms.forecast.gates import Reason, Refusal

BYTES_MAX = 2_000_000
"""Of a file: one that is longer is not read."""
TIMES = ("made_at_utc", "time_utc")
"""The first columns of a file."""
SHOWN_MAX = 60
"""Characters of a cell that a message shows."""
TELL_MAX = 50
"""Rows that are told one by one; of more it is told how many."""
SERIES = "weather forecast"
"""What refusals call it."""


class SkyQuantity(StrEnum):
    """What a weather forecast tells; the words are the columns of a file."""

    CLOUD_INDEX = "cloud_index"
    """PV against clear sky."""
    GHI = "ghi_w_per_m2"
    """Global horizontal irradiance [W/m2]."""


VALUE_MAX: Mapping[SkyQuantity, float] = {SkyQuantity.CLOUD_INDEX: 1.5, SkyQuantity.GHI: 1500.0}
"""No sky gives more, at the edges of clouds neither."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """One weather forecast."""

    made_at: datetime
    quantity: SkyQuantity
    at_s: FloatArray
    """Moments that it is valid for [s since 1970-01-01 UTC], rising, shape (k,)."""
    values: FloatArray
    """What it says of them, shape (k,); NaN where it says nothing."""


class WeatherForecast(Protocol):
    """Somebody who forecasts the sky."""

    def outlook(self, now: datetime) -> Outlook | None:
        """The newest forecast made by now; None where there is none. Called often: quick, and raises nothing."""
        ...


@runtime_checkable
class TellsTrouble(Protocol):
    """A weather forecast that can say why there is none, or what of it is left out."""

    def trouble(self, now: datetime) -> tuple[Refusal, ...]:
        """What is wrong with what `outlook` gave last; empty for nothing."""
        ...


@dataclass(frozen=True, slots=True)
class WeatherFile:
    """What a file says, and what is wrong in it."""

    outlooks: tuple[Outlook, ...] = ()
    left_out: tuple[Problem, ...] = ()
    """Rows that cannot be read, or the file as a whole."""
    doubtful: tuple[Problem, ...] = ()
    """Rows that can be read, and that nobody forecasts like that: the gates judge them."""
    rows: int = 0


def read_weather(path: Path) -> WeatherFile:
    """Read a file of weather forecasts whole: made_at_utc, time_utc, and cloud_index or ghi_w_per_m2."""

    def none(where: str, wrong: str, right: str) -> WeatherFile:
        return WeatherFile(left_out=(Problem(str(path), where, wrong, right),))

    try:
        if (size := path.stat().st_size) > BYTES_MAX:
            most = f"leave old forecasts out: at most {BYTES_MAX / 1e6:g} MB are read"
            return none("file", f"is {size / 1e6:.1f} MB long", most)
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return none("file", "is not UTF-8 text", "save it as comma-separated CSV with encoding UTF-8")
    except OSError as error:
        return none("file", f"cannot be read ({error.strerror})", "name a file that the service may read")
    try:
        cells = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines())]
    except csv.Error as error:
        return none("file", f"is not CSV ({error})", "save it as comma-separated CSV")
    header, *rows = cells or [[]]
    quantity = next((one for one in SkyQuantity if one.value in header), None)
    if quantity is None or not set(TIMES) <= set(header):
        wrong = f"the header is {_shown(', '.join(header))}" if any(header) else "there is no header"
        return none("row 1", wrong, f"the columns are {', '.join(TIMES)}, and {' or '.join(SkyQuantity)}")
    return _read_rows(path, header, rows, quantity)


def _read_rows(path: Path, header: Sequence[str], rows: Sequence[list[str]], quantity: SkyQuantity) -> WeatherFile:
    by_made: dict[datetime, dict[float, float]] = {}
    left_out: list[Problem] = []
    doubtful: list[Problem] = []
    given = [(number, row) for number, row in enumerate(rows, start=2) if any(row)]
    for number, row in given:
        cell = dict(zip(header, row, strict=False))
        read = _Row(f"{path}", number)
        made, at = (read.time(name, cell.get(name, "")) for name in TIMES)
        value = read.number(quantity, cell.get(quantity.value, ""))
        left_out += read.wrong
        if made is not None and at is not None and value is not None:
            by_made.setdefault(made, {})[at.timestamp()] = value
            doubtful += read.doubts(made, at, quantity, value)
    if not given:
        left_out.append(Problem(str(path), "row 2", "there is no row below the header", "give a row for each moment"))
    outlooks = tuple(_outlook(made, quantity, said) for made, said in by_made.items())
    return WeatherFile(outlooks, tuple(left_out), tuple(doubtful), len(given))


class _Row:
    """Reads the cells of a row, and keeps what is wrong with them."""

    def __init__(self, file: str, number: int) -> None:
        self.wrong: list[Problem] = []
        self._file, self._number = file, number

    def time(self, column: str, text: str) -> datetime | None:
        try:
            return _utc(text)
        except (ValueError, OverflowError):
            self.wrong.append(self._problem(column, _is_no(text, "time"), "write 2026-04-15T13:00:00Z"))
            return None

    def number(self, quantity: SkyQuantity, text: str) -> float | None:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if math.isfinite(value):
            return value
        right = "give a number, or leave the row out where nothing is forecast"
        self.wrong.append(self._problem(quantity.value, _is_no(text, "number"), right))
        return None

    def doubts(self, made: datetime, at: datetime, quantity: SkyQuantity, value: float) -> list[Problem]:
        """What can be read, and is still wrong."""
        found = []
        if at < made:
            wrong = f"{at:%Y-%m-%dT%H:%M:%SZ} is before the forecast was made, at {made:%Y-%m-%dT%H:%M:%SZ}"
            found.append(self._problem("time_utc", wrong, "leave the row out: it is about moments to come"))
        most = VALUE_MAX[quantity]
        if not 0.0 <= value <= most:
            meant = value / 100.0 if quantity is SkyQuantity.CLOUD_INDEX else value * 1000.0
            right = f"give 0 to {most:g}" + f"; was {meant:g} meant?" * (0.0 <= meant <= most and value > 0.0)
            found.append(self._problem(quantity.value, f"{value:g} is more or less than any sky gives", right))
        return found

    def _problem(self, column: str, wrong: str, right: str) -> Problem:
        return Problem(self._file, f"row {self._number}, column {column}", wrong, right)


def told(problems: Sequence[Problem]) -> list[Problem]:
    """The first problems, and how many more there are."""
    more = len(problems) - TELL_MAX
    if more <= 0:
        return list(problems)
    file, right = problems[0].file, "mend these first: the others may be of the same kind"
    return [*problems[:TELL_MAX], Problem(file, "rows below", f"{more} more mistakes", right)]


class CsvWeather:
    """Forecasts from a CSV that somebody else writes, see `read_weather`.

    The file is read again when it has changed. A row that cannot be read is left out; a file that cannot be is the
    same as none. `trouble` tells of both.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._file = WeatherFile()

    def outlook(self, now: datetime) -> Outlook | None:
        """See `WeatherForecast`."""
        self._refresh()
        made = [one for one in self._file.outlooks if one.made_at <= now]
        return max(made, key=lambda one: one.made_at) if made else None

    def trouble(self, now: datetime) -> tuple[Refusal, ...]:
        """See `TellsTrouble`."""
        name, wrong, outlooks = self._path, self._file.left_out, self._file.outlooks
        if self._version is None:
            return (Refusal(SERIES, Reason.MISSING, 1, f"{SERIES}: there is no file {name}"),)
        if wrong:
            rows = f"{len({problem.where.partition(',')[0] for problem in wrong})} of {self._file.rows} rows left out, "
            text = f"{SERIES}: {name}: {rows * bool(outlooks)}{wrong[0].where}: {wrong[0].wrong}; {wrong[0].right}"
            return (Refusal(SERIES, Reason.UNREADABLE, len(wrong), text),)
        if all(one.made_at > now for one in outlooks):
            first = min(one.made_at for one in outlooks)
            text = f"{SERIES}: {name}: the first in it is made {first:%Y-%m-%dT%H:%M:%SZ}, which is still to come"
            return (Refusal(SERIES, Reason.EARLY, len(outlooks), text),)
        return ()

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError:
            self._version, self._file = None, WeatherFile()
            return
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._version:
            self._version, self._file = version, read_weather(self._path)


def _outlook(made_at: datetime, quantity: SkyQuantity, said: dict[float, float]) -> Outlook:
    at_s = np.array(sorted(said), dtype=np.float64)
    return Outlook(made_at=made_at, quantity=quantity, at_s=at_s, values=np.array([said[at] for at in at_s]))


def _utc(text: str) -> datetime:
    """A time; one without offset is UTC. ValueError for anything else."""
    at = datetime.fromisoformat(text.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def _is_no(text: str, what: str) -> str:
    return f"'{_shown(text)}' is not a {what}" if text else f"there is no {what}"


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else f"{text[:SHOWN_MAX]}..."

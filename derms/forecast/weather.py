"""A weather forecast as a plug-in: who makes one, and one that is read from a file.

A forecast of the sky is a cloud index (PV against clear sky) or global horizontal irradiance at some moments. It is
used where it is there, young enough, and passes the gates; see `derms/forecast/forecaster.py`.
"""

import csv
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import numpy as np

from derms.domain.arrays import FloatArray

BYTES_MAX = 2_000_000
"""Of a file: one that is longer is not read."""


class SkyQuantity(StrEnum):
    """What a weather forecast tells; the words are the columns of a file."""

    CLOUD_INDEX = "cloud_index"
    """PV against clear sky."""
    GHI = "ghi_w_per_m2"
    """Global horizontal irradiance [W/m2]."""


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


class CsvWeather:
    """Forecasts from a CSV that somebody else writes: made_at_utc, time_utc, and cloud_index or ghi_w_per_m2.

    The file is read again when it has changed. A row that cannot be read is left out; a file that cannot be is the
    same as none.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._outlooks: tuple[Outlook, ...] = ()

    def outlook(self, now: datetime) -> Outlook | None:
        """See `WeatherForecast`."""
        self._refresh()
        made = [one for one in self._outlooks if one.made_at <= now]
        return max(made, key=lambda one: one.made_at) if made else None

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            if version == self._version:
                return
            text = self._path.read_text(encoding="utf-8-sig") if status.st_size <= BYTES_MAX else ""
        except (OSError, UnicodeDecodeError):
            self._version, self._outlooks = None, ()
            return
        self._version, self._outlooks = version, _outlooks(text)


def _outlooks(text: str) -> tuple[Outlook, ...]:
    table = csv.DictReader(text.splitlines())
    quantity = next((one for one in SkyQuantity if one.value in (table.fieldnames or ())), None)
    if quantity is None:
        return ()
    by_made: dict[datetime, dict[float, float]] = {}
    for row in table:
        made, at, value = (row.get(name) or "" for name in ("made_at_utc", "time_utc", quantity.value))
        try:
            by_made.setdefault(_utc(made), {})[_utc(at).timestamp()] = float(value)
        except (ValueError, OverflowError):
            continue
    return tuple(_outlook(made, quantity, said) for made, said in by_made.items() if said)


def _outlook(made_at: datetime, quantity: SkyQuantity, said: dict[float, float]) -> Outlook:
    at_s = np.array(sorted(said), dtype=np.float64)
    return Outlook(made_at=made_at, quantity=quantity, at_s=at_s, values=np.array([said[at] for at in at_s]))


def _utc(text: str) -> datetime:
    """A time; one without offset is UTC. ValueError for anything else."""
    at = datetime.fromisoformat(text.strip())
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)

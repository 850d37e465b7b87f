"""Samples out of the text that a utility's system writes: CSV in long or wide shape, and JSON.

Long CSV has a row per point under `point,value` and, where there are, `quality` and `time`. Wide CSV has a column per
point and, where there are, `<column>.quality` and `time`; each of its rows is a moment. In JSON a pointer (RFC 6901)
leads to a number, a text, or an object with `value`, `quality` and `time`. Times are ISO 8601, UTC unless they say
otherwise, or seconds since 1970.
"""

import csv
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from io import StringIO
from typing import Any

from derms.domain.scada import Sample
from derms.errors import ScadaError


def from_csv(text: str, *, written_at: datetime | None) -> list[Sample]:
    """All samples of a CSV text; those without a time of their own are of `written_at`.

    Raises ScadaError for a text that is not whole, or not CSV. A row that is malformed gives samples without a value.
    """
    if not text.endswith("\n"):
        raise ScadaError("it does not end with a line end: half written")
    try:
        rows = [[cell.strip() for cell in row] for row in csv.reader(StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise ScadaError(f"it is not CSV: {error}") from error
    header, *rest = rows or [[]]
    if len(set(header)) < len(header) or not any(header):
        raise ScadaError("its header is empty or names a column twice")
    tables = [dict(zip(header, row, strict=False)) for row in rest]
    if {"point", "value"} <= set(header):
        return [_long(table, written_at) for table in tables]
    wheres = [name for name in header if name != "time" and not name.endswith(".quality")]
    return [_wide(table, where, written_at) for table in tables for where in wheres]


def _long(row: Mapping[str, str], written_at: datetime | None) -> Sample:
    return _sample(row.get("point", ""), row.get("value"), row.get("quality", ""), row.get("time"), written_at)


def _wide(row: Mapping[str, str], where: str, written_at: datetime | None) -> Sample:
    return _sample(where, row.get(where), row.get(f"{where}.quality", ""), row.get("time"), written_at)


def from_json(text: str, wheres: Iterable[str], *, written_at: datetime | None) -> list[Sample]:
    """The samples that JSON pointers lead to; what is not there gives none. Raises ScadaError for what is no JSON."""
    try:
        document = json.loads(text, parse_int=float)
    except (ValueError, RecursionError) as error:
        raise ScadaError(f"it is not JSON: {error}") from error
    found = [(where, _resolve(document, where)) for where in dict.fromkeys(wheres)]
    return [_of_json(where, value, written_at) for where, value in found if value is not _ABSENT]


_ABSENT = object()


def _resolve(document: Any, pointer: str) -> Any:
    """What a JSON pointer leads to, or `_ABSENT`."""
    found = document
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        else:
            return _ABSENT
    return found


def _of_json(where: str, found: Any, written_at: datetime | None) -> Sample:
    parts = found if isinstance(found, dict) else {"value": found}
    quality = parts.get("quality", "")
    word = f"{quality:.0f}" if isinstance(quality, float) else str(quality)
    return _sample(where, parts.get("value"), word, parts.get("time"), written_at)


def _sample(where: str, value: object, quality: str, time: object, written_at: datetime | None) -> Sample:
    """A sample; without a value when what stands there, or its time, cannot be read."""
    at = written_at if time is None else parse_time(time)
    if time is not None and at is None:
        return Sample(where, None, quality, written_at)
    match value:
        case bool():
            return Sample(where, str(value).lower(), quality, at)
        case float() | str():
            return Sample(where, value, quality, at)
    return Sample(where, None, quality, at)


def parse_time(value: object) -> datetime | None:
    """The time [UTC] that a text or a number of seconds since 1970 is, else None."""
    try:
        if isinstance(value, float):
            return datetime.fromtimestamp(value, UTC)
        at = datetime.fromisoformat(str(value))
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        return None

"""The site file's keys: one row each with default, bounds, unit and meaning, and the values read against them.

The dataclasses below and in `derms.domain.settings` are the table; `describe_keys` prints it, `read_tables` checks
a file against it. Times in s unless the name says otherwise.
"""

import math
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from derms.domain.mode import Mode
from derms.domain.settings import (
    DispatchSettings,
    EstimateSettings,
    FieldSettings,
    Key,
    PlanSettings,
    PlanWeights,
    number,
    text,
)
from derms.service.files import Report, did_you_mean, read_text

TEXT_MAX = 1000
"""Characters that a text may have."""
SCADA_SOURCES = ("meter", "file", "rest", "modbus")


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteTable:
    """[site]: what and where."""

    name: str = text("what operators call the site")
    feeder: str = text("id of a feeder, or path of its folder")
    mode: str = text("observe never writes; auto dispatches", Mode.OBSERVE.value, tuple(Mode))
    latitude: float = number(None, -90, 90, "deg", "north of the equator is positive")
    longitude: float = number(None, -180, 180, "deg", "east of Greenwich is positive")
    timezone: str = text("IANA name of the local time zone")


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetTable:
    """[fleet]: the devices."""

    file: str = text("path of the fleet CSV")
    connections: str | None = text("path of a CSV of connections that devices share, with their limits", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScadaTable:
    """[scada]: what the utility's own system tells, and where it is told the plan."""

    source: str = text("where net load, heads, switches and taps come from", "meter", SCADA_SOURCES)
    net_load: str | None = text("id of the meter of system net load; else the only system or head meter", None)
    history: str | None = text("path of a CSV with columns time_utc, net_load_kw", None)
    points: str | None = text("path of the point map, a CSV", None)
    qualities: str | None = text("path of the quality map, a CSV with columns word, quality", None)
    path: str | None = text("for file: path of the CSV or JSON that is watched", None)
    url: str | None = text("for rest: http(s)://... of a JSON document; for modbus: modbus://host:port", None)
    token_variable: str | None = text("name of the environment variable that holds the bearer token", None)
    ca: str | None = text("path of the certificates to trust instead of the system's own", None)
    every_s: float = number(10, 1, 3600, "s", "time between two looks at the source, and two tries to publish")
    timeout_s: float = number(5, 0.1, 60, "s", "longest wait for one answer, of the source and of the outlet")
    stale_after_s: float = number(60, 2, 7200, "s", "age from which a value is stale")
    ahead_max_s: float = number(10, 0, 300, "s", "how far a source time may be ahead of our clock")
    publish: str | None = text("path of a .csv or .json, http(s)://..., or modbus://host:port/unit/address", None)
    publish_method: str = text("how REST takes the plan", "PUT", ("PUT", "POST"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastTable:
    """[forecast]: what is known of the coming hours from elsewhere."""

    weather: str | None = text("path of a CSV with made_at_utc, time_utc, and cloud_index or ghi_w_per_m2", None)
    prices: str | None = text("path of a CSV with from_utc, usd_per_mwh: what energy costs, from then on", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageTable:
    """[storage]: where records go."""

    directory: str = text("folder of journal and database", "data")


@dataclass(frozen=True, kw_only=True, slots=True)
class WebTable:
    """[web]: where the health endpoint listens."""

    host: str = text("address to listen on", "127.0.0.1")
    port: float = number(8686, 0, 65535, "", "port to listen on; 0 takes a free one")


TABLES: Mapping[str, type[Any]] = {
    "site": SiteTable,
    "fleet": FleetTable,
    "scada": ScadaTable,
    "field": FieldSettings,
    "dispatch": DispatchSettings,
    "plan": PlanSettings,
    "plan.weights": PlanWeights,
    "forecast": ForecastTable,
    "estimate": EstimateSettings,
    "storage": StorageTable,
    "web": WebTable,
}

RELATIONS = (
    ("field", "timeout_s", 1, "poll_s", "an answer that late would hold up the next poll"),
    ("field", "poll_s", 2, "stale_after_s", "one lost poll would make every value stale"),
    ("field", "stale_after_s", 1, "frozen_after_s", "frozen is judged on values that are not stale"),
    ("field", "backoff_min_s", 1, "backoff_max_s", "waits grow from the first to the longest"),
    ("scada", "every_s", 2, "stale_after_s", "one lost answer would make every value stale"),
    ("scada", "timeout_s", 1, "every_s", "an answer that late would hold up the next look"),
    ("dispatch", "group_s", 1, "interval_s", "groups are parts of the interval"),
    ("dispatch", "settle_s", 1.25, "interval_s", "the effect is judged before the next write"),
    ("dispatch", "interval_s", 3, "reversion_s", "two lost refreshes must not release a device"),
    ("dispatch", "reversion_jitter_s", 1, "reversion_s", "the spread is a part of the time"),
    ("dispatch", "interval_s", 1, "validity_s", "a plan holds at least until the next write"),
)
"""Table, key, factor, other key, why: factor * key must not exceed the other key."""

STEPS_MIN = (15, 30, 60)
"""Lengths of which three hours and an hour hold whole numbers, and that begin with the quarters of the clock."""

TOML_REMEDIES = (
    ("table declaration", "close the bracket: a table begins with [name]"),
    ("array declaration", "write [name]: a table has one bracket on each side"),
    ("Cannot declare", "keep one of the two tables of that name, with the keys of both"),
    ("Cannot overwrite", "keep one of the two lines with that key"),
    ("Unterminated string", 'close the quotation mark: `key = "value"`'),
    ("Illegal character '\\n'", 'close the quotation mark: `key = "value"`'),
    ('Expected "\'"', "close the quotation mark: `key = 'value'`"),
    ("Unescaped", "put a text with \\ between single quotation marks: `key = 'value'`"),
    ("Unclosed array", "close the bracket of the list: `key = [1, 2]`"),
    ("newline or end of document", "write one `key = value` on each line, [table] on one of its own, and 1.5 for 1,5"),
    ("Invalid value", 'write a text as `key = "value"`, a number as `key = 0.5`'),
    ("", 'write `key = "value"`'),
)
"""Words of the parser's error, and what would be right; the first that fits."""

Values = dict[str, dict[str, Any]]


class SiteFile:
    """A parsed site file that knows on which line its keys stand."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the file cannot be read or is not TOML."""
        self.report = Report(str(path))
        source = read_text(path)
        try:
            self.tree: dict[str, Any] = tomllib.loads(source)
        except RecursionError as error:
            raise self.report.error("file", "is nested too deeply", 'write `key = "value"` below [table]') from error
        except tomllib.TOMLDecodeError as error:
            found = re.search(r"at line (\d+)", str(error))
            line = found[1] if found else str(source.count("\n") + 1)
            right = next(right for words, right in TOML_REMEDIES if words in str(error))
            raise self.report.error(f"line {line}", f"is not TOML ({error})", right) from error
        self._lines = dict(_lines(source))

    def where(self, path: str) -> str:
        """The line of a key or table by its dotted path, else of the table that should hold it."""
        while path and path not in self._lines:
            path = path.rpartition(".")[0]
        return f"line {self._lines.get(path, 1)}"


def _lines(source: str) -> Iterator[tuple[str, int]]:
    """Dotted paths of tables and keys, each with its line."""
    table = ""
    for line_number, line in enumerate(source.split("\n"), start=1):
        if header := re.match(r"\s*\[+\s*([\w.-]+)\s*\]", line):
            table = header[1]
            yield table, line_number
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            yield f"{table}.{key[1]}".lstrip("."), line_number


def keys_of(table: type[Any]) -> dict[str, tuple[Field[Any], Key]]:
    """The rows of a table by key."""
    return {row.name: (row, row.metadata["key"]) for row in fields(table) if "key" in row.metadata}


def read_tables(file: SiteFile) -> Values:
    """Values of every table of the file, defaults filled in; mistakes go to the file's report.

    What is wrong or missing without a default is NaN or None, so that no later check speaks of it again.
    """
    tops = {name.partition(".")[0] for name in TABLES}
    for name in sorted(file.tree.keys() - tops):
        file.report.add(file.where(name), f"unknown table '{name}'", did_you_mean(name, tops, _one_of(tops)))
    values = {name: _read_table(file, name, table) for name, table in TABLES.items()}
    for table, key, factor, other, why in RELATIONS:
        low, high = values[table][key], values[table][other]
        if factor * low > high:
            wrong = f"[{table}] {key} = {low:g} is too long for {other} = {high:g}"
            file.report.add(file.where(f"{table}.{key}"), wrong, f"give at most {high / factor:g}: {why}")
    plan = values["plan"]
    if plan["step_min"] not in STEPS_MIN:
        file.report.add(file.where("plan.step_min"), f"[plan] step_min = {plan['step_min']:g}", "give 15, 30 or 60")
    if plan["horizon_h"] % 1 > 0:
        wrong = f"[plan] horizon_h = {plan['horizon_h']:g} is not a whole number of hours"
        file.report.add(file.where("plan.horizon_h"), wrong, "make it one, such as 36")
    return values


def _read_table(file: SiteFile, name: str, table: type[Any]) -> dict[str, Any]:
    found: Any = file.tree
    for part in name.split("."):
        found = found.get(part, {}) if isinstance(found, dict) else {}
    if not isinstance(found, dict):
        file.report.add(file.where(name), f"'{name}' is a value", f"make it a table: [{name}]")
        found = {}
    known = keys_of(table)
    subtables = {other.rpartition(".")[2] for other in TABLES if other.rpartition(".")[0] == name}
    for key in sorted(found.keys() - known.keys() - subtables):
        wrong = f"unknown key '{key}' in [{name}]"
        file.report.add(file.where(f"{name}.{key}"), wrong, did_you_mean(key, known, _one_of(known)))
    return {key: _read_key(file, name, found, row, spec) for key, (row, spec) in known.items()}


def _read_key(file: SiteFile, table: str, found: Mapping[str, Any], row: Field[Any], spec: Key) -> Any:
    if row.name not in found and row.default is not MISSING:
        return row.default
    wrong = f"[{table}] {row.name} = {found[row.name]!r}" if row.name in found else f"[{table}] {row.name} is missing"
    value: Any = found.get(row.name)
    if isinstance(value, str) and (len(value) > TEXT_MAX or not value.isprintable()):
        wrong = f"[{table}] {row.name} has characters that do not print, or more than {TEXT_MAX} of them"
    elif spec.accepts(value):
        return spec.kind(value)
    file.report.add(file.where(f"{table}.{row.name}"), wrong, spec.right)
    return math.nan if spec.kind is float else None


def _one_of(words: Any) -> str:
    return "it is one of " + ", ".join(sorted(words))


def describe_keys() -> str:
    """The reference of the site file as Markdown: every table with its keys."""
    parts = []
    for table in TABLES.values():
        head, _, meaning = (table.__doc__ or "").partition(": ")
        parts += [f"### {head}", "", meaning[:1].upper() + meaning[1:], ""]
        parts += ["| key | default | allowed | unit | meaning |", "| --- | --- | --- | --- | --- |"]
        for key, (row, spec) in keys_of(table).items():
            default = "required" if row.default is MISSING else "none" if row.default is None else f"`{row.default}`"
            allowed = f"{spec.low:g} to {spec.high:g}" if spec.kind is float else " or ".join(spec.choices) or "text"
            parts.append(f"| `{key}` | {default} | {allowed} | {spec.unit} | {spec.meaning} |")
        parts.append("")
    rules = [f"- `[{name}] {key}` at most `{other}` / {factor}: {why}." for name, key, factor, other, why in RELATIONS]
    return "\n".join([*parts, "### Between keys", "", *rules, ""])

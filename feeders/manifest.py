"""The manifest of a feeder package: its fields, and the checks that need no circuit.

People write kW, kVA and kWh in manifests.
"""

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from derms.domain.der import DER_KINDS, METER_KINDS
from derms.domain.grid import Between
from derms.errors import ConfigError, Problem

SCHEMA = 2

Table = Mapping[str, Any]
Tables = Mapping[str, Table]
"""Tables of one name by where they stand, in words (`[[der]] 3 (pv03)`)."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a field must be."""

    right: str
    """In words, as it stands in the message."""
    accepts: Callable[[Any], bool]
    default: Any = None
    """None where the field must be there."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _one_of(words: Iterable[str], default: str | None = None) -> Field:
    known = sorted(map(str, words))
    return Field(f"give one of {', '.join(known)}", lambda value: value in known, default)


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-fA-F]{64}|", value) is not None


def _is_phases(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(_is_number(phase) and phase in (1, 2, 3) for phase in value)


NAME = Field("give a name in quotes", lambda value: isinstance(value, str) and value.strip() != "")
POSITIVE = Field("give a number above 0", lambda value: _is_number(value) and isfinite(value) and value > 0)
ENERGY = Field("give a number, 0 or more", lambda value: _is_number(value) and isfinite(value) and value >= 0, 0.0)
PER_UNIT = Field("give a number between 0.5 and 1.5", lambda value: _is_number(value) and 0.5 <= value <= 1.5)

CONTROL: Mapping[str, Field] = {"id": NAME, "element": NAME, "age_max_s": POSITIVE}

FIELDS: Mapping[str, Mapping[str, Field]] = {
    "": {
        "schema": Field(f"give {SCHEMA}", lambda value: _is_number(value) and value == SCHEMA),
        "id": NAME,
        "source": NAME,
        "circuit": NAME,
        "sha256": Field("give 64 hexadecimal digits", _is_digest, ""),
        "source_bus": NAME,
        "head_element": NAME,
        "peak_kw": POSITIVE,
    },
    "limit": {
        "v_base_max_v": Field("give volts above 0, or inf", lambda value: _is_number(value) and value > 0),
        "v_min_pu": PER_UNIT,
        "v_max_pu": PER_UNIT,
        "between": _one_of(Between, Between.NEUTRAL.value),
    },
    "site": {"id": NAME, "bus": NAME, "transformer": NAME, "s_rated_kva": POSITIVE},
    "der": {
        "id": NAME,
        "site": NAME,
        "element": NAME,
        "kind": _one_of(DER_KINDS),
        "p_rated_kw": POSITIVE,
        "s_rated_kva": POSITIVE,
        "energy_kwh": ENERGY,
    },
    "meter": {
        "id": NAME,
        "kind": _one_of(METER_KINDS),
        "bus": NAME,
        "element": Field("give the full name of an element", lambda value: isinstance(value, str), ""),
        "terminal": Field("give 1 or 2", lambda value: _is_number(value) and value in (1, 2), 1),
        "phases": Field("give some of [1, 2, 3]", _is_phases, ()),
        "sigma_frac": Field("give a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
        "age_max_s": POSITIVE,
    },
    "switch": {**CONTROL, "normal": _one_of(("open", "closed"))},
    "regulator": CONTROL,
    "capacitor": CONTROL,
    "invisible_pv": {"load": NAME, "p_rated_kw": POSITIVE},
}
"""Every table of the manifest and every field of it; the nameless one is the file itself."""


@dataclass
class Manifest:
    """A manifest as it was read; what is wrong is in `problems` and left out of the tables."""

    path: Path
    problems: list[Problem] = field(default_factory=list)
    head: Table = field(default_factory=dict)
    """Fields of the file itself."""
    tables: Mapping[str, Tables] = field(default_factory=dict)

    def report(self, where: str, wrong: str, right: str) -> None:
        self.problems.append(Problem(self.path.name, where, wrong, right))

    def of(self, name: str) -> Tables:
        return self.tables[name]


def read(path: Path) -> Manifest:
    """Read a manifest; raises ConfigError when it is not there or no TOML, else collects what is wrong."""
    found = _parse(path)
    manifest = Manifest(path)
    manifest.head = _fields(manifest, "", "file", {key: value for key, value in found.items() if key not in FIELDS})
    manifest.tables = {name: _tables(manifest, name, found.get(name, [])) for name in FIELDS if name}
    return manifest


def _parse(path: Path) -> Table:
    try:
        return tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        wrong = error.strerror or "cannot be read"
        right = f"name a packaged feeder, or a folder with a {path.name}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        wrong, right = str(error), "write valid TOML"
    raise ConfigError([Problem(str(path), "file", wrong, right)])


def _tables(manifest: Manifest, name: str, found: Any) -> Tables:
    if not isinstance(found, list) or not all(isinstance(table, dict) for table in found):
        manifest.report(name, "no list of tables", f"write each under [[{name}]]")
        return {}
    checked: dict[str, Table] = {}
    first: dict[str, str] = {}
    for number, table in enumerate(found, 1):
        where = f"[[{name}]] {number}" + (f" ({table['id']})" if "id" in table else "")
        good = checked[where] = _fields(manifest, name, where, table)
        if "id" in good and first.setdefault(good["id"], where) != where:
            manifest.report(f"{where}, id", f"stands already at {first[good['id']]}", "use each id once")
    return checked


def _fields(manifest: Manifest, name: str, where: str, table: Table) -> Table:
    for unknown in sorted(table.keys() - FIELDS[name].keys()):
        manifest.report(f"{where}, {unknown}", "no such field", f"use {', '.join(FIELDS[name])}")
    good = {}
    for key, rule in FIELDS[name].items():
        value = table.get(key, rule.default)
        if value is None:
            manifest.report(f"{where}, {key}", "missing", rule.right)
        elif not rule.accepts(value):
            manifest.report(f"{where}, {key}", repr(value), rule.right)
        else:
            good[key] = value
    return good

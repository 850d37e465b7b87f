"""What a territory is to be: the fields of its spec, and their checks, all at once."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from derms.domain.der import DER_KINDS
from derms.errors import ConfigError, Problem

SCHEMA = 1
TEMPLATE = Path(__file__).with_name("spec.toml")
Numbers = Mapping[str, float]

FRACTION, ABOVE_0, ANY, COUNT = "a number from 0 to 1", "a number above 0", "a number", "a whole number, 1 or more"

FIELDS: Mapping[str, Mapping[str, str]] = {
    "": {"seed": "a whole number, 0 or more", "stations": COUNT, "feeders": COUNT, "delta_frac": FRACTION},
    "feeder": {
        **dict.fromkeys(("buses_min", "buses_max"), "a whole number, 10 or more"),
        **dict.fromkeys(("span_m_min", "span_m_max", "services_per_bus"), ABOVE_0),
        "trunk_frac": FRACTION,
    },
    "customers": {
        **dict.fromkeys(("per_service", "median_kw", "sigma", "business_median_kw", "business_sigma"), ABOVE_0),
        "business_frac": FRACTION,
        "power_factor": FRACTION,
    },
    "adoption": {
        **dict.fromkeys(("pv_frac", "battery_frac", "ev_frac"), "a number between 0 and 1"),
        **dict.fromkeys(("per_log_kw", "per_income"), ANY),
    },
    "sizes": dict.fromkeys(("pv_kw", "battery_kw", "ev_kw", "sigma", "battery_hours"), ABOVE_0),
    "station": dict.fromkeys(
        ("short_circuit_mva", "x_over_r", "source_pu", "ratio", "r_pct", "x_pct", "no_load_pct"), ABOVE_0
    ),
}
"""Numbers of every section; the nameless one is the file itself."""
RANGES: Mapping[str, tuple[type, float, float, bool]] = {
    FRACTION: (float, 0.0, 1.0, True),
    "a number between 0 and 1": (float, 0.0, 1.0, False),
    ABOVE_0: (float, 0.0, 1e6, False),
    ANY: (float, -1e6, 1e6, True),
    COUNT: (int, 1, 10_000, True),
    "a whole number, 10 or more": (int, 10, 10_000, True),
    "a whole number, 0 or more": (int, 0, 2**63, True),
}
"""Of each kind of number: whole or not, least, greatest, and whether these two are allowed."""


@dataclass(frozen=True, slots=True)
class Device:
    """Something that customers buy."""

    kind: str
    vendor: str
    profile: str
    weight: float


@dataclass(frozen=True, slots=True)
class Spec:
    """A territory to be made; sections as they stand in the file."""

    name: str
    seed: int
    stations: int
    feeders: int
    delta_frac: float
    feeder: Numbers
    customers: Numbers
    adoption: Numbers
    sizes: Numbers
    station: Numbers
    devices: tuple[Device, ...]


def read(path: Path) -> Spec:
    """Read a spec.

    Raises
    ------
    ConfigError
        With everything that is wrong in it.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf8"))
    except OSError as error:
        raise ConfigError([Problem(str(path), "file", str(error.strerror), "name a spec; see spec.toml")]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([Problem(str(path), "file", str(error), "write valid TOML")]) from None
    return parse(found, str(path))


def parse(found: Mapping[str, Any], file: str) -> Spec:
    """A spec of what stands in its file; raises ConfigError as `read` does."""
    problems: list[Problem] = []

    def report(where: str, wrong: str, right: str) -> None:
        problems.append(Problem(file, where, wrong, right))

    if found.get("schema") != SCHEMA:
        report("file, schema", f"{found.get('schema')!r}", f"give {SCHEMA}")
    name = found.get("name")
    if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
        report("file, name", f"{name!r}", "give one word of letters, digits and underscores")
    for key in found.keys() - {"schema", "name", "device"} - FIELDS.keys() - FIELDS[""].keys():
        report(f"file, {key}", "not known", "take it out")
    for section, fields in FIELDS.items():
        given = found.get(section, {}) if section else found
        where = f"[{section}]" if section else "file"
        if not isinstance(given, dict):
            report(where, "no section", f"write it as [{section}]")
            continue
        for key in given.keys() - fields.keys() if section else ():
            report(f"{where}, {key}", "not known", "take it out")
        for key, right in fields.items():
            if not _fits(given.get(key), right):
                report(f"{where}, {key}", f"{given[key]!r}" if key in given else "missing", f"give {right}")
    devices = _devices(found.get("device"), report)
    if not problems:
        _check_order(found, report)
    if problems:
        raise ConfigError(sorted(problems, key=str))
    sections = {section: found[section] for section in FIELDS if section}
    return Spec(name=str(name), devices=devices, **{key: found[key] for key in FIELDS[""]}, **sections)


def _fits(value: Any, right: str) -> bool:
    whole, least, most, closed = RANGES[right]
    if isinstance(value, bool) or not isinstance(value, int if whole is int else int | float):
        return False
    return isfinite(value) and (least <= value <= most if closed else least < value < most)


def _check_order(found: Mapping[str, Any], report: Any) -> None:
    for low, high in (("buses_min", "buses_max"), ("span_m_min", "span_m_max")):
        if found["feeder"][low] > found["feeder"][high]:
            report(f"[feeder], {low}", f"above {high}", "give the lower one first")
    if found["customers"]["power_factor"] < 0.5:
        report("[customers], power_factor", f"{found['customers']['power_factor']}", "give a number from 0.5 to 1")
    if found["stations"] > found["feeders"]:
        report("file, stations", "more than feeders", "give every station a feeder")


def _devices(found: Any, report: Any) -> tuple[Device, ...]:
    made: list[Device] = []
    for number, row in enumerate(found if isinstance(found, list) else [], 1):
        where = f"[[device]] {number}"
        if not isinstance(row, dict) or row.keys() != {"kind", "vendor", "profile", "weight"}:
            report(where, "other fields than these", "give kind, vendor, profile and weight")
        elif row["kind"] not in DER_KINDS or not _fits(row["weight"], ABOVE_0):
            report(where, "no such kind, or no weight", f"give one of {', '.join(sorted(DER_KINDS))} and a weight")
        else:
            made.append(Device(row["kind"], str(row["vendor"]), str(row["profile"]), float(row["weight"])))
    for kind in sorted({"pv", "battery", "ev-charger"} - {device.kind for device in made}):
        report("[[device]]", f"none of kind {kind}", "give one at the least")
    return tuple(made)

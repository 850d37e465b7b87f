"""Profiles from their YAML files, with every mistake at once: where it is, what is wrong, what would be right."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from derms.domain.telemetry import COLUMNS
from derms.errors import ConfigError, Problem
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Table
from drivers.profiles.checks import TEMPLATE, check
from drivers.profiles.control import Heartbeat, Per, RegisterControl, Switch
from drivers.profiles.point import Point, Text
from drivers.profiles.profile import Level, Measured, Nameplate, Profile, Proof, Reads, Speaks
from drivers.profiles.rules import NOTHING, Findings, Values
from drivers.profiles.schema import PROFILE
from drivers.profiles.yaml_tree import read_tree
from drivers.sunspec.quirks import SunSpecQuirks

FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Shelf:
    """The profiles of a folder, the template left out."""

    profiles: Mapping[str, Profile]
    """Those without mistakes, by id."""
    problems: Mapping[str, Sequence[Problem]]
    """Mistakes of the others, by the names of their files without .yaml."""


def packaged() -> Mapping[str, Profile]:
    """The profiles that come with the product, by id; those with mistakes are in `broken` instead."""
    return _packaged().profiles


def broken() -> Mapping[str, Sequence[Problem]]:
    """The mistakes of the packaged profiles that cannot be used, by name."""
    return _packaged().problems


@cache
def _packaged() -> Shelf:
    return read_profiles(FOLDER)


def load_profiles(folder: Path) -> Mapping[str, Profile]:
    """Every profile of a folder by id, the template left out; raises ConfigError with every mistake in any of them."""
    shelf = read_profiles(folder)
    if shelf.problems:
        raise ConfigError([problem for problems in shelf.problems.values() for problem in problems])
    return shelf.profiles


def read_profiles(folder: Path) -> Shelf:
    """Every profile of a folder; a mistake in one costs none of the others."""
    problems: dict[str, Sequence[Problem]] = {}
    profiles: dict[str, Profile] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == TEMPLATE:
            continue
        try:
            profile = load_profile(path)
        except ConfigError as error:
            problems[path.stem] = error.problems
        else:
            profiles[profile.id] = profile
    return Shelf(profiles, problems)


def load_profile(path: Path) -> Profile:
    """A profile from its file; raises ConfigError with every mistake in it."""
    tree = read_tree(path)
    found = Findings(path.name)
    values = PROFILE.read(tree, (), found)
    if values is not NOTHING:
        check(values, found, path.stem)
    if found.problems:
        raise ConfigError(sorted(found.problems, key=lambda problem: int(problem.where.removeprefix("line "))))
    return _profile(values)


def _profile(values: Values) -> Profile:
    link = LinkQuirks(**values.get("link", {}))
    sunspec = dict(values.get("sunspec", {}))
    sentinels = sunspec.pop("sentinels", {})
    if "bases" in sunspec:
        sunspec["bases"] = tuple(sunspec["bases"])
    identity, heartbeat = values.get("identity", {}), values.get("heartbeat")
    return Profile(
        id=values["profile"],
        title=values["title"],
        speaks=Speaks(values["speaks"]),
        kinds=frozenset(DeviceKind(kind) for kind in values["kinds"]),
        level=Level(values.get("level", Level.BRONZE)),
        unit=values.get("unit", 1),
        verified=values.get("verified", ""),
        link=link,
        sunspec=SunSpecQuirks(
            **sunspec,
            sentinels=tuple((kind, value) for kind, each in sorted(sentinels.items()) for value in each),
        ),
        nameplate=Nameplate(
            manufacturer=_text(identity.get("manufacturer", "")),
            model=_text(identity.get("model", "")),
            version=_text(identity.get("version", "")),
            serial=_serial(identity.get("serial")),
            proof=tuple(Proof(_point(proof), proof["equals"]) for proof in identity.get("proof", ())),
        ),
        ratings={
            name: _point(rating) if isinstance(rating, dict) else rating
            for name, rating in values.get("ratings", {}).items()
        },
        telemetry=tuple(
            _measured(name, values["telemetry"][name]) for name in COLUMNS if name in values.get("telemetry", {})
        ),
        reads=Reads(**values.get("reads", {}), count_max=link.registers_max),
        controls={Quantity(name): _control(control) for name, control in values.get("controls", {}).items()},
        heartbeat=_heartbeat(heartbeat) if heartbeat else None,
        settings={name: _point(point) for name, point in values.get("settings", {}).items()},
    )


def _point(values: Values, address: int | None = None) -> Point:
    return Point(
        address=values["address"] if address is None else address,
        type=values.get("type", "uint16"),
        order=values.get("order", "ABCD"),
        table=_registers(values),
        scale=values.get("scale", 1.0) * values.get("sign", 1),
        offset=values.get("offset", 0.0) * values.get("sign", 1) + 0.0,
        absent=tuple(values.get("absent", ())),
        codes=tuple(sorted(values.get("codes", {}).items())),
    )


def _registers(values: Values) -> Table:
    return Table.INPUT if values.get("table") == "input" else Table.HOLDING


def _text(value: Any) -> str | Text:
    if isinstance(value, str):
        return value
    return Text(value["address"], value["registers"], _registers(value))


def _serial(value: Any) -> Text | Point | None:
    if value is None:
        return None
    return Text(value["address"], value["registers"], _registers(value)) if "registers" in value else _point(value)


def _measured(column: str, values: Values) -> Measured:
    address = values["address"]
    addresses = address if isinstance(address, list) else [address]
    return Measured(column, tuple(_point(values, each) for each in addresses))


def _control(values: Values) -> RegisterControl:
    enable = values.get("enable")
    return RegisterControl(
        value=_point(values["value"]),
        per=Per(values.get("per", Per.WATT)),
        low=values.get("low", -math.inf),
        high=values.get("high", math.inf),
        whole_steps=values.get("whole_steps", False),
        held=_point(values["held"]) if "held" in values else None,
        enable=Switch(enable["address"], enable.get("on", 1), enable.get("off", 0)) if enable else None,
        enable_first=bool(enable and enable.get("first", False)),
        release=values.get("release"),
        timer=_point(values["timer"]) if "timer" in values else None,
        left=_point(values["left"]) if "left" in values else None,
    )


def _heartbeat(values: Values) -> Heartbeat:
    return Heartbeat(
        address=values["address"],
        first=values.get("first", 0),
        last=values.get("last", 0xFFFF),
        timeout_s=values.get("timeout_s", math.nan),
        echo=_point(values["echo"]) if "echo" in values else None,
    )

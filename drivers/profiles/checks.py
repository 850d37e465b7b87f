"""What no single value of a profile's file can tell: what has to be there, or may not be, beside what else."""

import math
import struct
from typing import Any

from derms.domain.der import DER_KINDS
from derms.domain.telemetry import is_phase
from drivers.profiles.point import TYPES
from drivers.profiles.profile import Speaks
from drivers.profiles.rules import NOTHING, Findings, Path, Values

TEMPLATE = "TEMPLATE.yaml"
"""The one file whose name is not its profile's."""


def check(values: Values, found: Findings, stem: str) -> None:
    """What no single value can tell: what has to be there, or may not be there, beside what else."""
    name, speaks = values.get("profile"), values.get("speaks")
    if name not in (None, NOTHING, stem) and f"{stem}.yaml" != TEMPLATE:
        found.wrong(("profile",), f"'{name}' in the file {stem}.yaml", "give both the same name")
    if speaks == Speaks.REGISTERS:
        if "telemetry" not in values:
            found.wrong(("telemetry",), "is missing", "add where p_w is measured, at least")
        elif _table(values, "telemetry") and "p_w" not in values["telemetry"] and "v_v" not in values["telemetry"]:
            found.wrong(("telemetry",), "has neither p_w nor v_v", "add where p_w is measured")
        if "sunspec" in values:
            found.wrong(("sunspec",), "in a map of registers", "leave it out, or let it speak sunspec")
    for key in ("telemetry", "identity"):
        if speaks == Speaks.SUNSPEC and key in values:
            found.wrong((key,), "in a device that speaks sunspec", "leave it out: its models say that")
    _check_meter(values, found)
    for column, point in _table(values, "telemetry").items():
        if point is not NOTHING:
            _check_measured(column, point, found)
    for quantity, control in _table(values, "controls").items():
        if control is not NOTHING:
            _check_control(("controls", quantity), control, found)
    for path, point in _points(values):
        _check_point(path, point, found)
    heartbeat = _table(values, "heartbeat")
    if heartbeat and not _number(heartbeat, "first", 0) <= _number(heartbeat, "last", 0xFFFF):
        found.wrong(("heartbeat", "last"), "is less than first", "count upwards")
    serial = _table(_table(values, "identity"), "serial")
    if serial and ("registers" in serial) == ("type" in serial):
        right = "give `registers` for a text, or `type` for a number"
        found.wrong(("identity", "serial"), "is neither a text nor a number", right)


def _table(values: Values, name: str) -> Values:
    """A table of the file; empty where it is missing or wrong."""
    table = values.get(name, NOTHING)
    return table if isinstance(table, dict) else {}


def _number(values: Values, name: str, otherwise: float) -> float:
    value = values.get(name, otherwise)
    return value if isinstance(value, int | float) else otherwise


def _check_meter(values: Values, found: Findings) -> None:
    kinds = values.get("kinds")
    if not isinstance(kinds, list) or NOTHING in kinds:
        return
    ders = {kind in DER_KINDS for kind in kinds}
    if len(ders) == 2:
        found.wrong(("kinds",), "both meters and DER", "make two profiles: they count power with opposite signs")
    elif ders == {False} and "controls" in values:
        found.wrong(("controls",), "in a meter", "leave it out: a meter takes no commands")


def _check_measured(column: str, point: Values, found: Findings) -> None:
    path = ("telemetry", column)
    address = point.get("address", NOTHING)
    if address is not NOTHING and isinstance(address, list) != (is_phase(column)):
        right = "give three addresses, for phases a, b, c" if is_phase(column) else "give one address"
        found.wrong((*path, "address"), f"{column} has {'three phases' if 'phase' in column else 'one value'}", right)
    if "codes" in point and TYPES.get(point.get("type", "uint16"), "H") in "fd":
        found.wrong((*path, "codes"), "of a number with a fraction", "give a whole-number type")


def _check_control(path: Path, control: Values, found: Findings) -> None:
    if ("enable" in control) == ("release" in control):
        wrong = "has both enable and release" if "enable" in control else "has neither enable nor release"
        found.wrong(path, wrong, "give the one register that hands control back")
    if _number(control, "low", -math.inf) > _number(control, "high", math.inf):
        found.wrong((*path, "low"), "is above high", "give low below high")
    for name in ("value", "timer", "left"):
        point = _table(control, name)
        if name != "left" and point.get("table") == "input":
            found.wrong((*path, name, "table"), "input registers cannot be written", "give holding")
        if point.get("offset") and name != "value":
            found.wrong((*path, name, "offset"), "of a time", "leave it out")
    timer = _table(control, "timer")
    if timer.get("sign") == -1:
        found.wrong((*path, "timer", "sign"), "of a time", "leave it out")


def _points(values: Values) -> list[tuple[Path, Values]]:
    """Every number in registers of the file, with its path."""
    found: list[tuple[Path, Any]] = []
    for section in ("telemetry", "ratings", "settings"):
        found.extend(((section, name), point) for name, point in _table(values, section).items())
    for quantity, control in _table(values, "controls").items():
        if isinstance(control, dict):
            parts = ("value", "held", "timer", "left")
            found.extend((("controls", quantity, name), control[name]) for name in parts if name in control)
    identity, heartbeat = _table(values, "identity"), _table(values, "heartbeat")
    found.append((("heartbeat", "echo"), heartbeat.get("echo")))
    proofs = identity.get("proof")
    for number, proof in enumerate(proofs if isinstance(proofs, list) else (), 1):
        found.append((("identity", "proof", str(number)), proof))
    return [(path, point) for path, point in found if isinstance(point, dict)]


def _check_point(path: Path, point: Values, found: Findings) -> None:
    """A point ends before the last register, and what is compared with it is a value it can have."""
    letter = TYPES.get(point.get("type", "uint16"), "H")
    size = struct.calcsize(">" + letter) // 2
    addresses = point.get("address", 0)
    for address in addresses if isinstance(addresses, list) else [addresses]:
        if isinstance(address, int) and address + size > 0x10000:
            found.wrong((*path, "address"), f"{size} registers from {address} end beyond 65535", "give its first one")
    if point.get("sign") == 0:
        found.wrong((*path, "sign"), "'0'", "give 1 or -1")
    absent = point.get("absent", [])
    compared = [("absent", value) for value in absent if value is not NOTHING] if isinstance(absent, list) else []
    compared += [("equals", point["equals"])] if isinstance(point.get("equals"), int) else []
    compared += [("codes", code) for code in _table(point, "codes") if code is not NOTHING]
    for key, value in compared:
        try:
            struct.pack(">" + letter, value)
        except (struct.error, OverflowError):
            found.wrong(
                (*path, key), f"{value} is no value of {point.get('type', 'uint16')}", "give the register value"
            )

"""A strict reading of SunSpec registers, written from the specification alone: what our decoding is held against.

It knows nothing of drivers/: offsets, types and units come from the JSON definitions that pysunspec2 carries, the
meaning of columns from `derms.domain.telemetry`. One point of one device at a time, in plain Python.
Source: SunSpec Device Information Model Specification 1.2, 4.2 (types), 4.4 (scale factors), 4.5 (not implemented).
"""

import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

SIGNED = {"int16", "int32", "int64", "sunssf"}
UNSIGNED = {
    *("uint16", "enum16", "bitfield16", "count"),
    *("uint32", "enum32", "bitfield32"),
    *("uint64", "bitfield64"),
}
COUNTING = {"acc16", "acc32", "acc64"}
"""Accumulators: 0 is `not implemented`."""
FLOATS = {"float32": ">f", "float64": ">d"}
NUMERIC = {*SIGNED, *UNSIGNED, *COUNTING, *FLOATS}
PERCENT = ("Pct", "%WHRtg")


@dataclass(frozen=True, slots=True)
class Defined:
    """A point as its model defines it."""

    name: str
    type: str
    at: int
    """Registers from the model's ID register."""
    size: int
    sf: str | int | None
    units: str


@cache
def points(model: int) -> Mapping[str, Defined]:
    """The points of a model without its repeating groups, by name with the path of their group (`PFWInj.PF`)."""
    text = (files("sunspec2") / "models" / "json" / f"model_{model}.json").read_text(encoding="utf8")
    return {point.name: point for point in _laid_out(json.loads(text)["group"])}


def _laid_out(group: Mapping[str, Any]) -> Iterator[Defined]:
    at = 0
    for path, raw in _raw(group, ""):
        yield Defined(path + raw["name"], raw["type"], at, raw["size"], raw.get("sf"), raw.get("units", ""))
        at += raw["size"]


def _raw(group: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for raw in group["points"]:
        yield path, raw
    for child in group.get("groups", []):
        if "count" not in child:
            yield from _raw(child, f"{path}{child['name']}.")


def size(model: int) -> int:
    """Registers of a model with ID and L, without its repeating groups."""
    return max(point.at + point.size for point in points(model).values())


def number(model: int, registers: bytes, name: str) -> float:
    """The value of a numeric point in its unit; NaN where there is none to be believed.

    `registers` are those that the device has of the model, from its ID on.
    """
    point = points(model)[name]
    count = _count(point, registers)
    if math.isnan(count):
        return math.nan
    return count * _scale(model, registers, point)


def _count(point: Defined, registers: bytes) -> float:
    data = registers[2 * point.at : 2 * (point.at + point.size)]
    if len(data) < 2 * point.size:
        return math.nan
    if point.type in FLOATS:
        (value,) = struct.unpack(FLOATS[point.type], data)
        return float(value) if math.isfinite(value) else math.nan
    bits = 8 * len(data)
    word = int.from_bytes(data, "big")
    if point.type in SIGNED:
        return math.nan if word == 1 << (bits - 1) else float(word - (word >> (bits - 1) << bits))
    if point.type in UNSIGNED:
        return math.nan if word == (1 << bits) - 1 else float(word)
    return math.nan if word == 0 else float(word)


def _scale(model: int, registers: bytes, point: Defined) -> float:
    if point.sf is None:
        return 1.0
    if isinstance(point.sf, int):
        return float(10.0**point.sf)
    exponent = _count(points(model)[point.sf], registers)
    return float(10.0**exponent) if -10 <= exponent <= 10 else math.nan


Column = tuple[float, ...]
"""One value, or one per phase."""
Models = Mapping[int, bytes]
"""Registers by model, as far as the device has them."""

METERS = (203, 213)
MEASURING = (701, 113, 103, *METERS, 802)
"""The first that is long enough measures; 802 where there is no other."""

FIRST_OF: Mapping[str, Mapping[int, Sequence[str]]] = {
    "p_w": {model: ["W"] for model in MEASURING},
    "q_var": {701: ["Var"], 113: ["VAr"], 103: ["VAr"], 203: ["VAR"], 213: ["VAR"]},
    "v_v": {701: ["LNV", "VL1", "LLV"], 113: ["PhVphA"], 103: ["PhVphA"], 203: ["PhV"], 213: ["PhV"]},
    "s_va": {model: ["VA"] for model in MEASURING[:-1]},
    "i_a": {model: ["A"] for model in MEASURING[:-1]},
    "f_hz": {model: ["Hz"] for model in MEASURING[:-1]},
    "pf": {model: ["PF"] for model in MEASURING[:-1]},
    "temp_c": {model: ["TmpCab", "TmpSnk", "TmpOt"] for model in (701, 113, 103)},
    "alarms": {701: ["Alrm"], 113: ["Evt1"], 103: ["Evt1"], 203: ["Evt"], 802: ["Evt1"]},
    "injected_wh": {701: ["TotWhInj"], 113: ["WH"], 103: ["WH"], 203: ["TotWhExp"], 213: ["TotWhExp"]},
    "absorbed_wh": {701: ["TotWhAbs"], 203: ["TotWhImp"], 213: ["TotWhImp"]},
}
"""Columns of the measuring model: the first of some points that is implemented. The events of 213 are not polled."""
STATES: Mapping[int, Sequence[str]] = {701: ["InvSt", "ConnSt"], 113: ["St"], 103: ["St"]}
PHASES = {"p_phase_w": "W", "q_phase_var": "VAR", "v_phase_v": "PhV"}


def columns(models: Models) -> Mapping[str, Column]:
    """What a device says, as `derms.domain.telemetry.COLUMNS` has it; NaN for what it does not say."""
    measuring = next((model for model in MEASURING if model in models and _measures(model, models[model])), 0)
    found: dict[str, Column] = {}
    for name, places in FIRST_OF.items():
        tried = (_shared(measuring, models, point) for point in places.get(measuring, ()))
        found[name] = (next((value for value in tried if not math.isnan(value)), math.nan),)
    for name, head in PHASES.items():
        there = measuring in METERS
        found[name] = tuple(_shared(measuring, models, f"{head}ph{p}") if there else math.nan for p in "ABC")
    found["state"] = (_state(measuring, models),)
    connected = _shared(701, models, "ConnSt")
    found["connected"] = (connected if connected in (0.0, 1.0) else math.nan,)
    who = (_shared(model, models, "LocRemCtl") for model in (715, 802))
    found["local"] = (next((each for each in who if each in (0.0, 1.0)), math.nan),)
    stored = (_shared(model, models, "SoC") for model in (713, 802) if model in models)
    found["soc_frac"] = (next(stored, math.nan),)
    return {**found, **_controls(models)}


def _measures(model: int, registers: bytes) -> bool:
    """Whether an instance is long enough for anything that a column is made of."""
    names = {name for places in (*FIRST_OF.values(), STATES) for name in places.get(model, ())}
    ends = [points(model)[name].at + points(model)[name].size for name in names]
    return 2 * min(ends) <= len(registers)


def _state(measuring: int, models: Models) -> float:
    """A code of 701 InvSt; that of 101-113 St is one more."""
    code = _shared(701, models, "InvSt") if measuring == 701 else _shared(measuring, models, "St") - 1.0
    return code if code in range(8) else math.nan


def _controls(models: Models) -> Mapping[str, Column]:
    """What 704 holds; its setpoint is in watts unless the mode says that another point is in force."""
    limited = _shared(704, models, "WMaxLimPctEna") == 1.0
    mode = _shared(704, models, "WSetMod")
    in_watts = _shared(704, models, "WSetEna") == 1.0 and mode != 0.0
    return {
        "p_limit_frac": (_shared(704, models, "WMaxLimPct") if limited else math.nan,),
        "limit_left_s": (_shared(704, models, "WMaxLimPctRvrtRem"),),
        "p_set_w": (_shared(704, models, "WSet") if in_watts else math.nan,),
        "setpoint_left_s": (_shared(704, models, "WSetRvrtRem"),),
    }


def _shared(model: int, models: Models, name: str) -> float:
    """A point of a model that the device may have; percent as a fraction."""
    if model not in models or name not in points(model):
        return math.nan
    value = number(model, models[model], name)
    return value / 100.0 if points(model)[name].units in PERCENT else value

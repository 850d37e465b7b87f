"""Decisions as bytes: a plan with all that it was made from, kept so exactly that it can be made again.

JSON in which every float is written to its last bit (NaN included), compressed by zlib; arrays, times, enumerations and
the domain's dataclasses carry their type.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

import numpy as np

from derms.domain.der import Device, DeviceKind, Endpoint, Fleet, Link, Transport
from derms.domain.dispatch import Dispatch
from derms.domain.forecast import Forecast
from derms.domain.grid import GridState, StateSummary, SwitchState, Topology
from derms.domain.plan import Plan, PlanSource
from derms.domain.quality import Quality
from derms.domain.telemetry import TelemetrySnapshot

COMPRESSION = 3
"""Of 0..9: beyond it sizes fall by a tenth and times double."""

_KNOWN: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Device,
        DeviceKind,
        Dispatch,
        Endpoint,
        Fleet,
        Forecast,
        GridState,
        Link,
        Plan,
        PlanSource,
        Quality,
        StateSummary,
        SwitchState,
        TelemetrySnapshot,
        Topology,
        Transport,
    )
}
"""The only types that stored bytes can bring to life, next to numbers, texts, lists, mappings, arrays and times."""


def pack(value: object) -> bytes:
    """The bytes of a value; TypeError for a type that is not known here."""
    return zlib.compress(json.dumps(_tag(value), separators=(",", ":")).encode(), COMPRESSION)


def unpack(data: bytes) -> Any:
    """The value of bytes that `pack` made; arrays equal bit by bit."""
    return json.loads(zlib.decompress(data), object_hook=_untag)


def _tag(value: object) -> Any:
    """A value as JSON knows it; what JSON does not know becomes {"is": type, "of": content}."""
    match value:
        case Enum():
            return {"is": _known_name(value), "of": value.value}
        case None | bool() | int() | float() | str():
            return value
        case np.ndarray() if value.dtype.kind in "fiub":
            return {"is": "array", "of": value.tolist(), "dtype": value.dtype.str, "shape": value.shape}
        case np.bool_() | np.integer() | np.floating():
            return value.item()
        case datetime():
            return {"is": "time", "of": value.isoformat()}
        case tuple():
            return {"is": "tuple", "of": [_tag(item) for item in value]}
        case list():
            return [_tag(item) for item in value]
        case Mapping():
            return {"is": "mapping", "of": [[_tag(key), _tag(item)] for key, item in value.items()]}
        case _ if is_dataclass(value):
            content = {field.name: _tag(getattr(value, field.name)) for field in fields(value) if field.init}
            return {"is": _known_name(value), "of": content}
    raise TypeError(f"cannot be stored with a decision: {type(value).__name__}")


def _known_name(value: object) -> str:
    name = type(value).__name__
    if _KNOWN.get(name) is not type(value):
        raise TypeError(f"cannot be stored with a decision: {name}")
    return name


def _untag(found: dict[str, Any]) -> Any:
    if "is" not in found:
        return found
    kind, content = found["is"], found["of"]
    match kind:
        case "array":
            return np.array(content, dtype=found["dtype"]).reshape(found["shape"])
        case "time":
            return datetime.fromisoformat(content)
        case "tuple":
            return tuple(content)
        case "mapping":
            return dict(content)
    known = _KNOWN[kind]
    return known(**content) if is_dataclass(known) else known(content)

"""Values between this process and a confined one, as bytes: a JSON text, then the raw numbers of its arrays.

A confined process is not believed. What it sends is data of the types listed here and nothing else (unlike pickle,
which runs what it is told to): every type, length and position of an array is checked before it is used.

A JSON list stands for a tuple; every other value that JSON lacks is an object of one key, its type.
"""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from math import prod
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from scipy.sparse import csc_array, csr_array

from derms import errors
from derms.domain import grid
from derms.domain.arrays import AnyArray
from derms.grid.engine import PowerFlow
from derms.grid.layout import FeederLayout
from derms.grid.network import Network

LENGTH = struct.Struct("<Q")
"""Length of a message [bytes], in front of it on the way."""
HEADER = struct.Struct("<I")
"""Length of the JSON text [bytes], in front of it."""
TEXT_MAX_BYTES = 16 << 20
"""A hundred thousand nodes have names of 6 MB."""
ERROR_MAX_CHARS = 10_000
DTYPES: Mapping[str, type] = {
    "float64": np.float64,
    "complex128": np.complex128,
    "int64": np.int64,
    "int32": np.int32,
    "uint8": np.uint8,
}
BOOL = "bool"
"""Sent as bytes: only 0 and 1 are truth values to numpy's own code."""
MATRICES: Mapping[str, type] = {"csc": csc_array, "csr": csr_array}
RECORDS: Mapping[str, type] = {
    record.__name__: record
    for record in (
        grid.FeederPackage,
        grid.SiteBinding,
        grid.DerBinding,
        grid.MeterBinding,
        grid.VoltageLimits,
        grid.SwitchBinding,
        grid.ControlBinding,
        grid.InvisiblePv,
        PowerFlow,
        FeederLayout,
        Network,
    )
}
"""Dataclasses, sent field by field in their order."""
CHOICES: Mapping[str, type[Enum]] = {choice.__name__: choice for choice in (grid.Between, grid.SwitchState)}
ERRORS: Mapping[str, type[errors.GridError]] = {
    error.__name__: error for error in (errors.GridError, errors.ModelError, errors.NotConverged)
}


def encode(value: Any) -> bytes:
    """A value as bytes; raises TypeError for a type that is not listed here."""
    parts: list[bytes] = []
    text = json.dumps(_plain(value, parts), separators=(",", ":")).encode()
    return b"".join([HEADER.pack(len(text)), text, *parts])


def decode(message: bytes | bytearray) -> Any:
    """The value of such bytes; raises ValueError for bytes that are none."""
    try:
        (length,) = HEADER.unpack_from(message)
        if length > TEXT_MAX_BYTES:
            raise ValueError(f"a text of {length} bytes")
        tree = json.loads(message[HEADER.size : HEADER.size + length])
        return _Reader(message, HEADER.size + length).value(tree)
    except (struct.error, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a message: {error}") from error


def fits(value: Any, hint: Any) -> bool:
    """Whether a decoded value is of an annotated type."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(fits(value, choice) for choice in arguments)
    if origin is np.ndarray:
        (dtype,) = get_args(arguments[1])
        return isinstance(value, np.ndarray) and value.dtype == dtype
    if origin is tuple:
        return isinstance(value, tuple) and all(fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, NoneType if hint is None else origin or hint)


@cache
def _hints(record: type) -> dict[str, Any]:
    return get_type_hints(record)


def _printable(text: str) -> str:
    """A text that a terminal only shows."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text[:ERROR_MAX_CHARS])


def _plain(value: Any, parts: list[bytes]) -> Any:
    match value:
        case Enum():
            return {type(value).__name__: value.value}
        case None | bool() | int() | float() | str():
            return value
        case np.generic():
            return _plain(value.item(), parts)
        case np.ndarray():
            parts.append(np.ascontiguousarray(value).tobytes())
            return {"array": [value.dtype.name, *value.shape]}
        case csc_array() | csr_array():
            columns = [_plain(column, parts) for column in (value.data, value.indices, value.indptr)]
            return {value.format: [list(value.shape), *columns]}
        case Path():
            return {"path": str(value)}
        case tuple():
            return [_plain(item, parts) for item in value]
        case frozenset():
            return {"set": [_plain(item, parts) for item in sorted(value)]}
        case Mapping():
            return {"map": [[key, _plain(item, parts)] for key, item in value.items()]}
        case errors.GridError():
            return {"error": [type(value).__name__, str(value)]}
    if not is_dataclass(value):
        raise TypeError(f"{type(value).__name__} is not sent between processes")
    return {type(value).__name__: [_plain(getattr(value, field.name), parts) for field in fields(value)]}


class _Reader:
    """Takes the arrays of a message in the order in which its text names them."""

    def __init__(self, message: bytes | bytearray, at: int) -> None:
        self._message = message
        self._at = at
        self._kinds: Mapping[str, Callable[[Any], Any]] = {
            "array": lambda body: self._array(*body),
            "map": lambda body: {str(key): self.value(item) for key, item in body},
            "set": lambda body: frozenset(str(item) for item in body),
            "path": Path,
            "error": lambda body: ERRORS[body[0]](_printable(body[1])),
        }

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return tuple(self.value(item) for item in tree)
        if not isinstance(tree, dict):
            return tree
        ((kind, body),) = tree.items()
        if kind in self._kinds:
            return self._kinds[kind](body)
        if kind in MATRICES:
            return self._matrix(MATRICES[kind], *body)
        if kind in CHOICES:
            return CHOICES[kind](body)
        return self._record(RECORDS[kind], body)

    def _array(self, dtype: str, *shape: int) -> AnyArray:
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"not a shape: {shape}")
        read = np.dtype(np.uint8 if dtype == BOOL else DTYPES[dtype])
        values = np.frombuffer(self._message, read, prod(shape), self._at).reshape(shape).copy()
        self._at += values.nbytes
        return np.asarray(values != 0) if dtype == BOOL else values

    def _matrix(self, form: type, shape: Any, *columns: Any) -> Any:
        data, indices, indptr = (self.value(column) for column in columns)
        if not all(isinstance(column, np.ndarray) for column in (data, indices, indptr)):
            raise ValueError("a matrix without its arrays")
        matrix = form((data, indices, indptr), shape=tuple(shape))
        matrix.check_format(full_check=True)  # scipy's own code goes where the positions say
        return matrix

    def _record(self, record: type, body: Any) -> Any:
        hints = _hints(record)
        values: dict[str, Any] = {
            field.name: self.value(item) for field, item in zip(fields(record), body, strict=True)
        }
        for name, value in values.items():
            if not fits(value, hints[name]):
                raise ValueError(f"{record.__name__}.{name} is not {hints[name]}")
        return record(**values)

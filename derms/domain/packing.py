"""Values as bytes and back, to the last bit: what is stored with decisions, and what travels between processes.

A record is a header (mark, version, check sum, lengths) and one zlib stream: a JSON text that says what there is, with
every float to its last bit, and behind it the bytes of all arrays. What JSON does not know carries its type. Arrays
that are equal are kept once; their bytes stand sorted by significance, which compresses better. The order of an
array's axes in memory is kept, since a sum of floats depends on it.
"""

import json
import struct
import zlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from derms.errors import RecordError

VERSION = 2
"""Version 1 was compressed JSON without a header."""
RAW_MAX_BYTES = 1 << 30
"""A record that claims to be larger, unpacked, is damaged."""

_MARK = b"DERM"
_HEADER = struct.Struct(">4sBIIQ")
"""Mark, version, CRC-32 of all that follows, length of the JSON text, length of text and arrays."""
_LENGTHS = struct.Struct(">IQ")
_KINDS = "fiub"
"""Of what an array may be: floats, integers with and without sign, flags."""
_FIRST_OF_ZLIB = b"\x78"


class _Arrays:
    """The bytes of arrays, each content once, with its place behind the text."""

    def __init__(self) -> None:
        self.places: dict[bytes, int] = {}
        self.size = 0

    def place(self, array: NDArray[Any]) -> int:
        """Where the bytes of an array stand, which is in C order."""
        content = array.view(np.uint8).reshape(-1, array.dtype.itemsize).T.tobytes() if array.size else b""
        found = self.places.setdefault(content, self.size)
        if found == self.size:
            self.size += len(content)
        return found


class Packer:
    """Packs values of the types that it knows, next to numbers, texts, lists, mappings, arrays and times.

    Parameters
    ----------
    types : Mapping[str, tuple[str, ...]]
        The only types that bytes can bring to life, by the module that has them; it is loaded when a record holds one.
    compression : int
        Of zlib, 0..9: beyond 3 sizes fall by a few per cent and times double.
    """

    def __init__(self, types: Mapping[str, tuple[str, ...]], *, compression: int = 3) -> None:
        self._modules = {name: module for module, names in types.items() for name in names}
        self._compression = compression
        self._found: dict[str, Any] = {}

    def pack(self, value: object) -> bytes:
        """The bytes of a value; TypeError for a type that is not known here."""
        arrays = _Arrays()
        text = json.dumps(self._tag(value, arrays), separators=(",", ":")).encode()
        lengths = _LENGTHS.pack(len(text), len(text) + arrays.size)
        body = zlib.compress(b"".join([text, *arrays.places]), self._compression)
        return _HEADER.pack(_MARK, VERSION, zlib.crc32(lengths + body), *_LENGTHS.unpack(lengths)) + body

    def unpack(self, data: bytes) -> Any:
        """The value of bytes that `pack` made; arrays equal bit by bit.

        Raises
        ------
        RecordError
            The bytes are damaged, of a version that is not known here, or hold what is not.
        """
        text, arrays = _opened(data)
        try:
            return json.loads(text, object_hook=lambda found: self._untag(found, arrays))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RecordError(f"a record holds what this version of the product does not know: {error}") from error

    def _tag(self, value: object, arrays: _Arrays) -> Any:
        """A value as JSON knows it; what JSON does not know becomes {"is": type, "of": content}."""
        match value:
            case Enum():
                return {"is": self._name(value), "of": value.value}
            case None | bool() | int() | float() | str():
                return value
            case np.ndarray() if value.dtype.kind in _KINDS:
                return _tag_array(value, arrays)
            case csr_array():
                parts = [self._tag(part, arrays) for part in (value.data, value.indices, value.indptr)]
                return {"is": "sparse", "of": parts, "shape": value.shape}
            case np.bool_() | np.integer() | np.floating():
                return value.item()
            case datetime():
                return {"is": "time", "of": value.isoformat()}
            case tuple():
                return {"is": "tuple", "of": [self._tag(item, arrays) for item in value]}
            case list():
                return [self._tag(item, arrays) for item in value]
            case Mapping():
                return {
                    "is": "mapping",
                    "of": [[self._tag(key, arrays), self._tag(item, arrays)] for key, item in value.items()],
                }
            case _ if is_dataclass(value):
                content = {
                    field.name: self._tag(getattr(value, field.name), arrays) for field in fields(value) if field.init
                }
                return {"is": self._name(value), "of": content}
        raise TypeError(f"cannot be packed: {type(value).__name__}")

    def _name(self, value: object) -> str:
        kind = type(value)
        if self._modules.get(kind.__name__) != kind.__module__:
            raise TypeError(f"cannot be packed: {kind.__name__}")
        return kind.__name__

    def _known(self, name: str) -> Any:
        if name not in self._found:
            self._found[name] = getattr(import_module(self._modules[name]), name)
        return self._found[name]

    def _untag(self, found: dict[str, Any], arrays: memoryview) -> Any:
        if "is" not in found:
            return found
        if found["is"] == "array":
            return _untag_array(found, arrays)
        kind, content = found["is"], found["of"]
        match kind:
            case "sparse":
                matrix = csr_array(tuple(content), shape=tuple(found["shape"]))
                _, matrix.indices, matrix.indptr = content
                return matrix
            case "time":
                return datetime.fromisoformat(content)
            case "tuple":
                return tuple(content)
            case "mapping":
                return dict(content)
        known = self._known(kind)
        return known(**content) if isinstance(content, dict) else known(content)


def _opened(data: bytes) -> tuple[bytes, memoryview]:
    """The JSON text of a record, and the bytes of its arrays."""
    if data[:1] == _FIRST_OF_ZLIB:
        raise RecordError("a record is of version 1, whose plans this product cannot read any more")
    if len(data) < _HEADER.size or not data.startswith(_MARK):
        raise RecordError("a record is damaged: it does not begin like one")
    _, version, crc, text_length, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise RecordError(
            f"a record is of version {version}, and this product knows version {VERSION}: use a newer one"
        )
    body = data[_HEADER.size :]
    if zlib.crc32(_LENGTHS.pack(text_length, length) + body) != crc or length > RAW_MAX_BYTES:
        raise RecordError("a record is damaged: its check sum does not fit")
    raw = _inflated(body, length)
    return raw[:text_length], memoryview(raw)[text_length:]


def _inflated(data: bytes, most: int) -> bytes:
    try:
        inflater = zlib.decompressobj()
        raw = inflater.decompress(data, most)
    except zlib.error as error:
        raise RecordError(f"a record is damaged: {error}") from error
    if not inflater.eof:
        raise RecordError("a record is damaged: it ends too early, or does not end")
    return raw


def _tag_array(array: NDArray[Any], arrays: _Arrays) -> dict[str, object]:
    axes = sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))
    in_memory = np.ascontiguousarray(array.transpose(axes))
    return {
        "is": "array",
        "at": arrays.place(in_memory.reshape(-1)),
        "dtype": array.dtype.str,
        "shape": in_memory.shape if array.ndim else (),
        "axes": axes,
    }


def _untag_array(found: Mapping[str, Any], arrays: memoryview) -> NDArray[Any]:
    dtype = np.dtype(found["dtype"])
    if dtype.kind not in _KINDS:
        raise ValueError(f"an array of {dtype}")
    count = int(np.prod(found["shape"], dtype=np.int64))
    by_byte = np.frombuffer(arrays, np.uint8, count * dtype.itemsize, found["at"]).reshape(dtype.itemsize, count)
    in_memory = np.ascontiguousarray(by_byte.T).view(dtype).reshape(found["shape"])
    array: NDArray[Any] = in_memory.transpose(np.argsort(found["axes"]))
    return array

"""Values that a decision was made from survive as bytes, and nothing else comes to life from bytes."""

import json
import zlib
from dataclasses import dataclass, is_dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from importlib import import_module

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.sparse import csr_array

from derms.domain import packing
from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import Dispatch
from derms.domain.grid import GridState
from derms.domain.quality import Quality
from derms.errors import RecordError
from derms.historian import replay
from derms.historian.replay import pack, unpack

AT = datetime(2026, 4, 15, 7, 0, 0, 1, tzinfo=UTC)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=3, max_side=6, min_side=0), elements=st.floats(width=64)))
def test_every_bit_of_every_array_survives(array: FloatArray) -> None:
    again = unpack(pack(array))
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    assert again.tobytes() == array.tobytes()


def test_a_nan_keeps_even_what_nobody_sees_of_it() -> None:
    bits = np.array([0x7FF8_0000_0000_0001, 0xFFF8_0000_DEAD_BEEF, 0x8000_0000_0000_0000], dtype=np.uint64)
    assert list(unpack(pack(bits.view(np.float64))).view(np.uint64)) == list(bits)


@given(st.permutations([0, 1, 2]), st.integers(1, 3), st.integers(0, 100))
def test_sums_over_an_array_that_comes_back_are_the_same_to_the_last_bit(
    axes: list[int], every: int, seed: int
) -> None:
    """They depend on the order of the axes in memory, which a transposed or cut array does not have from its shape."""
    array = np.random.default_rng(seed).standard_normal((7, 150, 11)).transpose(axes)[:, ::every]
    again = unpack(pack(array))
    for axis in range(3):
        assert again.sum(axis=axis).tobytes() == array.sum(axis=axis).tobytes()


@pytest.mark.parametrize(
    "value",
    [
        (1, 2.5, "Ω", None, True, [1, [2]], ()),
        {"a": {"is": "array"}, "is": "time", 3: (1,)},
        AT,
        AT.astimezone(timezone(timedelta(hours=-7))),
        Quality.STALE,
        DeviceKind.PV,
        Endpoint("h", 502, 3),
        Fleet((Device(id="a", kind=DeviceKind.PV, driver="d", endpoint=Endpoint("h", 1), bus="b"),)),
        float("inf"),
    ],
)
def test_values_come_back_equal_and_of_the_same_type(value: object) -> None:
    again = unpack(pack(value))
    assert again == value
    assert type(again) is type(value)


def test_arrays_of_flags_rows_and_qualities_keep_their_type() -> None:
    for array in (np.array([True, False]), np.array([3, 1], dtype=np.intp), np.array([5, 0], dtype=np.uint8)):
        again = unpack(pack(array))
        assert again.dtype == array.dtype
        np.testing.assert_array_equal(again, array)


def test_an_array_can_be_read_on_though_the_record_is_gone() -> None:
    again = unpack(pack(np.arange(3.0)))
    again[0] = 7.0
    assert list(again) == [7.0, 1.0, 2.0]


def test_a_sparse_matrix_keeps_the_order_and_the_type_of_what_is_in_it() -> None:
    matrix = csr_array((np.array([2.0, np.nan, 0.0]), np.array([2, 0, 1]), np.array([0, 2, 2, 3])), shape=(3, 4))
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    again = unpack(pack(matrix))
    assert (type(again), again.shape) == (csr_array, (3, 4))
    for part in ("data", "indices", "indptr"):
        assert getattr(again, part).dtype == getattr(matrix, part).dtype
        assert getattr(again, part).tobytes() == getattr(matrix, part).tobytes()


def test_what_is_the_same_is_kept_once() -> None:
    column = np.random.default_rng(1).standard_normal(10_000)
    assert len(pack([column, column.copy(), (column.copy(),)])) < 1.1 * len(pack(column))


def test_grid_state_and_dispatch_come_back_whole() -> None:
    v = np.array([1.01, np.nan])
    grid = GridState("ieee123", AT, v, ("1.1", "1.2"), v, v, v, v, v, float("nan"), Quality.SUSPECT, 3)
    dispatch = Dispatch(7, AT, 12.5, v, np.full((2, 2), np.nan), np.ones((2, 2)))
    for value in (grid, dispatch):
        again = unpack(pack(value))
        assert type(again) is type(value)
        np.testing.assert_equal(vars(again), vars(value))
    assert unpack(pack(grid)).quality is Quality.SUSPECT


def test_a_type_that_could_not_be_read_back_is_refused_when_it_is_packed() -> None:
    @dataclass
    class Stranger:
        x: int = 1

    for value in (Stranger(), 1j, np.array([1j]), np.array([object()]), AT.tzinfo, {"deep": [Stranger()]}):
        with pytest.raises(TypeError, match="cannot be packed"):
            pack(value)


def test_a_stranger_with_the_name_of_a_known_type_is_refused() -> None:
    impostor = type("Forecast", (), {})()
    with pytest.raises(TypeError, match="cannot be packed: Forecast"):
        pack(impostor)


def test_every_type_of_the_table_is_there_and_made_of_fields() -> None:
    for module, names in replay._TYPES.items():
        for name in names:
            kind = getattr(import_module(module), name)
            assert is_dataclass(kind) or issubclass(kind, Enum)
            assert kind.__module__ == module


def written(text: object) -> bytes:
    """A record whose text another version might have written."""
    raw = json.dumps(text).encode()
    lengths, body = packing._LENGTHS.pack(len(raw), len(raw)), zlib.compress(raw)
    header = (packing._MARK, packing.VERSION, zlib.crc32(lengths + body), len(raw), len(raw))
    return packing._HEADER.pack(*header) + body


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ({"is": "Path", "of": "/etc"}, "Path"),
        ({"is": "Endpoint", "of": {"host": "h", "colour": 3}}, "colour"),
        ({"is": "array", "at": 0, "dtype": "O", "shape": [2], "axes": [0]}, "object"),
        ({"is": "array", "at": 1 << 40, "dtype": "<f8", "shape": [2], "axes": [0]}, "buffer"),
        ({"is": "time", "of": 3}, "fromisoformat"),
        ({"is": "Quality", "of": 77}, "77"),
        ({"is": "tuple"}, "of"),
    ],
)
def test_what_is_not_known_here_comes_to_no_life_and_is_told(text: object, unknown: str) -> None:
    with pytest.raises(RecordError, match=f"this version of the product does not know: .*{unknown}"):
        unpack(written(text))


def test_a_record_of_the_first_version_says_so() -> None:
    with pytest.raises(RecordError, match="of version 1, whose plans this product cannot read any more"):
        unpack(zlib.compress(b"[1]"))


@given(st.data())
def test_a_record_with_any_bit_changed_or_any_end_missing_is_damaged(data: st.DataObject) -> None:
    record = pack([np.arange(50.0), "words", Quality.GOOD])
    place = data.draw(st.integers(0, len(record) - 1))
    changed = bytearray(record)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(changed), record[:place], record + b"x"):
        with pytest.raises(RecordError, match=r"is damaged|is of version"):
            unpack(damaged)


def test_a_record_of_a_newer_version_says_so() -> None:
    record = bytearray(pack(1))
    record[4] = 9
    with pytest.raises(RecordError, match="version 9, and this product knows version 2: use a newer one"):
        unpack(bytes(record))

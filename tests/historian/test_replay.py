"""Values that a decision was made from survive as bytes, and nothing else comes to life from bytes."""

import json
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from derms.domain.arrays import FloatArray
from derms.domain.der import Device, DeviceKind, Endpoint, Fleet
from derms.domain.dispatch import Dispatch
from derms.domain.grid import GridState
from derms.domain.quality import Quality
from derms.historian.replay import pack, unpack

AT = datetime(2026, 4, 15, 7, 0, 0, 1, tzinfo=UTC)


@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=6, min_side=0), elements=st.floats(width=64)))
def test_every_float_of_every_array_survives(array: FloatArray) -> None:
    again = unpack(pack(array))
    assert (again.dtype, again.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(again, array)
    np.testing.assert_array_equal(np.signbit(again[~np.isnan(again)]), np.signbit(array[~np.isnan(array)]))


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
        with pytest.raises(TypeError, match="cannot be stored with a decision"):
            pack(value)


def test_bytes_cannot_name_a_type_that_is_not_known() -> None:
    data = zlib.compress(json.dumps({"is": "Path", "of": "/etc"}).encode())
    with pytest.raises(KeyError, match="Path"):
        unpack(data)

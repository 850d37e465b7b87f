"""Values across the border of a confined process: they come back as they were, and nothing else comes in."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csc_array

from derms.domain.arrays import AnyArray
from derms.errors import GridError, ModelError
from derms.grid.engine import PowerFlow
from derms.grid.wire import DTYPES, HEADER, decode, encode
from feeders.catalog import load
from tests.grid.village import village

FLOW = PowerFlow(np.ones(3, complex), np.ones(3), np.zeros(3), np.zeros(3), 4)
MATRIX = csc_array(np.array([[1.0 + 2.0j, 0.0], [0.0, 3.0]]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.builds(Path, st.just("a/b.dss")),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.dictionaries(st.text(), inner, max_size=3),
)


def message(tree: Any, raw: bytes = b"") -> bytes:
    text = json.dumps(tree).encode()
    return HEADER.pack(len(text)) + text + raw


def arrays(*columns: AnyArray) -> bytes:
    return b"".join(column.tobytes() for column in columns)


@given(VALUES)
def test_values_come_back_as_they_were(value: Any) -> None:
    assert repr(decode(encode(value))) == repr(value)


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0), (3, 2)])
def test_arrays_come_back_writable_with_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    sent = np.array(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype=dtype)
    came = decode(encode(("first", np.ones(1, np.uint8), sent)))[2]
    assert (came.dtype, came.shape) == (sent.dtype, sent.shape)
    assert np.array_equal(came, sent)
    assert came.flags.writeable


@pytest.mark.parametrize("feeder", ["ieee13", "ieee37", "ieee123"])
def test_packaged_feeders_come_back_whole(feeder: str) -> None:
    package = load(feeder)
    assert decode(encode(package)) == package


def test_feeder_of_a_folder_a_solution_a_matrix_and_an_error_come_back(tmp_path: Path) -> None:
    package = village(tmp_path)
    came = decode(encode((package, FLOW, MATRIX, ModelError("village: no bus"))))
    assert came[0] == package
    assert np.array_equal(came[1].v_v, FLOW.v_v)
    assert np.array_equal(came[2].toarray(), MATRIX.toarray())
    assert (type(came[3]), str(came[3])) == (ModelError, "village: no bus")


def test_other_types_are_not_sent() -> None:
    with pytest.raises(TypeError, match="object is not sent"):
        encode((1, object()))


@pytest.mark.parametrize(
    "nonsense",
    [
        b"",
        HEADER.pack(1 << 31),
        HEADER.pack(2) + b"{}",
        HEADER.pack(200_000) + b"[" * 200_000,
        message({"os.system": ["true"]}),
        message({"array": ["object", 1]}, bytes(8)),
        message({"array": ["float64", -1]}, bytes(8)),
        message({"array": ["float64", True]}, bytes(8)),
        message({"array": ["float64", 1 << 62, 1 << 62]}, bytes(8)),
        message({"array": ["float64", 2]}, bytes(8)),
        message({"error": ["SystemExit", "gone"]}),
        message({"error": []}),
        message({"error": ["GridError", 7]}),
        message({"SwitchState": 9}),
        message({"PowerFlow": [1, 2]}),
        message({"PowerFlow": [None] * 6}),
        message({"PowerFlow": "abcdef"}),
    ],
)
def test_bytes_that_are_no_message_are_a_value_error(nonsense: bytes) -> None:
    with pytest.raises(ValueError):
        decode(nonsense)


@pytest.mark.parametrize(
    ("indices", "indptr"),
    [([0, 7], [0, 1, 2]), ([0, -1], [0, 1, 2]), ([0, 1], [0, 9, 2]), ([0, 1], [0, 1, 900]), ([0, 1], [0, 2])],
)
def test_matrix_whose_positions_lead_outside_is_a_value_error(indices: list[int], indptr: list[int]) -> None:
    data, rows, starts = np.ones(2), np.array(indices, np.int32), np.array(indptr, np.int32)
    columns = [{"array": [column.dtype.name, len(column)]} for column in (data, rows, starts)]
    with pytest.raises(ValueError):
        decode(message({"csc": [[2, 2], *columns]}, arrays(data, rows, starts)))


def test_truth_values_are_nothing_but_true_and_false() -> None:
    came = decode(message({"array": ["bool", 3]}, bytes([0, 1, 7])))
    assert came.view(np.uint8).tolist() == [0, 1, 1]


def test_error_text_cannot_command_a_terminal() -> None:
    assert str(decode(encode(GridError("line\x1b[2J\nnext")))) == "line?[2J\nnext"


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_flipped_byte_is_another_value_or_a_value_error(at: int, byte: int) -> None:
    damaged = bytearray(encode((30.0, FLOW, MATRIX, {"reg": 3})))
    damaged[at % len(damaged)] = byte
    with suppress(ValueError):
        decode(damaged)

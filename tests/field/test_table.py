"""The table of latest values: whole in every reader, whoever writes, dies or leaves."""

import multiprocessing
import subprocess
import sys
import time
from multiprocessing.synchronize import Event

import numpy as np
import pytest

from derms.domain.arrays import FloatArray, IntArray
from derms.domain.quality import Quality
from derms.domain.telemetry import COLUMNS, is_phase
from derms.field.table import SHARED, TelemetryTable


def filled(rows: IntArray, value: float) -> dict[str, FloatArray]:
    return {name: np.full((len(rows), 3) if is_phase(name) else len(rows), value) for name in COLUMNS}


def write(table: TelemetryTable, writer: int, rows: IntArray, value: float) -> None:
    table.write(
        writer, rows, filled(rows, value), np.full(len(rows), Quality.GOOD, np.uint8), np.full(len(rows), value)
    )


def test_a_new_table_holds_nothing_and_says_so() -> None:
    values = TelemetryTable.local(3).read()
    assert (values.quality == Quality.MISSING).all()
    assert (values.time_s == -np.inf).all()
    assert set(values.columns) == set(COLUMNS)
    for name, column in values.columns.items():
        assert column.shape == ((3, 3) if is_phase(name) else (3,))
        assert np.isnan(column).all()


def test_rows_keep_what_was_written_to_them_and_nothing_else() -> None:
    table = TelemetryTable.local(5)
    write(table, 0, np.array([1, 3]), 7.0)
    values = table.read()
    for column in values.columns.values():
        np.testing.assert_array_equal(column.reshape(5, -1)[:, 0], [np.nan, 7.0, np.nan, 7.0, np.nan])
    assert values.quality.tolist() == [5, 0, 5, 0, 5]
    assert values.time_s[3] == 7.0


def test_what_was_read_does_not_change_any_more() -> None:
    table = TelemetryTable.local(2)
    before = table.read()
    write(table, 0, np.arange(2), 1.0)
    assert np.isnan(before.columns["p_w"]).all()


def test_a_process_that_attaches_sees_the_same_and_takes_nothing_away_when_it_ends() -> None:
    table = TelemetryTable.shared(2, 1)
    try:
        write(table, 0, np.arange(2), 42.0)
        code = (
            "import sys; from derms.field.table import TelemetryTable as T\n"
            "t = T.attach(sys.argv[1]); print(t.read().columns['p_w'].tolist()); t.close()"
        )
        ended = subprocess.run([sys.executable, "-c", code, table.name], capture_output=True, text=True, check=True)
        assert (ended.stdout, ended.stderr) == ("[42.0, 42.0]\n", "")
        assert (SHARED / table.name).exists()
        assert table.read().columns["p_w"].tolist() == [42.0, 42.0]
    finally:
        name = table.name
        table.unlink()
    assert not (SHARED / name).exists()
    with pytest.raises(FileNotFoundError):
        TelemetryTable.attach(name)


def test_a_reader_that_has_attached_outlives_the_table() -> None:
    table = TelemetryTable.shared(2, 1)
    reader = TelemetryTable.attach(table.name)
    write(table, 0, np.arange(2), 3.0)
    table.unlink()
    assert reader.read().columns["p_w"].tolist() == [3.0, 3.0]
    reader.close()


def test_something_else_is_not_taken_for_a_table() -> None:
    (SHARED / "not-a-telemetry-table").write_bytes(bytes(4096))
    try:
        with pytest.raises(ValueError, match="not a telemetry table"):
            TelemetryTable.attach("not-a-telemetry-table")
    finally:
        (SHARED / "not-a-telemetry-table").unlink()


def scribble(name: str, stop: Event) -> None:
    """Process: write rows of equal values, over and over."""
    table, rows, value = TelemetryTable.attach(name), np.arange(2000), 0.0
    table.claim(1, rows)
    while not stop.is_set():
        value += 1.0
        write(table, 1, rows, value)


def test_no_reader_ever_keeps_half_of_a_write() -> None:
    context = multiprocessing.get_context("spawn")
    table, stop = TelemetryTable.shared(2000, 2), context.Event()
    writer = context.Process(target=scribble, args=(table.name, stop))
    writer.start()
    try:
        seen: set[float] = set()
        until_s = time.monotonic() + 20.0
        while len(seen) < 200 and time.monotonic() < until_s:
            values = table.read()
            if values.quality[0] == Quality.GOOD:
                told = {float(column.min()) for column in values.columns.values()}
                told |= {float(column.max()) for column in values.columns.values()} | {float(values.time_s[0])}
                assert len(told) == 1
                seen |= told
        assert len(seen) >= 200
    finally:
        stop.set()
        writer.join()
        table.unlink()


def test_rows_of_a_writer_that_died_in_the_middle_are_missing_until_another_takes_them_over() -> None:
    table = TelemetryTable.local(3)
    write(table, 0, np.arange(3), 1.0)

    class Dies(dict[str, FloatArray]):
        def __getitem__(self, name: str) -> FloatArray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.write(0, np.arange(3), Dies(), np.zeros(3, np.uint8), np.zeros(3))
    assert (table.read().quality == Quality.MISSING).all()
    table.claim(0, [0, 1, 2])
    assert (table.read().quality == Quality.GOOD).all()

"""Register images: columns of a bank, and which writes a device takes."""

import struct

import numpy as np
import pytest

from drivers.sunspec.models import layout
from hil.registers import ILLEGAL_ADDRESS, ILLEGAL_VALUE, Bank

LIMIT_OFFSET = 14


@pytest.fixture
def bank() -> Bank:
    bank = Bank(3, [layout(1), layout(701), layout(704)], {"701.W_SF": 1, "704.WMaxLimPct_SF": -2})
    for name in ("Ena", "", "Rvrt", "EnaRvrt", "RvrtTms"):
        bank.put(f"704.WMaxLimPct{name}", 0)
    return bank


def test_values_are_scaled_rounded_and_read_back_per_device(bank: Bank) -> None:
    bank.put("701.W", np.array([12_344.0, -50_000.0, 4.0]))
    np.testing.assert_array_equal(bank.get("701.W"), [12_340.0, -50_000.0, 0.0])
    at = 2 * (bank.start[701] + 10)
    assert bytes(bank.row(1)[at : at + 2]) == struct.pack(">h", -5000)


def test_missing_is_the_sentinel_and_never_zero(bank: Bank) -> None:
    bank.put("701.W", np.array([np.nan, 10.0, np.nan]))
    np.testing.assert_array_equal(bank["701.W"].raw, [-0x8000, 1, -0x8000])
    np.testing.assert_array_equal(bank.get("701.W"), [np.nan, 10.0, np.nan])


def test_what_does_not_fit_the_type_is_clipped_beside_the_sentinel(bank: Bank) -> None:
    bank.put("701.W", np.array([1e9, -1e9, 0.0]))
    np.testing.assert_array_equal(bank["701.W"].raw, [0x7FFF, -0x7FFF, 0])
    bank.put("701.LNV", 1e9)
    np.testing.assert_array_equal(bank["701.LNV"].raw, [0xFFFE] * 3)


def test_a_bank_starts_as_a_chain_of_models_with_nothing_implemented(bank: Bank) -> None:
    row = bytes(bank.row(0))
    assert row[:8] == b"SunS" + struct.pack(">HH", 1, 66)
    assert row[-4:] == b"\xff\xff\x00\x00"
    assert np.isnan(bank.get("701.Var")).all()


@pytest.mark.parametrize(
    ("offset", "data", "code"),
    [
        pytest.param(LIMIT_OFFSET, struct.pack(">HHHHI", 1, 5000, 0, 0, 900), 0, id="a whole block"),
        pytest.param(LIMIT_OFFSET + 1, b"\x00\x01", 0, id="one point"),
        pytest.param(LIMIT_OFFSET + 6, bytes(4), ILLEGAL_ADDRESS, id="a read-only point"),
        pytest.param(LIMIT_OFFSET + 4, bytes(8), ILLEGAL_ADDRESS, id="a read-only point behind a writable one"),
        pytest.param(LIMIT_OFFSET + 4, bytes(2), ILLEGAL_ADDRESS, id="half of a point"),
        pytest.param(LIMIT_OFFSET + 3, bytes(4), ILLEGAL_ADDRESS, id="a point and half of the next"),
        pytest.param(22, b"\x00\x01", ILLEGAL_ADDRESS, id="a point that is not implemented"),
        pytest.param(22, b"\xff\xff", 0, id="a point not implemented, written back as it is"),
        pytest.param(LIMIT_OFFSET, b"\xff\xff", ILLEGAL_VALUE, id="not implemented, to a point that is"),
        pytest.param(5000, bytes(2), ILLEGAL_ADDRESS, id="beyond the models"),
    ],
)
def test_a_write_is_taken_whole_or_refused(bank: Bank, offset: int, data: bytes, code: int) -> None:
    assert bank.refusal(2, bank.start[704] + offset, data) == code


def test_a_stored_write_changes_one_device(bank: Bank) -> None:
    bank.store(1, bank.start[704] + LIMIT_OFFSET + 1, struct.pack(">H", 4250))
    np.testing.assert_array_equal(bank.get("704.WMaxLimPct"), [0.0, 42.5, 0.0])

"""Certificates: what is kept can be read again, and what is missing, old or of another device counts for nothing."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from derms.domain.certificate import (
    VALID_FOR,
    CaseResult,
    CaseState,
    Certificate,
    ReversionClass,
    Standing,
    assumed_reversion,
    standing,
)
from derms.domain.dispatch import Capabilities
from derms.domain.telemetry import Identity
from derms.errors import ConfigError
from derms.service.certificates import read_certificates

ISSUED = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CERTIFICATE = Certificate(
    manufacturer="Acme",
    model="Box",
    version="1.0",
    serial="SN-7",
    fingerprint="0123456789abcdef",
    issued_at=ISSUED,
    reversion=ReversionClass.A,
    reversion_s=10.2,
    tool="derms 0.1.0",
    cases=(CaseResult("DEV-1", "General discovery", CaseState.PASSED, "base 40000", 0.1),),
)


def identity(version: str = "1.0", serial: str = "SN-7") -> Identity:
    return Identity("Acme", "Box", version, serial, 5000.0, 5000.0, math.nan, 240.0, Capabilities())


def test_a_certificate_reads_back_as_it_was_kept() -> None:
    assert Certificate.from_json(CERTIFICATE.to_json()) == CERTIFICATE


def test_a_class_without_a_time_reads_back_without_one() -> None:
    text = CERTIFICATE.to_json().replace("10.2", "null")
    assert math.isnan(Certificate.from_json(text).reversion_s)


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 5000, CERTIFICATE.to_json().replace('"A"', '"Z"')])
def test_what_is_no_certificate_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Certificate.from_json(text)


@pytest.mark.parametrize(
    ("certificate", "found", "now", "due"),
    [
        (CERTIFICATE, identity(), ISSUED, Standing.VALID),
        (None, identity(), ISSUED, Standing.MISSING),
        (CERTIFICATE, identity(), ISSUED + VALID_FOR + timedelta(days=1), Standing.EXPIRED),
        (CERTIFICATE, identity(version="1.1"), ISSUED, Standing.MISMATCHED),
        (CERTIFICATE, identity(serial="SN-8"), ISSUED, Standing.MISMATCHED),
    ],
)
def test_only_a_fresh_certificate_of_the_same_device_and_firmware_counts(
    certificate: Certificate | None, found: Identity, now: datetime, due: Standing
) -> None:
    assert standing(certificate, found, now) is due
    proven = (ReversionClass.A, 10.2) if due is Standing.VALID else (ReversionClass.C, math.nan)
    assumed, after_s = assumed_reversion(certificate, standing(certificate, found, now))
    assert assumed is proven[0]
    assert after_s == pytest.approx(proven[1], nan_ok=True)


def test_another_layout_is_another_device() -> None:
    assert standing(CERTIFICATE, identity(), ISSUED, fingerprint="ffff") is Standing.MISMATCHED


def test_a_folder_of_certificates_is_read_by_serial_number(tmp_path: Path) -> None:
    (tmp_path / "SN-7.json").write_text(CERTIFICATE.to_json())
    assert read_certificates(tmp_path) == {"SN-7": CERTIFICATE}
    assert read_certificates(tmp_path / "none") == {}


def test_a_damaged_certificate_is_a_sentence_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "SN-7.json").write_text("{")
    with pytest.raises(ConfigError, match=r"SN-7\.json: file: .*; test the device again"):
        read_certificates(tmp_path)

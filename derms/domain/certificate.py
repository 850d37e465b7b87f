"""What commissioning proved of a device: its certificate, and what may be assumed with it, or without one.

Kept as one JSON object per device; times are timezone-aware UTC, durations in s.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from derms.domain.telemetry import Identity

VALID_FOR = timedelta(days=3 * 365)
"""Age from which a certificate no longer counts."""


class ReversionClass(StrEnum):
    """What a device does with a limit or setpoint when nobody speaks to it any more."""

    A = "A"
    """Returns to its default by its own timer."""
    B = "B"
    """Returns to its default when the heartbeat stops."""
    C = "C"
    """Keeps it for ever."""
    UNPROVEN = "unproven"
    """Nobody has tried."""


class CaseState(StrEnum):
    """How one conformance case ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_APPLICABLE = "not applicable"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One conformance case with its end."""

    name: str
    """`REV-1`."""
    title: str
    state: CaseState
    text: str
    """What was seen, or why it was not run."""
    took_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The result of commissioning one device."""

    manufacturer: str
    model: str
    version: str
    serial: str
    fingerprint: str
    """Hash of the device's layout: another one is another device."""
    issued_at: datetime
    reversion: ReversionClass
    reversion_s: float
    """Measured from the last write or heartbeat until the device was back at its default [s]; NaN for class C."""
    tool: str
    cases: tuple[CaseResult, ...]

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the cases that failed."""
        return tuple(case.name for case in self.cases if case.state is CaseState.FAILED)

    def to_json(self) -> str:
        """The certificate as one JSON object; NaN becomes null."""
        fields = asdict(self) | {"issued_at": self.issued_at.isoformat()}
        fields["reversion_s"] = self.reversion_s if math.isfinite(self.reversion_s) else None
        return json.dumps(fields, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Certificate":
        """Read what `to_json` wrote; raises ValueError for anything else."""
        try:
            return _read(json.loads(text))
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"a part is missing or wrong: {error}") from error


def _read(fields: Mapping[str, Any]) -> Certificate:
    cases = tuple(CaseResult(**case | {"state": CaseState(case["state"])}) for case in fields["cases"])
    measured = fields["reversion_s"]
    issued_at = datetime.fromisoformat(fields["issued_at"])
    if issued_at.tzinfo is None:
        raise ValueError("issued_at has no time zone")
    changed = {
        "issued_at": issued_at,
        "reversion": ReversionClass(fields["reversion"]),
        "reversion_s": math.nan if measured is None else float(measured),
        "cases": cases,
    }
    return Certificate(**{**fields, **changed})


class Standing(StrEnum):
    """Whether a certificate counts for the device at hand."""

    VALID = "valid"
    MISSING = "missing"
    EXPIRED = "expired"
    MISMATCHED = "mismatched"
    """It was issued for another device, other firmware or another layout."""


MEANING: Mapping[Standing, str] = {
    Standing.VALID: "the device does what its certificate says",
    Standing.MISSING: "nobody has tested the device: it is taken to keep what it was told for ever",
    Standing.EXPIRED: "the test is too old: the device is taken to keep what it was told for ever",
    Standing.MISMATCHED: "another device, firmware or layout was tested: it is taken to keep what it was told for ever",
}


def standing(
    certificate: Certificate | None,
    identity: Identity,
    now: datetime,
    *,
    fingerprint: str | None = None,
    valid_for: timedelta = VALID_FOR,
) -> Standing:
    """Say whether a certificate counts for the device that identified itself.

    Without a fingerprint the layout is not compared.
    """
    if certificate is None:
        return Standing.MISSING
    tested = (certificate.manufacturer, certificate.model, certificate.version, certificate.serial)
    if tested != (identity.manufacturer, identity.model, identity.version, identity.serial):
        return Standing.MISMATCHED
    if fingerprint is not None and fingerprint != certificate.fingerprint:
        return Standing.MISMATCHED
    fresh = certificate.issued_at <= now <= certificate.issued_at + valid_for
    return Standing.VALID if fresh else Standing.EXPIRED


def assumed_reversion(certificate: Certificate | None, found: Standing) -> tuple[ReversionClass, float]:
    """What control may count on: the class that was proven and the time it takes [s]; class C and NaN otherwise."""
    if certificate is None or found is not Standing.VALID or certificate.reversion is ReversionClass.UNPROVEN:
        return ReversionClass.C, math.nan
    return certificate.reversion, certificate.reversion_s

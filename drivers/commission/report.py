"""How scans and test runs are shown and kept: tables for people, JSON for programs, JUnit XML, the certificate."""

import math
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from derms.domain.certificate import CaseResult, CaseState, Certificate, ReversionClass
from derms.domain.dispatch import Capabilities, Ceasing, Quantity
from drivers.commission.subject import APART
from drivers.commission.survey import Survey

UNITS = {
    "w": "W",
    "var": "var",
    "va": "VA",
    "v": "V",
    "a": "A",
    "hz": "Hz",
    "c": "°C",
    "wh": "Wh",
    "s": "s",
    "frac": "per unit",
}
"""Of the last part of a column's name."""
MEANING = {
    ReversionClass.A: "returns to its default by its own timer",
    ReversionClass.B: "returns to its default when the heartbeat stops",
    ReversionClass.C: "keeps what it was told for ever",
    ReversionClass.UNPROVEN: "reversion was not tried",
}
SHOWN = 6
"""Mistakes of a case that the table for people names one by one."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,80}")


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def show_survey(survey: Survey) -> list[str]:
    """A scan for people."""
    names = survey.names
    lines = [
        f"{survey.endpoint}: {names['Mn']} {names['Md']}, firmware {names['Vr'] or '?'}, serial {names['SN'] or '?'}"
    ]
    if survey.identity is not None:
        ratings = {
            "W": survey.identity.p_rated_w,
            "VA": survey.identity.s_rated_va,
            "Wh": survey.identity.energy_wh,
            "V": survey.identity.v_nominal_v,
        }
        told = [f"{value:g} {unit}" for unit, value in ratings.items() if math.isfinite(value)]
        lines += _section("nameplate", [", ".join(told) or "says nothing"])
    lines += _section(
        "models", table([(str(m.model_id), m.name, f"at {m.address}", f"{m.length} registers") for m in survey.models])
    )
    lines += _section("measures now", table([(name, _cells(name, cells)) for name, cells in survey.measures.items()]))
    if survey.identity is not None:
        lines += _section("takes", capabilities(survey.identity.capabilities) or ["no command"])
    return lines + _section("odd", list(survey.oddities) or ["nothing"])


def _section(title: str, lines: Iterable[str]) -> list[str]:
    return [f"  {title}", *(f"    {line}" for line in lines)]


def _cells(name: str, cells: tuple[float, ...]) -> str:
    unit = UNITS.get(name.rpartition("_")[2], "")
    return ", ".join("-" if math.isnan(cell) else f"{cell:.7g}" for cell in cells) + f" {unit}".rstrip()


QUANTITIES = {Quantity.P_SET: "active-power setpoint", Quantity.P_LIMIT: "limit on injection"}
CERTIFICATES = "certificates"
"""Folder of certificates, in that of the results."""
CURVES = {705: "volt-var", 706: "volt-watt", 711: "frequency droop", 712: "watt-var"}


def capabilities(found: Capabilities) -> list[str]:
    """What a device takes, a line each."""
    lines = [
        f"{text}, {'with a' if quantity in found.reverts else 'without a'} reversion timer"
        for quantity, text in QUANTITIES.items()
        if quantity in found.takes
    ]
    lines += [f"{CURVES.get(model_id, 'curves')} curve ({model_id})" for model_id in sorted(found.curves)]
    lines += ["heartbeat of its controller"] * found.heartbeat
    return lines + [f"cease to energize by {by.value}" for by in Ceasing if by in found.ceases]


def survey_json(survey: Survey) -> dict[str, Any]:
    """A scan for programs; what is not known is null."""
    identity = survey.identity
    ratings = ("p_rated_w", "s_rated_va", "energy_wh", "v_nominal_v")
    return {
        "ok": True,
        "endpoint": str(survey.endpoint),
        **{key: survey.names.get(name, "") for key, name in _IDENTITY.items()},
        "fingerprint": survey.fingerprint,
        **({name: _number(getattr(identity, name)) for name in ratings} if identity else {}),
        "models": [{"id": m.model_id, "name": m.name, "address": m.address, "length": m.length} for m in survey.models],
        "measures": {name: [_number(cell) for cell in cells] for name, cells in survey.measures.items()},
        "takes": capabilities(identity.capabilities) if identity else [],
        "oddities": list(survey.oddities),
    }


_IDENTITY = {"manufacturer": "Mn", "model": "Md", "version": "Vr", "serial": "SN"}


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def show_certificate(certificate: Certificate) -> list[str]:
    """A test run for people: a line per case, the class, the count."""
    lines = table([(case.name, case.title, case.state.value, _brief(case)) for case in certificate.cases])
    counts = {state: sum(case.state is state for case in certificate.cases) for state in CaseState}
    measured = f", after {certificate.reversion_s:.1f} s" if math.isfinite(certificate.reversion_s) else ""
    lines.append(f"class {certificate.reversion.value}: {MEANING[certificate.reversion]}{measured}")
    return [*lines, ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)]


def _brief(case: CaseResult) -> str:
    """What a case says; of many mistakes the first ones."""
    mistakes = case.text.split(APART)
    more = len(mistakes) - SHOWN
    if case.state is not CaseState.FAILED or more <= 0:
        return case.text
    return APART.join([*mistakes[:SHOWN], f"and {more} more, which the JUnit file names"])


def junit(certificate: Certificate, *, broken: str = "") -> bytes:
    """A test run as JUnit XML; the case in which the device was lost is an error."""
    states = [case.state for case in certificate.cases]
    skipped = (CaseState.NOT_APPLICABLE, CaseState.NOT_RUN)
    suite = ET.Element(
        "testsuite",
        name=f"SunSpec conformance of {certificate.manufacturer} {certificate.model} {certificate.serial}",
        tests=str(len(states)),
        failures=str(states.count(CaseState.FAILED) - bool(broken)),
        errors=str(int(bool(broken))),
        skipped=str(sum(state in skipped for state in states)),
        timestamp=certificate.issued_at.isoformat(timespec="seconds"),
    )
    for case in certificate.cases:
        row = ET.SubElement(
            suite, "testcase", classname="sunspec", name=f"{case.name} {case.title}", time=f"{case.took_s:.3f}"
        )
        if case.state is CaseState.PASSED:
            ET.SubElement(row, "system-out").text = case.text
        else:
            wrong = "error" if case.name == broken else "failure"
            kind = wrong if case.state is CaseState.FAILED else "skipped"
            ET.SubElement(row, kind, message=case.text)
    suites = ET.Element("testsuites")
    suites.append(suite)
    ET.indent(suites)
    data: bytes = ET.tostring(suites, encoding="utf-8", xml_declaration=True)
    return data + b"\n"


def file_name(serial: str) -> str:
    """A serial number as a file name; what could lead elsewhere is quoted."""
    if _NAME.fullmatch(serial):
        return serial
    return "serial-" + quote(serial, safe="")[:80] if serial else "without-serial"


def prepare(folder: Path, *, proven: bool) -> None:
    """Make the folders of the files to come, and see that files can be written there. Raises OSError."""
    for place in (folder, folder / CERTIFICATES) if proven else (folder,):
        _replace(place / ".derms-device-test", b"").unlink()


def keep(folder: Path, certificate: Certificate, *, proven: bool, broken: str = "") -> list[Path]:
    """Write the JUnit file, and the certificate when the run was a whole one; returns their paths. Raises OSError."""
    name = file_name(certificate.serial)
    written = [_replace(folder / f"conformance-{name}.xml", junit(certificate, broken=broken))]
    if proven:
        written.append(_replace(folder / CERTIFICATES / f"{name}.json", certificate.to_json().encode()))
    return written


def _replace(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    return path

"""The IEEE test feeders' tables as OpenDSS text: the bare circuit, without anything of ours.

Lengths, impedances, kV, kW and kvar are those of the tables (see SOURCE.md beside them): OpenDSS's own units.
Source: IEEE PES test feeders.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from math import isqrt, sqrt
from pathlib import Path
from typing import Any

Row = Mapping[str, str]

PRIMARY_OFF_MAX_FRAC = 0.01
"""How far a bus' base may be from the primary's, to count as such: 2.402 kV and 2.4018 kV are the same."""
LENGTH_UNITS = {"0": "none", "1": "mi", "2": "kft", "3": "km", "4": "m", "5": "ft", "6": "in", "7": "cm"}
SWITCH_OHM = 0.001
"""Series resistance of a closed switch or a jumper per unit of its length; it has no reactance and no capacitance."""


def rows(tables: Path, name: str) -> list[dict[str, str]]:
    """The rows of a table, in file order."""
    with (tables / f"{name}.csv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


def primary_load_buses(tables: Path, primary_kv: float, to_neutral: bool) -> list[str]:
    """Buses of the loads on the primary with their phases, in file order: not those behind the tables' transformers.

    `primary_kv` stands to neutral, or between phases.
    """
    kv = primary_kv if to_neutral else primary_kv / sqrt(3)
    base_kv = {row["bus"]: float(row["kv_base_ln"]) for row in rows(tables, "buses")}
    buses = [row["bus"] for row in rows(tables, "loads")]
    return [bus for bus in buses if abs(base_kv[bus.partition(".")[0]] / kv - 1) < PRIMARY_OFF_MAX_FRAC]


def switch_rows(tables: Path) -> list[dict[str, str]]:
    """The switches among the lines."""
    return [row for row in rows(tables, "lines") if row["is_switch"] == "1"]


def base_circuit(circuit: str, tables: Path) -> str:
    """The circuit of a folder of tables as OpenDSS text; taps stand where the solved case has them."""
    source = json.loads((tables / "source.json").read_text(encoding="utf8"))
    used_codes = {row["linecode"] for row in rows(tables, "lines")}
    linecodes = [row for row in rows(tables, "linecodes") if row["name"] in used_codes]
    sections: list[tuple[str, Iterable[str]]] = [
        ("Source", [_source(circuit, source)]),
        ("Line codes: ohm and nF per unit of length", map(_linecode, linecodes)),
        ("Lines and switches", map(_line, rows(tables, "lines"))),
        ("Transformers and regulators", (line for row in rows(tables, "transformers") for line in _transformer(row))),
        ("Regulator controls", map(_regulator, rows(tables, "regulators"))),
        ("Capacitors", map(_capacitor, rows(tables, "capacitors"))),
        ("Loads", map(_load, rows(tables, "loads"))),
        ("Voltage bases: kV line to line", _voltage_bases(source)),
    ]
    head = [
        f"! {circuit}: the bare IEEE test feeder, written by feeders.generate from the tables; do not edit.",
        "Clear",
    ]
    return "\n".join(head + [line for title, lines in sections for line in ("", f"! {title}", *lines)]) + "\n"


def _source(circuit: str, source: Mapping[str, Any]) -> str:
    impedances = " ".join(f"{name}={source[name]}" for name in ("R1", "X1", "R0", "X0"))
    return (
        f"New Circuit.{circuit} bus1={source['source_bus']} phases={source['phases']} basekv={source['base_kv']}"
        f" pu={source['pu']} angle={source['angle_deg']} basefreq={source['frequency_hz']:g} {impedances}"
    )


def _linecode(row: Row) -> str:
    matrices = " ".join(
        f"{name}=({_lower_triangle(json.loads(row[column]))})"
        for name, column in (
            ("rmatrix", "r_matrix_ohm_per_unit"),
            ("xmatrix", "x_matrix_ohm_per_unit"),
            ("cmatrix", "c_matrix_nf_per_unit"),
        )
    )
    return f"New LineCode.{row['name']} nphases={row['phases']} units={LENGTH_UNITS[row['units']]} {matrices}"


def _lower_triangle(values: list[float]) -> str:
    size = isqrt(len(values))
    return " | ".join(" ".join(str(v) for v in values[i * size : i * size + i + 1]) for i in range(size))


def _line(row: Row) -> str:
    head = f"New Line.{row['name']} bus1={row['bus1']} bus2={row['bus2']} phases={row['phases']}"
    if not row["linecode"]:
        return f"{head} r1={SWITCH_OHM} x1=0 r0={SWITCH_OHM} x0=0 c1=0 c0=0 length={row['length']}"
    return f"{head} linecode={row['linecode']} length={row['length']} units={LENGTH_UNITS[row['length_units']]}"


def _transformer(row: Row) -> Iterator[str]:
    windings = json.loads(row["windings"])
    yield f"New Transformer.{row['name']} phases={row['phases']} windings={len(windings)} xhl={row['xhl_pct']}"
    for number, w in enumerate(windings, 1):
        yield (
            f"~ wdg={number} bus={w['bus']} conn={w['conn']} kv={w['kv']} kva={w['kva']} %r={w['r_pct']}"
            f" mintap={w['tap_min']} maxtap={w['tap_max']} numtaps={w['num_taps']} tap={round(w['tap_pu'], 6)}"
        )


def _regulator(row: Row) -> str:
    monitored = f" bus={row['monitored_bus']}" if row["monitored_bus"] else ""
    return (
        f"New RegControl.{row['name']} transformer={row['transformer']} winding={row['winding']}"
        f" vreg={row['vreg_v']} band={row['band_v']} ptratio={row['pt_ratio']} ctprim={row['ct_primary_a']}"
        f" r={row['ldc_r']} x={row['ldc_x']} delay={row['delay_s']} maxtapchange={row['max_tap_change']}{monitored}"
    )


def _capacitor(row: Row) -> str:
    connection = "delta" if row["is_delta"] == "1" else "wye"
    return (
        f"New Capacitor.{row['name']} bus1={row['bus']} phases={row['phases']} conn={connection}"
        f" kv={row['kv']} kvar={row['kvar']}"
    )


def _load(row: Row) -> str:
    return (
        f"New Load.{row['name']} bus1={row['bus']} phases={row['phases']} conn={row['connection']}"
        f" model={row['opendss_model']} kv={row['kv']} kw={row['kw']} kvar={row['kvar']}"
    )


def _voltage_bases(source: Mapping[str, Any]) -> Iterator[str]:
    yield f"Set VoltageBases=({' '.join(str(kv) for kv in source['voltage_bases_kv'])})"
    yield "CalcVoltageBases"

"""One row of the fleet file under check: cells as text, numbers and words, each mistake told once."""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeVar

from derms.domain.der import Transport
from derms.service.files import Report, did_you_mean, parse_number
from derms.service.fleet_columns import COLUMNS, PORT_MAX, RATINGS, Column

Choice = TypeVar("Choice", bound=StrEnum)

_LABEL = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
_SERIAL_PORT = re.compile(r"/[^\0]+|COM\d+")
SERIAL_UNIT_MAX = 247
"""Modbus over Serial Line 1.02, 2.2: higher units are reserved."""


@dataclass
class Row:
    """One row under check; a cell that is empty, or already reported, reads as None."""

    number: int
    cells: dict[str, str]
    report: Report
    columns: Mapping[str, Column] = field(default_factory=lambda: COLUMNS)
    """What may stand in them."""
    bad: set[str] = field(default_factory=set)

    def wrong(self, column: str, wrong: str, right: str) -> None:
        self.bad.add(column)
        self.report.add(f"row {self.number}, column {column}", wrong, right)

    def text(self, column: str) -> str | None:
        return None if column in self.bad else self.cells.get(column) or None

    def value(self, column: str) -> float | None:
        """The number in a cell; one that cannot be is reported, once."""
        cell, rule = self.text(column), self.columns[column]
        if cell is None:
            return None
        number = parse_number(cell)
        if number is None:
            self.wrong(column, f"'{cell}' is not a number", rule.right + _decimal_comma(cell))
        elif column in RATINGS and number <= 0:
            self.wrong(column, f"{cell} is not a rating", "give a number greater than 0")
        elif not rule.low <= number <= rule.high or (rule.kind is int and not number.is_integer()):
            self.wrong(column, f"{cell} is out of range", rule.right)
        return None if column in self.bad else number


def _decimal_comma(cell: str) -> str:
    point = cell.replace(",", ".")
    return f"; was {point} meant?" if point != cell and parse_number(point) is not None else ""


def choice(row: Row, column: str, choices: type[Choice], otherwise: Choice) -> Choice:
    """One of the words that a column takes; another is reported."""
    word = row.text(column)
    if word is None or word in set(choices):
        return otherwise if word is None else choices(word)
    row.wrong(column, f"unknown {column} '{word}'", did_you_mean(word, choices, "it is one of " + ", ".join(choices)))
    return otherwise


def check_place(row: Row, transport: Transport) -> None:
    """Host, port and unit, as far as they are there, are such as the transport has."""
    host, port, unit = row.text("host"), row.value("port"), row.value("unit")
    serial = transport is Transport.SERIAL
    if host and serial and not _SERIAL_PORT.fullmatch(host):
        row.wrong("host", f"'{host}' is no serial port", "write it like /dev/ttyUSB0 or COM3")
    if host and not serial and not _is_host(host):
        wrong = f"'{host}' is neither an IP address nor a host name"
        row.wrong("host", wrong, "write it like 10.0.0.17 or pv01.example.org")
    if port is not None and not serial and port > PORT_MAX:
        row.wrong("port", f"{port:g} is out of range", f"give a whole number from 1 to {PORT_MAX}")
    if unit is not None and unit > SERIAL_UNIT_MAX and transport in (Transport.SERIAL, Transport.RTU_TCP):
        row.wrong("unit", f"{unit:g} on an RTU line", f"give a whole number from 1 to {SERIAL_UNIT_MAX}")


def _is_host(host: str) -> bool:
    """An IP address that a device can have, or a host name after RFC 1123."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        labels = host.split(".")
        return len(host) <= 253 and not labels[-1].isdigit() and all(_LABEL.fullmatch(label) for label in labels)
    return not (address.is_multicast or address.is_unspecified)

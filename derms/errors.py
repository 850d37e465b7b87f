"""The exception tree: what can go wrong and is not simply a value.

DermsError
├── ConfigError            a file that people wrote is wrong; carries every problem found
├── FieldError             a device or the way to it
│   ├── DeviceUnreachable  no connection, connection lost, or no answer in time
│   │   └── TurnedAway     it takes connections and closes them before it says anything
│   ├── ProtocolViolation  an answer came, and it cannot be believed
│   ├── DeviceRefused      the device answered with a Modbus exception
│   ├── DeviceMismatch     another device than expected, or one without what is needed
│   └── WriteForbidden     a write that this session or this table does not allow; never on the wire
├── ScadaError             the utility's own system, or the way to it
├── GridError              the feeder model
│   ├── ModelError         circuit or manifest do not fit together
│   └── NotConverged       no power-flow solution, or not a finite one
├── PlanError              the optimizer gave no plan that can be believed
├── JournalError           the command journal cannot be written or read
├── LeaseError             another process has the site's devices, or the lease cannot be had
├── LinkError              the way between gateway, brain and commands, or a message on it
├── RecordError            packed bytes are damaged, or hold what is not known
└── HistorianError         the record of samples, decisions, outcomes and events cannot be written or read
"""

from dataclasses import dataclass


class DermsError(Exception):
    """Root of everything this product raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file: where it is, what is wrong, and what would be right."""

    file: str
    where: str
    """`line 12`, `row 4, column port`."""
    wrong: str
    right: str

    def __str__(self) -> str:
        return f"{self.file}: {self.where}: {self.wrong}; {self.right}"


class ConfigError(DermsError):
    """A configuration that cannot be used; `problems` holds all of its mistakes."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class FieldError(DermsError):
    """A device or the way to it."""


class DeviceUnreachable(FieldError):
    """No connection, connection lost, or no answer in time."""


class TurnedAway(DeviceUnreachable):
    """The device takes connections, and closes them before it says anything."""


class ProtocolViolation(FieldError):
    """An answer came, and it cannot be believed."""


class DeviceRefused(FieldError):
    """The device answered with a Modbus exception."""

    def __init__(self, text: str, code: int) -> None:
        self.code = code
        super().__init__(text)


class DeviceMismatch(FieldError):
    """Another device than expected, or one without what is needed."""


class WriteForbidden(FieldError):
    """A write that this session or this table does not allow; it never reached the wire."""


class ScadaError(DermsError):
    """The utility's own system, or the way to it."""


class GridError(DermsError):
    """The feeder model."""


class ModelError(GridError):
    """Circuit or manifest do not fit together."""


class NotConverged(GridError):
    """No power-flow solution, or not a finite one."""


class PlanError(DermsError):
    """The optimizer gave no plan that can be believed."""


class JournalError(DermsError):
    """The command journal cannot be written or read."""


class LeaseError(DermsError):
    """Another process has the site's devices, or the lease cannot be had."""


class LinkError(DermsError):
    """The way between gateway, brain and commands, or a message on it."""


class RecordError(DermsError):
    """Packed bytes that are damaged, or hold what is not known."""


class HistorianError(DermsError):
    """The record of samples, decisions, outcomes and events cannot be written or read."""

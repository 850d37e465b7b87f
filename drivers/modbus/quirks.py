"""What a device needs of the link that carries it, where it needs other than the standard says."""

from dataclasses import dataclass

from drivers.modbus.unit import MAX_READ, MAX_WRITE


@dataclass(frozen=True, slots=True)
class LinkQuirks:
    """Quirks of one unit; units that share an endpoint share the most careful of the first four."""

    in_flight: int | None = None
    """Requests that may wait for an answer at once; None: what the site says. An RTU line takes one."""
    gap_s: float = 0.0
    """Least pause after a request and after its answer before the next request [s]."""
    settle_s: float = 0.0
    """Patience between connecting and the first request [s]."""
    zero_transaction: bool = False
    """It answers transaction 0 whatever it is asked: then answers are told apart by nothing but their order."""
    timeout_s: float | None = None
    """Longest wait for one answer [s]; None: what the site says."""
    registers_max: int = MAX_READ
    """Registers that one request may read; longer reads go in parts."""
    writes_max: int = MAX_WRITE
    """Registers that one request may write; more are refused, since a block is written whole or not at all."""
    answers_as: int | None = None
    """The unit id that it puts into its answers, if not its own."""
    single_writes: bool = False
    """It wants FC6 for a single register."""


STANDARD = LinkQuirks()
"""A device without quirks."""

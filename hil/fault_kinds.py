"""The ways in which a simulated device fails, each with what may be said about it.

Source of the list: wrong answers and failures seen in the field, from time-outs to firmware that moves the registers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """Ways in which a device fails; those in `VALUES` take a number."""

    STOP = "stop"
    """Nobody listens; connections are dropped."""
    REFUSE = "refuse"
    """Connections are accepted and reset at once."""
    GARBAGE = "garbage"
    """Every request is answered with random bytes."""
    HANG = "hang"
    """No request is answered."""
    FREEZE = "freeze"
    """Registers stand still; writes are acknowledged and ignored."""

    HALF_OPEN = "half-open"
    """Connections stay, nothing is read from them, and not even their end is noticed."""
    SECOND_REFUSED = "second-connection-refused"
    """One client at a time: while a connection stands, every other one is reset."""
    REBOOT = "reboot"
    """Gone until healed; then back with the settings it had at the start: volatile setpoints are lost."""

    DELAY = "delay"
    """Every answer comes so many seconds later."""
    DRIBBLE = "dribble"
    """Answers come byte by byte, so many seconds apart."""
    SPLIT = "split"
    """Answers come byte by byte at once, each in a segment of its own."""
    DROP_MID_FRAME = "drop-mid-frame"
    """The connection closes in the middle of every answer."""
    DUPLICATE = "duplicate"
    """Every answer comes twice."""
    LATE = "late"
    """An answer comes only when the next request is there, so after its own time-out."""

    WRONG_TRANSACTION = "wrong-transaction"
    """Answers carry the transaction of another request."""
    ZERO_TRANSACTION = "zero-transaction"
    """Answers carry transaction 0."""
    WRONG_PROTOCOL = "wrong-protocol"
    """Answers carry another protocol id than Modbus; in RTU frames, a wrong checksum."""
    WRONG_UNIT = "wrong-unit"
    """Answers carry this unit id."""
    WRONG_FUNCTION = "wrong-function"
    """Answers carry the function code of another kind of request."""
    SHORT = "short"
    """Answers hold one register less than was asked; write echoes are cut."""
    LONG = "long"
    """Answers hold one register more than was asked."""
    ODD = "odd"
    """Answers hold half a register less than was asked."""
    WRONG_ECHO = "wrong-echo"
    """Writes are confirmed for another address."""
    EXCEPTION = "exception"
    """Every request is refused with this Modbus exception code."""
    BUSY = "busy-then-fine"
    """So many requests are refused as busy (exception 6), the ones after are answered."""

    SENTINEL = "sentinel"
    """Every measurement is `not implemented`."""
    NAN_SCALE = "nan-scale"
    """Scale factors of measurements are `not implemented`."""
    BAD_SCALE = "bad-scale"
    """Scale factors of measurements hold this exponent, which no scale factor may have."""
    SCALE_CHANGE = "scale-change"
    """Scale factors of measurements and their registers change together from one request to the next."""
    SCALE_TORN = "scale-torn"
    """The same, with a request between, which sees the scale factors of one moment and the registers of another."""
    IMPLAUSIBLE = "implausible"
    """Active power is ten times what it is."""
    STALE_HEARTBEAT = "stale-heartbeat"
    """The device's own heartbeat stands still."""
    MAP_CHANGE = "map-change"
    """Reconnected after an update, with a vendor's model in front of the others: all addresses have moved."""
    SERIAL_CHANGE = "serial-change"
    """Reconnected as another device: the serial number is not the one it was."""

    IGNORE_WRITE = "ignore-write"
    """Writes are acknowledged and not stored; measurements go on."""
    LOCAL_MODE = "local-mode"
    """Under local control: writes are stored and can be read back, and nothing follows."""
    IGNORE_REVERSION = "ignore-reversion"
    """Reversion timers never run out."""
    EARLY_REVERSION = "early-reversion"
    """A running reversion timer is not started again by a refresh, and runs out though it was refreshed in time."""
    FLASH_WEAR = "flash-wear"
    """A register fails (exception 4) once it has been written more often than this since the fault began."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """The number that a kind of fault takes, and its bounds."""

    default: float
    low: float
    high: float
    meaning: str
    whole: bool = True


VALUES: Mapping[Fault, Parameter] = {
    Fault.DELAY: Parameter(1.0, 0.0, 3600.0, "seconds", whole=False),
    Fault.DRIBBLE: Parameter(0.05, 0.0, 60.0, "seconds between bytes", whole=False),
    Fault.WRONG_UNIT: Parameter(255, 0, 255, "unit id"),
    Fault.EXCEPTION: Parameter(4, 1, 127, "exception code"),
    Fault.BUSY: Parameter(3, 1, 1e6, "requests"),
    Fault.BAD_SCALE: Parameter(11, -0x7FFF, 0x7FFF, "exponent"),
    Fault.FLASH_WEAR: Parameter(100, 0, 1e9, "writes of one register"),
}

OF_CONNECTIONS = frozenset({Fault.STOP, Fault.REFUSE, Fault.HALF_OPEN, Fault.SECOND_REFUSED, Fault.REBOOT})
"""These befall an endpoint with all its units."""
OF_MODELS = frozenset(
    {
        *(Fault.SENTINEL, Fault.NAN_SCALE, Fault.BAD_SCALE, Fault.SCALE_CHANGE, Fault.SCALE_TORN, Fault.IMPLAUSIBLE),
        *(Fault.STALE_HEARTBEAT, Fault.MAP_CHANGE, Fault.SERIAL_CHANGE),
    }
)
"""These change what registers show, and only a SunSpec device can show them."""
RECONNECTING = frozenset({Fault.REFUSE, Fault.MAP_CHANGE, Fault.SERIAL_CHANGE})
"""These drop the connections that there are when they begin, and when they end."""


def checked(kind: Fault, value: float | None) -> float:
    """The number that a fault works with, its default for None; raises ValueError with what would be right."""
    takes = VALUES.get(kind)
    if takes is None:
        if value is not None:
            raise ValueError(f"'{kind.value}' takes no number")
        return 0.0
    if value is None:
        return takes.default
    if not takes.low <= value <= takes.high or (takes.whole and value != int(value)):
        kind_of = "a whole number" if takes.whole else "a number"
        raise ValueError(f"'{kind.value}' takes {kind_of} ({takes.meaning}) from {takes.low:g} to {takes.high:g}")
    return value

"""Quality of a value, after IEC 61850-7-3: good, questionable or invalid, with the detail that matters here."""

from enum import IntEnum


class Quality(IntEnum):
    """How far a value may be believed; only GOOD enters control.

    The numbers are stored (uint8 columns, historian): never renumber them.
    """

    GOOD = 0
    SUSPECT = 1
    """Questionable: the device answers, but its values are frozen or implausible."""
    STALE = 2
    """Questionable (oldData): the last good value is older than the greatest age allowed."""
    EXPECTED_SILENT = 3
    """Questionable: silent for a known reason (a PV inverter at night)."""
    NOT_IMPLEMENTED = 4
    """Invalid: the device says that it does not have this value."""
    MISSING = 5
    """Invalid: nothing has been received yet, or what came was refused."""

"""Devices that are out of service while no order says so: looked for after the start, and followed until they are back.

A stop that a broken disk has forgotten leaves a device that answers well and does nothing, as does somebody at the
device. One that gives or takes power is in service; only those at rest are asked. Powers in W; columns of shape (n,).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.der import Fleet
from derms.domain.dispatch import Ceasing
from derms.ports import Clock

AGAIN_S = 60.0
"""Between two questions to one device."""
ASKED_MAX = 100
"""Devices that are asked with one look: at a start many are at rest."""


@dataclass(slots=True)
class ShutOut:
    """Finds them, and tells of each once; see the module's text."""

    fleet: Fleet
    clock: Clock
    on_event: Callable[[Event], None]
    unasked: BoolArray
    """Devices of which it is not known yet whether they are in service."""
    rows: BoolArray = field(init=False)
    """Devices that are out of service, and no order says so."""
    _again_s: FloatArray = field(init=False)

    def __post_init__(self) -> None:
        self.rows = np.zeros(len(self.fleet), dtype=np.bool_)
        self._again_s = np.full(len(self.fleet), -np.inf)

    @property
    def looks(self) -> bool:
        """There is somebody to be asked sooner or later."""
        return bool((self.unasked | self.rows).any())

    def due(self, p_w: FloatArray, tolerance_w: FloatArray, ordered: BoolArray, now_s: float) -> BoolArray:
        """Whom to ask now, by their power (NaN where nobody knows); not those that an order has out of service."""
        self.unasked &= ~(np.abs(p_w) > tolerance_w)
        asks = (self.unasked & (np.abs(p_w) <= tolerance_w)) | self.rows
        asks &= ~ordered & (self._again_s <= now_s)
        asks[np.flatnonzero(asks)[ASKED_MAX:]] = False
        self._again_s[asks] = now_s + AGAIN_S
        return asks

    def heard(self, row: int, ways: Sequence[Ceasing]) -> None:
        """Hear in which ways a device, which no order has out of service, says that it is."""
        self.unasked[row] = False
        if bool(self.rows[row]) is bool(ways):
            return
        self.rows[row] = bool(ways)
        device = self.fleet.devices[row].id
        if ways:
            text = (
                f"{device} is out of service ({', '.join(ways)}), and no order says so: a stop that could not be saved "
                "has done it, or somebody else; it has to be permitted again at the device"
            )
            self.on_event(Event(self.clock.utc(), Severity.ALARM, device, "out-of-service", text))
        else:
            text = f"{device} is in service again"
            self.on_event(Event(self.clock.utc(), Severity.INFO, device, "in-service", text))

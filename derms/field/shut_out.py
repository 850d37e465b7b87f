"""Devices that are out of service while no order says so: looked for after the start, and followed until they are back.

A stop that a broken disk has forgotten leaves a device that answers well and does nothing, as does somebody at the
device. One that gives or takes power is in service; only those at rest are asked. Powers in W; columns of shape (n,).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import BoolArray, FloatArray
from derms.domain.dispatch import Ceasing
from derms.domain.scope import Places
from derms.ports import Clock

AGAIN_S = 60.0
"""Between two questions to one device."""
ASKED_MAX = 100
"""Devices that are asked with one look: at a start many are at rest."""
APART_MAX = 5
"""Devices that are told each by itself."""
WHY = "a stop that could not be saved has done it, or somebody else; it has to be permitted again at the device"


@dataclass(slots=True)
class ShutOut:
    """Finds them, and tells them once; see the module's text."""

    places: Places
    clock: Clock
    on_event: Callable[[Event], None]
    unasked: BoolArray
    """Devices of which it is not known yet whether they are in service."""
    rows: BoolArray = field(init=False)
    """Devices that are out of service, and no order says so."""
    _again_s: FloatArray = field(init=False)
    _news: BoolArray = field(init=False)
    """Devices of which something was heard that is to be told."""

    def __post_init__(self) -> None:
        self.rows, self._news = (np.zeros(len(self.places), dtype=np.bool_) for _ in range(2))
        self._again_s = np.full(len(self.places), -np.inf)

    @property
    def looks(self) -> bool:
        """There is somebody to be asked sooner or later, or something to be told."""
        return bool((self.unasked | self.rows | self._news).any())

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
        if bool(self.rows[row]) is not bool(ways):
            self.rows[row] = bool(ways)
            self._news[row] = True

    def tell(self) -> None:
        """Tell what was heard since this was last called: of a few devices each, of many together."""
        news, self._news = self._news, np.zeros_like(self._news)
        self._tell(news & self.rows, Severity.ALARM, "out-of-service", f"out of service, and no order says so: {WHY}")
        self._tell(news & ~self.rows, Severity.INFO, "in-service", "in service again")

    def _tell(self, rows: BoolArray, severity: Severity, kind: str, text: str) -> None:
        count, at = int(rows.sum()), self.clock.utc()
        if count > APART_MAX:
            many = f"{count} devices ({self.places.named(rows)}) are {text}"
            self.on_event(Event(at, severity, "gateway", kind, many))
            return
        for row in np.flatnonzero(rows).tolist():
            device = self.places.devices[row]
            self.on_event(Event(at, severity, device, kind, f"{device} is {text}"))

"""Readings of one layout side by side as raw bytes, decoded together with one view."""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import ByteArray, FloatArray, IntArray
from derms.domain.telemetry import TelemetryLayout

READINGS_MAX = 2048
"""Readings decoded at once: enough to make the cost of a decoding small, few enough to hold nobody up."""
READINGS_LEAST = 16
"""Readings for which there is room at first; it doubles as they come."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """Readings in the order in which they came; a device may be there twice."""

    rows: IntArray
    """Fleet rows, shape (k,)."""
    requested_s: FloatArray
    changed_s: FloatArray
    """When the measurements last became what they are, shape (k,)."""
    columns: Mapping[str, FloatArray]
    scales: ByteArray
    """What says how values are scaled, shape (k, any)."""


class Batch:
    """Takes readings in, at the cost of one copy each, until they are decoded."""

    def __init__(self, layout: TelemetryLayout) -> None:
        self.layout = layout
        self.width = layout.width
        self._raw: ByteArray = np.zeros((READINGS_LEAST, self.width), dtype=np.uint8)
        self._bytes = self._raw.reshape(-1).data
        self._room = READINGS_LEAST
        self._rows = array("q")
        self._requested_s = array("d")
        self._changed_s = array("d")

    def keep(self, row: int, raw: bytes, requested_s: float, changed_s: float) -> bool:
        """Take in a reading of the layout's width; says whether this was the last for which there is room."""
        kept, width = len(self._rows), self.width
        if kept == self._room:
            self._grow()
        self._bytes[kept * width : (kept + 1) * width] = raw
        self._rows.append(row)
        self._requested_s.append(requested_s)
        self._changed_s.append(changed_s)
        return kept + 1 == READINGS_MAX

    def _grow(self) -> None:
        self._raw = np.concatenate((self._raw, np.zeros_like(self._raw)))
        self._bytes = self._raw.reshape(-1).data
        self._room *= 2

    def decode(self) -> Decoded | None:
        """Decode what is there and begin anew; None for nothing."""
        count = len(self._rows)
        if not count:
            return None
        raw = self._raw[:count]
        decoded = Decoded(
            rows=np.frombuffer(self._rows, dtype=np.intp),
            requested_s=np.frombuffer(self._requested_s),
            changed_s=np.frombuffer(self._changed_s),
            columns=self.layout.decode(raw),
            scales=self.layout.scales(raw),
        )
        self._rows, self._requested_s, self._changed_s = array("q"), array("d"), array("d")
        return decoded

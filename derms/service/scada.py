"""The utility's own view of its system: net load from a polled meter, and its records from a file."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.telemetry import TelemetrySnapshot
from derms.service.config import read_history


class MeterScada:
    """A ScadaSource over the meter that stands for the system, with past net load from a CSV file."""

    def __init__(self, row: int, history: Path | None) -> None:
        self._row = row
        self._history = history

    def net_load_w(self, snapshot: TelemetrySnapshot) -> float:
        """System net load now [W], + = import; NaN without a good reading of the meter."""
        return float(snapshot.p_w[self._row]) if snapshot.good("p_w")[self._row] else np.nan

    def history(self) -> tuple[Sequence[datetime], FloatArray]:
        """Ends of the recorded intervals (UTC) and their means [W]; empty without a file."""
        return ([], np.zeros(0)) if self._history is None else read_history(self._history)

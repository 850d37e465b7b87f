"""The utility's view where its system is not connected: net load from a polled meter."""

import math

from derms.domain.quality import Quality
from derms.domain.scada import PointKind, PointValue, ScadaPoint, ScadaReading
from derms.domain.telemetry import TelemetrySnapshot


class MeterScada:
    """A ScadaSource over the device in one row of the fleet."""

    def __init__(self, row: int) -> None:
        self._row = row
        self._points = (ScadaPoint(id="net_load", kind=PointKind.NET_LOAD, element="system", where="meter"),)

    async def poll(self) -> None:
        """The gateway polls the meter with the rest of the fleet."""

    def reading(self, snapshot: TelemetrySnapshot) -> ScadaReading:
        """The meter's power as net load [W], + = import; GOOD is only a number."""
        quality = Quality(snapshot.quality[self._row])
        p_w = float(snapshot.p_w[self._row])
        if quality is Quality.GOOD and not math.isfinite(p_w):
            quality = Quality.NOT_IMPLEMENTED if math.isnan(p_w) else Quality.SUSPECT
        received_s = snapshot.now_s - float(snapshot.age_s[self._row])
        value = PointValue(p_w, quality, None, snapshot.at, received_s)
        return ScadaReading(snapshot.at, self._points, {"net_load": value})

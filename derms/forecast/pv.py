"""Clear-sky power of a photovoltaic plant per unit of its nameplate.

Source: pvlib (solar position, Kasten-Young air mass, Ineichen-Perez clear sky, isotropic transposition).
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pvlib

from derms.domain.arrays import FloatArray

LINKE_TURBIDITY = 3.0
"""Air of a clear spring day; a constant, so that no data file is needed."""
TILT_DEG = 20.0
AZIMUTH_DEG = 180.0
LOSS_FRAC = 0.14
"""Between irradiance and AC power: soiling, temperature, wiring, inverter."""
IRRADIANCE_STC_W_PER_M2 = 1000.0
DAY_S, HOUR_S, MINUTE_S = 86400.0, 3600.0, 60.0
TABLE_S = 300.0
DAYS_KEPT = 3
"""Tables of days further from those that are asked for are dropped."""


def clear_sky_pu(times_s: FloatArray, latitude_deg: float, longitude_deg: float) -> FloatArray:
    """Clear-sky AC power of a plant that faces south, per unit of its nameplate [0..1].

    p = min(1, (1 - losses) G / 1000 W/m2), G the irradiance of the tilted plane [W/m2].

    Parameters
    ----------
    times_s : FloatArray
        Moments [s since 1970-01-01 UTC], shape (n,).
    latitude_deg, longitude_deg : float
        Place [degrees], north and east positive.

    Returns
    -------
    FloatArray
        Shape (n,); 0 while the sun is down.

    Examples
    --------
    >>> import numpy as np
    >>> local_noon_s = 1776279600.0  # 15 April 2026, 12:00 in Los Angeles
    >>> np.round(clear_sky_pu(np.array([local_noon_s]), 34.05, -118.24), 1)
    array([0.9])
    """
    sun, clear = _clear(times_s, latitude_deg, longitude_deg)
    plane = pvlib.irradiance.get_total_irradiance(
        TILT_DEG, AZIMUTH_DEG, sun["zenith"], sun["azimuth"], clear["dni"], clear["ghi"], clear["dhi"]
    )
    irradiance = np.nan_to_num(np.asarray(plane["poa_global"], dtype=np.float64), nan=0.0)
    return np.clip((1.0 - LOSS_FRAC) * irradiance / IRRADIANCE_STC_W_PER_M2, 0.0, 1.0)


def clear_ghi_w_per_m2(times_s: FloatArray, latitude_deg: float, longitude_deg: float) -> FloatArray:
    """Global horizontal irradiance under a clear sky, of the same moments and shape as `clear_sky_pu`."""
    _, clear = _clear(times_s, latitude_deg, longitude_deg)
    return np.maximum(np.nan_to_num(np.asarray(clear["ghi"], dtype=np.float64), nan=0.0), 0.0)


def _clear(
    times_s: FloatArray, latitude_deg: float, longitude_deg: float
) -> tuple[Mapping[str, FloatArray], Mapping[str, FloatArray]]:
    """Where the sun stands [degrees], and the irradiances of a clear sky [W/m2]."""
    times = pd.to_datetime(times_s, unit="s", utc=True)
    sun = pvlib.solarposition.get_solarposition(times, latitude_deg, longitude_deg)
    zenith_deg = sun["apparent_zenith"].to_numpy()
    airmass = pvlib.atmosphere.get_relative_airmass(zenith_deg)
    extra = pvlib.irradiance.get_extra_radiation(times).to_numpy()
    with np.errstate(divide="ignore"):  # the formula divides by the height of the sun, also at night
        clear = pvlib.clearsky.ineichen(zenith_deg, airmass, LINKE_TURBIDITY, dni_extra=extra)
    return {"zenith": zenith_deg, "azimuth": sun["azimuth"].to_numpy()}, clear


class ClearSky:
    """Clear-sky power of one place from a table of minutes, made anew when time has left it."""

    def __init__(self, latitude_deg: float, longitude_deg: float) -> None:
        self._place_deg = (latitude_deg, longitude_deg)
        self._minutes_s: FloatArray = np.array([np.inf])
        self._pu: FloatArray = np.zeros(1)

    def pu(self, times_s: FloatArray) -> FloatArray:
        """Per unit of nameplate at moments [s since 1970-01-01 UTC], shape (n,), n >= 1; see `clear_sky_pu`."""
        first_s, last_s = float(times_s.min()), float(times_s.max())
        if not (self._minutes_s[0] <= first_s and last_s <= self._minutes_s[-1]):
            self._minutes_s = np.arange(first_s - HOUR_S, last_s + DAY_S, MINUTE_S)
            self._pu = clear_sky_pu(self._minutes_s, *self._place_deg)
        power_pu: FloatArray = np.interp(times_s, self._minutes_s, self._pu)
        return power_pu

    def exact_pu(self, times_s: FloatArray) -> FloatArray:
        """The same without a table: for moments that lie years apart."""
        return clear_sky_pu(times_s, *self._place_deg)

    def ghi_w_per_m2(self, times_s: FloatArray) -> FloatArray:
        """Global horizontal irradiance at moments, shape (n,); see `clear_ghi_w_per_m2`."""
        return clear_ghi_w_per_m2(times_s, *self._place_deg)


class ClearSkyDays:
    """Clear-sky power of one place from tables of five minutes, one for each day (UTC) that is asked for."""

    def __init__(self, sky: ClearSky) -> None:
        self._sky = sky
        self._days: dict[int, FloatArray] = {}

    def pu(self, times_s: FloatArray) -> FloatArray:
        """Per unit of nameplate at moments [s since 1970-01-01 UTC], of the same shape; see `clear_sky_pu`."""
        if not times_s.size:
            return np.zeros(times_s.shape)
        first, last = (int(bound // DAY_S) for bound in (times_s.min(), times_s.max()))
        days = range(first, last + 1)
        near = range(first - DAYS_KEPT, last + DAYS_KEPT + 1)
        self._days = {day: table for day, table in self._days.items() if day in near}
        moments_s = TABLE_S * np.arange(round(DAY_S / TABLE_S), dtype=np.float64)
        for day in days:
            if day not in self._days:
                self._days[day] = self._sky.exact_pu(DAY_S * day + moments_s)
        table = np.concatenate([self._days[day] for day in days])
        power_pu: FloatArray = np.interp((times_s - DAY_S * first) / TABLE_S, np.arange(table.size), table)
        return power_pu

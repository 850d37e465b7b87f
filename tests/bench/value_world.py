"""The year of `value`: demand less PV of a weather file, one great battery, and the score. No benchmark itself.

Hour t of the year is the t-th of the local standard year (UTC-8) that the weather file and the demand both have. Days
are 24 such hours; a day that the records do not hold wholly is left out. The demand's labels are taken for beginnings
of hours, as the issue's known figures take them (none about 1,920, bound about 1,086; here 1,919 and 1,082 per 365
days). EIA documents them as ends: `labels="end"` gives that reading, in which the sun stands an hour later.

Powers in GW where a name says so (the score's unit), W elsewhere; + = import, battery power + = charging.

    score = sum over days (peak + greatest 3-hour rise that ends in the day) + 0.5 sum (g_t - g_t-1)^2
            + 0.02 sum (charge + discharge)                        [GW, GW^2, GWh]

Sources: EIA-930 (demand), NREL TMY3 (weather), pvlib (PVWatts: Dobos, NREL/TP-6A20-62641; transposition Hay-Davies;
cell temperature King, open rack).
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pvlib

from derms.domain.arrays import FloatArray

DATA = Path(__file__).parents[3] / "shared" / "data"
DEMAND = DATA / "demand" / "ldwp_hourly_2015_2021_2023.csv.gz"
WEATHER = DATA / "weather" / "CA-Los_Angeles_Intl_Arpt.tmy3.gz"

LATITUDE_DEG, LONGITUDE_DEG = 33.933, -118.4
PV_RATED_GW = 3.0
DC_PER_AC = 1.2
LOSS_FRAC = 0.14
TILT_DEG, AZIMUTH_DEG = 20.0, 180.0
POWER_PER_K = -0.0047
"""PVWatts, standard module."""
INVERTER_EFFICIENCY = 0.96

BATTERY_GW, BATTERY_GWH = 1.0, 4.0
EFFICIENCY = 0.95
SOC_MIN, SOC_MAX, SOC_START = 0.05, 0.95, 0.5
ENERGY_MIN_GWH, ENERGY_MAX_GWH = SOC_MIN * BATTERY_GWH, SOC_MAX * BATTERY_GWH
ENERGY_START_GWH = SOC_START * BATTERY_GWH

CHANGE_COST, THROUGHPUT_COST = 0.5, 0.02
RAMP_H, DAY_H, HOUR_S = 3, 24, 3600.0
STANDARD_TIME_H = 8

Labels = Literal["begin", "end"]


@dataclass(frozen=True)
class Records:
    """All hours of demand on record."""

    starts_s: FloatArray
    """Beginnings [s since 1970-01-01 UTC]."""
    demand_gw: FloatArray


@dataclass(frozen=True)
class Score:
    """What a course of net load costs, with its parts [GW, GW^2, GWh]."""

    total: float
    peaks: float
    ramps: float
    changes: float
    peak: float
    """Greatest of the year."""
    ramp: float
    """Greatest of the year, over three hours."""


def records(labels: Labels) -> Records:
    """Demand of every hour on record, imputed ones included."""
    table = pd.read_csv(DEMAND, parse_dates=["utc_hour_ending"])
    labelled_s = np.asarray(table["utc_hour_ending"].astype("datetime64[s, UTC]").astype("int64"), dtype=np.float64)
    starts_s = labelled_s - HOUR_S if labels == "end" else labelled_s
    return Records(starts_s, np.asarray(table["demand_mw"] / 1000.0, dtype=np.float64))


def year_start_s(year: int) -> float:
    """First second of a local standard year."""
    return datetime(year, 1, 1, STANDARD_TIME_H, tzinfo=UTC).timestamp()


def demand_of(known: Records, year: int) -> FloatArray:
    """Demand of the whole days that a year's records hold from its first [GW], shape (24 days,)."""
    wanted_s = year_start_s(year) + HOUR_S * np.arange(365 * DAY_H)
    held = np.asarray(pd.Series(known.demand_gw, index=known.starts_s).reindex(wanted_s), dtype=np.float64)
    gap = np.flatnonzero(~np.isfinite(held))
    hours = int(gap[0]) if gap.size else held.size
    whole: FloatArray = held[: hours // DAY_H * DAY_H]
    return whole


def weather_pv_gw(year: int) -> FloatArray:
    """AC power of the PV in each hour of the weather file, placed in a year [GW], shape (8760,)."""
    table = pd.read_csv(WEATHER, skiprows=1)
    ghi, dni, dhi, air, wind = (
        table[name].to_numpy(np.float64)
        for name in ("GHI (W/m^2)", "DNI (W/m^2)", "DHI (W/m^2)", "Dry-bulb (C)", "Wspd (m/s)")
    )
    middles = pd.to_datetime(year_start_s(year) + HOUR_S * (np.arange(ghi.size) + 0.5), unit="s", utc=True)
    sun = pvlib.solarposition.get_solarposition(middles, LATITUDE_DEG, LONGITUDE_DEG)
    plane = pvlib.irradiance.get_total_irradiance(
        TILT_DEG,
        AZIMUTH_DEG,
        sun["apparent_zenith"].to_numpy(),
        sun["azimuth"].to_numpy(),
        dni,
        ghi,
        dhi,
        dni_extra=pvlib.irradiance.get_extra_radiation(middles).to_numpy(),
        model="haydavies",
    )
    poa = np.nan_to_num(np.asarray(plane["poa_global"], dtype=np.float64))
    cell = pvlib.temperature.sapm_cell(
        poa, air, wind, **pvlib.temperature.TEMPERATURE_MODEL_PARAMETERS["sapm"]["open_rack_glass_glass"]
    )
    dc_gw = (1.0 - LOSS_FRAC) * pvlib.pvsystem.pvwatts_dc(poa, cell, PV_RATED_GW, POWER_PER_K)
    limit_gw = PV_RATED_GW / DC_PER_AC / INVERTER_EFFICIENCY
    ac_gw: FloatArray = np.asarray(pvlib.inverter.pvwatts(dc_gw, limit_gw, INVERTER_EFFICIENCY), dtype=np.float64)
    return ac_gw


def score(net_gw: FloatArray, throughput_gwh: float) -> Score:
    """Score a course of net load [GW], shape (24 days,); the first three hours have no ramp, the first no change."""
    rise = np.full(net_gw.size, -np.inf)
    rise[RAMP_H:] = net_gw[RAMP_H:] - net_gw[:-RAMP_H]
    peak, ramp = (course.reshape(-1, DAY_H).max(axis=1) for course in (net_gw, rise))
    changes = float(np.sum(np.diff(net_gw) ** 2))
    total = float(peak.sum() + ramp.sum()) + CHANGE_COST * changes + THROUGHPUT_COST * throughput_gwh
    return Score(total, float(peak.sum()), float(ramp.sum()), changes, float(peak.max()), float(ramp.max()))

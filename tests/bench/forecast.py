"""Day-ahead load of the LADWP balancing authority for every hour of 2019, against LADWP's own forecast.

Fitted on data before 2019 only; made at 10:00 local time on the day before from hours that had ended by then; scored
over the hours that LADWP forecast too. The better persistence is that of the two that is nearer over the year: the
same hour a week before, and the last one of the same time of day known at 10:00. Hours that the source imputed are
never fitted on nor used as inputs. LADWP's record has a day of zeros; its error is given with and without them. The
last line is one JSON object, errors in per cent, the band's coverage a share.
"""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from derms.forecast.demand import DemandModel, Fit
from derms.forecast.history import DAY, WEEK, History, history_of

DATA = Path(__file__).parents[2] / "../shared/data/demand/ldwp_hourly_2015_2021_2023.csv.gz"
ZONE = ZoneInfo("America/Los_Angeles")
ORIGIN_HOUR = 10
YEAR = 2019
FIT = Fit(origin_hours=(ORIGIN_HOUR,), leads=tuple(range(DAY - ORIGIN_HOUR, 2 * DAY - ORIGIN_HOUR)), seeds=5)


def _start_s(year: int) -> float:
    return datetime(year, 1, 1, tzinfo=ZONE).astimezone(UTC).timestamp()


def scores(table: pd.DataFrame, year: int) -> dict[str, float]:
    """Errors [%] and coverage over one year, everything fitted on what lies before it."""
    ends_s = pd.to_datetime(table["utc_hour_ending"]).map(pd.Timestamp.timestamp).to_numpy(dtype=np.float64)
    demand = table["demand_mw"].to_numpy(dtype=np.float64)
    theirs = pd.to_numeric(table["ladwp_day_ahead_forecast_mw"], errors="coerce").to_numpy(dtype=np.float64)
    history = history_of(ends_s, np.where(table["category"] == "OKAY", demand * 1e6, np.nan), ZONE)
    made, persistent = _day_ahead(history, year)

    starts_s = ends_s - 3600.0
    scored = (starts_s >= _start_s(year)) & (starts_s < _start_s(year + 1)) & np.isfinite(theirs)
    place = history.place(starts_s[scored])
    actual = demand[scored]
    ours = made[place] / 1e6

    def mape_pct(forecast_mw: np.ndarray) -> float:
        return float(np.nanmean(np.abs(forecast_mw - actual) / actual) * 100.0)

    return {
        "hours": int(scored.sum()),
        "mape_pct": mape_pct(ours[:, 1]),
        "mape_ladwp_pct": mape_pct(theirs[scored]),
        "mape_ladwp_without_zeros_pct": mape_pct(np.where(theirs[scored] > 0.0, theirs[scored], np.nan)),
        "mape_persistence_pct": min(mape_pct(each[place] / 1e6) for each in persistent),
        "coverage_80": float(np.mean((ours[:, 0] <= actual) & (actual <= ours[:, 2]))),
    }


def _day_ahead(history: History, year: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Quantiles by place [W], and both persistences, for the places of one year; NaN elsewhere."""
    first, after = history.place(np.array([_start_s(year), _start_s(year + 1)]))
    model = DemandModel(history, FIT, before=int(first))
    origins = np.arange(first - DAY + ORIGIN_HOUR, after - DAY + ORIGIN_HOUR, DAY)
    places = (origins[:, None] + np.array(FIT.leads)).ravel()
    made = np.full((history.hours, 3), np.nan)
    made[places] = model.predict(history, origins).reshape(-1, 3)
    load_w = np.exp(history.log_load)
    daily, weekly = np.full(history.hours, np.nan), np.full(history.hours, np.nan)
    daily[places] = load_w[places - np.where(places % DAY < ORIGIN_HOUR, DAY, 2 * DAY)]
    weekly[places] = load_w[places - WEEK]
    return made, [daily, weekly]


def main() -> int:
    """Score and print."""
    if not DATA.exists():
        print(f"{DATA.resolve()} is not there: the benchmark needs the shared data")
        return 1
    found = scores(pd.read_csv(DATA), YEAR)
    print(json.dumps({"bench": "forecast", **{name: round(value, 4) for name, value in found.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

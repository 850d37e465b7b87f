"""The forecaster of the service: learns from records, forecasts net load and PV, and judges what it has said.

Gross load (net load plus the PV behind it) and PV are forecast apart, for the one repeats and the other does not:

    net(t) = load(t) - nameplate * pv(t)

Load is forecast by a model that was fitted on at least a year (`load.py`, `demand.py`), else by the recent days; PV by
clear sky and cloud index (`sky.py`). Each is held against persistence every hour, and gives way to it where it is
worse (`skill.py`). Everything measured passes the gates first (`gates.py`); where it is refused, what is usual stands
in its place. Times [s since 1970-01-01 UTC]; net load + = import.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray
from derms.domain.forecast import Forecast
from derms.forecast.believe import Belief, belief
from derms.forecast.climate import Climate, climate_of, median_profile, recent_days, standard_profile
from derms.forecast.demand import DemandModel, Fit
from derms.forecast.gates import LATE_S, LOAD, PV, Gated, Refusal, Samples, gated, pv_bounds_pu
from derms.forecast.load import Course, FittedLoad, history_from, profile_course, spread_of, values_before
from derms.forecast.netload import Place, Seen
from derms.forecast.pv import ClearSkyDays
from derms.forecast.record import (
    DAY_QUARTERS,
    DAY_S,
    HOUR_QUARTERS,
    HOUR_S,
    QUARTER_S,
    Record,
    epoch_s,
    hourly,
    middles_s,
    quarters_of,
)
from derms.forecast.skill import Contest
from derms.forecast.sky import NOW_S, CloudCourse, cloud_course, cloud_index, told_index
from derms.forecast.sun import CLOUD_TYPICAL, SKY_MIN_PU
from derms.forecast.weather import TellsTrouble, WeatherForecast

FIT_DAYS_MIN = 365
"""Days of records from which a model of demand is fitted."""
FIT_KNOWN_SHARE = 0.8
FIT_EVERY_S = 7 * DAY_S
PEAKS_MAX = 100.0
"""Records beyond so many peaks of the feeder are of no system that it could be a part of."""
RECENT_QUARTERS = 45 * DAY_QUARTERS
"""Days that gates and climatology look back on while the service runs."""
SETTLED_HOURS_MAX = 48
PROMISED_H = 47
RIVALS = ("the last day", "the last week")
ERROR_80 = 1.6
"""Half of an 80 % band per mean absolute error, for a normal distribution."""


@dataclass(frozen=True, slots=True)
class _Hour:
    """What holds for a clock hour: the believed part of the record, and the course of load."""

    number: int
    hours: float
    belief: Belief
    course: Course


class _Live(NamedTuple):
    """The last half hour after its gates."""

    at_s: FloatArray
    load: Gated
    pv: Gated
    clear_pu: FloatArray


class Forecaster:
    """Forecasts of one system and one of its feeders. `fit` may run on another thread than the rest."""

    def __init__(
        self,
        place: Place,
        *,
        pv_rated_w: float,
        peak_w: float,
        weather: WeatherForecast | None = None,
        fit: Fit | None = None,
    ) -> None:
        """`pv_rated_w` is the PV behind the net load that we see, `peak_w` what the feeder was built for."""
        self._zone, self._sky, self._clear = place.timezone, place.sky, ClearSkyDays(place.sky)
        self._pv_rated_w, self._peak_w = pv_rated_w, peak_w
        self._weather, self._fit = weather, fit
        self._record = Record.empty()
        self._gathered: dict[int, FloatArray] = {}
        self._entered_s = -np.inf
        self._settled: int | None = None
        self._climate = climate_of(standard_profile(peak_w), self._zone, measured=False)
        self._climate_day = -np.inf
        self._fitted: FittedLoad | None = None
        self._tried_s = -np.inf
        self._hour: _Hour | None = None
        self._promised = 0
        self._judged = ""
        self._news: Event | None = None
        self.load_contest = Contest("load", RIVALS)
        self.pv_contest = Contest("PV", RIVALS)
        self._refused: frozenset[tuple[str, str]] = frozenset()
        self._sky_refused: tuple[Refusal, ...] = ()

    def learn(self, now: datetime, times: Sequence[datetime], net_w: FloatArray) -> tuple[Refusal, ...]:
        """Remember records, and fit a model where they suffice: slow. See `remember` and `fit`."""
        refused = self.remember(now, times, net_w)
        if self.fit_due(now):
            self.fit(now)
        return refused

    def remember(self, now: datetime, times: Sequence[datetime], net_w: FloatArray) -> tuple[Refusal, ...]:
        """Enter records of net load; returns what the gates refuse of them.

        Parameters
        ----------
        times : Sequence[datetime]
            Ends of intervals of one length up to an hour, in order of time.
        net_w : FloatArray
            Means of net load over them [W, + = import], shape (k,); NaN where unknown. PV behind it is taken to have
            run under a typical sky.
        """
        ends_s = epoch_s(times)
        use = (ends_s <= now.timestamp() + HOUR_S) & (np.abs(net_w) <= PEAKS_MAX * self._peak_w)
        quarters, mean_w = quarters_of(ends_s[use], net_w[use])
        clear_pu = self._sky.exact_pu(middles_s(quarters, QUARTER_S)) if quarters.size else np.empty(0)
        load_w = mean_w + self._pv_rated_w * CLOUD_TYPICAL * clear_pu
        self._record = self._record.entered(quarters, load_w, np.full(quarters.size, np.nan), clear_pu)
        self._hour, self._climate_day = None, -np.inf
        climate = self._climate_of(self._record) or self._climate
        return belief(self._record, climate, now.timestamp()).refusals

    def fit_due(self, now: datetime) -> bool:
        """Whether there is a year of records, and no model has been tried on it in the last week."""
        if abs(now.timestamp() - self._tried_s) < FIT_EVERY_S:
            return False
        known = int(np.isfinite(self._record.load_w).sum())
        return known >= FIT_KNOWN_SHARE * FIT_DAYS_MIN * DAY_QUARTERS and self._record.load_w.size >= (
            FIT_DAYS_MIN * DAY_QUARTERS
        )

    def fit(self, now: datetime) -> None:
        """Fit the model of demand on all records: a minute or more. The next `score` tells what has come of it."""
        self._tried_s = now.timestamp()
        record = self._record
        climate = self._climate_of(record) or self._climate
        history = history_from(belief(record, climate, now.timestamp()).record, self._zone)
        try:
            model = DemandModel(history, self._fit)
        except ValueError as error:
            self._news = Event(now, Severity.WARNING, "brain", "forecast-unfitted", f"no model of load: {error}")
            return
        self._fitted = FittedLoad(model, self._zone)
        self._hour = None
        text = f"a model of load is fitted on {round(int(history.known.sum()) / 24)} days of records"
        self._news = Event(now, Severity.INFO, "brain", "forecast-fitted", text)

    def score(self, now: datetime, measured: Seen) -> tuple[Event, ...]:
        """Enter what was measured since the last call, and judge what was said of the hours that are over.

        Events tell when input is refused and believed again, and when a model loses its place to persistence or has it
        back. `measured` may hold what has been entered before.
        """
        now_s = now.timestamp()
        live = self._gated(measured, now_s)
        self._entered_s = min(self._entered_s, now_s)  # a clock that was set back stops nothing
        self._enter(live)
        self._close(now_s)
        hour = int(now_s // HOUR_S)
        first = hour if self._settled is None else max(self._settled, hour - SETTLED_HOURS_MAX)
        events = [event for one in range(first, hour) for event in self._settle(now, one)]
        self._settled = hour
        news, self._news = self._news, None
        return (*([news] if news else []), *self._note_refused(now, live), *events)

    def forecast(self, now: datetime, hours: FloatArray, seen: Seen, *, feeder_load_w: float = np.nan) -> Forecast:
        """Forecast the steps from now.

        Parameters
        ----------
        hours : FloatArray
            Length of each step [h], shape (steps,), steps >= 1.
        seen : Seen
            Measurements of the last half hour.
        feeder_load_w : float
            What the customers of our feeder take now [W]; NaN where the feeder is the whole system.
        """
        now_s = now.timestamp()
        held = self._at_hour(now_s, float(hours.sum()))
        live = self._gated(seen, now_s)
        times_s = _moments_s(now_s, hours)
        clouds = self._clouds(held, live, now_s)
        told, told_words = self._told(now_s, times_s)
        believed_w = np.where(np.isfinite(live.load.values) & (not held.belief.load_doubt), live.load.values, np.nan)
        ratio = held.course.ratio(live.at_s, believed_w)
        load_w = self._load(held, now_s, times_s, ratio).mean(axis=1)
        pv_pu = self._pv(held, clouds, now_s, times_s, told).mean(axis=1)
        self._promise(held, clouds, now_s, ratio)
        share = self._feeder_share(feeder_load_w, believed_w, float(load_w[0, 1]))
        pv_w = self._pv_rated_w * pv_pu
        net_w = load_w[:, 1] - pv_w[:, 1]
        return Forecast(
            made_at=now,
            start=now,
            net_load_w=net_w,
            pv_w=pv_w[:, 1],
            pv_frac=pv_pu[:, 1],
            method=self._method(held, clouds, ratio, told_words, live),
            hours=hours,
            net_load_band_w=_difference_band(net_w, load_w, pv_w),
            pv_band_w=pv_w[:, ::2],
            feeder_w=share * load_w[:, 1] - pv_w[:, 1],
        )

    def _climate_of(self, record: Record) -> Climate | None:
        usual_w = median_profile(record, self._zone)
        return None if usual_w is None else climate_of(usual_w, self._zone, measured=True)

    def _gated(self, seen: Seen, now_s: float) -> _Live:
        at_s = epoch_s(seen.at)
        clear_pu = self._clear.pu(at_s)
        low_w, high_w = self._climate.bounds(at_s)
        low_pu, high_pu = pv_bounds_pu(clear_pu)
        load = Samples(
            name="load now",
            at_s=at_s,
            values=seen.gross_w,
            usual=self._climate.usual(at_s),
            low=low_w,
            high=high_w,
            now_s=now_s,
            age_max_s=LATE_S,
        )
        pv = Samples(
            name="PV now",
            at_s=at_s,
            values=seen.pv_frac,
            usual=clear_pu,
            low=low_pu,
            high=high_pu,
            now_s=now_s,
            age_max_s=LATE_S,
        )
        return _Live(at_s, gated(load, LOAD), gated(pv, PV), clear_pu)

    def _enter(self, live: _Live) -> None:
        """Gather new samples by quarter: sum and count of load, and of PV."""
        for at_s, load_w, pv_pu in zip(live.at_s, live.load.values, live.pv.values, strict=True):
            if at_s <= self._entered_s:
                continue
            self._entered_s = at_s
            sums = self._gathered.setdefault(int(at_s // QUARTER_S), np.zeros(4))
            sums += np.nan_to_num([load_w, float(np.isfinite(load_w)), pv_pu, float(np.isfinite(pv_pu))])

    def _close(self, now_s: float) -> None:
        """Enter the quarters that are over into the record."""
        over = sorted(number for number in self._gathered if (number + 1) * QUARTER_S <= now_s)
        if not over:
            return
        sums = np.array([self._gathered.pop(number) for number in over])
        quarters = np.array(over, dtype=np.intp)
        with np.errstate(invalid="ignore"):  # a quarter without a value is one that is not known
            load_w, pv_pu = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
        clear_pu = self._clear.pu(middles_s(quarters, QUARTER_S))
        self._record = self._record.entered(quarters, load_w, np.maximum(pv_pu, 0.0), clear_pu)

    def _at_hour(self, now_s: float, hours: float) -> _Hour:
        """What holds for this clock hour, made once in it."""
        number = int(now_s // HOUR_S)
        held = self._hour
        if held is not None and held.number == number and held.hours >= hours:
            return held
        raw = self._recent(now_s)
        if self._climate_day != now_s // DAY_S:
            self._climate_day = now_s // DAY_S
            self._climate = self._climate_of(raw) or self._climate
        found = belief(raw, self._climate, now_s)
        course = self._course(found.record, now_s, max(hours, PROMISED_H + 1.0))
        if course.name != self._judged:
            self._judged = course.name
            self.load_contest.restart()
        self._hour = _Hour(number, hours, found, course)
        return self._hour

    def _recent(self, now_s: float) -> Record:
        """The last days that were measured by now; of an archive that ended long ago its last ones."""
        record = self._record
        past = record.between(record.first, min(record.after, max(int(now_s // QUARTER_S), record.first)))
        known = np.flatnonzero(np.isfinite(past.load_w))
        last = past.first + int(known[-1]) + 1 if known.size else past.after
        return past.between(max(last - RECENT_QUARTERS, past.first), past.after).whole_hours()

    def _course(self, record: Record, now_s: float, hours: float) -> Course:
        fitted = self._fitted.course(record, now_s, hours) if self._fitted is not None else None
        if fitted is not None:
            return fitted
        recent = recent_days(record, self._zone)
        name, usual = ("standard load", self._climate.usual) if recent is None else ("recent days' load", recent.at)
        return profile_course(usual, spread_of(record, usual), now_s, hours, name=name)

    def _load(self, held: _Hour, now_s: float, times_s: FloatArray, ratio: float) -> FloatArray:
        """Quantiles of load at moments [W], shape (..., 3), within climatology."""
        ahead_w = held.course.ahead(now_s, times_s, ratio)
        rivals_w = values_before(held.belief.record, held.belief.record.load_w, now_s, times_s, self._zone)
        mixed_w = _mixed(self.load_contest, ahead_w, rivals_w, (times_s - now_s) / HOUR_S)
        low_w, high_w = self._climate.bounds(times_s)
        return np.clip(mixed_w, low_w[..., None], high_w[..., None])

    def _pv(self, held: _Hour, clouds: CloudCourse, now_s: float, times_s: FloatArray, told: FloatArray) -> FloatArray:
        """Quantiles of PV at moments [per unit of nameplate], shape (..., 3)."""
        clear_pu = self._clear.pu(times_s)
        ahead_pu = clear_pu[..., None] * clouds.ahead(now_s, times_s, told)
        rivals_pu = values_before(held.belief.record, held.belief.record.pv_pu, now_s, times_s, self._zone)
        scale = max(self._pv_rated_w, 1.0)
        mixed_w = _mixed(self.pv_contest, scale * ahead_pu, scale * rivals_pu, (times_s - now_s) / HOUR_S)
        most_pu = pv_bounds_pu(clear_pu)[1]
        return np.clip(mixed_w / scale, 0.0, np.where(clear_pu > 0.0, np.minimum(most_pu, 1.0), 0.0)[..., None])

    def _clouds(self, held: _Hour, live: _Live, now_s: float) -> CloudCourse:
        pv_pu = np.full_like(live.pv.values, np.nan) if held.belief.pv_doubt else live.pv.values
        return cloud_course(
            held.belief.record,
            now_s,
            max(held.hours, PROMISED_H + 1.0),
            self._zone,
            cloud_now=cloud_index(live.at_s, pv_pu, live.clear_pu, now_s - NOW_S),
            cloud_hour=cloud_index(live.at_s, pv_pu, live.clear_pu, -np.inf),
        )

    def _told(self, now_s: float, times_s: FloatArray) -> tuple[FloatArray, tuple[str, ...]]:
        """The weather forecast's cloud index at moments, NaN where it is not used; words about it."""
        nothing = np.full(times_s.shape, np.nan)
        if self._weather is None:
            return nothing, ()
        now = datetime.fromtimestamp(now_s, tz=self._zone)
        outlook = self._weather.outlook(now)
        trouble = self._weather.trouble(now) if isinstance(self._weather, TellsTrouble) else ()
        self._sky_refused = trouble
        words = tuple(refusal.text for refusal in trouble)
        if outlook is None:
            return nothing, words or ("no weather forecast",)
        index, passed = told_index(outlook, times_s, now_s, self._sky)
        self._sky_refused = (*trouble, *passed.refusals)
        words = tuple(refusal.text for refusal in self._sky_refused)
        if np.isfinite(index).any():
            words = (f"weather forecast of {outlook.made_at.astimezone(self._zone):%H:%M}", *words)
        return index, words

    def _promise(self, held: _Hour, clouds: CloudCourse, now_s: float, ratio: float) -> None:
        """Once an hour, keep what models and persistence say of the hours to come, to be judged when they have."""
        if self._promised == held.number:
            return
        self._promised = held.number
        first = held.number + 1
        number = first * HOUR_QUARTERS + np.arange(PROMISED_H * HOUR_QUARTERS)
        times_s: FloatArray = middles_s(number, QUARTER_S).reshape(-1, HOUR_QUARTERS)
        course_w = held.course.ahead(now_s, times_s, ratio).mean(axis=1)
        before_w = _hours_before(held.belief.record, held.belief.record.load_w, now_s, times_s, self._zone)
        self.load_contest.promise(first, course_w, before_w)
        told, _ = self._told(now_s, times_s)
        clear_pu = self._clear.pu(times_s)
        pv_pu = (clear_pu[..., None] * clouds.ahead(now_s, times_s, told)).mean(axis=1)
        before_pu = _hours_before(held.belief.record, held.belief.record.pv_pu, now_s, times_s, self._zone)
        lit_w = np.where(clear_pu.mean(axis=1) > SKY_MIN_PU, self._pv_rated_w, np.nan)
        self.pv_contest.promise(first, lit_w[:, None] * pv_pu, lit_w[:, None] * before_pu)

    def _settle(self, now: datetime, hour: int) -> tuple[Event, ...]:
        """Hold what came in an hour against what was said of it."""
        came = self._record.between(hour * HOUR_QUARTERS, (hour + 1) * HOUR_QUARTERS)
        load_w, pv_pu = hourly(came.load_w)[0], hourly(came.pv_pu)[0]
        if self._hour is not None:  # what is not believed judges nobody
            load_w = np.nan if self._hour.belief.load_doubt else load_w
            pv_pu = np.nan if self._hour.belief.pv_doubt else pv_pu
        return (
            *self.load_contest.settle(now, hour, float(load_w)),
            *self.pv_contest.settle(now, hour, float(pv_pu) * self._pv_rated_w),
        )

    def _note_refused(self, now: datetime, live: _Live) -> tuple[Event, ...]:
        """An event when the gates begin to refuse what is measured or told now, and when all of it passes again."""
        held = self._hour
        doubts = (*held.belief.load_doubt, *held.belief.pv_doubt) if held is not None else ()
        refusals = (*live.load.refusals, *live.pv.refusals, *doubts, *self._sky_refused)
        kinds = frozenset((refusal.series, refusal.reason.value) for refusal in refusals)
        before, self._refused = self._refused, kinds
        if kinds - before:
            text = "the forecast does without some of its input: " + "; ".join(refusal.text for refusal in refusals)
            return (Event(now, Severity.WARNING, "brain", "forecast-input", text),)
        if before and not kinds:
            text = "the forecast uses all of its input again"
            return (Event(now, Severity.INFO, "brain", "forecast-input-good", text),)
        return ()

    def _feeder_share(self, feeder_load_w: float, measured_w: FloatArray, expected_w: float) -> float:
        """Our feeder's share of the system's load; 1 where it is all of it, or its share is not known."""
        known = measured_w[np.isfinite(measured_w)]
        system_w = float(known.mean()) if known.size else expected_w
        if not np.isfinite(feeder_load_w) or system_w <= 0.0:
            return 1.0
        return float(np.clip(feeder_load_w / system_w, 0.0, 1.0))

    def _method(self, held: _Hour, clouds: CloudCourse, ratio: float, told: tuple[str, ...], live: _Live) -> str:
        parts = [
            f"{held.course.name} x {ratio:.3f} now",
            f"clear sky x {clouds.now:.2f} now, x {clouds.hour:.2f} this hour",
        ]
        parts += told
        for contest in (self.load_contest, self.pv_contest):
            if contest.monitor.demoted:
                parts.append(f"{contest.name} demoted to {contest.rival}: {contest.monitor.reason}")
        refusals = (*live.load.refusals, *live.pv.refusals, *held.belief.load_doubt, *held.belief.pv_doubt)
        parts += [f"left out: {refusal.text}" for refusal in refusals]
        return "; ".join(parts)


def _moments_s(now_s: float, hours: FloatArray) -> FloatArray:
    """Middles of equal parts of at most a quarter hour of each step, shape (steps, parts)."""
    parts = max(int(np.ceil(float(hours.max()) * HOUR_QUARTERS - 1e-9)), 1)
    starts_h = np.cumsum(hours) - hours
    moments: FloatArray = now_s + HOUR_S * (starts_h[:, None] + hours[:, None] * (np.arange(parts) + 0.5) / parts)
    return moments


def _hours_before(record: Record, values: FloatArray, now_s: float, times_s: FloatArray, zone: ZoneInfo) -> FloatArray:
    """Means of hours by `values_before`, shape (hours, rivals), from moments of their quarters."""
    before = values_before(record, values, now_s, times_s, zone)
    return np.stack([hourly(each.ravel()) for each in np.moveaxis(before, -1, 0)], axis=-1)


def _mixed(contest: Contest, ahead_w: FloatArray, rivals_w: FloatArray, leads_h: FloatArray) -> FloatArray:
    """A model's quantiles, shape (..., 3), and persistence, shape (..., rivals), as they have earned it."""
    monitor = contest.monitor
    centre_w = ahead_w[..., 1]
    low_w, high_w = contest.width * (centre_w - ahead_w[..., 0]), contest.width * (ahead_w[..., 2] - centre_w)
    if monitor.demoted:
        rival_w = rivals_w[..., monitor.rival]
        doubt = np.where(np.isfinite(rival_w), 1.0 - monitor.trust(leads_h), 0.0)
        centre_w = centre_w + doubt * (np.nan_to_num(rival_w) - centre_w)
        wide_w = doubt * ERROR_80 * monitor.rival_error_w(leads_h)
        low_w, high_w = np.maximum(low_w, wide_w), np.maximum(high_w, wide_w)
    return np.stack([centre_w - low_w, centre_w, centre_w + high_w], axis=-1)


def _difference_band(net_w: FloatArray, load_w: FloatArray, pv_w: FloatArray) -> FloatArray:
    """Band of load less PV, shape (steps, 2): errors of the two have nothing to do with each other."""
    below = np.hypot(load_w[:, 1] - load_w[:, 0], pv_w[:, 2] - pv_w[:, 1])
    above = np.hypot(load_w[:, 2] - load_w[:, 1], pv_w[:, 1] - pv_w[:, 0])
    return np.stack([net_w - below, net_w + above], axis=1)

"""Hourly load of the next two days with quantiles: a linear model and boosted trees, their mean, and a measured band.

    ln load(origin + lead) = level(origin) + (linear + trees) / 2
    quantile q = that + spread(origin, lead) * e_q

The linear model (ridge) has a row of coefficients for each lead and is fitted for each local hour of origin; the trees
(histogram gradient boosting) are one model with the lead as a feature. Where they err they err apart. The band is
conformal: spread is the usual size of an error under like conditions, e_q the quantiles of errors over spread, both
from the last part of the history as forecast by a model that was fitted on the part before it.

Source: scikit-learn (Ridge, HistGradientBoostingRegressor); Lei et al., Distribution-free predictive inference for
regression, JASA 2018, section 5.2 (locally weighted split conformal).
"""

from dataclasses import dataclass, replace

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge

from derms.domain.arrays import BoolArray, FloatArray
from derms.forecast.features import BEFORE, LEADS_MAX, Columns
from derms.forecast.history import DAY, WEEK, History, IntArray

QUANTILES = (0.1, 0.5, 0.9)
RIDGE_ALPHA = 100.0
CLIP_SD = 4.0
"""Features further from their mean than this, in standard deviations, say no more than at this distance."""
CALIBRATION_SHARE = 0.4
"""Last part of the history that the band is measured on."""
DAYS_MIN = 300
"""Days to fit on, at least: without the course of most of a year a model does not know the seasons."""
SPREAD_MIN = 0.002
SPREAD_BLOCK_DAYS = 28
"""Spread is judged on blocks of days that its model has not seen."""
LEAD_GROUP_H = 6
"""Leads that share the quantiles of errors over spread [h]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What a model is made for, and how much work goes into it."""

    origin_hours: tuple[int, ...] = tuple(range(DAY))
    """Local hours at which forecasts are made."""
    leads: tuple[int, ...] = tuple(range(LEADS_MAX))
    """Hours ahead that are wanted; 0 is the hour that begins at the origin."""
    rows_max: int = 120_000
    """Hours of history that trees learn from, drawn at random beyond that."""
    seeds: int = 1
    """Ensembles of trees, averaged."""


@dataclass(frozen=True, slots=True)
class _Linear:
    mean: FloatArray
    sd: FloatArray
    offset: FloatArray
    model: Ridge

    def predict(self, features: FloatArray) -> FloatArray:
        found: FloatArray = self.model.predict(self._scaled(features)) + self.offset
        return found

    def _scaled(self, features: FloatArray) -> FloatArray:
        return np.clip((features - self.mean) / self.sd, -CLIP_SD, CLIP_SD)

    @classmethod
    def fitted(cls, features: FloatArray, target: FloatArray) -> "_Linear":
        made = cls(features.mean(axis=0), features.std(axis=0) + 1e-3, target.mean(axis=0), Ridge(alpha=RIDGE_ALPHA))
        made.model.fit(made._scaled(features), target - made.offset)
        return made


class _Centre:
    """The two models and their mean."""

    def __init__(self, columns: Columns, history: History, origins: IntArray, fit: Fit) -> None:
        self._fit, self._leads = fit, np.array(fit.leads)
        shape = _shapes(columns, history, origins, self._leads)
        self._linear = {hour: self._line(columns, origins, shape, hour) for hour in fit.origin_hours}
        grid_origins, grid_leads = _grid(origins, self._leads)
        rows = np.flatnonzero(np.isfinite(shape.ravel()))
        if rows.size > fit.rows_max:
            rows = np.random.default_rng(0).choice(rows, fit.rows_max, replace=False)
        features, target = columns.single(grid_origins[rows], grid_leads[rows]), shape.ravel()[rows]
        self._trees = [_trees(seed).fit(features, target) for seed in range(fit.seeds)]

    @staticmethod
    def _line(columns: Columns, origins: IntArray, shape: FloatArray, hour: int) -> _Linear:
        rows = (origins % DAY == hour) & np.isfinite(shape).all(axis=1)
        return _Linear.fitted(columns.whole(origins[rows]), shape[rows])

    def predict(self, columns: Columns, origins: IntArray) -> FloatArray:
        """Load against the level [ln], shape (n, leads)."""
        grid = columns.single(*_grid(origins, self._leads))
        trees = np.mean([tree.predict(grid) for tree in self._trees], axis=0).reshape(len(origins), -1)
        linear = np.empty_like(trees)
        for hour in np.unique(origins % DAY):
            rows = origins % DAY == hour
            linear[rows] = self._linear[int(hour)].predict(columns.whole(origins[rows]))
        mean: FloatArray = (linear + trees) / 2.0
        return mean


class DemandModel:
    """Forecasts of hourly load, fitted once on a history; see the module's text."""

    def __init__(self, history: History, fit: Fit | None = None, *, before: int | None = None) -> None:
        """Fit on the hours of a history before place `before` (all of it where None).

        Raises
        ------
        ValueError
            Where there are fewer than `DAYS_MIN` days to fit on.
        """
        self.fit = fit or Fit()
        columns = Columns(history)
        origins = _origins(history, self.fit, history.hours if before is None else before)
        if np.unique(origins // DAY).size < DAYS_MIN:
            raise ValueError(f"{np.unique(origins // DAY).size} days of load to fit on; {DAYS_MIN} are needed")
        cut = origins[int(origins.size * (1.0 - CALIBRATION_SHARE))]
        early, late = origins[origins < cut - LEADS_MAX], origins[origins >= cut]
        self._measure_band(columns, history, early, late)
        self._centre = _Centre(columns, history, origins, self.fit)

    def _measure_band(self, columns: Columns, history: History, early: IntArray, late: IntArray) -> None:
        centre = _Centre(columns, history, early, replace(self.fit, seeds=1))
        leads = np.array(self.fit.leads)
        late = _thinned(late, self.fit.rows_max // leads.size)
        error = _shapes(columns, history, late, leads) - centre.predict(columns, late)
        good = np.isfinite(error.ravel())
        rows, rows_lead = _grid(late, leads)
        features, size = columns.single(rows, rows_lead)[good], error.ravel()[good]
        self._spread = _spread_model(size.size).fit(features, np.abs(size))
        scaled = np.full(error.size, np.nan)
        scaled[good] = size / _spread_of_others(features, size, rows[good] // (DAY * SPREAD_BLOCK_DAYS) % 2 == 0)
        groups = leads // LEAD_GROUP_H
        grouped = {group: scaled.reshape(error.shape)[:, groups == group] for group in np.unique(groups)}
        self._scaled = np.stack([np.nanquantile(grouped[group], QUANTILES) for group in groups])

    def predict(self, history: History, origins: IntArray) -> FloatArray:
        """Load by origin, lead and quantile [W], shape (n, leads, 3), rising along the last axis.

        The middle is the forecast itself, the outer two the ends of the 80 % band.

        Parameters
        ----------
        history : History
            What is known; hours at and after an origin are not looked at for it.
        origins : IntArray
            Places at which to begin, at least `BEFORE` and at most `history.hours`, shape (n,).
        """
        columns = Columns(history)
        leads = np.array(self.fit.leads)
        centre = self._centre.predict(columns, origins) + columns.level(origins)[:, None]
        spread = np.maximum(self._spread.predict(columns.single(*_grid(origins, leads))), SPREAD_MIN)
        error = spread.reshape(centre.shape)[:, :, None] * self._scaled
        low = np.minimum(error[..., 0], 0.0)
        high = np.maximum(error[..., -1], 0.0)
        log = centre[..., None] + np.stack([low, np.zeros_like(low), high], axis=-1)
        load_w: FloatArray = np.exp(log)
        return load_w


def _origins(history: History, fit: Fit, before: int) -> IntArray:
    """Origins whose hours ahead lie before a place, with more than half of the week before them measured."""
    origins = np.arange(BEFORE, max(before - max(fit.leads), BEFORE))
    measured = np.concatenate([[0], np.cumsum(history.known)])
    full = measured[origins] - measured[origins - WEEK] > WEEK // 2
    found: IntArray = origins[full & np.isin(origins % DAY, fit.origin_hours)]
    return found


def _shapes(columns: Columns, history: History, origins: IntArray, leads: IntArray) -> FloatArray:
    """What came, against the level [ln], shape (n, leads); NaN where it was not measured."""
    places = origins[:, None] + leads
    log: FloatArray = np.where(history.known, history.log_load, np.nan)[places]
    return log - columns.level(origins)[:, None]


def _grid(origins: IntArray, leads: IntArray) -> tuple[IntArray, IntArray]:
    return np.repeat(origins, leads.size), np.tile(leads, origins.size)


def _thinned(origins: IntArray, count: int) -> IntArray:
    """At most about `count` origins, evenly spread over time and over the hours of the day."""
    stride = origins.size // max(count, 1) + 1
    while stride > 1 and np.gcd(stride, DAY) > 1:
        stride += 1
    return origins[::stride]


def _spread_of_others(features: FloatArray, error: FloatArray, even: BoolArray) -> FloatArray:
    """Spread of each row by a model of the other blocks of days: of those it has seen, a model is too sure."""
    spread = np.empty(error.size)
    for rows in (even, ~even):
        model = _spread_model(int((~rows).sum())).fit(features[~rows], np.abs(error[~rows]))
        spread[rows] = model.predict(features[rows])
    return np.maximum(spread, SPREAD_MIN)


def _trees(seed: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=600,
        learning_rate=0.03,
        max_leaf_nodes=31,
        min_samples_leaf=40,
        max_features=0.2,
        l2_regularization=5.0,
        early_stopping=False,
        random_state=seed,
    )


def _spread_model(rows: int) -> HistGradientBoostingRegressor:
    return HistGradientBoostingRegressor(
        max_iter=60,
        learning_rate=0.1,
        max_leaf_nodes=6,
        min_samples_leaf=max(rows // 20, 1),
        l2_regularization=5.0,
        early_stopping=False,
        random_state=0,
    )

"""How good forecasts have been against persistence, by lead, and whether a model has earned its place.

Errors fade with time, so that a model which has become bad is demoted and one that has become good is taken back. The
gap between the two limits keeps it from changing its mind with every hour. A model is judged by groups of leads: where
persistence is better it takes the place, and where the model is better the model keeps it.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray

MEMORY = 336.0
"""Scores after which an old one counts 1/e: two weeks of hours."""
SCORES_MIN = 48.0
"""Scores before anything is judged."""
DEMOTED_ABOVE, RESTORED_BELOW = 1.05, 0.95
"""Error of the model over that of persistence at which it is demoted, and taken back."""
CAUTION = 48.0
"""With n scores the model has to be worse by (48 / n)^2 more: after two days by all, after four by a quarter."""
LEAD_GROUPS_H = (1.0, 6.0, 24.0, 48.0)
"""Ends of the groups of leads [h ahead]."""
BAND_SHARE = 0.8
"""What a band should hold of what comes."""
BAND_RATE = 0.02
WIDTH_MIN, WIDTH_MAX = 0.5, 3.0
"""A band grows or shrinks by 2 % an hour times what it held too little or too much, within these factors."""
PROMISES_MAX = 48
"""Forecasts that wait to be judged, one an hour."""


class SkillMonitor:
    """Mean absolute errors of a model and of its rivals for each group of leads."""

    def __init__(
        self, rivals: Sequence[str] = ("persistence",), lead_groups_h: Sequence[float] = LEAD_GROUPS_H
    ) -> None:
        """Groups are told by their ends [h ahead], rising."""
        self._rivals = tuple(rivals)
        self._ends_h = np.array(lead_groups_h)
        # By group and rival: weight, error of the model, error of the rival, over what all three are known of.
        self._sums = np.zeros((len(lead_groups_h), len(self._rivals), 3))
        self._demoted = np.zeros(len(lead_groups_h), dtype=np.bool_)

    def score(self, leads_h: FloatArray, model_w: FloatArray, rivals_w: FloatArray, actual_w: FloatArray) -> None:
        """Enter what came against what was forecast [W], of shape (k,), that of rivals (k,) or (k, rivals).

        What is not known (NaN) is left out.
        """
        rivals_w = rivals_w.reshape(len(leads_h), len(self._rivals))
        error_w, rivals_error_w = np.abs(model_w - actual_w), np.abs(rivals_w - actual_w[:, None])
        good = np.isfinite(error_w[:, None] + rivals_error_w)
        group = np.searchsorted(self._ends_h, leads_h)
        for one in range(self._ends_h.size):
            rows = group == one
            for rival in np.flatnonzero(good[rows].any(axis=0)):
                both = rows & good[:, rival]
                new = (1.0, error_w[both].mean(), rivals_error_w[both, rival].mean())
                self._sums[one, rival] = np.exp(-1.0 / MEMORY) * self._sums[one, rival] + new
        weight, model, naive = np.moveaxis(self._sums, -1, 0)
        enough = weight >= SCORES_MIN
        worse = model > (DEMOTED_ABOVE + (CAUTION / np.maximum(weight, 1.0)) ** 2) * naive
        self._demoted |= (enough & worse).any(axis=1)
        self._demoted &= ~(~enough | (model < RESTORED_BELOW * naive)).all(axis=1)

    @property
    def demoted(self) -> bool:
        """Whether persistence should be used instead, for some leads at least."""
        return bool(self._demoted.any())

    def trust(self, leads_h: FloatArray) -> FloatArray:
        """Share of the model in a forecast [0..1], of the shape of leads [h ahead]: no step between its groups."""
        middles_h = (self._ends_h + np.concatenate([[0.0], self._ends_h[:-1]])) / 2.0
        share: FloatArray = np.interp(leads_h, middles_h, np.where(self._demoted, 0.0, 1.0))
        return share

    @property
    def rival(self) -> int:
        """The rival to take where the model is demoted: the one that errs least there."""
        sums = self._sums[self._demoted if self.demoted else slice(None)]
        weight, _, naive = np.moveaxis(sums, -1, 0)
        error = np.where(weight > 0.0, naive / np.maximum(weight, 1e-9), np.inf).sum(axis=0)
        return int(error.argmin())

    def rival_error_w(self, leads_h: FloatArray) -> FloatArray:
        """Mean absolute error of that rival, of the shape of leads [h ahead] [W]."""
        weight, _, naive = np.moveaxis(self._sums[:, self.rival], -1, 0)
        middles = np.minimum(np.searchsorted(self._ends_h, leads_h), self._ends_h.size - 1)
        error_w: FloatArray = (naive / np.maximum(weight, 1e-9))[middles]
        return error_w

    @property
    def reason(self) -> str:
        """Why it is demoted, for the operator; empty while it is not."""
        return "; ".join(self._errors(one) for one in np.flatnonzero(self._demoted).tolist())

    def _errors(self, group: int) -> str:
        weight, model, naive = self._sums[group, self.rival]
        model, naive = model / max(weight, 1e-9), naive / max(weight, 1e-9)
        return (
            f"up to {self._ends_h[group]:g} h ahead the model errs by {model / 1e3:.0f} kW, "
            f"{self._rivals[self.rival]} by {naive / 1e3:.0f} kW"
        )


@dataclass(frozen=True, slots=True)
class _Promise:
    first: int
    model_w: FloatArray
    """Quantiles 10 %, 50 % and 90 %, shape (n, 3)."""
    rivals_w: FloatArray


class Contest:
    """A model against its rivals: keeps what each said every hour until it has come, and tells who may forecast.

    It also sees to the model's band: one that holds too little of what comes is made wider (Gibbs and Candes, Adaptive
    conformal inference under distribution shift, NeurIPS 2021).
    """

    def __init__(self, name: str, rivals: Sequence[str]) -> None:
        self.name = name
        self._rivals = tuple(rivals)
        self._promises: deque[_Promise] = deque(maxlen=PROMISES_MAX)
        self.monitor = SkillMonitor(rivals)
        self.width = 1.0
        """Of the model's band, against what the model itself says."""

    @property
    def rival(self) -> str:
        """The rival to take where the model is demoted."""
        return self._rivals[self.monitor.rival]

    def restart(self) -> None:
        """Forget all: another model forecasts from now on."""
        self._promises.clear()
        self.monitor = SkillMonitor(self._rivals)
        self.width = 1.0

    def promise(self, first: int, model_w: FloatArray, rivals_w: FloatArray) -> None:
        """Keep a forecast made in the hour before number `first`: quantiles and rivals [W], (n, 3) and (n, rivals)."""
        self._promises.append(_Promise(first, model_w, rivals_w))

    def settle(self, now: datetime, hour: int, actual_w: float) -> tuple[Event, ...]:
        """Judge all that was said of an hour (its number since 1970); an event when the model loses or has its place.

        `actual_w` is what came [W], NaN where that is not known.
        """
        said = [(p, hour - p.first) for p in self._promises if 0 <= hour - p.first < len(p.model_w)]
        if not said:
            return ()
        before = self.monitor.demoted
        model_w = np.array([promise.model_w[lead] for promise, lead in said])
        self._judge_band(model_w, actual_w)
        self.monitor.score(
            np.array([lead + 1.0 for _, lead in said]),
            model_w[:, 1],
            np.array([promise.rivals_w[lead] for promise, lead in said]),
            np.full(len(said), actual_w),
        )
        if self.monitor.demoted is before:
            return ()
        if self.monitor.demoted:
            text = f"the {self.name} forecast is demoted to {self.rival}: {self.monitor.reason}"
            return (Event(now, Severity.WARNING, "brain", "forecast-demoted", text),)
        text = f"the {self.name} forecast is better than persistence again, and is used"
        return (Event(now, Severity.INFO, "brain", "forecast-restored", text),)

    def _judge_band(self, model_w: FloatArray, actual_w: float) -> None:
        low_w, middle_w, high_w = model_w[np.isfinite(model_w).all(axis=1)].T
        if not np.isfinite(actual_w) or not middle_w.size:
            return
        low_w, high_w = middle_w + self.width * (low_w - middle_w), middle_w + self.width * (high_w - middle_w)
        inside = np.mean((low_w <= actual_w) & (actual_w <= high_w))
        self.width = float(np.clip(self.width * np.exp(BAND_RATE * (BAND_SHARE - inside)), WIDTH_MIN, WIDTH_MAX))

"""How good forecasts have been against persistence, by lead, and whether a model has earned its place.

Errors fade with time, so that a model which has become bad is demoted and one that has become good is taken back. The
gap between the two limits keeps it from changing its mind with every hour.
"""

import numpy as np

from derms.domain.arrays import FloatArray

MEMORY = 336.0
"""Scores after which an old one counts 1/e: two weeks of hours."""
SCORES_MIN = 48.0
"""Scores before anything is judged."""
DEMOTED_ABOVE, RESTORED_BELOW = 1.05, 0.95
"""Error of the model over that of persistence at which it is demoted, and taken back."""


class SkillMonitor:
    """Mean absolute errors of a model and of persistence for each group of leads."""

    def __init__(self, lead_groups_h: tuple[float, ...] = (1.0, 6.0, 24.0, 48.0)) -> None:
        """Groups are told by their ends [h ahead], rising."""
        self._ends_h = np.array(lead_groups_h)
        self._weight, self._model, self._naive = (np.zeros(len(lead_groups_h)) for _ in range(3))
        self._demoted = np.zeros(len(lead_groups_h), dtype=np.bool_)

    def score(self, leads_h: FloatArray, model_w: FloatArray, naive_w: FloatArray, actual_w: FloatArray) -> None:
        """Enter what came against what was forecast [W], all of shape (k,); what is not known (NaN) is left out."""
        good = np.isfinite(model_w) & np.isfinite(naive_w) & np.isfinite(actual_w)
        group = np.searchsorted(self._ends_h, leads_h)
        for one in np.unique(group[good & (group < self._ends_h.size)]):
            rows = good & (group == one)
            keep = np.exp(-1.0 / MEMORY)
            self._weight[one] = keep * self._weight[one] + 1.0
            self._model[one] = keep * self._model[one] + np.abs(model_w - actual_w)[rows].mean()
            self._naive[one] = keep * self._naive[one] + np.abs(naive_w - actual_w)[rows].mean()
        enough = self._weight >= SCORES_MIN
        self._demoted |= enough & (self._model > DEMOTED_ABOVE * self._naive)
        self._demoted &= ~(self._model < RESTORED_BELOW * self._naive)

    @property
    def demoted(self) -> bool:
        """Whether persistence should be used instead."""
        return bool(self._demoted.any())

    @property
    def reason(self) -> str:
        """Why it is demoted, for the operator; empty while it is not."""
        return "; ".join(
            f"up to {self._ends_h[one]:g} h ahead "
            f"the model errs by {self._model[one] / self._weight[one] / 1e3:.0f} kW, "
            f"persistence by {self._naive[one] / self._weight[one] / 1e3:.0f} kW"
            for one in np.flatnonzero(self._demoted)
        )

"""Prices of energy on their way into plans: read anew when their file changes, and weighed against the peak."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from derms.domain.alarm import Event, Severity
from derms.domain.arrays import FloatArray
from derms.domain.settings import PlanSettings
from derms.errors import ConfigError
from derms.ports import Clock
from derms.service.series import Prices, read_prices


class Pricing:
    """What importing energy costs in the coming steps, as the objective counts it.

    A file that cannot be read leaves the prices that were read before. A step without a price has the mean of those
    that have one, so that it is neither cheap nor dear; without any, energy costs nothing. Both are told once.
    """

    def __init__(self, path: Path, plan: PlanSettings, clock: Clock, on_event: Callable[[Event], None]) -> None:
        self._path, self._clock, self._on_event = path, clock, on_event
        self._hours = plan.hours
        # What a $/MWh is in units of the objective for a per-unit hour: the scale of both is the same and drops out.
        self._per_usd = plan.weights.peak / (1e3 * plan.peak_price)
        self._version: tuple[int, int, int] | None = None
        self._prices = Prices(np.zeros(0), np.zeros(0))
        self._wrong = self._told = ""

    def price(self) -> FloatArray:
        """Cost of importing a per-unit hour in each step of a plan made now, in units of the objective."""
        self._refresh()
        now = self._clock.utc()
        usd_per_mwh = self._prices.means(now.timestamp(), self._hours)
        known = np.isfinite(usd_per_mwh)
        trouble = self._wrong
        if not known.any():
            trouble = trouble or f"{self._path} has no price for the coming hours; plans are made without"
        if trouble != self._told:
            self._told, severity = trouble, Severity.WARNING if trouble else Severity.INFO
            self._on_event(Event(now, severity, "brain", "energy-prices", trouble or "prices of energy are there"))
        if not known.any():
            return np.zeros(len(known))
        mean = float(usd_per_mwh[known] @ self._hours[known] / self._hours[known].sum())
        return self._per_usd * np.where(known, usd_per_mwh, mean)

    def _refresh(self) -> None:
        try:
            status = os.stat(self._path)
        except OSError:
            return
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version == self._version:
            return
        self._version = version
        try:
            self._prices, self._wrong = read_prices(self._path), ""
        except ConfigError as error:
            self._wrong = f"{error.problems[0]}; the prices read before go on"

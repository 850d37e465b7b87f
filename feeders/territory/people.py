"""Who lives on a made-up feeder: customers, their share of its peak, and the DER that they have.

Powers in kW, as in circuits and manifests.
"""

from dataclasses import dataclass
from math import exp, log

import numpy as np

from feeders.siting import BATTERY_HOURS, OVERSIZE, SERVICE_CLASSES, ServiceClass
from feeders.territory.spec import Device, Spec

SERVICE_MAX_KVA = SERVICE_CLASSES[-1].kva
DER_MIN_KW = 1.0
ROUND = 2
"""Decimals of everything that is written: the last bits of a logarithm are not everywhere the same."""


@dataclass(frozen=True, slots=True)
class Der:
    """One DER."""

    id: str
    kind: str
    p_kw: float
    device: Device
    hours: float = BATTERY_HOURS

    @property
    def s_kva(self) -> float:
        return round(self.p_kw * OVERSIZE, ROUND)

    @property
    def energy_kwh(self) -> float:
        return round(self.p_kw * self.hours, ROUND) if self.kind == "battery" else 0.0


@dataclass(frozen=True, slots=True)
class Service:
    """The customers behind one service transformer."""

    id: str
    customers: int
    business: bool
    load_kw: float
    ders: tuple[Der, ...]

    @property
    def size(self) -> ServiceClass:
        """The smallest that carries the load, and each inverter."""
        needed = max([self.load_kw * 1.1, sum(der.s_kva for der in self.ders) * 0.8, *(d.s_kva for d in self.ders)])
        return next((size for size in SERVICE_CLASSES if size.kva >= needed), SERVICE_CLASSES[-1])


class People:
    """Draws the customers of one feeder.

    Parameters
    ----------
    spec
        The territory.
    rng
        The feeder's own.
    """

    def __init__(self, spec: Spec, rng: np.random.Generator) -> None:
        self._spec, self._rng = spec, rng
        self._income = float(rng.standard_normal())
        self._made = {"pv": 0, "battery": 0, "ev-charger": 0}

    def service(self, number: int) -> Service:
        """The next service transformer and everybody behind it."""
        given = self._spec.customers
        business = bool(self._rng.random() < given["business_frac"])
        if business:
            median, sigma, count = given["business_median_kw"], given["business_sigma"], 1
        else:
            median, sigma, count = (
                given["median_kw"],
                given["sigma"],
                max(1, int(self._rng.poisson(given["per_service"]))),
            )
        loads = np.minimum(median * np.exp(sigma * self._rng.standard_normal(count)), SERVICE_MAX_KVA * 0.8)
        ders = [der for load_kw in loads for der in self._ders(float(load_kw), median, business)]
        load_kw = min(float(loads.sum()), SERVICE_MAX_KVA * 0.9)
        return Service(f"c{number:03d}", count, business, round(load_kw, ROUND), tuple(ders))

    def _ders(self, load_kw: float, median_kw: float, business: bool) -> list[Der]:
        """What one customer has."""
        given, sizes = self._spec.adoption, self._spec.sizes
        scale = load_kw / self._spec.customers["median_kw"] if business else 1.0
        odds = exp(given["per_log_kw"] * log(load_kw / median_kw) + given["per_income"] * self._income)
        drawn, spread = self._rng.random(3), np.exp(sizes["sigma"] * self._rng.standard_normal(3))
        has_pv = drawn[0] < _chance(given["pv_frac"], odds)
        has = (
            ("pv", "pv_kw", has_pv),
            ("battery", "battery_kw", has_pv and drawn[1] < _chance(given["battery_frac"], odds)),
            ("ev-charger", "ev_kw", not business and drawn[2] < _chance(given["ev_frac"], odds)),
        )
        found = []
        for (kind, key, there), factor in zip(has, spread, strict=True):
            if there:
                most_kw = SERVICE_MAX_KVA / OVERSIZE / 1.5
                p_kw = min(max(sizes[key] * float(factor) * scale, DER_MIN_KW), most_kw)
                found.append(self._der(kind, round(p_kw, ROUND)))
        return found

    def _der(self, kind: str, p_kw: float) -> Der:
        self._made[kind] += 1
        kinds = [device for device in self._spec.devices if device.kind == kind]
        share = np.cumsum([device.weight for device in kinds])
        device = kinds[int(np.searchsorted(share, self._rng.random() * share[-1], side="right"))]
        prefix = {"pv": "pv", "battery": "bat", "ev-charger": "ev"}[kind]
        return Der(f"{prefix}{self._made[kind]:03d}", kind, p_kw, device, self._spec.sizes["battery_hours"])


def _chance(frac: float, odds: float) -> float:
    """Logit: a part of customers whose odds are multiplied."""
    scaled = odds * frac / (1.0 - frac)
    return scaled / (1.0 + scaled)

"""The verifier: what a plan must satisfy before any setpoint of it leaves. Shares no code with the optimizer.

First the numbers (finite, within power and energy, storage adds up), then the feeder: full power-flow solutions at
every point between which setpoints are interpolated. A plan may not make voltages or overloads worse than they would
be without it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.plan import Plan
from derms.domain.strain import Strain
from derms.errors import GridError
from derms.optimize.aggregate import VirtualBattery

TOLERANCE_FRAC = 2e-3
"""What solvers may leave open, per unit of rated power or capacity; the guards still clip every setpoint."""


EXCESS_TOLERANCE_PU = 0.005
"""Sum of expected voltage excess that a plan may add, over all points: what a few voltmeters would not tell."""
OVERLOAD_TOLERANCE = 0.02
"""Sum of loading beyond ratings that a plan may add, per unit of a rating."""

EASED_BEYOND = 1.1
"""Of what a plan adds to a strain, how much easing takes away: tangents are straight, and others take over."""


FeederLookAhead = Callable[[FloatArray, float], Strain]
"""Solves the feeder with power per DER [W], shape (ders,), and its present load times a factor."""


@dataclass(frozen=True, slots=True)
class FeederFinding:
    """A point in time at which a plan makes the feeder's voltages or overloads worse than they would be without it."""

    point: int
    text: str
    added: float
    """Excess voltage [pu] or overload [pu of ratings] that the plan adds; NaN where the feeder has no solution."""
    per_w: FloatArray
    """How a further W injected by each DER raises it, shape (ders,)."""


def check_numbers(plan: Plan, battery: VirtualBattery, pv_w: FloatArray, load_w: FloatArray) -> list[str]:
    """Everything that is wrong with a plan's own numbers, as sentences; empty when nothing is.

    Parameters
    ----------
    pv_w, load_w : FloatArray
        Forecast PV power and net load that the plan was made for [W], shape (steps,).
    """
    columns = (plan.battery_w, plan.curtail_w, plan.energy_wh, plan.net_load_w)
    if not all(np.isfinite(column).all() for column in columns):
        return ["the plan holds values that are not finite"]
    wrong = []
    slack_w = TOLERANCE_FRAC * max(battery.p_rated_w, 1.0)
    if np.abs(plan.battery_w).max(initial=0.0) > battery.p_rated_w + slack_w:
        wrong.append(f"battery power beyond {battery.p_rated_w / 1e3:.1f} kW")
    if (plan.curtail_w < -slack_w).any() or (plan.curtail_w > np.maximum(pv_w, 0.0) + slack_w).any():
        wrong.append("more PV held back than there is")
    balance_w = load_w - plan.battery_w + plan.curtail_w - plan.net_load_w
    if np.abs(balance_w).max(initial=0.0) > slack_w:
        wrong.append(f"net load does not add up by {np.abs(balance_w).max() / 1e3:.1f} kW")
    return wrong + _check_energy(plan, battery)


def _check_energy(plan: Plan, battery: VirtualBattery) -> list[str]:
    """Follow the store through the plan; outside its bounds it must at least move back towards them."""
    efficiency = battery.efficiency_frac
    flow_wh = np.where(plan.battery_w > 0.0, -plan.battery_w / efficiency, -plan.battery_w * efficiency) * plan.hours
    stored_wh = battery.energy_wh + np.cumsum(flow_wh)
    margin_wh = 0.02 * max(battery.energy_max_wh - battery.energy_min_wh, 1.0)
    low_wh = min(battery.energy_min_wh, battery.energy_wh) - margin_wh
    high_wh = max(battery.energy_max_wh, battery.energy_wh) + margin_wh
    wrong = []
    if stored_wh.min(initial=np.inf) < low_wh:
        wrong.append(f"energy falls to {stored_wh.min() / 1e3:.1f} kWh, under {low_wh / 1e3:.1f} kWh")
    if stored_wh.max(initial=-np.inf) > high_wh:
        wrong.append(f"energy rises to {stored_wh.max() / 1e3:.1f} kWh, over {high_wh / 1e3:.1f} kWh")
    return wrong


def check_feeder(
    planned_w: FloatArray, load_factor: FloatArray, look_ahead: FeederLookAhead, without: Callable[[int], Strain]
) -> list[FeederFinding]:
    """Solve the feeder at each point given; what the plan makes worse than it would be without.

    Parameters
    ----------
    planned_w : FloatArray
        Power per DER [W], + = injection, shape (points, ders).
    load_factor : FloatArray
        Load at each point against now, shape (points,).
    without
        The strain at a point without the plan; asked only where the plan strains the feeder.
    """
    findings = []
    for point, factor in enumerate(load_factor.tolist()):
        try:
            planned = look_ahead(planned_w[point], factor)
            if planned.excess_pu <= EXCESS_TOLERANCE_PU and planned.overload <= OVERLOAD_TOLERANCE:
                continue
            bare = without(point)
        except GridError as error:
            text = f"point {point}: the feeder has no solution: {error}"
            findings.append(FeederFinding(point, text, np.nan, np.zeros(planned_w.shape[1])))
            continue
        excess_pu, overload = planned.excess_pu - bare.excess_pu, planned.overload - bare.overload
        if excess_pu > EXCESS_TOLERANCE_PU:
            text = (
                f"point {point}: {planned.violations} nodes outside their voltage range, {planned.excess_pu:.3f} pu"
                f" to be expected in sum; without the plan {bare.violations}, {bare.excess_pu:.3f} pu"
            )
            findings.append(FeederFinding(point, text, excess_pu, planned.excess_per_w))
        if overload > OVERLOAD_TOLERANCE:
            text = (
                f"point {point}: lines and transformers beyond their ratings by {planned.overload:.2f} of them in sum;"
                f" without the plan by {bare.overload:.2f}"
            )
            findings.append(FeederFinding(point, text, overload, planned.overload_per_w))
    return findings


def eased(caps: FloatArray, rated_w: FloatArray, battery_w: FloatArray, findings: list[FeederFinding]) -> FloatArray:
    """Smaller shares for the batteries that strain the feeder, most for those with the greatest effect per W.

    Where no battery has a part in it, or the feeder has no solution, all shares are halved.

    Parameters
    ----------
    caps : FloatArray
        Share of its rating that each DER may use [0..1], shape (ders,).
    rated_w : FloatArray
        Those ratings [W], shape (ders,).
    battery_w : FloatArray
        Battery power at each finding's point [W], + = injection, 0 for all other DER, shape (findings, ders).
    """
    halved = 0.5 * caps
    for finding, power_w in zip(findings, battery_w, strict=True):
        adds = np.maximum(finding.per_w * power_w, 0.0)
        if not adds.any():
            caps = np.minimum(caps, halved)
            continue
        left_w = np.abs(power_w) * (1.0 - _cut(adds, np.abs(finding.per_w), EASED_BEYOND * finding.added))
        most = np.divide(left_w, rated_w, out=np.ones_like(caps), where=rated_w > 0.0)
        caps = np.where(adds > 0.0, np.minimum(caps, most), caps)
    return caps


def _cut(adds: FloatArray, effect: FloatArray, wanted: float) -> FloatArray:
    """Shares to be taken from each addition, in proportion to its effect, so that together they make `wanted`."""
    weight = np.where(adds > 0.0, effect, 0.0) / effect[adds > 0.0].max()
    low, high = 0.0, 1.0 / weight[weight > 0.0].min()
    for _ in range(60):
        level = 0.5 * (low + high)
        if adds @ np.minimum(level * weight, 1.0) < wanted:
            low = level
        else:
            high = level
    shares: FloatArray = np.minimum(high * weight, 1.0)
    return shares

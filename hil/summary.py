"""What a run came to: its figures for programs, and the same figures in words for people."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from derms.domain.arrays import FloatArray
from derms.service.app import Service
from hil.tap import Violation
from hil.truth import Truth

QUARTER_S = 900.0
RAMP_STEPS = 12
"""Quarter hours over which the three-hour ramp is taken."""


@dataclass(slots=True)
class Run:
    """What a managed day leaves behind."""

    service: Service
    truth: Truth
    tap_violations: list[Violation]
    trace_hash: str | None
    planned_w: list[tuple[float, float]] = field(default_factory=list)
    """Hours since the start, and the net load that a plan expected for then in its first step [W]."""


def rises_3h_w(means_w: FloatArray) -> FloatArray:
    """Change of quarter-hour means against three hours before [W]; empty for a run of less."""
    rises: FloatArray = means_w[RAMP_STEPS:] - means_w[:-RAMP_STEPS]
    return rises


def summarize(run: Run, without: Truth, *, seed: int, wall_s: float) -> dict[str, object]:
    """The figures of a run, by the names that the JSON file uses; None where it was too short to tell."""
    with_w, without_w = run.truth.head_mean_w(QUARTER_S), without.head_mean_w(QUARTER_S)
    gateway, brain = run.service.gateway, run.service.brain
    polls, writes = gateway.poller.counts, gateway.reconciler.counts
    return {
        "simulated_hours": run.truth.steps * run.truth.dt_s / 3600.0,
        "wall_s": round(wall_s, 2),
        "devices": len(run.service.site.fleet),
        "polls": polls.polls,
        "polls_failed": polls.failed,
        "writes": writes.writes,
        "writes_verified": writes.verified,
        "writes_failed": writes.failed,
        "plans": brain.plans,
        "plans_fallback": brain.plans_fallback,
        "limit_violations": len(run.tap_violations),
        "peak_kw_without": _highest_kw(without_w),
        "peak_kw_with": _highest_kw(with_w),
        "ramp_3h_kw_without": _highest_kw(rises_3h_w(without_w)),
        "ramp_3h_kw_with": _highest_kw(rises_3h_w(with_w)),
        "voltage_violation_node_min_without": without.voltage_violation_node_min,
        "voltage_violation_node_min_with": run.truth.voltage_violation_node_min,
        "trace_hash": run.trace_hash,
        "seed": seed,
        "outcomes": dict(sorted(writes.outcomes.items())),
        "alarms": run.service.alarms,
    }


def _highest_kw(powers_w: FloatArray) -> float | None:
    return round(float(powers_w.max()) / 1e3, 2) if len(powers_w) else None


_COMPARED = (
    ("peak [kW]", "peak_kw", "needs 15 min"),
    ("steepest rise in 3 h [kW]", "ramp_3h_kw", "needs more than 3 h"),
    ("voltage violations [node-minutes]", "voltage_violation_node_min", ""),
)
_FACTS = (
    ("simulated", "{simulated_hours:.2f} h in {wall_s:.0f} s"),
    ("polls", "{polls} of {devices} devices, {polls_failed} failed"),
    ("commands", "{writes} written, {writes_verified} seen to take effect, {writes_failed} failed"),
    ("plans", "{plans}, {plans_fallback} of them from below the optimizer"),
    ("setpoints beyond limits", "{limit_violations} on the wire"),
    ("alarms", "{alarms}"),
)


def compared(summary: Mapping[str, object]) -> list[tuple[str, str, str, str]]:
    """Rows of without against with control: name, without, with, and the change in words."""
    rows = []
    for name, key, needs in _COMPARED:
        without, managed = summary[f"{key}_without"], summary[f"{key}_with"]
        if isinstance(without, int | float) and isinstance(managed, int | float):
            rows.append((name, f"{without:,.0f}", f"{managed:,.0f}", _change(without, managed)))
        else:
            rows.append((name, "–", "–", needs))
    return rows


def _change(without: float, managed: float) -> str:
    """The change in percent; nothing where a percentage of nothing, or of a fall, would be taken."""
    if without <= 0.0:
        return "the same" if without == managed else ""
    change = round(managed / without - 1.0, 3)
    return f"{abs(change):.1%} {'lower' if change < 0.0 else 'higher'}" if change else "the same"


def facts(summary: Mapping[str, object]) -> list[tuple[str, str]]:
    """Rows about the run itself: name and text."""
    return [(name, text.format(**summary)) for name, text in _FACTS]


def words(summary: Mapping[str, object]) -> str:
    """The summary as a table for a terminal."""
    head = ("", "without", "with control", "")
    lines = [f"{name:>24}  {text}" for name, text in facts(summary)]
    lines += [""] + [f"{a:>33}  {b:>9}  {c:>12}  {d}".rstrip() for a, b, c, d in (head, *compared(summary))]
    return "\n".join(lines)

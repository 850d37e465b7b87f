"""The demo's report: one HTML file with pictures, readable without a network."""

import html
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from derms.domain.arrays import FloatArray
from hil.truth import Truth

if TYPE_CHECKING:
    from hil.demo import Run

GREY, BLUE, ORANGE = "#8a8f98", "#1f5fa8", "#d9822b"
RAMP_STEPS = 12

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em}h2{font-size:1.1em;margin-top:2em}
table{border-collapse:collapse}td,th{padding:.25em .9em;border-bottom:1px solid #ddd;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}svg{width:100%;height:auto}p.small{color:#666}
"""


def write_report(folder: Path, run: "Run", without: Truth, summary: Mapping[str, object], *, start: datetime) -> Path:
    """Write `report.html` into the folder and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    first_h = start.hour + start.minute / 60.0
    parts = [
        f"<h1>Demo of {start:%A, %d %B %Y}, seed {summary['seed']}</h1>",
        _table(summary),
        _section(
            "Net load", "Fifteen-minute means of the true power into the feeder.", _net_load(run, without, first_h)
        ),
        _section("Ramp", "Change of net load against three hours before.", _ramp(run.truth, without, first_h)),
        _section("State of charge", "Mean of all batteries, and from lowest to highest.", _soc(run.truth, first_h)),
        _section(
            "Voltage",
            "Lowest and highest node of the feeder each minute; limits are ANSI C84.1 range A at service voltage.",
            _voltage(run.truth, without, first_h),
        ),
        _section("Commands", "Every command ends in exactly one outcome.", _outcomes(run)),
        _events(run),
    ]
    path = folder / "report.html"
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>derms demo</title><style>{_STYLE}</style>"
    path.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf8")
    return path


def _section(title: str, text: str, figure: Figure) -> str:
    return f"<h2>{html.escape(title)}</h2><p class=small>{html.escape(text)}</p>{_svg(figure)}"


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "derms"}):
        figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = target.getvalue()
    return text[text.index("<svg") :]


def _axes(y_label: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(9.5, 3.2))
    axes = figure.subplots()
    axes.set_xlabel("local time [h]")
    axes.set_ylabel(y_label)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure, axes


def _quarters_h(count: int, first_h: float) -> FloatArray:
    return first_h + (np.arange(count, dtype=np.float64) + 0.5) * 0.25


def _net_load(run: "Run", without: Truth, first_h: float) -> Figure:
    figure, axes = _axes("net load [kW]")
    for truth, color, label in ((without, GREY, "without control"), (run.truth, BLUE, "with control")):
        means = truth.head_mean_w() / 1e3
        axes.plot(_quarters_h(len(means), first_h), means, color=color, label=label, linewidth=1.8)
    if run.planned_w:
        hours, planned = np.array(run.planned_w).T
        axes.plot(first_h + hours, planned / 1e3, color=ORANGE, label="plan, next step", linewidth=1.0, linestyle="--")
    axes.set_ylim(bottom=0.0)
    axes.legend(frameon=False)
    return figure


def _ramp(truth: Truth, without: Truth, first_h: float) -> Figure:
    figure, axes = _axes("change in 3 h [kW]")
    for each, color, label in ((without, GREY, "without control"), (truth, BLUE, "with control")):
        means = each.head_mean_w() / 1e3
        rise = means[RAMP_STEPS:] - means[:-RAMP_STEPS]
        axes.plot(_quarters_h(len(means), first_h)[RAMP_STEPS:], rise, color=color, label=label, linewidth=1.8)
    axes.axhline(0.0, color="#444", linewidth=0.8)
    axes.legend(frameon=False)
    return figure


def _soc(truth: Truth, first_h: float) -> Figure:
    figure, axes = _axes("state of charge [%]")
    soc_pct = 100.0 * np.array(truth.soc_frac).reshape(len(truth.soc_frac), -1)
    hours = first_h + (np.arange(len(soc_pct)) + 1.0) / 60.0
    axes.fill_between(hours, soc_pct.min(axis=1), soc_pct.max(axis=1), color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(hours, soc_pct.mean(axis=1), color=BLUE, linewidth=1.8)
    axes.set_ylim(0.0, 100.0)
    return figure


def _voltage(truth: Truth, without: Truth, first_h: float) -> Figure:
    figure, axes = _axes("voltage [pu]")
    for each, color, label in ((without, GREY, "without control"), (truth, BLUE, "with control")):
        hours = first_h + (np.arange(len(each.v_min_pu)) + 1.0) / 60.0
        axes.plot(hours, each.v_min_pu, color=color, linewidth=1.0, label=label)
        axes.plot(hours, each.v_max_pu, color=color, linewidth=1.0)
    for limit in (0.95, 1.05):
        axes.axhline(limit, color=ORANGE, linewidth=1.0, linestyle="--")
    axes.legend(frameon=False)
    return figure


def _outcomes(run: "Run") -> Figure:
    counts = dict(sorted(run.service.gateway.reconciler.counts.outcomes.items()))
    figure = Figure(figsize=(9.5, 0.6 + 0.4 * max(len(counts), 1)))
    axes = figure.subplots()
    bars = axes.barh(list(counts), list(counts.values()), color=BLUE)
    axes.bar_label(bars, padding=4)
    axes.set_xlabel("commands")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure


def _table(summary: Mapping[str, object]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(name.replace('_', ' '))}<td class=n>{html.escape(str(value))}"
        for name, value in summary.items()
        if not isinstance(value, dict)
    )
    return f"<table>{rows}</table>"


def _events(run: "Run", most: int = 200) -> str:
    events = run.service.events
    rows = "".join(
        f"<tr><td>{event.at:%H:%M:%S}Z<td>{event.severity}<td>{html.escape(event.text)}" for event in events[:most]
    )
    more = f"<p class=small>{len(events) - most} more in the historian.</p>" if len(events) > most else ""
    return f"<h2>Events</h2><table>{rows or '<tr><td>none'}</table>{more}"

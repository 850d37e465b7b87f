"""The demo's report: one HTML file with pictures, readable without a network."""

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from derms.domain.arrays import FloatArray
from derms.domain.dispatch import GOOD_OUTCOMES
from hil.summary import RAMP_STEPS, Run, compared, facts, rises_3h_w
from hil.truth import Truth

GREY, BLUE, ORANGE = "#8a8f98", "#1f5fa8", "#d9822b"
TICKS_H = (1 / 60, 1 / 30, 1 / 12, 1 / 6, 0.25, 0.5, 1.0, 2.0, 3.0, 6.0, 12.0, 24.0)
"""Distances between ticks of the time axis; the first that gives few enough is taken."""
TICKS_MAX = 12
EVENTS_MAX = 200

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1000px;margin:2em auto;padding:0 1em}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.1em;margin:2em 0 0}
table{border-collapse:collapse;margin:1.2em 0}td,th{padding:.25em .9em;border-bottom:1px solid #ddd;text-align:left}
th{font-weight:600}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg{width:100%;height:auto}p.small{color:#666;margin:.1em 0 .6em}
"""


def write_report(folder: Path, run: Run, without: Truth, summary: Mapping[str, object], *, start: datetime) -> Path:
    """Write `report.html` into the folder and return its path; `start` is in local time."""
    frame = _Frame(start, run.truth.steps * run.truth.dt_s / 3600.0)
    parts = [
        f"<h1>{start:%A, %d %B %Y}, from {start:%H:%M} for {frame.hours:.3g} h</h1>",
        f"<p class=small>Feeder {html.escape(run.service.site.package.id)}, seed {summary['seed']}"
        + (f", trace {summary['trace_hash']}" if summary["trace_hash"] else "")
        + ". Times are local.</p>",
        _table(compared(summary), head=("", "without control", "with control", ""), numbers=(1, 2)),
        _table(facts(summary)),
        _section(
            "Net load",
            "True power into the feeder: means over a quarter of an hour, and over a minute (thin).",
            _net_load(run, without, frame),
        ),
        _section("Ramp", "Net load against three hours before.", _ramp(run.truth, without, frame)),
        _section("State of charge", "Of all batteries.", _soc(run.truth, frame)),
        _section(
            "Voltage",
            "Lowest and highest node of the feeder each minute; limits at customers after ANSI C84.1, range A.",
            _voltage(run, without, frame),
        ),
        _section("Commands", "Every command ends in exactly one outcome.", _outcomes(run)),
        _events(run, start),
    ]
    path = folder / "report.html"
    page = f"<!doctype html><html lang=en><meta charset=utf-8><title>derms demo</title><style>{_STYLE}</style>"
    path.write_text(page + "\n".join(parts) + "</html>\n", encoding="utf8")
    return path


@dataclass(frozen=True, slots=True)
class _Frame:
    """The span of time that all pictures share; x is in hours since the start."""

    start: datetime
    hours: float

    def axes(self, y_label: str) -> tuple[Figure, Any]:
        figure = Figure(figsize=(9.5, 3.2))
        axes = figure.subplots()
        ticks = self._ticks_h()
        form = "%H:%M" if self.hours <= 30.0 else "%a %H:%M"
        axes.set_xlim(0.0, self.hours)
        axes.set_xticks(ticks, [(self.start + timedelta(hours=hour)).strftime(form) for hour in ticks])
        axes.set_ylabel(y_label)
        axes.grid(color="#e6e6e6", linewidth=0.6)
        _tidy(axes)
        return figure, axes

    def _ticks_h(self) -> list[float]:
        """Round local times within the span, in hours since the start."""
        step_h = next((step for step in TICKS_H if self.hours / step <= TICKS_MAX), TICKS_H[-1])
        first_h = self.start.hour + self.start.minute / 60.0
        count = int((first_h + self.hours) / step_h + 1e-9)
        return [k * step_h - first_h for k in range(int(np.ceil(first_h / step_h - 1e-9)), count + 1)]


def _tidy(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(axes: Any) -> None:
    """Above the picture, where it covers nothing."""
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=4, fontsize="small", borderpad=0.0)


def _say(axes: Any, text: str) -> None:
    """A sentence in place of lines that cannot be drawn."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#666")
    axes.set_yticks([])


def _both(run: Run, without: Truth) -> tuple[tuple[Truth, str, str], ...]:
    return (without, GREY, "without control"), (run.truth, BLUE, "with control")


def _middles_h(count: int, interval_h: float) -> FloatArray:
    return (np.arange(count, dtype=np.float64) + 0.5) * interval_h


def _net_load(run: Run, without: Truth, frame: _Frame) -> Figure:
    figure, axes = frame.axes("net load [kW]")
    for truth, color, label in _both(run, without):
        minutes, quarters = truth.head_mean_w(60.0) / 1e3, truth.head_mean_w() / 1e3
        axes.plot(_middles_h(len(minutes), 1 / 60), minutes, color=color, linewidth=0.7, alpha=0.5)
        axes.plot(_middles_h(len(quarters), 0.25), quarters, color=color, linewidth=2.0, label=label, **_dots(quarters))
    if run.planned_w:
        hours, planned_w = np.array(run.planned_w).T
        axes.plot(hours, planned_w / 1e3, color=ORANGE, label="plan, next step", linewidth=1.1, linestyle="--")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    _legend(axes)
    return figure


def _dots(values: FloatArray) -> dict[str, Any]:
    """Marks where values are too few to make a line."""
    return {"marker": "o", "markersize": 4} if len(values) < 5 else {}


def _ramp(truth: Truth, without: Truth, frame: _Frame) -> Figure:
    figure, axes = frame.axes("change in 3 h [kW]")
    for each, color, label in ((without, GREY, "without control"), (truth, BLUE, "with control")):
        means_kw = each.head_mean_w() / 1e3
        rises_kw, hours = rises_3h_w(means_kw), _middles_h(len(means_kw), 0.25)[RAMP_STEPS:]
        axes.plot(hours, rises_kw, color=color, label=label, linewidth=2.0, **_dots(rises_kw))
    if len(truth.head_mean_w()) > RAMP_STEPS:
        axes.axhline(0.0, color="#444", linewidth=0.8)
        _legend(axes)
    else:
        _say(axes, "the run was not longer than the three hours over which a ramp is taken")
    return figure


def _soc(truth: Truth, frame: _Frame) -> Figure:
    figure, axes = frame.axes("state of charge [%]")
    if truth.soc_frac:
        soc_pct = 100.0 * np.array(truth.soc_frac)
        hours = (np.arange(len(soc_pct)) + 1.0) / 60.0
        low, high = soc_pct.min(axis=1), soc_pct.max(axis=1)
        axes.fill_between(hours, low, high, color=BLUE, alpha=0.25, linewidth=0, label="lowest to highest")
        axes.plot(hours, soc_pct.mean(axis=1), color=BLUE, linewidth=2.0, label="mean")
        _legend(axes)
    axes.set_ylim(0.0, 100.0)
    return figure


def _voltage(run: Run, without: Truth, frame: _Frame) -> Figure:
    figure, axes = frame.axes("voltage [pu]")
    for truth, color, label in _both(run, without):
        hours = (np.arange(len(truth.v_min_pu)) + 1.0) / 60.0
        axes.plot(hours, truth.v_min_pu, color=color, linewidth=1.0, label=label)
        axes.plot(hours, truth.v_max_pu, color=color, linewidth=1.0)
    service = min(run.service.site.package.limits, key=lambda limit: limit.v_base_max_v)
    for limit_pu, label in ((service.v_min_pu, "limits at customers"), (service.v_max_pu, "")):
        axes.axhline(limit_pu, color=ORANGE, linewidth=1.1, linestyle="--", label=label)
    _legend(axes)
    return figure


def _outcomes(run: Run) -> Figure:
    counts = dict(sorted(run.service.gateway.reconciler.counts.outcomes.items(), reverse=True))
    good = {outcome.__name__ for outcome in GOOD_OUTCOMES}
    figure = Figure(figsize=(9.5, 0.6 + 0.4 * max(len(counts), 1)))
    axes = figure.subplots()
    bars = axes.barh(list(counts), list(counts.values()), color=[BLUE if name in good else ORANGE for name in counts])
    axes.bar_label(bars, padding=4)
    axes.set_xlabel("commands")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _tidy(axes)
    if not counts:
        axes.set_xticks([])
        _say(axes, "no command was due")
    return figure


def _section(title: str, text: str, figure: Figure) -> str:
    return f"<h2>{html.escape(title)}</h2><p class=small>{html.escape(text)}</p>{_svg(figure)}"


def _svg(figure: Figure) -> str:
    target = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "derms"}):
        figure.savefig(target, format="svg", metadata={"Date": None}, bbox_inches="tight")
    text = target.getvalue()
    return text[text.index("<svg") :]


def _table(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), numbers: Sequence[int] = ()) -> str:
    """A table of texts; the columns in `numbers` stand at the right."""
    marks = dict.fromkeys(numbers, " class=n")

    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}{marks.get(k, '')}>{html.escape(cell)}" for k, cell in enumerate(cells))

    return f"<table>{line(head, 'th') if head else ''}{''.join(line(row, 'td') for row in rows)}</table>"


def _events(run: Run, start: datetime) -> str:
    events = run.service.events
    rows = [(f"{event.at.astimezone(start.tzinfo):%a %H:%M:%S}", event.severity, event.text) for event in events]
    more = f"<p class=small>{len(rows) - EVENTS_MAX} more in the historian.</p>" if len(rows) > EVENTS_MAX else ""
    return f"<h2>Events</h2>{_table(rows[:EVENTS_MAX]) if rows else '<p class=small>There were none.</p>'}{more}"

"""The one-line picture of a feeder: its lines and transformers, every bus coloured by voltage, what is wrong marked."""

from collections import defaultdict
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.errors import GridError
from derms.grid.layout import FeederLayout

SPREAD_PU = 0.06
"""Colours reach so far to both sides of 1 pu."""
PLACED_FRAC = 0.25
"""Share of buses that must have coordinates for these to be used at all."""


def bus_voltages(layout: FeederLayout, v_pu: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Per bus the voltage farthest from 1 pu, NaN without a point, and how far it is outside its range [pu]."""
    row = {bus: index for index, bus in enumerate(layout.buses)}
    worst = np.full(len(layout.buses), np.nan)
    outside = np.zeros(len(layout.buses))
    excess = layout.excess_pu(v_pu)
    for index, point in enumerate(layout.points):
        at = row[point.rpartition(".")[0]]
        if not abs(v_pu[index] - 1.0) <= abs(worst[at] - 1.0):  # True for the first, which compares with NaN
            worst[at] = v_pu[index]
        outside[at] = max(outside[at], excess[index])
    return worst, outside


def places(layout: FeederLayout, source_bus: str) -> FloatArray:
    """Where buses are drawn, shape (buses, 2): by coordinates, without any beside a neighbour, else as a tree."""
    neighbours: defaultdict[str, list[str]] = defaultdict(list)
    for _, one, other in layout.spans:
        neighbours[one].append(other)
        neighbours[other].append(one)
    row = {bus: index for index, bus in enumerate(layout.buses)}
    x, y = layout.bus_xy.T
    known = np.isfinite(x) & np.isfinite(y)
    if known.mean() < PLACED_FRAC:
        return _tree(row, neighbours, source_bus)
    xy = layout.bus_xy.copy()
    step = 0.012 * float(np.ptp(xy[known], axis=0).max())
    waiting = [bus for bus in layout.buses if known[row[bus]]]
    for bus in waiting:  # grows while it is walked: breadth first from what is placed
        for turn, other in enumerate(o for o in dict.fromkeys(neighbours[bus]) if not known[row[o]]):
            angle = 0.9 + 2.4 * turn
            xy[row[other]] = xy[row[bus]] + step * np.array([np.cos(angle), np.sin(angle)])
            known[row[other]] = True
            waiting.append(other)
    xy[~known] = np.nanmean(xy[known], axis=0)
    return xy


def _tree(row: dict[str, int], neighbours: dict[str, list[str]], source_bus: str) -> FloatArray:
    """Depth from the source to the right, leaves below each other."""
    xy = np.zeros((len(row), 2))
    seen = {source_bus}
    leaf = 0.0
    stack: list[tuple[str, int, list[str] | None]] = [(source_bus, 0, None)]
    while stack:
        bus, depth, children = stack.pop()
        if children is None:
            children = [other for other in dict.fromkeys(neighbours[bus]) if other not in seen]
            seen.update(children)
            stack.append((bus, depth, children))
            stack.extend((child, depth + 1, None) for child in reversed(children))
        elif children:
            xy[row[bus]] = depth, np.mean([xy[row[child], 1] for child in children])
        else:
            xy[row[bus]] = depth, -leaf
            leaf += 1.0
    return xy


def draw(
    layout: FeederLayout,
    v_pu: FloatArray,
    path: Path,
    *,
    title: str,
    source_bus: str,
    dead: frozenset[str] = frozenset(),
) -> None:
    """Write the picture; the ending of `path` says which kind (png, svg, pdf).

    Parameters
    ----------
    v_pu
        Voltages at the points, shape (points,).
    dead
        Buses that no source reaches: drawn grey.

    Raises
    ------
    GridError
        Nothing is there to draw with.
    """
    try:
        from matplotlib.collections import LineCollection
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise GridError("pictures are drawn by matplotlib: pip install 'derms[planner]'") from error

    xy = places(layout, source_bus)
    x, y = xy.T
    row = {bus: index for index, bus in enumerate(layout.buses)}
    worst, outside = bus_voltages(layout, v_pu)
    figure = Figure(figsize=(11, 8), layout="constrained")
    axes = figure.add_subplot()
    transformer = [name.startswith("transformer.") for name, _, _ in layout.spans]
    ends = np.array([[xy[row[one]], xy[row[other]]] for _, one, other in layout.spans])
    colors = np.where(transformer, "tab:purple", "0.55").tolist()
    axes.add_collection(LineCollection(list(ends), colors=colors, linewidths=1.1, zorder=1))
    alive = np.array([bus not in dead for bus in layout.buses]) & np.isfinite(worst)
    low, high = 1.0 - SPREAD_PU, 1.0 + SPREAD_PU
    shown = axes.scatter(x[alive], y[alive], 22, worst[alive], cmap="coolwarm", vmin=low, vmax=high, zorder=3)
    axes.scatter(x[~alive], y[~alive], 12, "0.75", zorder=2)
    wrong = alive & (outside > 0.0)
    axes.scatter(x[wrong], y[wrong], 70, facecolors="none", edgecolors="black", zorder=4)
    for bus in {source_bus, *(layout.buses[at] for at in np.argsort(-outside)[:5] if outside[at] > 0.0)}:
        label = f"{bus}  {worst[row[bus]]:.3f}" if bus != source_bus else f"source {bus}"
        axes.annotate(label, xy[row[bus]], xytext=(6, 6), textcoords="offset points", fontsize=8)
    figure.colorbar(shown, ax=axes, label="voltage farthest from 1 at the bus [pu]", shrink=0.7)
    axes.set_title(f"{title}: {int(wrong.sum())} of {int(alive.sum())} buses outside their range")
    axes.set_axis_off()
    axes.autoscale()
    figure.savefig(path, dpi=130)

"""Quasi-static time series: a feeder solved step by step, regulators and capacitors acting from where they stood.

Regulators and capacitors act in every step. W and var; DER power + = injection, load and head power + = import. A run
is made of chunks, and each begins with a circuit compiled anew: a run that was killed and goes on from the end of a
chunk is, byte for byte, the run that was not.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.errors import GridError, NotConverged
from derms.grid.engine import Engine
from derms.grid.layout import FeederLayout
from derms.grid.recording import USUAL, Column, empty, recorder
from derms.grid.saved_run import Position, Progressed, fingerprint, load_run, save_run

TOLERANCE_PU = 1e-6
"""Tight enough that a step does not show which one came before it."""
CHUNK_STEPS = 8760
"""A year in hours: compiling anew costs as much as some hundred steps."""
PROGRESS_STEPS = 100

Powers = tuple[FloatArray, FloatArray]
Progress = Callable[[int, int, int], None]
"""Told how many steps are done, how many there are, and how many of those done have no result."""


@dataclass(frozen=True, eq=False)
class Series:
    """Powers that stand ready: of every element at every step [W, var], each of shape (steps, elements)."""

    p_w: FloatArray
    q_var: FloatArray

    def at(self, step: int) -> Powers:
        return self.p_w[step], self.q_var[step]


@dataclass(frozen=True)
class Computed:
    """Powers made step by step; for other processes the function must be one that pickle finds by its name."""

    at: Callable[[int], Powers]
    """Gives, for a step, powers of all elements [W, var], each of shape (elements,). It depends on nothing else."""
    name: str
    """What it computes from, and its version: a saved run goes on only with the same name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """What to run on a feeder."""

    steps: int
    loads: Series | Computed
    ders: Series | Computed | None = None
    """None: all DER stand still."""
    columns: tuple[Column, ...] = USUAL
    controls_act: bool = True
    """Whether regulators and capacitors follow, or stand where they are."""
    tolerance_pu: float = TOLERANCE_PU
    chunk_steps: int = CHUNK_STEPS
    """A saved run loses at most so many steps. Other chunks give other last digits."""


@dataclass(frozen=True, eq=False)
class Run:
    """What came of a study."""

    columns: Mapping[Column, FloatArray]
    missing: BoolArray
    """Steps without a result, shape (steps,): the power flow did not converge."""
    taps: Mapping[str, int]
    """Where the regulators stand at the end."""
    capacitors: Mapping[str, int]

    def energy_wh(self, step_s: float) -> tuple[float, float]:
        """Energy that went in and out through the head [Wh], all phases together; steps without a result count nothing.

        Raises GridError when the head's power was not recorded.
        """
        if Column.HEAD_W not in self.columns:
            raise GridError(f"no energy without the column {Column.HEAD_W}")
        head_w = np.nan_to_num(self.columns[Column.HEAD_W]).sum(axis=1)
        into, out = np.maximum(head_w, 0.0), np.maximum(-head_w, 0.0)
        return float(into.sum()) * step_s / 3600.0, float(out.sum()) * step_s / 3600.0


def run(engine: Engine, study: Study, *, saved: Path | None = None, progress: Progress | None = None) -> Run:
    """Run a study on an engine, from the taps and capacitors that it has; it is left as the last step has it.

    Parameters
    ----------
    saved
        A file that keeps the run at the end of each chunk; where it is there already, the run goes on from it.
    progress
        Called every `PROGRESS_STEPS` steps and at the end.

    Raises
    ------
    GridError
        Powers of another shape, or not finite; a saved run that is of another study, or cannot be read.
    """
    layout = engine.layout
    check(study, layout)
    engine.freeze_controls(not study.controls_act)
    engine.set_tolerance(study.tolerance_pu)
    key = fingerprint(engine, _parts(study)) if saved is not None else ""
    state = _nothing_done(engine, study)
    if saved is not None and saved.exists():
        state = load_run(saved, key, state)
    while state.position.step < study.steps:
        end = min(state.position.step + study.chunk_steps, study.steps)
        _begin(engine, state.position)
        _go(engine, study, state, end, progress)
        state.position = Position(end, engine.taps(), engine.capacitors())
        if saved is not None:
            save_run(saved, key, state)
    if progress is not None:
        progress(study.steps, study.steps, int(state.missing.sum()))
    recorded = {column: state.columns[column] for column in study.columns}
    return Run(recorded, state.missing, state.position.taps, state.position.capacitors)


def printer(name: str, stream: TextIO = sys.stderr) -> Progress:
    """Progress as one line that is written over and over."""

    def show(done: int, steps: int, missing: int) -> None:
        without = f", {missing:,} without a result" if missing else ""
        end = "\n" if done == steps else ""
        stream.write(f"\r{name}: {done / steps:4.0%}, {done:,} of {steps:,}{without}{end}")
        stream.flush()

    return show


def check(study: Study, layout: FeederLayout) -> None:
    """Raises GridError with everything that is wrong with a study, as far as it can be seen before it runs."""
    wrong = [
        f"{name} of {value}: 1 or more expected"
        for name, value in (("steps", study.steps), ("chunk_steps", study.chunk_steps))
        if value < 1
    ]
    wrong += [f"column {column} twice" for column in set(study.columns) if study.columns.count(column) > 1]
    for what, powers, count in (("loads", study.loads, len(layout.loads)), ("DER", study.ders, len(layout.ders))):
        if isinstance(powers, Series):
            for name, values in (("p_w", powers.p_w), ("q_var", powers.q_var)):
                wrong += _wrong(f"{name} of {what}", values, (study.steps, count))
    if wrong:
        raise GridError("study: " + "; ".join(wrong))


def _wrong(what: str, values: FloatArray, shape: tuple[int, int]) -> list[str]:
    if values.shape != shape:
        return [f"{what}: shape {shape} expected, {values.shape} given"]
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    return [f"{what}: not finite at {len(bad)} steps, the first is {bad[0]}"] if len(bad) else []


def _parts(study: Study) -> list[bytes]:
    """Everything that a study's results depend on."""
    names = ",".join(study.columns)
    told = f"{study.steps} {names} {study.controls_act} {study.tolerance_pu!r} {study.chunk_steps}".encode()
    parts = [told]
    for powers in (study.loads, study.ders):
        match powers:
            case Series(p_w, q_var):
                parts += [b"series", *(np.ascontiguousarray(values, np.float64).tobytes() for values in (p_w, q_var))]
            case Computed(_, name):
                parts += [b"computed", name.encode()]
            case None:
                parts += [b"none"]
    return parts


def _nothing_done(engine: Engine, study: Study) -> Progressed:
    columns: dict[str, FloatArray] = {column: empty(column, engine.layout, study.steps) for column in study.columns}
    start = Position(0, engine.taps(), engine.capacitors())
    return Progressed(start, np.zeros(study.steps, dtype=np.bool_), columns)


def _begin(engine: Engine, position: Position) -> None:
    """Let nothing be left of what the engine did before but the position."""
    still = np.zeros(len(engine.layout.ders))
    engine.set_taps(position.taps)
    engine.set_capacitors(position.capacitors)
    engine.restart()
    engine.set_der(still, still)


def _set(engine: Engine, study: Study, step: int) -> None:
    try:
        engine.set_loads(*study.loads.at(step))
        if study.ders is not None:
            engine.set_der(*study.ders.at(step))
    except GridError as error:
        raise GridError(f"{engine.package.id}: step {step}: {error}") from error


def _go(engine: Engine, study: Study, state: Progressed, end: int, progress: Progress | None) -> None:
    """Run the steps of one chunk."""
    takes = [recorder(column, engine, state.columns[column]) for column in study.columns]
    for step in range(state.position.step, end):
        _set(engine, study, step)
        try:
            flow = engine.solve()
        except NotConverged:
            state.missing[step] = True
        else:
            for take in takes:
                take(step, flow)
        if progress is not None and (step + 1) % PROGRESS_STEPS == 0:
            progress(step + 1, study.steps, int(state.missing.sum()))

"""Time series of many feeders and scenarios side by side, each in one of a few processes.

A process makes the engine of a feeder once and uses it for every scenario of that feeder. What goes wrong in one
scenario is its own outcome; the others go on.
"""

import multiprocessing
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from derms.domain.grid import FeederPackage
from derms.errors import GridError
from derms.grid.engine import Engine
from derms.grid.open import open_engine
from derms.grid.time_series import Progress, Run, Study, run

ENGINES_MAX = 4
"""Feeders that a process holds at a time."""
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
"""Of a scenario: also that of a file."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """One study of one feeder."""

    name: str
    """Unlike all others: letters, digits, `.`, `_` and `-`; its saved run is a file of that name."""
    package: FeederPackage
    study: Study


@dataclass(frozen=True, slots=True)
class Failed:
    """A scenario without a run, and why."""

    name: str
    why: str


Outcome = Run | Failed


def run_all(
    scenarios: Sequence[Scenario],
    *,
    workers: int | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Outcome]:
    """Run scenarios in a few processes.

    Parameters
    ----------
    workers
        How many run at a time; None: one for every core.
    folder
        Keeps the saved runs: a scenario that is there already goes on from where it stands.
    progress
        Told, when one has ended, how many have, how many there are, and how many have failed.

    Returns
    -------
    dict
        What came of each scenario, by name and in the order given.

    Raises
    ------
    GridError
        Two scenarios of one name, or a name that is none for a file.
    """
    workers = (os.cpu_count() or 1) if workers is None else workers
    _check(scenarios, workers)
    processes = min(workers, max(len(scenarios), 1))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[str, Outcome] = {}
    failed = 0
    for scenario, outcome in _outcomes(scenarios, processes, folder):
        outcomes[scenario.name] = outcome
        failed += isinstance(outcome, Failed)
        if progress is not None:
            progress(len(outcomes), len(scenarios), failed)
    return {scenario.name: outcomes[scenario.name] for scenario in scenarios}


def _check(scenarios: Sequence[Scenario], workers: int) -> None:
    names = [scenario.name for scenario in scenarios]
    wrong = [f"{name!r}: give letters, digits, `.`, `_` and `-`" for name in names if not NAME.fullmatch(name)]
    wrong += [f"{name!r} is there {names.count(name)} times" for name in sorted(set(names)) if names.count(name) > 1]
    if workers < 1:
        wrong.append(f"{workers} workers: 1 or more expected")
    if wrong:
        raise GridError(f"scenarios: {'; '.join(wrong)}")


def _outcomes(scenarios: Sequence[Scenario], processes: int, folder: Path | None) -> Iterator[tuple[Scenario, Outcome]]:
    """Each scenario as it ends; a process that dies takes others with it, and these are run again, each by itself."""
    lost = []
    for scenario, future in _ended(scenarios, processes, folder):
        if isinstance(future.exception(), BrokenProcessPool):
            lost.append(scenario)
        else:
            yield scenario, _outcome(scenario, future)
    for scenario in lost:
        for _, future in _ended([scenario], 1, folder):
            yield scenario, _outcome(scenario, future)


def _ended(
    scenarios: Sequence[Scenario], processes: int, folder: Path | None
) -> Iterator[tuple[Scenario, "Future[Run]"]]:
    pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.submit(_run, scenario, folder): scenario for scenario in scenarios}
        for future in as_completed(futures):
            yield futures[future], future
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(scenario: Scenario, future: "Future[Run]") -> Outcome:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, BrokenProcessPool):
        return Failed(scenario.name, "its process died")
    return Failed(scenario.name, str(error) if isinstance(error, GridError) else f"{type(error).__name__}: {error}")


# --- in the other process --------------------------------------------------------------------------------------------


def _run(scenario: Scenario, folder: Path | None) -> Run:
    engine, taps, capacitors = _opened(scenario.package)
    engine.set_taps(taps)
    engine.set_capacitors(capacitors)
    file = None if folder is None else folder / f"{scenario.name}.npz"
    return run(engine, scenario.study, saved=file)


@lru_cache(maxsize=ENGINES_MAX)
def _opened(package: FeederPackage) -> tuple[Engine, Mapping[str, int], Mapping[str, int]]:
    """The engine of a feeder, and where its controls stood when it was opened."""
    engine = open_engine(package)
    return engine, engine.taps(), engine.capacitors()

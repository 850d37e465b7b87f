"""A time series kept in a file, whole or not at all: results so far, where the controls stand, and of which inputs.

The file is a numpy archive without pickled objects: a file from elsewhere can be wrong, and can do nothing.
"""

import hashlib
import os
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray
from derms.errors import GridError
from derms.grid.engine import Engine

FORMAT = 1


@dataclass(frozen=True)
class Position:
    """Where a run stands: the next step, and the controls as the last one left them."""

    step: int
    taps: Mapping[str, int]
    capacitors: Mapping[str, int]


@dataclass(eq=False)
class Progressed:
    """A run as far as it has come; the arrays grow full in place."""

    position: Position
    missing: BoolArray
    """Steps without a result, shape (steps,)."""
    columns: Mapping[str, FloatArray]


def fingerprint(engine: Engine, parts: Iterable[bytes]) -> str:
    """SHA-256 over a study's parts, the feeder, and the engine as it stands."""
    package = engine.package
    circuit = package.digest or hashlib.sha256(package.circuit.read_bytes()).hexdigest()
    positions = (engine.taps(), engine.capacitors(), engine.switches(), engine.regulator_targets_v())
    feeder = (FORMAT, package.id, circuit, package.head_element, package.ders, package.limits, positions)
    digest = hashlib.sha256()
    for part in (repr(feeder).encode(), *parts):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def save_run(file: Path, key: str, state: Progressed) -> None:
    """Replace a file in one go; whoever is killed in between leaves the one before."""
    position = state.position
    arrays = {
        "key": np.array(key),
        "step": np.array(position.step),
        "taps": np.array(list(position.taps.values()), dtype=np.int64),
        "capacitors": np.array(list(position.capacitors.values()), dtype=np.int64),
        "missing": state.missing,
        **{f"column.{name}": values for name, values in state.columns.items()},
    }
    part = file.with_name(file.name + ".part")
    with part.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(file)


def load_run(file: Path, key: str, fresh: Progressed) -> Progressed:
    """The run that a file keeps, in the place of one of which nothing is done yet.

    Raises
    ------
    GridError
        The file cannot be read, or keeps a run of another study, feeder or position of the controls.
    """
    try:
        with np.load(file, allow_pickle=False) as kept:
            if str(kept["key"]) != key:
                raise GridError(f"{file}: a saved run with other inputs; give another file, or delete it to begin anew")
            position = Position(
                int(kept["step"]),
                dict(zip(fresh.position.taps, kept["taps"].tolist(), strict=True)),
                dict(zip(fresh.position.capacitors, kept["capacitors"].tolist(), strict=True)),
            )
            columns = {name: kept[f"column.{name}"] for name in fresh.columns}
            return Progressed(position, kept["missing"], columns)
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise GridError(f"{file}: no saved run that can be read ({error}); delete it to begin anew") from error

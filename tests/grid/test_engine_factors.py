"""The order of factorisation is kept while taps, capacitors and switches move: results are those without that."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.grid import FeederPackage
from derms.errors import NotConverged
from derms.grid.dss import SparseSolverOptions
from derms.grid.engine import Engine, PowerFlow
from derms.grid.opendss import FeederEngine
from feeders.catalog import load
from tests.grid.village import village

MOVES = 120
TIGHT_PU = 1e-8


class Anew(FeederEngine):
    """Factorises from nothing after every change, as OpenDSS comes."""

    def _attach(self) -> None:
        super()._attach()
        self._dss.YMatrix.SolverOptions = SparseSolverOptions.ReuseNothing


def moves(engine: Engine, seed: int) -> list[Callable[[Engine], None]]:
    """A random sequence of whatever can be set, islands and impossible loads among it."""
    rng, layout = np.random.default_rng(seed), engine.layout
    nominal_w, nominal_var = layout.nominal_load_w, layout.nominal_load_var
    rated_w = np.array([der.p_rated_w for der in engine.package.ders])

    def loads(low: float, high: float) -> Callable[[Engine], None]:
        factor = rng.uniform(low, high, len(nominal_w))
        return lambda engine: engine.set_loads(factor * nominal_w, factor * nominal_var)

    def der() -> Callable[[Engine], None]:
        power_w = rng.uniform(0.0, 1.0, len(rated_w)) * rated_w
        return lambda engine: engine.set_der(power_w, 0.1 * power_w)

    def switch() -> Callable[[Engine], None]:
        closed = {str(rng.choice(layout.switches)): bool(rng.random() < 0.6)} if layout.switches else {}
        return lambda engine: engine.set_switches(closed)

    def capacitor() -> Callable[[Engine], None]:
        most = dict(zip(layout.capacitors, layout.capacitor_steps.tolist(), strict=True))
        steps = {name: int(rng.integers(on + 1)) for name, on in most.items() if rng.random() < 0.5}
        return lambda engine: engine.set_capacitors(steps)

    def tap() -> Callable[[Engine], None]:
        taps = {str(rng.choice(layout.regulators)): int(rng.integers(-16, 17))}
        return lambda engine: engine.set_taps(taps)

    def hold() -> Callable[[Engine], None]:
        frozen = bool(rng.random() < 0.5)
        return lambda engine: engine.freeze_controls(frozen)

    kinds = [lambda: loads(0.2, 1.0), der, switch, capacitor, tap, hold, lambda: loads(0.2, 1.0), der, switch, tap]
    return [loads(60.0, 61.0) if step % 41 == 40 else kinds[int(rng.integers(10))]() for step in range(MOVES)]


def outcome(engine: Engine, move: Callable[[Engine], None]) -> PowerFlow | None:
    """The solution after a move; without one, loads are put back to half of nominal."""
    move(engine)
    try:
        return engine.solve()
    except NotConverged:
        engine.set_loads(0.5 * engine.layout.nominal_load_w, 0.5 * engine.layout.nominal_load_var)
        return None


@pytest.mark.parametrize("feeder", ["village", "ieee13", "ieee37", pytest.param("ieee123", marks=pytest.mark.slow)])
def test_whatever_is_moved_the_solution_is_that_of_a_matrix_factorised_anew(feeder: str, tmp_path: Path) -> None:
    package: FeederPackage = replace(village(tmp_path), own=True) if feeder == "village" else load(feeder)
    keeping, anew = FeederEngine(package), Anew(package)
    for engine in (keeping, anew):
        engine.set_tolerance(TIGHT_PU)
    solved = 0
    for move in moves(keeping, seed=1):
        one, other = outcome(keeping, move), outcome(anew, move)
        assert (one is None) == (other is None)
        assert keeping.taps() == anew.taps()
        if one is not None and other is not None:
            assert one.v_pu == pytest.approx(other.v_pu, abs=1e-6)
            solved += 1
    assert solved > MOVES // 2
    difference = abs(keeping.network().y - anew.network().y).max()
    assert difference <= 1e-9 * abs(anew.network().y).max()

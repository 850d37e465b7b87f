"""Our circuits against the published results, and against EPRI's own engine."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from math import sqrt
from pathlib import Path

import pytest

from derms.grid.dss import altdss
from feeders.catalog import PACKAGES
from feeders.recipes import RECIPES

EPRI_SCRIPT = Path(__file__).with_name("epri_script.py")
PUBLISHED_PU = 1e-4
ENGINES_PU = 1e-6
SETTINGS = "Set Tolerance=1e-9 MaxIterations=100 MaxControlIter=50"
CIRCUITS = [f"{feeder}/{name}" for feeder in sorted(RECIPES) for name in ("base.dss", "master.dss")]


class Solved:
    """A circuit as OpenDSS solves it, in a context of its own."""

    def __init__(self, circuit: str) -> None:
        self._dss = altdss.NewContext()
        self._dss(f'Redirect "{PACKAGES / circuit}"')
        self._dss(SETTINGS)
        self._dss("Solve")
        assert self._dss.Solution.Converged
        self._nodes = [name.lower() for name in self._dss.NodeNames()]

    def v_pu(self) -> dict[str, float]:
        return dict(zip(self._nodes, self._dss.BusVMagPU().tolist(), strict=True))

    def line_to_line_pu(self, bus: str, phase: str, other: str) -> float:
        volts = dict(zip(self._nodes, self._dss.BusVolts().tolist(), strict=True))
        base_v = next(each.kVBase for each in self._dss.Bus if each.Name.lower() == bus) * 1e3 * sqrt(3)
        return float(abs(volts[f"{bus}.{phase}"] - volts[f"{bus}.{other}"]) / base_v)

    def taps(self) -> dict[str, int]:
        controls = self._dss.RegControl
        return {name.lower(): int(tap) for name, tap in zip(controls.Name, controls.TapNum, strict=True)}

    def close(self) -> None:
        self._dss("ClearAll")


@pytest.fixture
def solved(request: pytest.FixtureRequest) -> Iterator[Solved]:
    circuit = Solved(request.param)
    yield circuit
    circuit.close()


def rows(feeder: str, table: str) -> list[dict[str, str]]:
    with (PACKAGES / feeder / "tables" / f"{table}.csv").open(encoding="utf8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("solved", "feeder"), [("ieee13/base.dss", "ieee13"), ("ieee123/base.dss", "ieee123")], indirect=["solved"]
)
def test_four_wire_circuits_give_the_published_voltages(solved: Solved, feeder: str) -> None:
    published = {row["node"].lower(): float(row["v_pu"]) for row in rows(feeder, "solved_voltages")}
    assert solved.v_pu() == pytest.approx(published, abs=PUBLISHED_PU)


@pytest.mark.parametrize("solved", ["ieee37/base.dss"], indirect=True)
def test_the_three_wire_circuit_gives_the_published_voltages_between_phases(solved: Solved) -> None:
    published = {
        (row["bus"], *row["pair"].split("-")): float(row["v_ll_pu"]) for row in rows("ieee37", "solved_line_to_line")
    }
    assert len(published) == 3 * len({node.partition(".")[0] for node in solved.v_pu()})
    found = {place: solved.line_to_line_pu(*place) for place in published}
    assert found == pytest.approx(published, abs=PUBLISHED_PU)


@pytest.mark.parametrize(
    ("solved", "feeder"), [(f"{feeder}/base.dss", feeder) for feeder in sorted(RECIPES)], indirect=["solved"]
)
def test_regulators_stand_where_the_published_case_has_them(solved: Solved, feeder: str) -> None:
    assert solved.taps() == {row["name"]: int(row["solved_tap"]) for row in rows(feeder, "regulators")}


@pytest.mark.parametrize("solved", ["ieee123/master.dss"], indirect=True)
def test_stubs_of_open_ties_keep_the_published_voltages(solved: Solved) -> None:
    published = {row["node"].lower(): float(row["v_pu"]) for row in rows("ieee123", "solved_voltages")}
    found = solved.v_pu()
    for node in ("300_open.1", "300_open.2", "300_open.3", "94_open.1"):
        assert found[node] == pytest.approx(published[node], abs=PUBLISHED_PU)


@pytest.fixture(scope="module")
def by_epri(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    """Node voltages [pu] of all our circuits, as EPRI's engine solves them."""
    if find_spec("py_dss_interface") is None:
        pytest.skip("py-dss-interface, which carries EPRI's own engine, does not install here")
    folder = tmp_path_factory.mktemp("epri")
    circuits = [str(PACKAGES / circuit) for circuit in CIRCUITS]
    command = [sys.executable, str(EPRI_SCRIPT), str(folder / "result.json"), *circuits]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads((folder / "result.json").read_text(encoding="utf8"))
    return {circuit: found[str(PACKAGES / circuit)] for circuit in CIRCUITS}


@pytest.mark.parametrize(("solved", "circuit"), [(name, name) for name in CIRCUITS], indirect=["solved"])
def test_epri_s_own_engine_finds_the_same_voltages(
    solved: Solved, circuit: str, by_epri: dict[str, dict[str, float]]
) -> None:
    assert by_epri[circuit] == pytest.approx(solved.v_pu(), abs=ENGINES_PU)

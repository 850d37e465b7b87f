"""Circuits that try to get out: each attempt works in an ordinary process, and does not in a confined one.

OpenDSS's own switches are on here: the kernel alone has to hold.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from derms.errors import ModelError
from derms.grid import confine, seccomp
from tests.grid import confined_child
from tests.grid.confined_child import CALLS, NOT_EVERYWHERE, SHELL_RAN, Attempt

SECRET = "0.4711"
CIRCUIT = """\
New Circuit.village bus1=source basekv=4.16
New Line.head bus1=source bus2=green
New Load.mill bus1=green kv=4.16 kw=100
Set voltagebases=[4.16]
Calcvoltagebases
"""
LIBRARY = """\
#include <fcntl.h>
__attribute__((constructor)) static void loaded(void) { open(MARK, O_CREAT | O_WRONLY, 0600); }
"""


@dataclass(frozen=True)
class Place:
    """Three folders: one to read, one to write, one out of bounds; commands name them in braces."""

    package: Path
    scratch: Path
    outside: Path
    child: "subprocess.Popen[str]"

    def attempt(self, text: str, *, confined: bool, call: str = "", lacking: str = "") -> list[str | None] | int:
        """What came of every line of a script, and of a call after it; the exit code of a process that was ended."""
        folders = {"package": str(self.package), "scratch": str(self.scratch), "outside": str(self.outside)}
        script = text.format(**folders).splitlines()
        attempt = Attempt(**folders, confined=confined, script=script, call=call, lacking=lacking)
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        print(json.dumps(asdict(attempt)), file=self.child.stdin, flush=True)
        answer = json.loads(self.child.stdout.readline())
        outcome: list[str | None] | int = answer["ended"] if isinstance(answer, dict) else answer
        return outcome

    def on_circuit(self, text: str, *, confined: bool) -> list[str | None]:
        """What came of every line of a script after the circuit was read, which must have worked."""
        outcome = self.attempt(f"Redirect {{package}}/circuit.dss\n{text}", confined=confined)
        assert isinstance(outcome, list), f"ended with {outcome}"
        assert outcome[0] is None
        return outcome[1:]

    def seen_outside(self) -> set[str]:
        return {file.name for file in self.outside.iterdir()} - {"secret.csv", "secret.bin", "list.dss"}


@pytest.fixture(scope="module")
def child(tmp_path_factory: pytest.TempPathFactory) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, confined_child.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=tmp_path_factory.mktemp("child"),
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        text=True,
    ) as process:
        yield process


@pytest.fixture
def place(tmp_path: Path, child: "subprocess.Popen[str]") -> Place:
    found = Place(tmp_path / "package", tmp_path / "scratch", tmp_path / "outside", child)
    for folder in (found.package, found.scratch, found.outside):
        folder.mkdir()
    (found.package / "circuit.dss").write_text(CIRCUIT, encoding="utf8")
    (found.package / "in.csv").write_text(f"{SECRET}\n1.0\n", encoding="utf8")
    (found.package / "out.csv").symlink_to(found.outside / "secret.csv")
    (found.package / "out").symlink_to(found.outside)
    (found.scratch / "own.csv").write_text("1.0\n", encoding="utf8")
    (found.outside / "secret.csv").write_text(f"{SECRET}\n{SECRET}\n", encoding="utf8")
    (found.outside / "secret.bin").write_bytes(b"\0" * 64)
    (found.outside / "list.dss").write_text("New Load.from_outside bus1=green kv=4.16 kw=1\n", encoding="utf8")
    return found


# --- what a circuit may do -------------------------------------------------------------------------------------------


def test_confined_circuit_reads_its_folder_solves_and_writes_its_scratch_folder(place: Place) -> None:
    outcome = place.on_circuit(
        "New LoadShape.day npts=2 csvfile={package}/in.csv\nSolve\nExport voltages v.csv\nSave circuit dir={scratch}",
        confined=True,
    )
    assert outcome == [None] * 4
    assert (place.scratch / "v.csv").stat().st_size > 0
    assert (place.scratch / "Master.dss").is_file()


# --- (a) programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Set editor=/bin/sh\nFileEdit {package}/run.sh",
        "Set editor={package}/run.sh\nSolve\nShow voltages",
        "DOScmd {package}/run.sh",
        "DOScmd /bin/sh {package}/run.sh",
    ],
)
def test_circuit_starts_no_program(place: Place, text: str) -> None:
    program = place.package / "run.sh"
    program.write_text(f"#!/bin/sh\ntouch {place.outside}/ran {place.scratch}/ran\n", encoding="utf8")
    program.chmod(0o755)
    place.on_circuit(text, confined=True)
    assert not (place.scratch / "ran").exists()
    assert place.seen_outside() == set()
    place.on_circuit(text, confined=False)
    assert place.seen_outside() == {"ran"}


# --- (b) libraries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["{package}", "{outside}"])
@pytest.mark.parametrize(
    "element",
    [
        "Generator.g bus1=green kv=4.16 kw=10 model=6 usermodel",
        "Generator.g bus1=green kv=4.16 kw=10 shaftmodel",
        "PVSystem.p bus1=green kv=4.16 kva=10 pmpp=10 model=3 usermodel",
        "Storage.s bus1=green kv=4.16 kwrated=10 model=3 usermodel",
        "Storage.s bus1=green kv=4.16 kwrated=10 dynadll",
        "CapControl.c element=line.head terminal=1 capacitor=k usermodel",
    ],
)
def test_circuit_loads_no_library_not_even_from_its_own_folder(
    place: Place, library: Path, element: str, folder: str
) -> None:
    shutil.copy(library, folder.format(package=place.package, outside=place.outside) + "/model.so")
    mark = place.scratch / "loaded"
    text = f"New Capacitor.k bus1=green kv=4.16 kvar=10\nNew {element}={folder}/model.so\nSolve"
    place.on_circuit(text, confined=True)
    assert not mark.exists()
    place.on_circuit(text, confined=False)
    assert mark.exists()


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A library that leaves a file in the scratch folder as soon as it is loaded."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, built = tmp_path / "model.c", tmp_path / "model.so"
    source.write_text(LIBRARY, encoding="utf8")
    mark = f'-DMARK="{tmp_path}/scratch/loaded"'
    subprocess.run([compiler, "-shared", "-fPIC", mark, "-o", built, source], check=True)
    return built


# --- (c) files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Redirect {outside}/list.dss",
        "Compile {outside}/list.dss",
        "Redirect {package}/../outside/list.dss",
        "Redirect {package}/out/list.dss",
        "Redirect {package}/out.csv",
        "New LoadShape.s npts=2 csvfile={outside}/secret.csv",
        "New LoadShape.s npts=2 csvfile={package}/out.csv",
        "New LoadShape.s npts=2 mult=(file={outside}/secret.csv)",
        "New LoadShape.s npts=2 mult=(dblfile={outside}/secret.bin)",
        "New LoadShape.s npts=2 memorymapping=yes csvfile={outside}/secret.csv",
        "New LoadShape.s npts=2 sngfile={outside}/secret.bin",
        "New LoadShape.s npts=2 dblfile={outside}/secret.bin",
        "New LoadShape.s npts=2 pqcsvfile={outside}/secret.csv",
        "New TShape.s npts=2 csvfile={outside}/secret.csv",
        "New PriceShape.s npts=2 csvfile={outside}/secret.csv",
        "New XYcurve.s npts=2 csvfile={outside}/secret.csv",
        "New GrowthShape.s npts=2 csvfile={outside}/secret.csv",
        "New Spectrum.s numharm=2 csvfile={outside}/secret.csv",
        "BusCoords {outside}/secret.csv",
    ],
)
def test_circuit_reads_no_file_outside_its_folder(place: Place, text: str) -> None:
    ordinary = place.on_circuit(text, confined=False)
    confined = place.on_circuit(text, confined=True)
    assert ordinary[-1] is None or SECRET in ordinary[-1]
    assert confined[-1] is not None
    assert SECRET not in confined[-1]


@pytest.mark.parametrize(
    "text",
    [
        "Export voltages {outside}/v.csv",
        "Export voltages {package}/out/v.csv",
        "Save circuit dir={outside}/saved",
        "Save Load file=loads.dss dir={outside}",
        "Set datapath={outside}\nExport voltages v.csv",
        "Cd {outside}\nExport voltages v.csv",
        "Set editor=/bin/true\nSet datapath={outside}\nShow voltages",
    ],
)
def test_circuit_writes_no_file_outside_its_scratch_folder(place: Place, text: str) -> None:
    place.on_circuit(f"Solve\n{text}", confined=True)
    assert place.seen_outside() == set()
    place.on_circuit(f"Solve\n{text}", confined=False)
    assert place.seen_outside() != set()


def test_circuit_does_not_write_over_its_own_files(place: Place) -> None:
    (outcome,) = place.on_circuit("Export voltages {package}/in.csv", confined=True)
    assert outcome is not None
    assert (place.package / "in.csv").read_text(encoding="utf8").startswith(SECRET)


# --- (d) what is left when the circuit has taken the process over ----------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_confined_process_has_no_way_to(place: Place, call: str) -> None:
    outcome = place.attempt("", confined=True, call=call)
    assert isinstance(outcome, list), f"ended with {outcome}"
    assert outcome[-1] is not None
    assert place.seen_outside() == set()
    assert (place.package / "circuit.dss").read_text(encoding="utf8") == CIRCUIT
    if call not in NOT_EVERYWHERE:
        assert place.attempt("", confined=False, call=call) in ([None], SHELL_RAN)


def test_circuit_that_asks_for_more_memory_than_there_is_for_it_does_not_get_it(place: Place) -> None:
    outcome = place.attempt("New LoadShape.huge npts=1000000000 mult=[1 1]", confined=True)
    assert outcome not in ([], [None])


# --- where it cannot be done -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [("landlock", "Landlock"), ("seccomp", "seccomp"), ("one thread", "2 threads")],
)
def test_system_that_cannot_confine_says_why_and_reads_nothing(place: Place, lacking: str, reason: str) -> None:
    outcome = place.attempt("Redirect {package}/circuit.dss", confined=True, lacking=lacking)
    assert isinstance(outcome, list)
    (only,) = outcome
    assert only is not None
    assert reason in only


def test_folder_that_is_not_there_is_a_model_error(place: Place) -> None:
    shutil.rmtree(place.package)
    outcome = place.attempt("", confined=True)
    assert isinstance(outcome, list)
    assert str(place.package) in str(outcome[0])


def test_processor_without_a_table_of_system_calls_is_refused() -> None:
    with pytest.raises(ModelError, match="riscv64"):
        seccomp.filter_program("riscv64")


def test_other_system_than_linux_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    with pytest.raises(ModelError, match="on Linux only"):
        confine.confine(tmp_path, tmp_path)


HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize(("column", "machine"), list(enumerate(seccomp.AUDIT_ARCH)))
def test_numbers_of_system_calls_are_those_of_the_kernels_headers(column: int, machine: str) -> None:
    if not HEADERS[machine].is_file():
        pytest.skip("no kernel headers")
    lines = [line.split() for line in HEADERS[machine].read_text(encoding="utf8").splitlines()]
    known = {
        words[1].removeprefix("__NR_").removeprefix("__NR3264_"): words[2]
        for words in lines
        if len(words) == 3 and words[0] == "#define" and words[1].startswith("__NR") and words[2].isdigit()
    }
    known.setdefault("newfstatat", known.get("fstatat", ""))
    for name, numbers in {**seccomp.ALLOWED, **seccomp.ALLOWED_WITHOUT_EXEC}.items():
        number = numbers[column]
        assert number is None or known[name] == str(number), name

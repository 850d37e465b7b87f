"""Planted faults in our own code: how many do the tests catch? `make mutants`, or `make mutants SAMPLE=10`.

Each worker has a copy of the tree. First every test that is named runs there without a fault, and has to pass; then
one fault after another is planted, its tests run, and it is taken out again. Caught is a fault only by a test that
fails within the time; a run that takes longer, or breaks in another way, is said and counts as not caught. The last
line is one JSON object.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import TypeVar

from tests.mutants.fault import Fault, mistakes, spread
from tests.mutants.table import FAULTS

ROOT = Path(__file__).parents[2]
PACKAGES = ("derms", "drivers", "feeders", "hil", "tests.mutants")
"""What has to be imported from the copy, though the checkout is installed."""
WORKERS = 2
LIMIT_S = 60.0
"""Within which a fault has to be caught."""
UNMUTATED_S = 300.0
"""For all tests of one file that are named, without a fault."""
LEAST_FRAC = 0.95
"""Of the planted faults, that have to be caught."""
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; any other one means that it did not get so far."""

_T = TypeVar("_T")


class Verdict(StrEnum):
    """What became of a planted fault."""

    CAUGHT = "caught"
    SURVIVED = "SURVIVED"
    TOO_LATE = "TIMED OUT"
    BROKEN = "BROKEN"
    """The tests could not be run with it: it says nothing about them."""


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of pytest."""

    status: int | None
    """None where it was ended because it took too long."""
    said: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and what became of it."""

    fault: Fault
    verdict: Verdict
    by: str
    """The test that failed; empty for none."""
    seconds: float

    def __str__(self) -> str:
        by = f" by {self.by}" if self.by else ""
        return f"{self.verdict:9} {self.seconds:5.1f} s  {self.fault.file}: {self.fault.what}{by}"


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies of the tree, one for each worker."""

    free: SimpleQueue[Path] = field(default_factory=SimpleQueue)

    @contextmanager
    def one(self) -> Iterator[Path]:
        """A copy that nobody else has meanwhile."""
        copy = self.free.get()
        try:
            yield copy
        finally:
            self.free.put(copy)

    def unmutated(self, tests: tuple[str, ...]) -> Ran:
        with self.one() as copy:
            return run_tests(copy, tests, UNMUTATED_S)

    def mutated(self, fault: Fault) -> Finding:
        with self.one() as copy, planted(copy, fault):
            ran = run_tests(copy, fault.tests)
        failed = re.search(r"^(?:FAILED|ERROR) ([^\s\[]+)", ran.said, re.MULTILINE)
        return Finding(fault, _verdict(ran), failed[1] if failed and ran.status == FAILED else "", ran.seconds)


def _verdict(ran: Ran) -> Verdict:
    match ran.status:
        case None:
            return Verdict.TOO_LATE
        case status if status == FAILED:
            return Verdict.CAUGHT
        case status if status == PASSED:
            return Verdict.SURVIVED
    return Verdict.BROKEN


@contextmanager
def planted(copy: Path, fault: Fault) -> Iterator[None]:
    """The copy with a fault in it; what Python compiled of the file is removed, since it goes by whole seconds."""
    place = copy / fault.file
    source = place.read_text(encoding="utf8")
    try:
        _write(place, fault.planted(source))
        yield
    finally:
        _write(place, source)


def _write(place: Path, text: str) -> None:
    place.write_text(text, encoding="utf8")
    for compiled in place.parent.glob(f"__pycache__/{place.stem}.*.pyc"):
        compiled.unlink()


def _environment(copy: Path) -> dict[str, str]:
    one_thread = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    return {**os.environ, **one_thread, "PYTHONPATH": str(copy)}


def run_tests(copy: Path, tests: Sequence[str], limit_s: float = LIMIT_S) -> Ran:
    """Run tests of a copy up to the first that fails; what takes too long is ended, with all that it started."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    began_s = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=copy,
        env=_environment(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as run:
        try:
            said, _ = run.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            said, _ = run.communicate()
            return Ran(None, said, time.perf_counter() - began_s)
    return Ran(run.returncode, said, time.perf_counter() - began_s)


def copied(root: Path, to: Path) -> None:
    """Copy what belongs to the project: what git has, and what is new and not ignored."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, to / name)


def strangers(copy: Path) -> list[str]:
    """Packages that a run in a copy would not import from there: faults in the copy would never run."""
    ask = f"import importlib as i\nfor name in {PACKAGES}: print(*i.import_module(name).__path__)"
    command = [sys.executable, "-c", ask]
    said = subprocess.run(
        command, cwd=copy.parent, env=_environment(copy), capture_output=True, text=True, check=True
    ).stdout
    return [found for found in said.splitlines() if not Path(found).resolve().is_relative_to(copy.resolve())]


def by_file(faults: Sequence[Fault]) -> list[tuple[str, ...]]:
    """All tests that faults name, those of one file together."""
    files: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for test in (test for fault in faults for test in fault.tests):
        files[test.partition("::")[0]][test] = None
    return [(file,) if file in tests else tuple(tests) for file, tests in files.items()]


def examined(
    faults: Sequence[Fault], tell: Callable[[str], None], *, workers: int = WORKERS, root: Path = ROOT
) -> list[Finding]:
    """Plant faults, one at a time in each copy, and see which are caught; in the order of the table.

    Ends the program, with what is wrong, where a fault cannot be planted, tests fail without any, or a copy is not
    what is imported.
    """
    if wrong := [f"{fault.what}: {text}" for fault in faults for text in mistakes(fault, root)]:
        raise SystemExit("\n".join(wrong))
    pool = ThreadPoolExecutor(workers)
    with TemporaryDirectory(prefix="mutants-") as folder:
        try:
            copies = Copies()
            for number in range(workers):
                copy = Path(folder, str(number))
                copied(root, copy)
                if elsewhere := strangers(copy):
                    raise SystemExit(f"not the copy in {copy} is imported, but {', '.join(elsewhere)}")
                copies.free.put(copy)
            named = by_file(faults)
            tell(f"{len(faults)} faults; first the tests named, of {len(named)} files, without any")
            for ran, tests in _in_turn(pool, copies.unmutated, named):
                if ran.status != PASSED:
                    raise SystemExit(f"{ran.said}\nwithout a fault these do not pass in time: {' '.join(tests)}")
            tell("all of them pass")
            found = {}
            for finding, fault in _in_turn(pool, copies.mutated, faults):
                found[fault] = finding
                tell(f"{len(found):3}/{len(faults)}  {finding}")
        finally:
            pool.shutdown(cancel_futures=True)
    return [found[fault] for fault in faults]


_Given = TypeVar("_Given")


def _in_turn(
    pool: ThreadPoolExecutor, work: Callable[[_Given], _T], given: Sequence[_Given]
) -> Iterator[tuple[_T, _Given]]:
    """Results as they come, each with what it is of."""
    futures: dict[Future[_T], _Given] = {pool.submit(work, each): each for each in given}
    for future in as_completed(futures):
        yield future.result(), futures[future]


def main(argv: Sequence[str] | None = None) -> int:
    """Run and print; 1 when too few were caught."""
    parser = argparse.ArgumentParser(description="Plant faults in our own code, and see which the tests catch.")
    parser.add_argument("--sample", type=int, help="so many of them, spread over the table (default: all)")
    parser.add_argument("--only", default="", help="those whose file or description has this text")
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args(argv)
    faults = [fault for fault in FAULTS if options.only in f"{fault.file} {fault.what}"]
    chosen = faults if options.sample is None else spread(faults, options.sample)
    began_s = time.perf_counter()
    findings = examined(chosen, lambda text: print(text, flush=True), workers=options.workers)
    missed = [finding for finding in findings if finding.verdict is not Verdict.CAUGHT]
    if missed:
        print("not caught:", *missed, sep="\n")
    result = {
        "planted": len(findings),
        "caught": len(findings) - len(missed),
        "slowest_s": round(max((finding.seconds for finding in findings), default=0.0), 1),
        "wall_s": round(time.perf_counter() - began_s, 1),
    }
    print(json.dumps(result))
    return 0 if result["caught"] >= LEAST_FRAC * result["planted"] else 1


if __name__ == "__main__":
    sys.exit(main())

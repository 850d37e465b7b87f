"""A feeder from somebody else in a confined process: the same engine from outside, and what happens when it breaks."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.errors import GridError, ModelError, NotConverged
from derms.grid import remote
from derms.grid.opendss import FeederEngine
from derms.grid.remote import ConfinedEngine
from tests.grid.village import village

DEATH_MAX_S = 30.0
LOAD_W, LOAD_VAR = np.array([250e3, 40e3]), np.array([80e3, 9e3])
DER_W, DER_VAR = np.array([150e3]), np.array([-20e3])


@pytest.fixture(scope="module")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConfinedEngine]:
    engine = ConfinedEngine(village(tmp_path_factory.mktemp("village")))
    yield engine
    engine.close()


@pytest.fixture
def engine(shared_engine: ConfinedEngine) -> ConfinedEngine:
    """One process for several tests (a start takes most of a second), handed over with what `set_all` sets."""
    set_all(shared_engine)
    return shared_engine


def worker_pid(engine: ConfinedEngine) -> int:
    return engine._worker._process.pid


def set_all(engine: ConfinedEngine | FeederEngine) -> None:
    engine.freeze_controls(True)
    engine.set_loads(LOAD_W, LOAD_VAR)
    engine.set_der(DER_W, DER_VAR)
    engine.set_source_pu(1.03)
    engine.set_tolerance(1e-8)
    engine.set_regulator_target("reg", 121.0)
    engine.set_taps({"reg": -3})
    engine.set_capacitors({"bank": 1})


def as_solved(engine: ConfinedEngine | FeederEngine) -> list[object]:
    flow, network = engine.solve(), engine.network()
    arrays = (flow.v_v, flow.v_pu, flow.head_w, flow.head_var, network.y.toarray(), network.current.toarray())
    return [
        *(array.tolist() for array in arrays),
        flow.iterations,
        engine.losses_w(),
        engine.taps(),
        engine.capacitors(),
        engine.switches(),
        engine.regulator_targets_v(),
        engine.energised().tolist(),
        network.current_names,
    ]


def test_confined_engine_gives_exactly_what_one_in_this_process_gives(tmp_path: Path) -> None:
    package = village(tmp_path)
    here = FeederEngine(replace(package, own=True), line_scale={"tie": 1.5})
    there = ConfinedEngine(package, line_scale={"tie": 1.5})
    assert (there.layout.nodes, there.layout.points) == (here.layout.nodes, here.layout.points)
    assert as_solved(there) == as_solved(here)
    for engine in (here, there):
        set_all(engine)
    assert as_solved(there) == as_solved(here)
    for engine in (here, there):
        engine.set_switches({"line.tie": False})
    assert as_solved(there) == as_solved(here)
    there.close()


def test_what_the_engine_refuses_is_refused_with_its_own_words(engine: ConfinedEngine) -> None:
    pid = worker_pid(engine)
    with pytest.raises(ModelError, match="regulator 'nobody'"):
        engine.set_taps({"nobody": 1})
    with pytest.raises(GridError, match="2 values expected"):
        engine.set_loads(LOAD_W[:1], LOAD_VAR[:1])
    with pytest.raises(GridError, match="not finite"):
        engine.set_der(np.array([np.nan]), DER_VAR)
    engine.set_loads(LOAD_W * 1e5, LOAD_VAR)
    with pytest.raises(NotConverged, match="village"):
        engine.solve()
    engine.set_loads(LOAD_W, LOAD_VAR)
    assert np.isfinite(engine.solve().v_pu).all()
    assert worker_pid(engine) == pid


def test_network_crosses_over_only_when_it_is_another(engine: ConfinedEngine) -> None:
    network = engine.network()
    assert engine.network() is network
    engine.set_taps({"reg": 5})
    assert engine.network() is not network


def test_killed_process_fails_one_call_and_the_next_finds_everything_as_it_was_set(engine: ConfinedEngine) -> None:
    before = as_solved(engine)
    os.kill(worker_pid(engine), signal.SIGKILL)
    with pytest.raises(GridError, match="village: the confined process ended by SIGKILL"):
        engine.solve()
    assert np.array(as_solved(engine)[1]) == pytest.approx(np.array(before[1]), abs=1e-9)
    assert as_solved(engine)[8:] == before[8:]


def test_process_that_does_not_answer_in_time_is_ended(engine: ConfinedEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    before = engine.solve()
    silent = worker_pid(engine)
    os.kill(silent, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(remote, "CALL_MAX_S", 0.2)
        with pytest.raises(GridError, match=r"village: no answer of the confined process within 0.2 s"):
            engine.taps()
    assert engine.solve().v_pu == pytest.approx(before.v_pu, abs=1e-9)
    assert worker_pid(engine) != silent


def test_process_knows_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMS_DATABASE_PASSWORD", "hidden")
    engine = ConfinedEngine(village(tmp_path))
    known = Path(f"/proc/{worker_pid(engine)}/environ").read_bytes()
    engine.close()
    assert b"PATH=" in known
    assert b"hidden" not in known


def test_closed_engine_leaves_no_process_and_no_folder_and_says_that_it_is_closed(tmp_path: Path) -> None:
    engine = ConfinedEngine(village(tmp_path))
    process, scratch = engine._worker._process, engine._worker._words.parent
    engine.close()
    assert process.returncode == -signal.SIGKILL
    assert not scratch.exists()
    with pytest.raises(GridError, match="closed"):
        engine.solve()


@pytest.mark.slow
def test_circuit_that_changed_on_disk_is_not_taken_for_the_one_that_was_opened(tmp_path: Path) -> None:
    engine = ConfinedEngine(village(tmp_path))
    village(tmp_path, "New Load.late bus1=mill kv=4.16 kw=1\n")
    os.kill(worker_pid(engine), signal.SIGKILL)
    with pytest.raises(GridError, match="SIGKILL"):
        engine.taps()
    with pytest.raises(ModelError, match="village: the circuit's files have changed"):
        engine.taps()
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("Redirect {secret}\n", "secret.dss"),
        ("New LoadShape.s npts=1 csvfile={secret}\n", "secret.dss"),
        ("Redirect link.dss\n", "link.dss"),
        ("DOScmd touch {secret}\n", "DOScmd"),
        ("New Load.lost\n~ nonsense=1\n", "village.dss"),
        ("New LoadShape.huge npts=1000000000 mult=[1 1]\n", "not loaded"),
    ],
)
def test_circuit_that_asks_for_too_much_is_a_model_error_that_names_the_feeder(
    tmp_path: Path, more: str, words: str
) -> None:
    secret = tmp_path / "secret.dss"
    secret.write_text("SECRET4711\n", encoding="utf8")
    package = village(tmp_path / "village", more.format(secret=secret))
    (package.circuit.parent / "link.dss").symlink_to(secret)
    with pytest.raises(ModelError, match=f"village: .*{words}") as caught:
        ConfinedEngine(package)
    assert "SECRET4711" not in str(caught.value)


@pytest.mark.slow
def test_circuit_that_computes_for_ever_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "OPEN_MAX_S", 4.0)
    with pytest.raises(ModelError, match=r"village: no answer .* within 4 s; its circuit is not loaded"):
        ConfinedEngine(village(tmp_path, "Solve mode=yearly number=2000000000\n"))


FAULTS = {
    "no Landlock": ("import derms.grid.confine as c\nc.CREATE_RULESET = 9999\n", "Landlock"),
    "no seccomp": ("import derms.grid.seccomp as s\ns.PR_SET_SECCOMP = 9999\n", "seccomp"),
    "nonsense": ("import derms.grid.wire as w\nw.encode = lambda value: b'nonsense' * 9\n", "no sense"),
    "another value": ("import derms.grid.wire as w\nw.encode = lambda value: w.HEADER.pack(1) + b'7'\n", "no sense"),
    "nothing": ("import derms.grid.wire as w\nw.encode = lambda value: b''\n", "no sense"),
    "crash": ("import derms.grid.wire as w\nw.decode = lambda value: 1 / 0\n", "ZeroDivisionError"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_foreign_circuit_is_not_loaded_by_a_process_that_is_not_confined_or_not_sane(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    text, words = FAULTS[fault]
    (tmp_path / "sitecustomize.py").write_text(text, encoding="utf8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(ModelError, match=f"(?i){words}"):
        ConfinedEngine(village(tmp_path / "village"))


PARENT = """\
import os, sys
from pathlib import Path
from derms.grid.remote import ConfinedEngine
from tests.grid.village import village
engine = ConfinedEngine(village(Path(sys.argv[1])))
print(engine._worker._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "village")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    ended, _, _ = select.select([worker], [], [], DEATH_MAX_S)
    os.close(worker)
    assert ended

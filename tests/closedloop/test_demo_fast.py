"""`derms demo --fast` as a user runs it: figures, report, repeatability, refusals, and what control gains in a day."""

import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from derms.service.cli import main

DERMS = Path(sys.executable).with_name("derms")
KEYS = {
    *("simulated_hours", "wall_s", "devices", "polls", "polls_failed", "writes", "writes_verified", "writes_failed"),
    *("plans", "plans_fallback", "limit_violations", "peak_kw_without", "peak_kw_with", "ramp_3h_kw_without"),
    *("ramp_3h_kw_with", "voltage_violation_node_min_without", "voltage_violation_node_min_with", "trace_hash"),
}
PATIENCE_S = 1500.0
"""Far longer than a simulated day takes, on a busy machine too: a process that hangs does not hang the tests."""
PICTURES = ("Net load", "Ramp", "State of charge", "Voltage", "Commands")


def _start(folder: Path, *arguments: str, hash_seed: str = "0") -> subprocess.Popen[str]:
    command = [str(DERMS), "demo", "--fast", "--headless", "--json", "out.json", "--report", ".", *arguments]
    folder.mkdir(exist_ok=True)
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=folder, env=environment)


def _result(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    said, complained = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, complained
    assert complained == ""
    summary: dict[str, Any] = json.loads((folder / "out.json").read_text())
    assert json.loads(said.splitlines()[-1]) == summary
    return summary


def _pictures(folder: Path) -> dict[str, str]:
    """The pictures of a report by the heading above them."""
    page = (folder / "report.html").read_text(encoding="utf8")
    assert re.search(r"(src|href)=[\"']?(https?:)?//", page) is None, "the report needs no network"
    return dict(re.findall(r"<h2>([^<]+)</h2><p class=small>[^<]*</p>(<svg.*?</svg>)", page, flags=re.DOTALL))


@pytest.mark.slow
def test_an_hour_gives_every_figure_and_a_report_with_five_pictures(tmp_path: Path) -> None:
    summary = _result(_start(tmp_path, "--hours", "1"), tmp_path)
    assert summary.keys() >= KEYS
    assert (summary["simulated_hours"], summary["devices"], summary["polls_failed"]) == (1.0, 65, 0)
    assert summary["polls"] == pytest.approx(65 * 360, abs=65)
    assert (summary["plans"], summary["plans_fallback"]) == (12, 0)
    assert summary["writes"] >= summary["writes_verified"] >= 20 * 11
    assert (summary["writes_failed"], summary["limit_violations"]) == (0, 0)
    assert sum(summary["outcomes"].values()) == summary["writes"]
    assert summary["peak_kw_with"] > 1000.0
    assert summary["ramp_3h_kw_with"] is None, "an hour has no three-hour ramp"
    pictures = _pictures(tmp_path)
    assert tuple(pictures) == PICTURES
    for name in ("Net load", "State of charge", "Voltage"):
        assert len(re.findall(r'<g id="line2d_', pictures[name])) > 10, name
    assert "not longer than the three hours" in pictures["Ramp"]


@pytest.mark.slow
def test_a_seed_gives_the_same_bytes_in_any_process_and_another_seed_others(tmp_path: Path) -> None:
    runs = {"first": ("7", "1"), "again": ("7", "2"), "other": ("8", "1")}
    started = {
        name: _start(tmp_path / name, "--hours", "0.4", "--seed", seed, hash_seed=hash_seed)
        for name, (seed, hash_seed) in runs.items()
    }
    first, again, other = (_result(process, tmp_path / name) for name, process in started.items())
    assert first["trace_hash"] == again["trace_hash"] != other["trace_hash"]
    assert re.fullmatch(r"[0-9a-f]{32}", first["trace_hash"])
    assert first | {"wall_s": 0} == again | {"wall_s": 0}


@pytest.mark.slow
def test_a_day_under_control_is_flatter_and_within_every_limit(tmp_path: Path) -> None:
    summary = _result(_start(tmp_path, "--hours", "24"), tmp_path)
    assert summary["peak_kw_with"] <= 0.9 * summary["peak_kw_without"]
    assert summary["ramp_3h_kw_with"] <= 0.6 * summary["ramp_3h_kw_without"]
    assert summary["voltage_violation_node_min_with"] <= summary["voltage_violation_node_min_without"]
    assert (summary["limit_violations"], summary["writes_failed"], summary["plans_fallback"]) == (0, 0, 0)
    assert sum(summary["outcomes"].values()) == summary["writes"]


@pytest.mark.slow
def test_ctrl_c_ends_the_demo_early_with_the_report_of_what_was(tmp_path: Path) -> None:
    process = _start(tmp_path, "--hours", "6")
    assert process.stdout is not None
    while "%" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    summary = _result(process, tmp_path)
    assert 0.4 < summary["simulated_hours"] < 6.0
    assert summary["writes_failed"] == 0
    assert summary["peak_kw_without"] == pytest.approx(summary["peak_kw_with"], rel=0.25), "of the same time"
    assert len(_pictures(tmp_path)) == len(PICTURES)


@pytest.mark.slow
def test_the_live_line_stays_on_one_line_of_a_terminal(tmp_path: Path) -> None:
    """Over TCP, on a terminal of 80 columns."""
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [str(DERMS), "demo", "--hours", "0.3", "--speed", "1000", "--report", str(tmp_path)]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        screen = b"".join(_chunks(ours)).decode()
    os.close(ours)
    assert process.returncode == 0
    shown = [line for line in re.split(r"\r\x1b\[K|\r\n", screen) if re.match(r" *\d+% \d\d:\d\d ", line)]
    assert len(shown) == 18, "one a minute"
    for line in shown[1:]:
        assert len(line) < 80
        words = r" *\d+% 16:\d\d  load +\d+  plan +(\d+|-) kW  ramp +([+-]\d+|-) kW/h  devices \d+/65  alarms 0"
        assert re.fullmatch(words, line)
    assert json.loads(screen.splitlines()[-1])["trace_hash"] is None


def _chunks(terminal: int) -> Iterator[bytes]:
    """What is written to a terminal until its last writer ends."""
    with suppress(OSError):
        while chunk := os.read(terminal, 65536):
            yield chunk


REFUSED = (
    (("--hours", "0"), "argument --hours: '0': give a number from 0.05 to 168"),
    (("--hours", "nan"), "argument --hours: 'nan': give a number from 0.05 to 168"),
    (("--speed", "fast"), "argument --speed: 'fast': give a number from 0.1 to 10000"),
    (("--seed", "-1"), "argument --seed: '-1': give a whole number from 0 to 4294967296"),
    (("--start", "25:00"), "argument --start: '25:00': give a local time such as 16:00"),
    (("--fault", "nonsense"), "argument --fault: 'nonsense': write DEVICE=KIND@START+LENGTH in s"),
    (("--fault", "pv03=burn@1+1"), "argument --fault: 'pv03=burn@1+1': write DEVICE=KIND@START+LENGTH in s"),
    (("--fault", "pv033=stop@1+1"), "argument --fault: there is no device 'pv033'; did you mean 'pv"),
    (
        ("--hours", "1", "--fault", "pv03=stop@3600+60"),
        "argument --fault: pv03 would fail after 3600 s, and the run ends after 3600 s",
    ),
    (("--json", "nowhere/out.json"), "nowhere/out.json: No such file or directory"),
    (("--json", "."), ".: Is a directory"),
    (("--report", "file/report"), "file/report: Not a directory"),
)


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_what_cannot_be_followed_is_refused_with_one_sentence(
    arguments: tuple[str, ...],
    sentence: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(["demo", "--fast", "--headless", *arguments]))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines()[-1].startswith(f"derms demo: {'error: ' * sentence.startswith('argument')}{sentence}")
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs" / "demo").iterdir())

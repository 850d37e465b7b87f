"""`derms stop` against a gateway that answers as it is told: what it asks, what it prints, how it ends."""

import asyncio
import io
import json
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest

from derms.control.stop_report import NOT_ISOLATION, Preview, Progress
from derms.control.stopping import How, Tally
from derms.domain.refusal import Reason, Refused
from derms.domain.scope import EVERYTHING, Level, Scope
from derms.link.answering import Answering
from derms.link.local import LocalServer, this_boot
from derms.link.local import call as link_call
from derms.link.stops import StopHurry, StopPreview, StopRelease, StopReply, StopRequest, StopStatus
from derms.service import stop_command
from derms.service.cli import main
from derms.service.clock import SystemClock
from derms.service.storage_path import socket_of

UNDER_WAY = Tally(total=430, confirmed=400, reverting=0, within_s=0.0, unknown=(), waiting=30)
UNKNOWN = Tally(total=430, confirmed=412, reverting=12, within_s=58.0, unknown=("pv03", "pv07"))
DONE = Tally(total=430, confirmed=430, reverting=0, within_s=0.0, unknown=())
STOP = Progress(
    number=3,
    how=How.CEASE,
    scope=EVERYTHING,
    author="ann",
    given_s=0.0,
    immediate=True,
    latched=True,
    approved_by="",
    tally=UNDER_WAY,
)
PREVIEW = Preview(
    how=How.CEASE,
    scope=EVERYTHING,
    devices=430,
    net_load_w=5e6,
    after_w=6e6,
    unknown=0,
    unknown_w=0.0,
    stages=4,
    takes_s=30.0,
)


@dataclass
class Gateway:
    """Answers requests, and remembers them."""

    tallies: list[Tally] = field(default_factory=lambda: [DONE])
    """As they are told one after the other; the last one stays."""
    latched: bool = True
    refused: Refused | None = None
    asked: list[object] = field(default_factory=list)

    async def answer(self, request: object, author: str) -> StopReply:
        self.asked.append(request)
        if self.refused:
            return StopReply(refused=self.refused)
        match request:
            case StopPreview():
                return StopReply(preview=PREVIEW)
            case StopRelease():
                return StopReply(text="it takes another person")
            case StopStatus():
                tally = self.tallies.pop(0) if len(self.tallies) > 1 else self.tallies[0]
                why = tuple(f"{it}: away" for it in tally.unknown)
                return StopReply(stops=(replace(STOP, tally=tally, why=why, latched=self.latched, kept_out=9),))
            case _:
                return StopReply(stops=(STOP,))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text('[storage]\ndirectory = "data"\n')
    (tmp_path / "data").mkdir()
    return path


@pytest.fixture
def gateway(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    monkeypatch.setattr(stop_command, "AGAIN_S", 0.001)
    found, ready, ends = Gateway(), threading.Event(), list[Callable[[], object]]()

    async def serve() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        ends.append(partial(loop.call_soon_threadsafe, over.set))
        kinds = (StopPreview, StopRequest, StopHurry, StopStatus, StopRelease)
        answering = Answering(SystemClock(loop), this_boot(), dict.fromkeys(kinds, found.answer))
        server = LocalServer(socket_of(site), answering)
        await server.start()
        ready.set()
        await over.wait()
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    ready.wait()
    yield found
    ends[0]()
    thread.join()


def test_a_stop_is_followed_until_each_device_is_confirmed(
    site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.tallies = [UNDER_WAY, UNDER_WAY, DONE]
    assert main(["stop", "--how", "cease", "--feeder", "f1", "--immediate", "--yes", "-c", str(site)]) == 0
    request = gateway.asked[0]
    assert isinstance(request, StopRequest)
    assert (request.how, request.scope, request.immediate) == (How.CEASE, Scope(Level.FEEDER, "f1"), True)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in lines[:2]] == ["400 of 430 confirmed, 30 under way", "430 of 430 confirmed"]
    assert lines[-1] == NOT_ISOLATION


def test_unknown_devices_are_listed_and_are_an_exit_status_of_one(
    site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.tallies = [UNKNOWN]
    assert main(["stop", "--how", "cease", "--all", "--yes", "-c", str(site)]) == 1
    out = capsys.readouterr().out
    assert "412 of 430 confirmed, 12 reverting within 58 s, 2 unknown: pv03, pv07" in out
    assert "  pv03: away" in out


def test_programs_get_one_json_object(site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.tallies = [UNDER_WAY, UNKNOWN]
    assert main(["stop", "--how", "stop-both", "--group", "vpp", "--yes", "--json", "-c", str(site)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["stop"], found["confirmed"], found["unknown"], found["isolation"]) == (
        3,
        412,
        ["pv03", "pv07"],
        False,
    )


@pytest.mark.parametrize(("said", "stops"), [("yes\n", True), ("\n", False), ("", False)])
def test_nothing_is_stopped_before_somebody_has_agreed_to_what_is_shown(
    said: str,
    stops: bool,
    site: Path,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(said))
    assert main(["stop", "--how", "cease", "--device", "pv01", "-c", str(site)]) == (0 if stops else 1)
    assert any(isinstance(request, StopRequest) for request in gateway.asked) is stops
    assert "net load 5,000 kW now, 6,000 kW after it" in capsys.readouterr().err


def test_status_hurry_and_release(site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--status", "-c", str(site)]) == 0
    assert main(["stop", "--hurry", "3", "-c", str(site)]) == 0
    assert main(["stop", "--release", "3", "--remote", "-c", str(site)]) == 0
    assert main(["stop", "--release", "3", "--break-glass", "alone at night", "-c", str(site)]) == 0
    assert StopHurry(3) in gateway.asked
    assert gateway.asked[-2:] == [StopRelease(3, remote=True), StopRelease(3, broken_glass="alone at night")]
    assert "stop 3 (cease, all devices) of ann, latched: 430 of 430 confirmed" in capsys.readouterr().out


def test_a_stop_that_is_released_tells_whom_it_has_not_let_in(
    site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.tallies, gateway.latched = [UNKNOWN], False
    assert main(["stop", "--status", "-c", str(site)]) == 0
    assert capsys.readouterr().out == "stop 3 (cease, all devices) of ann, released: 9 to be let in\n"


def test_a_refusal_is_told_with_its_reasons(site: Path, gateway: Gateway, capsys: pytest.CaptureFixture[str]) -> None:
    observes = Reason("observe", "the site only observes")
    for reasons, status in (((observes,), 1), ((observes, Reason("scope", "there is no device")), 2)):
        gateway.refused = Refused(reasons)
        assert main(["stop", "--how", "cease", "--all", "--yes", "-c", str(site)]) == status
        assert capsys.readouterr().err.splitlines() == [reason.text for reason in reasons]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            StopStatus,
            ("stop 3 stands, is latched", "--status -c", "release it, by two people: derms stop --release 3 -c"),
        ),
        (StopRequest, ("the stop may stand", "--status -c")),
    ],
)
def test_ctrl_c_ends_the_following_and_says_that_the_stop_stands(
    asked: type,
    told: tuple[str, ...],
    site: Path,
    gateway: Gateway,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def call(path: Path, request: object, kind: type[StopReply], *, within_s: float) -> StopReply:
        if isinstance(request, asked):
            signal.raise_signal(signal.SIGINT)
        return link_call(path, request, kind, within_s=within_s)

    monkeypatch.setattr(stop_command, "call", call)
    words = ["stop", "--how", "cease", "--all", "--yes", "-c", str(site)]
    # Who starts the tests in the background may have had Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(words) == 130
        err = capsys.readouterr().err
        assert main([*words, "--json"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert all(text in err for text in told), err
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], found.get("stop")) == (False, 3 if asked is StopStatus else None)
    assert found["problems"]


def test_without_a_gateway_nobody_knows(
    site: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stop_command, "TRIES", 1)
    assert main(["stop", "--how", "cease", "--all", "--yes", "-c", str(site)]) == 1
    assert "no gateway at" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [["--how", "cease"], ["--how", "maim", "--all"], [], ["--how", "cease", "--all", "--feeder", "f1"]]
)
def test_wrong_input_is_an_exit_status_of_two(wrong: list[str], site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(["stop", *wrong, "-c", str(site)])
    except SystemExit as error:
        status = int(str(error.code))
    assert status == 2
    assert capsys.readouterr().err


def test_a_site_file_that_is_none_is_an_exit_status_of_two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stop", "--status", "-c", str(tmp_path / "none.toml")]) == 2
    assert "none.toml" in capsys.readouterr().err

"""The commands of people, from their words to a gateway behind a real socket and back."""

import argparse
import asyncio
import getpass
import json
import math
import random
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from derms.control.modes import ControlMode, Scorecard
from derms.control.permissives import SUBSTITUTABLE
from derms.control.stopping import How
from derms.domain.alarm import Event
from derms.domain.der import DeviceKind, Fleet
from derms.domain.desk import Answers, Headroom, Offer, Reach
from derms.domain.dispatch import Capabilities, Command, Held, Quantity
from derms.domain.mode import Mode
from derms.domain.quality import Quality
from derms.domain.scope import Level, Places, Scope
from derms.domain.settings import DispatchSettings
from derms.domain.tags import TagKind
from derms.field.journal import Journal
from derms.field.orders import Orders
from derms.field.poller import Poller
from derms.field.reconcile import Reconciler
from derms.link.answering import Answering
from derms.link.local import SOCKET, LocalServer, this_boot
from derms.service import order_commands
from derms.service.clock import SystemClock
from derms.service.dispatch_desk import DispatchDesk
from derms.service.order_desk import OrderDesk
from tests.field.scripted import QUICK, Scripted, device

ME = getpass.getuser()


class Obedient(Scripted):
    """Does what it is told, and takes setpoints."""

    held: Command | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        takes = frozenset({Quantity.P_SET})
        self.identity = replace(self.identity, capabilities=Capabilities(takes=takes, reverts=takes))

    async def write(self, command: Command) -> None:
        self.held = None if command.value_w is None else command
        self.values["p_w"] = command.value_w or 0.0

    async def read_back(self, quantity: Quantity) -> Held:
        held = self.held if quantity is Quantity.P_SET else None
        if held is None:
            return Held(None, 0.0, 0.0, 1.0)
        return Held(held.value_w, held.reversion_s, held.reversion_s, 1.0)


@dataclass
class Site:
    """A site file whose gateway runs in a thread."""

    path: Path
    capture: pytest.CaptureFixture[str]
    orders: Orders
    battery: Obedient

    def run(self, *words: str) -> tuple[int, str]:
        """Exit status and output of a command."""
        parser = argparse.ArgumentParser()
        order_commands.add_commands(parser.add_subparsers(required=True))
        options = parser.parse_args([*words, "-c", str(self.path)])
        status = options.run(options)
        out, err = self.capture.readouterr()
        return status, out + err


def _gateway(loop: asyncio.AbstractEventLoop, folder: Path) -> tuple[Poller, Reconciler, Obedient, Answering]:
    clock, events = SystemClock(loop), list[Event]()
    fleet = Fleet((device("bat0", DeviceKind.BATTERY), device("pv0")))
    battery = Obedient(clock, 10e3)
    sessions = {"bat0": battery, "pv0": Scripted(clock, 10e3)}
    poller = Poller(fleet, sessions, clock, replace(QUICK, poll_s=0.2), random.Random(1), events.append)
    journal = Journal.open(folder / "commands.journal")
    places = Places(("bat0", "pv0"), ("f1", "f1"), {"battery": frozenset({"bat0"})})
    orders = Orders.open(folder / "orders", fleet, places, Mode.AUTO, clock, events.append, fresh=journal.token == 1)
    reconciler = Reconciler(fleet, sessions, poller, journal, clock, DispatchSettings(), events.append, orders)
    handlers = {**OrderDesk(orders, reconciler).handlers(), **DispatchDesk(orders, reconciler).handlers()}
    return poller, reconciler, battery, Answering(clock, this_boot(), handlers)


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    path, folder = tmp_path / "site.toml", tmp_path / "data"
    path.write_text('[site]\nname = "here"\n')
    folder.mkdir()
    started, stop, made = threading.Event(), threading.Event(), list[tuple[Orders, Obedient]]()

    async def serve() -> None:
        poller, reconciler, battery, answering = _gateway(asyncio.get_running_loop(), folder)
        server = LocalServer(folder / SOCKET, answering)
        await server.start()
        running = asyncio.ensure_future(asyncio.gather(poller.run(), reconciler.run()))
        for _ in range(1000):
            if (poller.snapshot().quality == Quality.GOOD).all():
                break
            await asyncio.sleep(0.01)
        made.append((reconciler.orders, battery))
        started.set()
        await asyncio.to_thread(stop.wait)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        server.close()
        reconciler.journal.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert started.wait(30.0)
    try:
        yield Site(path, capsys, *made[0])
    finally:
        stop.set()
        thread.join()


def test_a_tag_is_hung_listed_and_taken_off(site: Site) -> None:
    status, text = site.run("tag", "hang", "clearance", "--feeder", "f1", "--text", "crew at pole 17")
    assert status == 0
    assert f"clearance tag 1 on feeder f1, {ME} at" in text
    assert "crew at pole 17" in site.run("tag", "list")[1]
    assert json.loads(site.run("tag", "list", "--json")[1])["tags"][0]["kind"] == "clearance"
    assert site.run("tag", "off", "1")[0] == 0
    status, text = site.run("tag", "off", "1")
    assert (status, "there is no tag 1" in text) == (2, True)
    assert site.run("tag", "list")[1] == "no tag hangs\n"


def test_a_mode_goes_down_in_one_command_and_up_with_evidence_only(site: Site) -> None:
    assert site.run("mode", "set", "off", "--feeder", "f1", "--why", "storm")[0] == 0
    assert f"feeder f1: off, {ME} storm" in site.run("mode", "list")[1]
    assert site.run("mode", "set", "shadow", "--feeder", "f1")[0] == 0
    status, text = site.run("mode", "set", "auto", "--feeder", "f1", "--json")
    answer = json.loads(text)
    assert (status, answer["ok"]) == (1, False)
    assert [reason["by"] for reason in answer["reasons"]] == ["scorecard"]
    status, text = site.run("mode", "approve", "7")
    assert (status, "no plan is offered" in text) == (1, True)


def test_modes_are_listed_with_what_the_scorecard_has_and_lacks(site: Site) -> None:
    assert "scorecard of feeder f1: nothing yet" in site.run("mode", "list")[1]
    site.orders.scorecards[Scope(Level.FEEDER, "f1")] = Scorecard(
        taken_s=site.orders.clock.monotonic_s() - 120.0,
        shadow_h=36.5,
        plans=600.0,
        verified_frac=1.0,
        forecast_error_frac=math.nan,
        voltage_error_pu=0.004,
        seen_frac=0.98,
        clamped_frac=0.01,
        harm_node_min=0.0,
    )
    text = site.run("mode", "list")[1]
    assert "scorecard of feeder f1, 2 min old:" in text
    assert "  MISSED hours in shadow or above: 36.5, needed at least 168" in text
    assert "  MISSED error of the forecast an hour ahead, per unit of the peak: nan, needed at most 0.1" in text
    assert "  met    plans made: 600, needed at least 500" in text
    card = json.loads(site.run("mode", "list", "--json")[1])["scorecards"][0]
    assert (card["feeder"], card["marks"][3]["value"], card["marks"][3]["met"]) == ("f1", None, False)
    site.run("mode", "set", "shadow", "--group", "battery")
    text = site.run("mode", "set", "auto", "--group", "battery")[1]
    assert text.count("scorecard: ") == 2  # what its feeder misses, it misses too


def test_a_value_is_selected_shown_and_operated_and_given_up_again(site: Site) -> None:
    site.run("tag", "hang", "caution", "--device", "bat0", "--text", "dog in the yard")
    status, text = site.run("set", "--device", "bat0", "--kw", "2.5", "--for", "30min", "--yes")
    assert status == 0, text
    assert "selected: p_set of device bat0, 1 devices: 2.5 kW for 1800 s" in text
    assert "dog in the yard" in text
    assert "goes out to bat0" in text
    status, text = site.run("show", "--device", "bat0")
    assert f"operator {ME} for another" in text
    assert "if control died now, the fleet would be at" in text
    assert site.run("set", "--device", "bat0", "--release", "--yes")[0] == 0
    assert "device default" in site.run("show", "--device", "bat0")[1]


def test_nothing_goes_out_without_a_yes(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer, sent in (("n\n", False), ("\n", False), ("", False), ("y\n", True)):
        monkeypatch.setattr("sys.stdin", _Terminal(answer))
        status, text = site.run("set", "--group", "battery", "--kw", "-1")
        assert (status == 0, "nothing was sent" in text) == (sent, not sent)
        assert bool(site.orders.kept.claims) is sent
        assert site.orders.selections.open == ()


class _Terminal:
    """A person at a terminal."""

    def __init__(self, answer: str) -> None:
        self._answer = answer

    def isatty(self) -> bool:
        return True

    def readline(self) -> str:
        return self._answer


def test_why_lists_everything(site: Site) -> None:
    site.run("tag", "hang", "automatic-control-inhibit", "--all", "--text", "meter test")
    site.run("lock", "take", "--device", "bat0", "--for", "2h")
    status, text = site.run("why", "--device", "bat0", "--kw", "99")
    assert status == 0
    by_hand, _, plans = text.partition("plans:")
    assert "nothing stands in the way" in by_hand
    assert "automatic-control inhibit tag 1" in plans
    assert "will get another value" in plans
    assert "nothing under device pv0 takes a p_set" in site.run("why", "--device", "pv0", "--kw", "1")[1]
    assert site.run("lock", "give-back", "--device", "bat0")[0] == 0
    assert site.run("lock", "give-back", "--device", "bat0")[0] == 2


def test_a_substituted_value_is_shown_with_its_author(site: Site) -> None:
    words = ("substitute", "--device", "pv0", "--column", "p_w", "--value", "4000", "--text", "meter is out")
    assert site.run(*words)[0] == 0
    assert f"substituted: pv0 p_w 4000, {ME}" in site.run("show")[1]
    shown = json.loads(site.run("show", "--json")[1])
    assert shown["substitutes"][0]["device"] == "pv0"
    assert {row["id"] for row in shown["devices"]} == {"bat0", "pv0"}
    assert shown["loss"]["unproven_count"] == 2


def test_a_substituted_value_is_taken_back_before_its_end(site: Site) -> None:
    for value in ("4000", "5000"):
        site.run("substitute", "--device", "pv0", "--column", "p_w", "--value", value, "--text", "meter is out")
    back = ("substitute", "--device", "pv0", "--column", "p_w", "--release")
    assert site.run(*back) == (0, "p_w of pv0 is what is measured again\n")
    assert "substituted" not in site.run("show")[1]
    status, text = site.run(*back)
    assert (status, "nothing stands in the place of p_w of pv0" in text) == (2, True)
    assert site.run(*back, "--value", "1")[0] == 2
    assert site.run(*back[:-1], "--value", "1")[0] == 2


WRONG = [
    ("tag", "hang", "caution", "--device", "nobody", "--text", "dog in the yard"),
    ("tag", "hang", "caution", "--device", "bat0", "--text", " "),
    ("tag", "off", "9"),
    ("lock", "take", "--feeder", "nowhere"),
    ("lock", "take", "--all", "--for", "25h"),
    ("lock", "give-back", "--all"),
    ("mode", "set", "shadow", "--feeder", "nowhere"),
    ("mode", "set", "shadow", "--device", "bat0"),
    ("set", "--device", "nobody", "--kw", "1", "--yes"),
    ("set", "--device", "bat0", "--kw", "nan", "--yes"),
    ("set", "--device", "bat0", "--kw", "1", "--for", "25h", "--yes"),
    ("set", "--device", "bat0", "--yes"),
    ("substitute", "--device", "nobody", "--column", "p_w", "--value", "1", "--text", "meter is out"),
    ("substitute", "--device", "nobody", "--column", "p_w", "--release"),
    ("substitute", "--device", "pv0", "--column", "v_pu", "--value", "9", "--text", "meter is out"),
    ("substitute", "--device", "pv0", "--column", "p_w", "--value", "1", "--text", "meter is out", "--for", "25h"),
    ("substitute", "--device", "pv0", "--column", "p_w", "--value", "1", "--text", " "),
    ("show", "--device", "nobody"),
    ("why", "--device", "nobody", "--kw", "1"),
]


def test_what_is_wrong_however_things_stand_is_an_exit_status_of_two(site: Site) -> None:
    found = {words: site.run(*words)[0] for words in WRONG}
    assert found == dict.fromkeys(WRONG, 2)


def test_what_is_refused_as_things_stand_is_an_exit_status_of_one(site: Site) -> None:
    site.run("tag", "hang", "control-inhibit", "--device", "bat0", "--text", "crew at pole 17")
    status, text = site.run("set", "--device", "bat0", "--kw", "1", "--yes")
    assert (status, "control inhibit tag 1" in text) == (1, True)
    assert site.run("set", "--device", "bat0", "--kw", "nan", "--yes")[0] == 2, "both: what was given is wrong as well"


def test_a_lock_lasts_a_day_at_most(site: Site) -> None:
    status, text = site.run("lock", "take", "--all", "--for", "24.1h")
    assert (status, "at most 24 h: take it again when it ends" in text) == (2, True)
    assert site.run("lock", "take", "--all", "--for", "24h")[0] == 0


def test_without_a_gateway_or_a_site_file_a_command_says_so_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(text: str) -> tuple[int, str]:
        path = tmp_path / "site.toml"
        path.write_text(text)
        parser = argparse.ArgumentParser()
        order_commands.add_commands(parser.add_subparsers(required=True))
        options = parser.parse_args(["show", "-c", str(path)])
        status = options.run(options)
        return status, capsys.readouterr().err

    status, text = run('[storage]\ndirectory = "here"\n')
    assert (status, f"no gateway at {tmp_path / 'here' / SOCKET}" in text) == (1, True)
    assert run("[storage]\ndirectory = 5\n")[0] == 2
    assert run("[storage")[0] == 2


@pytest.mark.parametrize(("text", "length_s"), [("90s", 90.0), ("30min", 1800.0), ("1.5h", 5400.0)])
def test_times_are_written_with_their_unit(text: str, length_s: float) -> None:
    assert order_commands.seconds(text) == length_s
    with pytest.raises(argparse.ArgumentTypeError):
        order_commands.seconds(text[:-1] + "x")


def test_the_words_of_the_parsers_are_those_of_the_enumerations() -> None:
    assert tuple(kind.replace(" ", "-") for kind in TagKind) == order_commands.KINDS
    assert tuple(ControlMode) == order_commands.MODES
    assert tuple(Quantity) == order_commands.QUANTITIES
    assert order_commands.COLUMNS == SUBSTITUTABLE
    assert {Level.DEVICE, Level.GROUP, Level.FEEDER} == set(order_commands.LEVELS)


def _headroom(*, up_w: float, down_w: float) -> Headroom:
    reach = Reach(up_w=up_w, down_w=down_w, up_sure_w=0.9 * up_w, down_sure_w=0.9 * down_w)
    offers = tuple(Offer(lasting_h=time_h, beside=reach, instead=reach) for time_h in (1.0 / 6.0, 1.0, 4.0))
    return Headroom(offers=offers, answers=Answers(), energy_up_wh=9e3, energy_down_wh=8e3)


def test_the_dispatcher_holds_a_power_sees_it_and_returns_to_schedule(site: Site) -> None:
    assert site.run("desk", "show")[1].startswith("the fleet follows the schedule\n")
    status, text = site.run("desk", "hold", "--feeder", "f1", "--kw", "8", "--for", "2h")
    first = "hold 8 kW on feeder f1 for 7200 s, from the next plan on, which is made at once"
    assert (status, text.splitlines()[0]) == (0, first)
    assert "headroom: what the fleet can do is not known" in text
    site.orders.headroom = _headroom(up_w=5e3, down_w=4e3)
    site.orders.planned_s = site.orders.clock.monotonic_s() - 60.0
    shown = json.loads(site.run("desk", "show", "--json")[1])
    assert (shown["order"]["power_w"], shown["order"]["author"]) == (8e3, ME)
    assert 7190.0 < shown["left_s"] <= 7200.0
    text = site.run("desk", "show")[1]
    assert "as of the plan of 60 s ago" in text
    assert "  for 10 min: up 5 kW (sure 4.5 kW), down 4 kW (sure 3.6 kW)" in text
    assert "batteries can do 5 kW for that long" in site.run("desk", "hold", "--feeder", "f1", "--kw", "8")[1]
    status, text = site.run("desk", "return")
    assert (status, text) == (0, "returned to schedule: hold 8 kW on feeder f1\n")
    status, text = site.run("desk", "return")
    assert (status, "nothing is asked of the fleet" in text) == (2, True)


def test_in_an_emergency_the_fleet_gives_what_limits_allow(site: Site) -> None:
    site.orders.headroom = _headroom(up_w=7e3, down_w=4e3)
    status, text = site.run("desk", "emergency", "--feeder", "f1", "--for", "10min")
    assert (status, text.splitlines()[0].startswith("emergency on feeder f1 for 600 s")) == (0, True)
    assert "batteries can do 7 kW for that long" in text
    # Nothing of before comes back when a stop over the whole feeder is released.
    site.orders.latch(How.FREEZE, Scope(Level.FEEDER, "f1"), "kim")
    assert site.orders.desk is None


@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (("--feeder", "f2", "--kw", "1"), "there is no feeder f2 with batteries: it is one of f1"),
        (("--feeder", "f1", "--kw", "11"), "11 kW: batteries of feeder f1 have 10 kW together"),
        (("--feeder", "f1", "--kw", "nan"), "nan is no number"),
        (("--feeder", "f1", "--kw", "1", "--for", "25h"), "more than 0 and at most 24 h"),
    ],
)
def test_what_cannot_be_asked_of_the_fleet_is_refused(site: Site, words: tuple[str, ...], finding: str) -> None:
    status, text = site.run("desk", "hold", *words)
    assert (status, finding in text) == (2, True)
    assert site.orders.desk is None


def test_what_would_reach_nobody_is_refused_with_every_reason(site: Site) -> None:
    site.run("mode", "set", "shadow", "--feeder", "f1")
    site.run("tag", "hang", "automatic-control-inhibit", "--device", "bat0", "--text", "meter test")
    status, text = site.run("desk", "emergency", "--feeder", "f1")
    assert status == 1
    assert "mode: bat0: the mode is shadow" in text
    assert "tag: automatic-control inhibit tag 1 on device bat0" in text
    assert site.orders.desk is None

"""The plan on its way out: whole or not at all, once more after a failure, and the word that it no longer holds."""

import asyncio
import csv
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from derms.domain.alarm import Event
from derms.domain.mode import Mode
from derms.domain.scada import Publication, PublicationStatus
from derms.errors import ScadaError
from derms.scada.file import FileOutlet
from derms.scada.publish import WITHDRAW_S, Publisher
from derms.service.simulated import SimulatedLoop, run_simulated
from tests.scada.rig import START, HandClock, plan_of, publication_of


@dataclass
class Outlet:
    """Takes plans, or refuses them."""

    refuses: bool = False
    taken: list[Publication] = field(default_factory=list)

    async def send(self, publication: Publication) -> None:
        if self.refuses:
            raise ScadaError("no room")
        self.taken.append(publication)


@dataclass
class Desk:
    """A publisher at work."""

    outlet: Outlet
    clock: HandClock = field(default_factory=HandClock)
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.publisher = Publisher(self.outlet, mode=Mode.AUTO, clock=self.clock, on_event=self.events.append)

    def offer(self, plan_id: int, valid_s: float = 1800.0) -> None:
        plan = plan_of([2e6], plan_id=plan_id, start=self.clock.now)
        self.publisher.offer(plan, self.clock.now + timedelta(seconds=valid_s))

    def send(self) -> None:
        asyncio.run(self.publisher.send())

    @property
    def said(self) -> list[tuple[int, str]]:
        return [(sent.plan.id, sent.status.name) for sent in self.outlet.taken]


@pytest.fixture
def desk() -> Desk:
    return Desk(Outlet())


def test_each_plan_goes_out_once_and_an_overtaken_one_not_at_all(desk: Desk) -> None:
    desk.send()
    for plan_id in (1, 2, 3):
        desk.offer(plan_id)
        if plan_id != 2:
            desk.send()
            desk.send()
    assert desk.said == [(1, "VALID"), (3, "VALID")]


def test_a_plan_that_nobody_replaces_is_published_as_expired_once(desk: Desk) -> None:
    desk.offer(1, valid_s=600.0)
    desk.send()
    for _ in range(3):
        desk.clock.pass_(300.0)
        desk.send()
    assert desk.said == [(1, "VALID"), (1, "EXPIRED")]
    assert desk.outlet.taken[-1].published_at == START + timedelta(seconds=600)


def test_at_the_end_the_plan_is_withdrawn_and_without_a_plan_nothing_is_said(desk: Desk) -> None:
    asyncio.run(desk.publisher.withdraw())
    assert desk.said == []
    desk.offer(1)
    desk.send()
    asyncio.run(desk.publisher.withdraw())
    assert desk.said == [(1, "VALID"), (1, "WITHDRAWN")]


def test_a_word_that_nobody_takes_holds_up_the_end_for_a_while_only() -> None:
    class Silent(Outlet):
        async def send(self, publication: Publication) -> None:
            await asyncio.Event().wait()

    desk = Desk(Silent())
    desk.offer(1)

    async def main(loop: SimulatedLoop) -> float:
        await desk.publisher.withdraw()
        return loop.time()

    assert run_simulated(main, seed=0) == WITHDRAW_S
    assert [event.text for event in desk.events] == ["the plan cannot be withdrawn: no end within 5 s"]


def test_a_failure_is_said_once_and_the_newest_plan_goes_out_when_it_is_over(desk: Desk) -> None:
    desk.outlet.refuses = True
    for plan_id in (1, 2):
        desk.offer(plan_id)
        desk.send()
        desk.send()
    desk.outlet.refuses = False
    desk.send()
    desk.send()
    assert desk.said == [(2, "VALID")]
    assert [event.kind for event in desk.events] == ["publish-failed", "publish-back"]


def test_a_plan_offered_while_another_is_under_way_goes_out_next(desk: Desk) -> None:
    class Slow(Outlet):
        async def send(self, publication: Publication) -> None:
            if not self.taken:
                desk.offer(2)
            await super().send(publication)

    desk = Desk(Slow())
    desk.offer(1)
    desk.send()
    desk.send()
    desk.send()
    assert desk.said == [(1, "VALID"), (2, "VALID")]


def test_a_csv_has_a_row_per_step_in_kw_and_utc(tmp_path: Path) -> None:
    path = tmp_path / "plan.csv"
    asyncio.run(FileOutlet(path, timeout_s=5.0).send(publication_of([2e6, -5e5])))
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["start_utc"], first["end_utc"]) == ("2026-04-15T19:00:00Z", "2026-04-15T19:15:00Z")
    assert (second["net_load_kw"], second["battery_kw"], second["curtail_kw"]) == ("-500.0", "-50.0", "0.0")
    assert (first["plan"], first["status"], first["mode"], first["source"]) == ("7", "valid", "auto", "optimizer")
    assert first["valid_until_utc"] == "2026-04-15T19:30:00Z"


def test_a_reader_of_the_file_never_sees_a_part_of_a_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    outlet = FileOutlet(path, timeout_s=5.0)

    async def main() -> list[int]:
        seen = []
        for plan_id in range(1, 21):
            sending = asyncio.ensure_future(outlet.send(publication_of([1e6] * 500, plan_id=plan_id)))
            while not sending.done():
                await asyncio.sleep(0)
                if path.exists():
                    document = json.loads(path.read_text())
                    assert len(document["steps"]) == 500
                    seen.append(document["plan"])
            await sending
        return seen

    seen = asyncio.run(main())
    assert seen == sorted(seen)
    assert json.loads(path.read_text())["plan"] == 20
    assert [entry.name for entry in tmp_path.iterdir()] == ["plan.json"]


def test_a_folder_that_is_gone_is_a_scada_error_and_the_old_plan_stays_whole(tmp_path: Path) -> None:
    outlet = FileOutlet(tmp_path / "gone" / "plan.json", timeout_s=5.0)
    with pytest.raises(ScadaError, match="No such file"):
        asyncio.run(outlet.send(publication_of([2e6])))


def test_the_numbers_of_the_status_are_what_readers_were_told() -> None:
    assert {status.name: int(status) for status in PublicationStatus} == {"VALID": 1, "EXPIRED": 2, "WITHDRAWN": 3}

"""The field's parts when they are stopped: within named bounds, whatever devices, drivers and the journal do."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from derms.domain.dispatch import Command, Held, Quantity, Unknown
from derms.domain.telemetry import Reading
from derms.field.ending import CANCELS_MAX, END_S
from derms.field.ledger import Ledger, Pending
from derms.field.reconcile import FINISH_S, HAND_BACK_S, JOURNAL_S
from drivers.sunspec.driver import SunSpecDriver
from tests.field.rig import QUICK, Rig, in_the_field
from tests.field.scripted import deaf

ONE_GROUP = replace(QUICK, interval_s=15.0, reversion_s=3000.0)
"""Every device has its turn every 15 s."""
OTHERS = ("bat02", "bat03", "bat06")
DEVICES = ("bat01", *OTHERS)
WANTED = dict.fromkeys(DEVICES, 4e3)


class Stuck(SunSpecDriver):
    """A driver that does not come back from some calls for bat01."""

    stuck: Collection[str] = ()
    minds = True
    """Being cancelled."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.returns = asyncio.Event()
        """Lets it go on after all."""

    async def _wait(self, call: str) -> None:
        if call in self.stuck:
            await deaf(0 if self.minds else CANCELS_MAX, self.returns)

    async def read(self) -> Reading:
        await self._wait("read")
        return await super().read()

    async def write(self, command: Command) -> None:
        await self._wait("write")
        await super().write(command)

    async def refresh(self, quantity: Quantity, reversion_s: float) -> Held:
        await self._wait("refresh")
        return await super().refresh(quantity, reversion_s)


class Deaf(Stuck):
    """One that does not mind being cancelled either."""

    minds = False


BOTH = pytest.mark.parametrize(("driver", "more_s"), [(Stuck, 0.0), (Deaf, END_S)])


def stick(rig: Rig, *calls: str) -> Stuck:
    driver = rig.sessions["bat01"]
    assert isinstance(driver, Stuck)
    driver.stuck = calls
    return driver


async def stopped(rig: Rig, part: asyncio.Task[None]) -> float:
    """Cancel a part; how long it took to end [s]."""
    start_s = rig.clock.monotonic_s()
    assert not part.done()
    part.cancel()
    await asyncio.wait([part], timeout=300.0)
    assert part.cancelled()
    return rig.clock.monotonic_s() - start_s


async def handed_back(rig: Rig) -> float:
    start_s = rig.clock.monotonic_s()
    async with asyncio.timeout(300.0):
        await rig.reconciler.hand_back()
    return rig.clock.monotonic_s() - start_s


@BOTH
def test_an_errand_under_way_is_broken_off_after_a_while_and_the_others_are_handed_back_at_once(
    driver: type[Stuck], more_s: float, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        stick(rig, "write")
        rig.want(WANTED)
        turning = asyncio.create_task(rig.reconciler.run())
        await asyncio.sleep(10.0)
        assert rig.holding() == set(OTHERS)
        assert await stopped(rig, turning) == pytest.approx(FINISH_S + more_s)
        assert rig.last("bat01").outcome == Unknown("broken off: the service stops")
        handing = asyncio.create_task(handed_back(rig))
        await asyncio.sleep(1.0)
        assert rig.holding() == set()
        assert await handing == pytest.approx(HAND_BACK_S)
        assert rig.reconciler.holding == ["bat01"]
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=driver)


def test_where_all_answer_stopping_waits_for_nothing_but_their_answers(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(WANTED)
        turning = asyncio.create_task(rig.reconciler.run())
        await asyncio.sleep(15.001)  # in the midst of its errands
        assert await stopped(rig, turning) < 1.0
        assert await handed_back(rig) < 1.0
        assert rig.holding() == set()
        assert rig.reconciler.holding == []
        assert rig.reconciler.counts.failed == 0

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP)


def test_a_driver_that_comes_back_to_a_command_that_was_broken_off_gives_it_no_second_outcome(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        driver = stick(rig, "write")
        rig.want(WANTED)
        turning = asyncio.create_task(rig.reconciler.run())
        await asyncio.sleep(10.0)
        await stopped(rig, turning)
        assert rig.ended("bat01") == ["Unknown"]
        handing = asyncio.create_task(handed_back(rig))
        await asyncio.sleep(1.0)  # its release waits for the driver
        driver.disconnect()
        driver.stuck = ()
        driver.returns.set()
        await handing
        assert rig.ended("bat01")[0] == "Unknown"
        assert len(rig.ended("bat01")) == 2
        rig.reconciler.journal.close()
        rig.assert_each_intent_has_one_outcome()

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP, driver=Deaf)


@BOTH
def test_a_poll_that_never_ends_does_not_keep_the_poller(driver: type[Stuck], more_s: float, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        stick(rig, "read")
        polling = asyncio.create_task(rig.poller.run())
        await asyncio.sleep(rig.poller.settings.poll_s)
        assert await stopped(rig, polling) == pytest.approx(more_s)

    in_the_field(scenario, tmp_path, devices=DEVICES, driver=driver)


@BOTH
def test_a_refresh_that_never_ends_does_not_keep_the_heartbeat(
    driver: type[Stuck], more_s: float, tmp_path: Path
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(WANTED)
        await rig.turns(1.0)
        assert rig.holding() == set(DEVICES)
        stick(rig, "refresh")
        beating = asyncio.create_task(rig.heartbeat.run())
        await asyncio.sleep(100.0)
        assert any("heartbeat 0" in repr(task) for task in asyncio.all_tasks())
        assert await stopped(rig, beating) == pytest.approx(more_s)

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=replace(ONE_GROUP, refresh_s=90.0), driver=driver)


def _never(self: Ledger, due: Sequence[Pending]) -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


def test_a_journal_that_hangs_keeps_no_device_from_being_handed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(WANTED)
        await rig.turns(1.0)
        assert rig.holding() == set(DEVICES)
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "make_durable", _never)
            assert await handed_back(rig) == pytest.approx(JOURNAL_S, abs=1.0)
        assert rig.holding() == set()
        assert rig.reconciler.holding == []

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP)


def test_what_nobody_expected_at_one_device_keeps_no_other_from_being_handed_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want(WANTED)
        await rig.turns(1.0)
        durable = Ledger.make_durable
        rows: list[int] = []

        async def broken(self: Ledger, due: Sequence[Pending]) -> None:
            rows.extend(pending.row for pending in due)
            if rows == [0]:
                raise ZeroDivisionError
            await durable(self, due)

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "make_durable", broken)
            with pytest.raises(ZeroDivisionError):
                await rig.reconciler.hand_back()
        assert rig.holding() == {"bat01"}

    in_the_field(scenario, tmp_path, devices=DEVICES, dispatch=ONE_GROUP)

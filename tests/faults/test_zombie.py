"""A gateway that slept over the end of its lease wakes up with commands prepared: none of them is sent.

Its journal is still its own, and so is its connection; what tells it is the lease, asked directly before each write.
"""

import asyncio
from dataclasses import replace
from pathlib import Path

from derms.domain.dispatch import Expired, Rejected
from derms.domain.telemetry import Identity
from derms.field.lease import Lease
from drivers.sunspec.driver import SunSpecDriver
from tests.field.rig import QUICK, Rig, in_the_field


class SlowToConnect(SunSpecDriver):
    """A driver that takes its time to connect, so that a command waits for it."""

    slow_s = 0.0

    async def connect(self) -> Identity:
        await asyncio.sleep(self.slow_s)
        return await super().connect()


async def _with_a_command_that_waits(rig: Rig, seconds: float) -> None:
    """Want a value of a device whose connection is lost, and let the reconciler prepare it."""
    session = rig.sessions["bat01"]
    assert isinstance(session, SlowToConnect)
    session.slow_s = seconds
    session.disconnect()
    rig.want({"bat01": 5e3})


def test_a_command_of_a_gateway_whose_lease_another_one_has_taken_is_never_sent(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await _with_a_command_that_waits(rig, 8.0)
        turning = asyncio.ensure_future(rig.reconciler.run())
        await asyncio.sleep(4.0)
        intents, _ = rig.journalled()
        assert [intent.device_id for intent in intents] == ["bat01"]
        path = tmp_path / "commands.lease"
        path.rename(tmp_path / "taken away")  # as when somebody restores the storage, or mounts another one
        other = Lease.take(path)
        await asyncio.sleep(60.0)
        assert rig.wire == []
        assert rig.holding() == set()
        outcomes = [record.outcome for record in rig.outcomes]
        assert outcomes
        assert all(isinstance(outcome, Rejected) and outcome.by.startswith("lease: ") for outcome in outcomes)
        other.give_back()
        turning.cancel()
        await asyncio.gather(turning, return_exceptions=True)

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=replace(QUICK, interval_s=15.0), driver=SlowToConnect)


def test_a_command_that_wakes_after_its_deadline_is_never_sent(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        await _with_a_command_that_waits(rig, 30.0)
        rig.want({"bat01": 5e3}, valid_s=20.0)
        await rig.turns(31.0)
        assert rig.wire == []
        assert rig.outcomes[0].outcome == Expired()

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=replace(QUICK, interval_s=15.0), driver=SlowToConnect)

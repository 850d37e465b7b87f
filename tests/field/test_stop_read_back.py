"""A stop believes what a device is read to hold, not what it was told."""

import asyncio
import math
from pathlib import Path

from derms.control.stop_report import Progress
from derms.control.stopping import How
from derms.domain.dispatch import Command
from derms.domain.scope import EVERYTHING
from derms.field.stop_desk import StopDesk, StopSettings
from drivers.sunspec.driver import SunSpecDriver
from tests.field.rig import Rig, in_the_field


class _Ignoring(SunSpecDriver):
    """Acknowledges a setpoint or limit of zero, and keeps what it held."""

    async def write(self, command: Command) -> None:
        if command.value_w != 0.0:
            await super().write(command)


def test_a_device_that_acknowledges_zero_and_keeps_its_value_is_not_confirmed(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        desk = StopDesk(
            rig.reconciler, rig.orders, rig.events.append, lambda: 5e6, settings=StopSettings(stage_w=math.inf)
        )
        running = asyncio.ensure_future(desk.run())
        number = desk.stop(How.NO_FLOW, EVERYTHING, "ann")
        assert isinstance(number, int)
        await asyncio.sleep(5.0)
        found = desk.status(number)
        assert isinstance(found, Progress)
        assert (found.tally.total, found.tally.confirmed) == (1, 0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    in_the_field(scenario, tmp_path, devices=("bat01",), driver=_Ignoring)

"""What the transport is told: only `mode = "auto"` in the site file lets anything be written at all."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from derms.service.config import load_site
from derms.service.gateway import field_options
from derms.service.simulated import SimulatedLoop, run_simulated
from drivers.registry import drivers
from feeders.catalog import load
from hil.cli import write_files
from hil.world import World

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)


@pytest.mark.parametrize(("mode", "read_only"), [("observe", True), ("auto", False)])
def test_only_in_auto_mode_may_the_transport_write(tmp_path: Path, mode: str, *, read_only: bool) -> None:
    async def main(loop: SimulatedLoop) -> bool:
        world = World(load("ieee123"), seed=1, start=NOON)
        path = write_files(world, "127.0.0.1", await world.serve(), tmp_path, mode=mode)
        world.close()
        return field_options(load_site(path, drivers=drivers().names, feeder=load)).read_only

    assert run_simulated(main, seed=1) is read_only

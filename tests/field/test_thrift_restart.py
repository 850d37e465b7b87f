"""The budget of writes is one for the day, however often the service starts."""

from dataclasses import replace
from pathlib import Path

from derms.domain.dispatch import Quantity
from tests.field.rig import Rig, in_the_field


def test_a_reconciler_that_starts_anew_goes_on_with_the_writes_of_the_day(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(121.0)
        anew = replace(rig.reconciler)
        written, counted = (
            reconciler.thrift.tally.count(rig.clock.utc(), ("bat01", Quantity.P_SET))
            for reconciler in (rig.reconciler, anew)
        )
        assert counted == written >= 2

    in_the_field(scenario, tmp_path, devices=("bat01",))

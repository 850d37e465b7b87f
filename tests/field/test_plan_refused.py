"""A dispatch that nobody could follow is refused where it arrives, and the one before goes on."""

from pathlib import Path

from tests.field.rig import Rig, in_the_field


def test_a_dispatch_that_would_be_valid_for_ever_is_refused_and_the_one_before_goes_on(tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(61.0)
        rig.want({"bat01": -6e3}, valid_s=1e7)
        assert rig.events_of("gateway")[-1] == "plan-refused"
        await rig.turns(61.0)
        assert rig.true_w("bat01") > 5e3

    in_the_field(scenario, tmp_path, devices=("bat01",))

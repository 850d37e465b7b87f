"""What counts as the effect of a command: a good reading from after the write, and nothing else."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.quality import Quality
from tests.field.rig import QUICK, Rig, in_the_field

ONE_GROUP = replace(QUICK, group_s=QUICK.interval_s)


@pytest.mark.parametrize("doubtful", [Quality.SUSPECT, Quality.STALE])
def test_an_effect_is_not_seen_in_a_reading_that_is_not_believed(doubtful: Quality, tmp_path: Path) -> None:
    async def scenario(rig: Rig) -> None:
        rig.want({"bat01": 6e3})
        await rig.turns(5.0)
        assert rig.ended("bat01") == []
        shown = replace(rig.poller.snapshot(), p_w=np.full(1, 6e3), quality=np.full(1, doubtful))
        rig.reconciler.ledger.watch(shown, lambda row: np.inf)
        assert rig.ended("bat01") == []
        rig.reconciler.ledger.watch(replace(shown, quality=np.full(1, Quality.GOOD)), lambda row: np.inf)
        assert rig.ended("bat01") == ["Applied"]

    in_the_field(scenario, tmp_path, devices=("bat01",), dispatch=ONE_GROUP)

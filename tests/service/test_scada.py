"""The utility's view: a good reading of its meter or nothing, and its records as they are in the file."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.quality import Quality
from derms.service.scada import MeterScada
from tests.control.values import snapshot_of


@pytest.mark.parametrize("quality", list(Quality))
def test_net_load_is_the_meters_good_reading_and_unknown_without_one(quality: Quality) -> None:
    net_w = MeterScada(1, None).net_load_w(snapshot_of([7.0, 2e6], quality=[Quality.GOOD, quality]))
    assert net_w == 2e6 if quality is Quality.GOOD else np.isnan(net_w)


def test_a_meter_that_does_not_measure_power_gives_no_net_load() -> None:
    assert np.isnan(MeterScada(0, None).net_load_w(snapshot_of([np.nan])))


def test_records_come_from_the_file_in_watts_and_without_one_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("time_utc,net_load_kw\n2026-04-15T07:00:00+00:00,2500.5\n2026-04-15T07:15:00+00:00,2400\n")
    times, net_w = MeterScada(0, path).history()
    assert list(times) == [datetime(2026, 4, 15, 7, minute, tzinfo=UTC) for minute in (0, 15)]
    np.testing.assert_allclose(net_w, [2500.5e3, 2400e3])
    times, net_w = MeterScada(0, None).history()
    assert (list(times), net_w.tolist()) == ([], [])

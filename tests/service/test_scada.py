"""The utility's view without its system: a good reading of its meter or nothing, and its records as they are."""

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from derms.domain.quality import Quality
from derms.scada.meter import MeterScada
from derms.service.series import read_history
from tests.control.values import snapshot_of

NO_PAST: tuple[list[datetime], np.ndarray[tuple[int], np.dtype[np.float64]]] = ([], np.zeros(0))


@pytest.mark.parametrize("quality", list(Quality))
def test_net_load_is_the_meters_good_reading_and_unknown_without_one(quality: Quality) -> None:
    snapshot = snapshot_of([7.0, 2e6], quality=[Quality.GOOD, quality])
    net_w = MeterScada(1).reading(snapshot).net_load_w
    assert net_w == 2e6 if quality is Quality.GOOD else np.isnan(net_w)


def test_a_meter_that_does_not_measure_power_gives_no_net_load() -> None:
    reading = MeterScada(0).reading(snapshot_of([np.nan]))
    assert np.isnan(reading.net_load_w)
    assert reading.values["net_load"].quality is Quality.NOT_IMPLEMENTED


def test_a_meter_tells_nothing_of_switches_and_casts_no_doubt_on_them() -> None:
    topology = MeterScada(0).reading(snapshot_of([1e6])).topology
    assert (topology.quality, topology.doubt) == (Quality.NOT_IMPLEMENTED, "")


def test_records_come_from_the_file_in_watts(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    path.write_text("time_utc,net_load_kw\n2026-04-15T07:00:00+00:00,2500.5\n2026-04-15T07:15:00+00:00,2400\n")
    times, net_w = read_history(path)
    assert list(times) == [datetime(2026, 4, 15, 7, minute, tzinfo=UTC) for minute in (0, 15)]
    np.testing.assert_allclose(net_w, [2500.5e3, 2400e3])

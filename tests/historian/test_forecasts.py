"""What did we know at 14:05? Every forecast is kept with the time it was made."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from derms.domain.der import Fleet
from derms.domain.forecast import Forecast
from derms.historian.store import Store

MADE = datetime(2026, 4, 15, 14, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def _forecast(made_at: datetime, net_w: float) -> Forecast:
    steps = net_w + np.arange(3) / 7.0
    return Forecast(
        made_at=made_at,
        start=made_at,
        net_load_w=steps,
        pv_w=steps / 3.0,
        pv_frac=steps / 1e7,
        method="clear sky",
        hours=np.array([1 / 12, 0.25, 1.0]),
        net_load_band_w=np.stack([steps - 1.0, steps + 1.0], axis=1),
    )


def test_the_newest_forecast_made_by_then_is_what_was_known(tmp_path: Path) -> None:
    store = Store(f"sqlite:///{tmp_path}/history.db", Fleet(()))
    for minutes, net_w in ((0, 1e6), (5, 2e6), (10, 3e6)):
        store.forecast(_forecast(MADE + minutes * MINUTE, net_w))
    store.flush()
    known = [store.forecast_known_at(MADE + at * MINUTE) for at in (-1, 0, 4.9, 5, 7, 60)]
    assert [made and made.net_load_w[0] for made in known] == [None, 1e6, 1e6, 2e6, 2e6, 3e6]
    np.testing.assert_equal(vars(known[3]), vars(_forecast(MADE + 5 * MINUTE, 2e6)))
    store.close()


def test_it_outlives_the_service(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/history.db"
    before = Store(url, Fleet(()))
    before.forecast(_forecast(MADE, 1e6))
    before.close()
    after = Store(url, Fleet(()))
    made = after.forecast_known_at(MADE + 60 * MINUTE)
    assert made is not None
    assert made.made_at == MADE
    after.close()


def test_a_forecast_without_bands_and_feeder_has_no_doubt_and_is_that_of_the_system() -> None:
    steps = np.arange(4.0)
    made = Forecast(MADE, MADE, np.full(4, 0.25), steps, steps, steps, "by hand")
    np.testing.assert_array_equal(made.net_load_band_w, np.column_stack([steps, steps]))
    np.testing.assert_array_equal(made.pv_band_w, np.column_stack([steps, steps]))
    np.testing.assert_array_equal(made.feeder_w, steps)
    assert made.ends_h[-1] == pytest.approx(1.0)

"""The fleet's latest values as anybody may see them: the table, what devices say of themselves, and the age of it all.

Nothing here speaks to a device. A value's age is judged at every look, so that a writer that has died leaves no value
that still seems fresh.
"""

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.domain.der import Fleet
from derms.domain.quality import Quality
from derms.domain.telemetry import Identity, TelemetrySnapshot
from derms.field.checks import Plates, dead_below_v
from derms.field.judge import aged, idle
from derms.field.table import TelemetryTable
from derms.ports import Clock

SunIsUp = Callable[[datetime], bool]
"""Whether PV has light to work with at a moment (UTC)."""


def always_day(at: datetime) -> bool:
    """For places without a sun: no silence is expected."""
    return True


class Readings:
    """See the module's text. `stale_after_s` has a value per device, shape (n,)."""

    def __init__(
        self, fleet: Fleet, table: TelemetryTable, clock: Clock, stale_after_s: Sequence[float], sun_is_up: SunIsUp
    ) -> None:
        self.fleet = fleet
        self.table = table
        self._clock = clock
        self._stale_after_s = np.array(stale_after_s, dtype=np.float64)
        self._sun_is_up = sun_is_up
        self._identities: list[Identity | None] = [None] * len(fleet)
        self._ratings: FloatArray = np.full((len(fleet), 3), np.nan)

    def meet(self, row: int, identity: Identity) -> None:
        """Take in who a device says it is."""
        self._identities[row] = identity
        self._ratings[row] = identity.ratings

    def identity(self, row: int) -> Identity | None:
        """Who the device said it is when it was last connected; None before."""
        return self._identities[row]

    def plates(self, rows: IntArray) -> Plates:
        """What bounds the values of some devices: the fleet file or the device itself, whichever says less."""
        fleet, ratings = self.fleet, self._ratings[rows]
        return Plates(
            is_pv=fleet.is_pv[rows],
            p_rated_w=np.fmin(fleet.p_rated_w[rows], ratings[:, 1]),
            energy_wh=np.fmin(fleet.energy_wh[rows], ratings[:, 2]),
            s_rated_va=fleet.s_rated_va[rows],
            v_nominal_v=ratings[:, 0],
            is_meter=fleet.is_meter[rows],
        )

    def alive_beside(self, rows: IntArray) -> bool:
        """Whether any device outside of these rows was seen under voltage lately, and believed."""
        values = self.table.read()
        young = self._clock.monotonic_s() - values.time_s <= self._stale_after_s
        alive = young & (values.quality == Quality.GOOD) & (values.columns["v_v"] > dead_below_v(self._ratings[:, 0]))
        alive[rows] = False
        return bool(alive.any())

    def asleep(self, rows: IntArray) -> BoolArray:
        """Devices of which nothing is expected now: PV at night that was doing nothing when last seen, shape (k,)."""
        if self._sun_is_up(self._clock.utc()):
            return np.zeros(len(rows), dtype=np.bool_)
        return idle(self.table.rows(rows, ("p_w", "state"))[0], self.plates(rows))

    def snapshot(self) -> TelemetrySnapshot:
        """The whole fleet now."""
        at, now_s = self._clock.utc(), self._clock.monotonic_s()
        values = self.table.read()
        columns = values.columns
        everyone = np.arange(len(self.fleet))
        nominal_v, p_rated_w, energy_wh = self._ratings.T.copy()
        age_s = now_s - values.time_s
        if self._sun_is_up(at):
            asleep = np.zeros(len(self.fleet), dtype=np.bool_)
        else:
            asleep = idle(columns, self.plates(everyone))
        return TelemetrySnapshot(
            at=at,
            now_s=now_s,
            p_w=columns["p_w"],
            q_var=columns["q_var"],
            v_pu=columns["v_v"] / nominal_v,
            soc_frac=columns["soc_frac"],
            p_phase_w=columns["p_phase_w"],
            q_phase_var=columns["q_phase_var"],
            v_phase_pu=columns["v_phase_v"] / nominal_v[:, None],
            quality=aged(values.quality, age_s, self._stale_after_s, asleep),
            age_s=age_s,
            p_rated_w=p_rated_w,
            energy_wh=energy_wh,
            columns=columns,
        )

"""What a fleet plan is made from: devices, feeders and network rows as columns, and the gate that they pass.

Powers in W, + = injection for devices, + = import for feeders; energy in Wh above empty; steps of unequal length. Any
value that is missing for a device makes it unavailable; one that is missing or absurd for a feeder is an error.
"""

from dataclasses import dataclass, field, replace
from enum import IntEnum

import numpy as np
from scipy.sparse import csr_array

from derms.domain.arrays import BoolArray, FloatArray, IntArray
from derms.errors import PlanError

POWER_MAX_W = 1e11
"""No feeder and no device reaches 100 GW: beyond it a number is in the wrong unit, or no number."""

DEVICE_MAX_W = 1e9
HOURS_MIN, HOURS_MAX = 0.05, 1e3
"""Hours from full to empty that a store can have: beyond them power and energy are in different units."""
OVERFULL_FRAC = 1.5
"""Of what a store holds at most, more than which nobody measures in it or asks of it."""


EFFICIENCY_UNKNOWN_FRAC = 0.95


class Rank(IntEnum):
    """What a limit asks where it is violated already without the plan."""

    HARD = 0
    """To be kept, at any price that the objective knows."""
    NOT_WORSE = 1
    """Not to be violated further than without the plan."""
    IGNORED = 2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Envelopes:
    """Stores whose energy has a course to keep to: cars that leave, loads that wait, aggregators; a row each."""

    device: IntArray
    """Which store, shape (k,)."""
    low_wh: FloatArray
    """Least energy at the end of each step, -inf where nothing is due, shape (k, steps)."""
    high_wh: FloatArray
    """Greatest energy, inf where there is room for anything, likewise."""

    def __len__(self) -> int:
        return len(self.device)

    def rows(self, which: BoolArray) -> "Envelopes":
        """Some of the rows."""
        return Envelopes(device=self.device[which], low_wh=self.low_wh[which], high_wh=self.high_wh[which])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Devices:
    """Stores, a row each; shapes (n,) unless said otherwise."""

    feeder: IntArray
    charge_max_w: FloatArray
    """Greatest power taken, >= 0, shape (n, steps), or (n, 1) where it is the same in all; sites narrow it."""
    discharge_max_w: FloatArray
    """Greatest power given, likewise."""
    stored_wh: FloatArray
    """In the store now."""
    stored_min_wh: FloatArray
    stored_max_wh: FloatArray
    efficiency_frac: FloatArray
    """One way."""
    available: BoolArray
    """May be commanded."""
    envelopes: Envelopes | None = None
    apparent_max_va: FloatArray | None = None
    """Rating of each inverter; None where no reactive power is planned, shape (n,)."""
    turn: FloatArray | None = None
    """Whose turn comes first where stores share in order, smallest first: cost, or minus the time they joined; (n,)."""

    def __len__(self) -> int:
        return len(self.feeder)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sites:
    """Connections with several devices behind them, and inverters that stores share with PV."""

    site: IntArray
    """Of each device, -1 where it has a connection of its own, shape (n,)."""
    load_w: FloatArray
    """Forecast of what else the site draws, without its PV, shape (sites, steps); NaN where nobody knows."""
    pv_w: FloatArray
    """Forecast of its PV, shape (sites, steps)."""
    import_max_w: FloatArray
    """Limit at the point of common coupling, shape (sites,)."""
    export_max_w: FloatArray
    inverter: IntArray
    """Of each device, -1 where it has one of its own, shape (n,)."""
    inverter_pv_w: FloatArray
    """Forecast of the PV behind it, shape (inverters, steps)."""
    inverter_max_w: FloatArray
    """Rating, shape (inverters,)."""
    backup_wh: FloatArray
    """Kept in each store for an outage, shape (n,)."""
    solar_only: BoolArray
    """May charge from its site's PV only, shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Feeders:
    """Feeders, a row each."""

    net_load_w: FloatArray
    """Forecast without the plan, shape (feeders, steps)."""
    pv_w: FloatArray
    """PV power in it that could be held back, >= 0, shape (feeders, steps)."""
    low_w: FloatArray
    """Least flow: minus the reverse power allowed, shape (feeders,)."""
    high_w: FloatArray
    """Thermal limit, shape (feeders,)."""
    rank: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rows:
    """Linearised network rows (voltages, currents), each on one feeder; all in the unit of the row."""

    names: tuple[str, ...]
    feeder: IntArray
    base: FloatArray
    """Value with no store moving and no PV held back, shape (rows, steps)."""
    low: FloatArray
    high: FloatArray
    margin: FloatArray
    """Kept away from both limits."""
    rank: IntArray
    per_w: csr_array
    """Change per W of each store, shape (rows, n)."""
    per_pv_w: FloatArray
    """Change per W of the feeder's PV."""
    per_var: csr_array | None = None
    """Change per var that each store injects, shape (rows, n); None where no reactive power is planned."""

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Desk:
    """What the dispatcher asks for, and what the fleet has to keep; returning to schedule is an empty desk."""

    hold_w: dict[int, float] = field(default_factory=dict)
    """Battery power to be held on a feeder [W, + = injection], over the first `hold_h` hours."""
    hold_h: float = 1.0
    emergency: bool = False
    """Give all that limits allow over the first `hold_h` hours."""
    reserve_up_w: float = 0.0
    """Further injection to be possible in every step."""
    reserve_down_w: float = 0.0
    ramp_w_per_h: float = np.inf
    """Greatest change of the fleet's power."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Days:
    """The local days that a plan reaches over: the peak and the worst three-hour rise of each are counted."""

    day: IntArray
    """Of each step, 0 = today, shape (steps,)."""
    peak_w: FloatArray
    """Net load that each day counts at least, since it has been reached already, today or this season (ratchet); -inf
    for none. Shape (days,)."""
    rise_w: FloatArray
    """The same of rises over three hours that end in it, shape (days,)."""

    def __len__(self) -> int:
        return len(self.peak_w)

    def has(self) -> BoolArray:
        """Which steps each day has, shape (days, steps)."""
        found: BoolArray = np.arange(len(self))[:, None] == self.day
        return found


def one_day(steps: int) -> Days:
    """All steps counted as one day of which nothing has been."""
    return Days(day=np.zeros(steps, dtype=np.intp), peak_w=np.array([-np.inf]), rise_w=np.array([-np.inf]))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Portfolio:
    """Everything a fleet plan depends on."""

    hours: FloatArray
    """Length of each step [h], a whole number of steps to a period at first, then periods; shape (steps,)."""
    devices: Devices
    feeders: Feeders
    rows: Rows
    past_net_w: FloatArray
    """System net load of the last three hours by the period, oldest first."""
    previous_w: FloatArray
    """Battery power of the last plan by feeder over the same steps, shape (feeders, steps)."""
    price: FloatArray
    """Cost of importing a per-unit hour, in units of the objective, may be negative; shape (steps,)."""
    desk: Desk = field(default_factory=Desk)
    period_h: float = 0.25
    """Over which means are taken that ramps are counted between [h]; three hours hold a whole number of them."""
    days: Days | None = None
    """None: all steps are one day."""
    sites: Sites | None = None

    def counted(self) -> Days:
        """The days, whether told or not."""
        return one_day(len(self.hours)) if self.days is None else self.days

    def checked(self) -> "Portfolio":
        """The portfolio with devices that are in doubt set aside.

        Raises
        ------
        PlanError
            A column of the system, of a feeder or of a row is not finite, negative where it cannot be, or beyond any
            plausible size.
        """
        for name, column, most in self._columns():
            if not (np.abs(column) < most).all():
                raise PlanError(f"no plan: {name} is not finite, or beyond {most:.0e}")
        rows = self.rows
        if not all(np.isfinite(told).all() for told in (rows.base, rows.margin, rows.per_w.data, rows.per_pv_w)):
            raise PlanError("no plan: a network row is not finite")
        if rows.per_var is not None and not (np.abs(rows.per_var.data) < 1e3).all():
            raise PlanError("no plan: an effect of reactive power is not finite, or beyond any plausible size")
        if (self.feeders.pv_w < 0.0).any() or not (self.hours > 0.0).all():
            raise PlanError("no plan: PV power below zero, or a step without length")
        if self.sites is not None and not _placed(self.sites, len(self.devices)):
            raise PlanError("no plan: sites do not tell of every device where it is")
        # Written so that NaN makes each comparison false.
        if not (self.feeders.low_w <= self.feeders.high_w).all() or not (rows.low <= rows.high).all():
            raise PlanError("no plan: a lower limit is above the upper one, or one of them is no number")
        if not 0.0 < self.period_h <= 3.0 or abs(3.0 / self.period_h - round(3.0 / self.period_h)) > 1e-9:
            raise PlanError("no plan: three hours are no whole number of periods")
        self._check_desk()
        days = self.counted()
        if not (days.peak_w < POWER_MAX_W).all() or not (days.rise_w < POWER_MAX_W).all():
            raise PlanError("no plan: a peak or a rise that has been is no number, or beyond any plausible size")
        return replace(self, devices=_believed(self.devices))

    def _check_desk(self) -> None:
        desk = self.desk
        if not (0.0 < desk.hold_h < HOURS_MAX and desk.ramp_w_per_h >= 0.0):
            raise PlanError("no plan: the desk's time or its fleet ramp is no number, or below zero")
        if desk.reserve_up_w < 0.0 or desk.reserve_down_w < 0.0:
            raise PlanError("no plan: a reserve below zero")
        if any(not 0 <= feeder < len(self.feeders.low_w) for feeder in desk.hold_w):
            raise PlanError("no plan: the desk holds a feeder that is not there")

    def _columns(self) -> tuple[tuple[str, FloatArray, float], ...]:
        feeders, rows = self.feeders, self.rows
        desk = np.array([*self.desk.hold_w.values(), self.desk.reserve_up_w, self.desk.reserve_down_w])
        return (
            ("length of steps [h]", self.hours, 25.0),
            ("net load [W]", feeders.net_load_w, POWER_MAX_W),
            ("PV power [W]", feeders.pv_w, POWER_MAX_W),
            ("past net load [W]", self.past_net_w, POWER_MAX_W),
            ("the last plan [W]", self.previous_w, POWER_MAX_W),
            ("price", self.price, 1e3),
            ("desk [W]", desk, POWER_MAX_W),
            ("value of a network row", rows.base, POWER_MAX_W),
            ("effect on a network row", rows.per_w.data, 1e3),
            ("effect of PV on a network row", rows.per_pv_w, 1e3),
            ("margin of a network row", rows.margin, POWER_MAX_W),
        )


def _placed(sites: Sites, count: int) -> bool:
    """Whether each device is at a site and an inverter that there are, or at none."""
    told = all(len(column) == count for column in (sites.site, sites.inverter, sites.backup_wh, sites.solar_only))
    return (
        told
        and bool(((sites.site >= -1) & (sites.site < len(sites.load_w))).all())
        and bool(((sites.inverter >= -1) & (sites.inverter < len(sites.inverter_pv_w))).all())
    )


def _on_course(devices: Devices) -> BoolArray:
    """False for stores with an envelope that nobody can keep to: upside down, far beyond the store, or no number."""
    on_course = np.ones(len(devices), dtype=np.bool_)
    bound = devices.envelopes
    if bound is not None:
        most_wh = OVERFULL_FRAC * devices.stored_max_wh[bound.device, None]
        sound = (bound.low_wh <= bound.high_wh) & (bound.low_wh <= most_wh) & (bound.high_wh >= 0.0)
        on_course[bound.device] = sound.all(axis=1)
    return on_course


def _believed(devices: Devices) -> Devices:
    """Devices with a number that is missing or absurd neither take nor give, and hold nothing."""
    power_w = np.maximum(devices.charge_max_w.max(axis=1), devices.discharge_max_w.max(axis=1))
    least_w = np.minimum(devices.charge_max_w.min(axis=1), devices.discharge_max_w.min(axis=1))
    room_wh = devices.stored_max_wh - devices.stored_min_wh
    # Written so that NaN makes each comparison false.
    plausible = (devices.efficiency_frac > 0.3) & (devices.efficiency_frac <= 1.0)
    believed = (
        devices.available
        & plausible
        & (least_w >= 0.0)
        & (power_w > 0.0)
        & (power_w < DEVICE_MAX_W)
        & (room_wh > 0.0)
        & (devices.stored_min_wh >= 0.0)
        & (devices.stored_max_wh < HOURS_MAX * power_w)
        & (devices.stored_max_wh > HOURS_MIN * power_w)
        & (devices.stored_wh >= -0.5 * devices.stored_max_wh)
        & (devices.stored_wh <= OVERFULL_FRAC * devices.stored_max_wh)
        & _on_course(devices)
    )
    keep, bound = believed[:, None], devices.envelopes
    return replace(
        devices,
        charge_max_w=np.where(keep, devices.charge_max_w, 0.0),
        discharge_max_w=np.where(keep, devices.discharge_max_w, 0.0),
        stored_wh=np.where(believed, devices.stored_wh, 0.0),
        stored_min_wh=np.where(believed, devices.stored_min_wh, 0.0),
        stored_max_wh=np.where(believed, devices.stored_max_wh, 0.0),
        efficiency_frac=np.where(plausible, devices.efficiency_frac, EFFICIENCY_UNKNOWN_FRAC),
        available=believed,
        envelopes=None if bound is None else bound.rows(believed[bound.device]),
    )

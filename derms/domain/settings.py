"""Settings: what people may choose, each with default, bounds, unit and meaning in one place.

A dataclass here is a table of the site file; times in s unless the name says otherwise.
"""

import math
from dataclasses import MISSING, dataclass, field
from typing import Any

import numpy as np

from derms.domain.arrays import FloatArray


@dataclass(frozen=True, slots=True)
class Key:
    """What the value of one key may be; `low` and `high` bound a number, `choices` a text."""

    kind: type[float] | type[str]
    unit: str
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    @property
    def right(self) -> str:
        """What would be right, as the end of a message."""
        if self.kind is float:
            return f"give a number from {self.low:g} to {self.high:g}" + f" {self.unit}" * bool(self.unit)
        return "give " + (" or ".join(f'"{choice}"' for choice in self.choices) or f"a text: {self.meaning}")

    def accepts(self, value: object) -> bool:
        """Whether a TOML value is of the kind and inside the bounds; NaN and true are not numbers."""
        if self.kind is str:
            return isinstance(value, str) and bool(value.strip()) and (not self.choices or value in self.choices)
        return isinstance(value, int | float) and not isinstance(value, bool) and self.low <= value <= self.high


def number(default: float | None, low: float, high: float, unit: str, meaning: str) -> Any:
    """A row of the table for a number; without a default the key must be there."""
    key = Key(float, unit, meaning, low, high)
    return field(metadata={"key": key}) if default is None else field(default=default, metadata={"key": key})


def text(meaning: str, default: Any = MISSING, choices: tuple[str, ...] = ()) -> Any:
    """A row of the table for a text; without a default the key must be there, None makes it optional."""
    return field(default=default, metadata={"key": Key(str, "", meaning, choices=choices)})


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldSettings:
    """[field]: bounds of polling."""

    poll_s: float = number(10, 1, 3600, "s", "time between two polls of a device")
    large_poll_s: float = number(4, 1, 3600, "s", "the same for a plant of 1 MW and more")
    cellular_poll_s: float = number(60, 1, 3600, "s", "the same for a device whose link is cellular")
    settings_s: float = number(1800, 10, 604800, "s", "time between two readings of a device's settings, for drift")
    timeout_s: float = number(2, 0.05, 60, "s", "longest wait for one answer")
    connect_timeout_s: float = number(3, 0.05, 60, "s", "longest wait for a connection")
    stale_after_s: float = number(35, 2, 7200, "s", "age from which a value is stale; never less than 3.5 polls")
    frozen_after_s: float = number(120, 10, 86400, "s", "time without any change after which values are suspect")
    backoff_min_s: float = number(5, 0.1, 3600, "s", "first wait before a lost device is tried again")
    backoff_max_s: float = number(120, 1, 86400, "s", "longest wait before a lost device is tried again")
    in_flight: float = number(1, 1, 16, "", "requests that one connection may have under way")
    reconnects_per_s: float = number(500, 0.1, 10000, "1/s", "new connections of the whole fleet")
    processes: float = number(1, 1, 64, "", "worker processes that share the polling; more than one only observes")
    networks: str | None = text("networks that devices are in, as 10.20.0.0/16, 192.0.2.17/32; else anywhere", None)
    serial_parity: str = text("parity of serial lines: none, even or odd", "N", ("N", "E", "O"))
    tls_ca: str | None = text("path of the certificates that sign those of devices (PEM)", None)
    tls_certificate: str | None = text("path of the certificate that devices ask of us (PEM)", None)
    tls_key: str | None = text("path of its private key (PEM)", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class DispatchSettings:
    """[dispatch]: how setpoints go to devices."""

    interval_s: float = number(300, 10, 3600, "s", "time between two writes to a device")
    group_s: float = number(15, 1, 3600, "s", "length of the groups over which the writes of an interval are spread")
    reversion_s: float = number(900, 30, 86400, "s", "dead-man time armed in devices with every value")
    reversion_jitter_s: float = number(120, 0, 3600, "s", "spread of that time over the fleet")
    refresh_s: float = number(
        300, 5, 28800, "s", "longest time without re-arming it; never more than a third of the dead-man time"
    )
    corrections_per_h: float = number(
        6, 1, 3600, "", "times an hour that a value changed by others is written again, before they have the device"
    )
    settle_s: float = number(60, 1, 3600, "s", "time from a write until its effect is judged")
    validity_s: float = number(1800, 60, 86400, "s", "time for which a plan may be followed")
    tolerance_frac: float = number(0.05, 0.001, 0.5, "per unit of nameplate", "largest error that counts as following")
    deadband_frac: float = number(
        0.01, 0, 0.5, "per unit of nameplate", "change of a value that is not worth a write; 0 writes every time"
    )
    writes_per_day: float = number(
        2000, 1, 1e6, "", "times a day that a register is written, per device; beyond, only what safety asks for"
    )
    start: str = text("mode in which a feeder begins of which nobody has said anything", "auto", ("auto", "shadow"))
    ramp_frac_per_min: float = number(
        1, 0.001, 1000, "per unit of the fleet's power", "farthest that setpoints move all devices together in a minute"
    )
    author_ramp_frac_per_min: float = number(
        0.5, 0.001, 1000, "per unit of the fleet's power", "the same for the values that one person sets by hand"
    )
    device_ramp_frac_per_min: float = number(
        4, 0.001, 1000, "per unit of nameplate", "farthest that setpoints move one device in a minute"
    )
    trim_frac: float = number(
        0.2, 0, 1, "per unit of battery power", "largest trim of the batteries between plans; 0 does without"
    )
    trim_every_s: float = number(30, 10, 60, "s", "time between two looks at what the trim should be")
    trim_deadband_frac: float = number(
        0.01, 0, 0.5, "per unit of battery power", "error of net load that is left to the next plan"
    )
    trim_response_s: float = number(60, 1, 3600, "s", "time in which the trim follows most of an error")
    trim_ramp_frac_per_min: float = number(
        0.1, 0.001, 10, "per unit of battery power", "fastest change of the trim in a minute"
    )

    @property
    def refresh_every_s(self) -> float:
        """Longest time between two armings of a reversion timer [s]."""
        return min(self.refresh_s, self.reversion_s / 3.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanWeights:
    """[plan.weights]: what the optimizer minds, against its own scaling of each term."""

    peak: float = number(1, 0, 1e6, "", "weight of the highest net load")
    ramp_3h: float = number(1, 0, 1e6, "", "weight of the steepest three-hour ramp")
    ramp: float = number(1, 0, 1e6, "", "weight of squared steps of net load")
    throughput: float = number(1, 0, 1e6, "", "weight of energy through batteries")
    curtail: float = number(1, 0, 1e6, "", "weight of PV energy held back")
    change: float = number(1, 0, 1e6, "", "weight of change against the last plan")
    spread: float = number(1, 0, 1e6, "", "weight of zones that work unlike each other")
    terminal: float = number(1, 0, 1e6, "", "worth of energy left at the end of the horizon")


UNLIMITED = 1e7
"""A limit of power that is none [kW]."""
ORDERS = ("peak", "ramp_3h", "peak, ramp_3h", "ramp_3h, peak")
"""Orders of the aims that can come before all weights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSettings:
    """[plan]: the receding horizon."""

    horizon_h: float = number(36, 3, 168, "h", "how far a plan looks ahead, in whole hours")
    step_min: float = number(15, 15, 60, "min", "length of a step after the first hour: 15, 30 or 60")
    every_s: float = number(300, 10, 3600, "s", "time between two plans")
    peak_floor_kw: float = number(0, 0, 1e7, "kW", "net load below which no peak counts: this season's highest so far")
    import_max_kw: float = number(UNLIMITED, 0, UNLIMITED, "kW", "greatest power into the feeder: its thermal limit")
    export_max_kw: float = number(UNLIMITED, 0, UNLIMITED, "kW", "greatest power out of the feeder: reverse power")
    reserve_up_kw: float = number(0, 0, 1e7, "kW", "further injection that batteries have to be able to give at once")
    reserve_down_kw: float = number(0, 0, 1e7, "kW", "further draw, likewise")
    ramp_kw_per_min: float = number(1e7, 0.001, 1e7, "kW/min", "fastest change of all batteries together")
    fairness: str = text(
        "who of like batteries gives first: who lasts longest, all alike, or in the fleet file's order",
        "time to go",
        ("time to go", "pro rata", "in order"),
    )
    # LADWP, large general service A-3A, high-peak hours of June to September, as of 1 October 2009: $9.00.
    peak_price: float = number(9, 0, 1e6, "$/kW", "what a kW of system peak costs, for the prices in explanations")
    first: str | None = text("what comes before all weights; of two, the one named first", None, ORDERS)
    weights: PlanWeights = field(default_factory=PlanWeights)

    @property
    def order(self) -> tuple[str, ...]:
        """Aims that come before all weights, the first first."""
        return tuple(self.first.split(", ")) if self.first else ()

    @property
    def hours(self) -> FloatArray:
        """Length of each step [h]: five minutes in the first hour, then `step_min`."""
        fine, step_h = 1.0 / 12.0, self.step_min / 60.0
        return np.concatenate([np.full(12, fine), np.full(round((self.horizon_h - 1.0) / step_h), step_h)])

    @property
    def head_limits_w(self) -> tuple[float, float]:
        """Greatest power into the feeder and out of it [W], infinite where nobody limits it."""
        into_kw, out_kw = (math.inf if most >= UNLIMITED else most for most in (self.import_max_kw, self.export_max_kw))
        return 1e3 * into_kw, 1e3 * out_kw

    @property
    def period_h(self) -> float:
        """Over which means are taken that ramps are counted between [h]."""
        return self.step_min / 60.0


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateSettings:
    """[estimate]: the feeder model."""

    every_s: float = number(60, 1, 3600, "s", "time between two estimates of the feeder's state")

"""Settings: what people may choose, each with default, bounds, unit and meaning in one place.

A dataclass here is a table of the site file; times in s unless the name says otherwise.
"""

import math
from dataclasses import MISSING, dataclass, field
from typing import Any


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


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanSettings:
    """[plan]: the receding horizon."""

    horizon_h: float = number(24, 1, 168, "h", "how far a plan looks ahead")
    step_min: float = number(15, 1, 60, "min", "length of a step")
    every_s: float = number(300, 10, 3600, "s", "time between two plans")
    weights: PlanWeights = field(default_factory=PlanWeights)

    @property
    def step_s(self) -> float:
        return self.step_min * 60

    @property
    def steps(self) -> int:
        return round(self.horizon_h * 60 / self.step_min)


@dataclass(frozen=True, kw_only=True, slots=True)
class EstimateSettings:
    """[estimate]: the feeder model."""

    every_s: float = number(60, 1, 3600, "s", "time between two estimates of the feeder's state")

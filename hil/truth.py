"""What really happened in the world: head power, voltages, states of charge, for the judge alone."""

from dataclasses import dataclass, field

import numpy as np

from derms.domain.arrays import FloatArray

MINUTE_S = 60.0


@dataclass
class Truth:
    """The record of a run."""

    dt_s: float
    head_w: list[float] = field(default_factory=list)
    """Total power into the feeder per step [W]."""
    battery_w: list[float] = field(default_factory=list)
    """Total of the batteries per step [W], + = injection."""
    pv_w: list[float] = field(default_factory=list)
    violating_nodes: list[int] = field(default_factory=list)
    """Nodes outside their voltage range, once a minute; the sum is node-minutes."""
    v_min_pu: list[float] = field(default_factory=list)
    """Lowest node voltage, once a minute."""
    v_max_pu: list[float] = field(default_factory=list)
    soc_frac: list[FloatArray] = field(default_factory=list)
    """States of charge of the batteries, once a minute, shape (batteries,) each."""

    @property
    def steps(self) -> int:
        return len(self.head_w)

    @property
    def _minute_steps(self) -> int:
        return max(1, round(MINUTE_S / self.dt_s))

    def step(self, *, head_w: float, battery_w: float, pv_w: float) -> bool:
        """Record one step; tells whether it ends a minute."""
        self.head_w.append(head_w)
        self.battery_w.append(battery_w)
        self.pv_w.append(pv_w)
        return self.steps % self._minute_steps == 0

    def minute(self, *, v_pu: FloatArray, violating_nodes: int, soc_frac: FloatArray) -> None:
        """Record the end of a minute."""
        self.violating_nodes.append(violating_nodes)
        self.v_min_pu.append(float(v_pu.min()))
        self.v_max_pu.append(float(v_pu.max()))
        self.soc_frac.append(soc_frac)

    @property
    def voltage_violation_node_min(self) -> int:
        return sum(self.violating_nodes)

    def head_mean_w(self, interval_s: float = 900.0) -> FloatArray:
        """Means of head power over whole intervals since the start [W], shape (intervals,)."""
        per_interval = round(interval_s / self.dt_s)
        whole = self.steps // per_interval * per_interval
        means: FloatArray = np.array(self.head_w[:whole]).reshape(-1, per_interval).mean(axis=1)
        return means

    def first(self, steps: int) -> "Truth":
        """The record of the first steps alone."""
        minutes = steps // self._minute_steps
        return Truth(
            self.dt_s,
            head_w=self.head_w[:steps],
            battery_w=self.battery_w[:steps],
            pv_w=self.pv_w[:steps],
            violating_nodes=self.violating_nodes[:minutes],
            v_min_pu=self.v_min_pu[:minutes],
            v_max_pu=self.v_max_pu[:minutes],
            soc_frac=self.soc_frac[:minutes],
        )

"""Feeders as values: what the manifest binds to the circuit, and the state that estimation gives back.

Voltages in pu stand at points: a node against neutral where a neutral is there (`65.2`), two phases against each other
on three-wire parts (`701.1-2`). Head power + = import into the feeder [W, var].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.quality import Quality


@dataclass(frozen=True, slots=True)
class SiteBinding:
    """A point of common coupling: the 240 V bus of customers behind one service transformer."""

    id: str
    bus: str
    transformer: str
    s_rated_va: float


NEW = "new"
"""In place of the element of a DER that the circuit lacks: the engine adds a generator for it."""


@dataclass(frozen=True, slots=True)
class DerBinding:
    """A DER of the feeder and the circuit element that stands for it."""

    id: str
    site: str
    element: str
    """Full OpenDSS name, `Generator.pv01`, or NEW."""
    kind: str
    p_rated_w: float
    s_rated_va: float
    energy_wh: float
    bus: str = ""
    """For a NEW element: the bus that it is connected to."""
    phases: tuple[int, ...] = ()
    """For a NEW element: phases 1..3 that it is connected to; empty: all that the bus has."""


@dataclass(frozen=True, slots=True)
class MeterBinding:
    """A meter or voltage sensor and the element terminal or bus it measures."""

    id: str
    kind: str
    bus: str
    element: str
    """Full OpenDSS name for a power meter; empty for a voltage sensor."""
    terminal: int
    sigma_frac: float
    """One standard deviation of its error, per unit of the value."""
    age_max_s: float
    phases: tuple[int, ...] = ()
    """Phases 1..3 that it is connected to; empty: all that its place has."""


class Between(StrEnum):
    """What a voltage stands between."""

    NEUTRAL = "neutral"
    """A phase and neutral."""
    PHASES = "phases"
    """Two phases: three-wire parts, whose voltages to ground float."""


@dataclass(frozen=True, slots=True)
class VoltageLimits:
    """A voltage class: the allowed range for buses up to a base voltage [V line to line], and how it is measured."""

    v_base_max_v: float
    v_min_pu: float
    v_max_pu: float
    between: Between = Between.NEUTRAL


class SwitchState(IntEnum):
    """What a switch is; the numbers are stored: never renumber them."""

    OPEN = 0
    CLOSED = 1
    INTERMEDIATE = 2
    """On its way, or stuck between."""
    UNKNOWN = 3


@dataclass(frozen=True, slots=True)
class SwitchBinding:
    """A switch of the feeder: a line of the circuit that crews open and close."""

    id: str
    element: str
    """Full OpenDSS name, `Line.sw1`."""
    normal: SwitchState
    """How it stands in normal operation, OPEN or CLOSED; the engine starts with that."""
    age_max_s: float


@dataclass(frozen=True, slots=True)
class ControlBinding:
    """A regulator or a capacitor bank whose position the utility's system may tell."""

    id: str
    element: str
    """Full OpenDSS name: `RegControl.creg1a`, `Capacitor.c83`."""
    age_max_s: float


@dataclass(frozen=True, slots=True)
class InvisiblePv:
    """PV behind a customer's meter that nobody polls: it hides load."""

    load: str
    """Full OpenDSS name of the load, `Load.s47`."""
    p_rated_w: float


@dataclass(frozen=True)
class FeederPackage:
    """One folder under feeders/: circuit, bindings and limits."""

    id: str
    circuit: Path
    """The OpenDSS master file."""
    source_bus: str
    head_element: str
    """Element and terminal 1 through which the whole feeder is fed."""
    peak_w: float
    sites: tuple[SiteBinding, ...]
    ders: tuple[DerBinding, ...]
    meters: tuple[MeterBinding, ...]
    limits: tuple[VoltageLimits, ...]
    buses: frozenset[str]
    """Every bus name of the circuit, lower case."""
    elements: frozenset[str] = frozenset()
    """Full name of every element of the circuit, lower case; empty when nobody has read them."""
    switches: tuple[SwitchBinding, ...] = ()
    regulators: tuple[ControlBinding, ...] = ()
    capacitors: tuple[ControlBinding, ...] = ()
    invisible_pv: tuple[InvisiblePv, ...] = ()
    source: str = ""
    """Where the model comes from, in words."""
    digest: str = ""
    """SHA-256 over the circuit's files, as they were when the manifest was checked."""
    own: bool = False
    """Whether the circuit text is this product's own. Any other is loaded in a confined process only."""


@dataclass(frozen=True)
class Topology:
    """Switches and taps of a feeder as the utility's system last told them."""

    quality: Quality = Quality.NOT_IMPLEMENTED
    """The worst of its switches; NOT_IMPLEMENTED where nobody tells, and the model's own state is taken."""
    switches: Mapping[str, SwitchState] = field(default_factory=dict)
    """By full name of the element, lower case."""
    taps: Mapping[str, float] = field(default_factory=dict)
    """Tap numbers by full name of the element; NaN when not known."""
    unknown: tuple[str, ...] = ()
    """Switches that are neither known to be open nor known to be closed."""
    abnormal: tuple[str, ...] = ()
    """Switches known to be in another state than the feeder's model has them."""

    @property
    def doubt(self) -> str:
        """Why the feeder's model may not be what stands outside; empty when there is no reason."""
        parts = (("not known: ", self.unknown), ("not as in the model: ", self.abnormal))
        return "; ".join("switches " + what + ", ".join(names) for what, names in parts if names)


@dataclass(frozen=True, slots=True)
class StateSummary:
    """What was known of a feeder at one moment, in figures: said of the running service, kept with every decision."""

    feeder: str
    at: datetime
    quality: Quality
    gross_w: float
    """What customers take [W]."""
    hidden_w: float
    """How much of that PV hides which nobody polls [W]."""
    residual_w: float
    """Measured minus modelled head power [W]; NaN without a head."""
    v_sigma_mean_pu: float
    """Standard deviation of a voltage, over all points that are alive [pu]; NaN where nobody has estimated it."""
    v_sigma_max_pu: float
    v_sigma_max_at: str
    """The point of which least is known."""
    misfit: float
    bad: tuple[str, ...]
    """Measurements that contradict all others and were left out."""

    def __str__(self) -> str:
        """In words, for people: kW and per cent."""
        text = (
            f"feeder {self.quality.name.lower()}: load {self.gross_w / 1e3:.0f} kW, {self.hidden_w / 1e3:.0f} of it"
            f" masked, voltages to {self.v_sigma_mean_pu:.1%} ({self.v_sigma_max_pu:.1%} at {self.v_sigma_max_at}),"
            f" misfit {self.misfit:.1f}"
        )
        return text + (f", left out: {', '.join(self.bad)}" if self.bad else "")


@dataclass(frozen=True)
class GridState:
    """The estimated state of one feeder."""

    feeder: str
    at: datetime
    v_pu: FloatArray
    """Voltages at the points of the feeder, shape (points,)."""
    points: tuple[str, ...]
    head_w: FloatArray
    """Modelled head power per phase [W], shape (3,)."""
    head_var: FloatArray
    load_w: FloatArray
    """Allocated load per load element [W], shape (loads,)."""
    load_var: FloatArray
    load_scale: FloatArray
    """Allocation factor per phase against the model's nominal loads, shape (3,)."""
    residual_w: float
    """Measured minus modelled head power [W]."""
    quality: Quality
    violations: int
    """Points outside their voltage range."""
    topology: Topology = field(default_factory=Topology)
    """As the utility's system tells it."""
    v_sigma_pu: FloatArray = field(default_factory=lambda: np.zeros(0))
    """Standard deviation of each voltage, what is not known of the model included, shape (points,)."""
    v_bias_pu: FloatArray = field(default_factory=lambda: np.zeros(0))
    """What the voltages are above those of the engine with the same powers: impedances and taps, shape (points,)."""
    gross_w: float = 0.0
    """What customers take, hidden PV not counted [W]."""
    hidden_w: float = 0.0
    """Power of PV that nobody polls, and that hides so much of the load [W]."""
    bad: tuple[str, ...] = ()
    """Measurements that contradict all others and were left out."""
    misfit: float = 0.0
    """How far measurements are from what the model allows: squared, per measurement; about 1 for a sound model."""

    @property
    def summary(self) -> StateSummary:
        """Its figures without its columns."""
        rows = np.flatnonzero(self.v_sigma_pu > 0.0)  # at a dead point there is nothing to be unsure of
        sigma_pu = self.v_sigma_pu[rows] if len(rows) else np.array([np.nan])
        worst = int(np.argmax(sigma_pu))
        return StateSummary(
            feeder=self.feeder,
            at=self.at,
            quality=self.quality,
            gross_w=self.gross_w,
            hidden_w=self.hidden_w,
            residual_w=self.residual_w,
            v_sigma_mean_pu=float(sigma_pu.mean()),
            v_sigma_max_pu=float(sigma_pu[worst]),
            v_sigma_max_at=self.points[rows[worst]] if len(rows) else "",
            misfit=self.misfit,
            bad=self.bad,
        )

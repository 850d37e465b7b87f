"""Feeders as values: what the manifest binds to the circuit, and the state that estimation gives back.

On four-wire feeders voltages are line to neutral in pu; head power + = import into the feeder [W, var].
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from derms.domain.arrays import FloatArray
from derms.domain.quality import Quality


@dataclass(frozen=True, slots=True)
class SiteBinding:
    """A point of common coupling: the 240 V bus of customers behind one service transformer."""

    id: str
    bus: str
    transformer: str
    s_rated_va: float


@dataclass(frozen=True, slots=True)
class DerBinding:
    """A DER of the feeder and the circuit element that stands for it."""

    id: str
    site: str
    element: str
    """Full OpenDSS name, `Generator.pv01`."""
    kind: str
    p_rated_w: float
    s_rated_va: float
    energy_wh: float


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


@dataclass(frozen=True, slots=True)
class VoltageLimits:
    """Allowed voltage range for buses up to a base voltage [V line to line]."""

    v_base_max_v: float
    v_min_pu: float
    v_max_pu: float


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


@dataclass(frozen=True)
class GridState:
    """The estimated state of one feeder."""

    feeder: str
    at: datetime
    v_pu: FloatArray
    """Node voltages, shape (nodes,), in the engine's node order."""
    nodes: tuple[str, ...]
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
    """Nodes outside their voltage range."""

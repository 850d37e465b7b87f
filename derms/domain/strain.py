"""How far one moment strains a feeder, and what each DER has to do with it."""

from dataclasses import dataclass

from derms.domain.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Strain:
    """Voltages outside their range and currents beyond their rating at one power-flow solution."""

    violations: int
    """Voltage points outside their range."""
    excess_pu: float
    """Distance outside the range that is to be expected, summed over all points [pu]."""
    excess_per_w: FloatArray
    """By how much a further W injected by each DER raises the excess [pu/W], shape (ders,)."""
    overload: float
    """Current beyond its rating, per unit of it, summed over the phases of lines and transformers that have one."""
    overload_per_w: FloatArray
    """The same of the overload [1/W], shape (ders,)."""

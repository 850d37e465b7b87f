"""What a feeder's power flow offers to the rooms around it, whichever process it runs in.

Loads, DER, taps, capacitors and switches in as numeric columns; voltages, head power and the linear network out. W and
var; DER power + = injection, load and head power + = import. Everything in this room but `opendss.py` works on this.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from derms.domain.arrays import BoolArray, ComplexArray, FloatArray
from derms.domain.grid import FeederPackage
from derms.grid.layout import FeederLayout
from derms.grid.network import Network


@dataclass(frozen=True, slots=True, eq=False)
class PowerFlow:
    """One solution."""

    v_v: ComplexArray
    """Node voltages [V], shape (nodes,)."""
    v_pu: FloatArray
    """Voltages at the points, shape (points,)."""
    head_w: FloatArray
    """Power into the feeder through its head, phases a, b, c, shape (3,), + = import."""
    head_var: FloatArray
    iterations: int
    acted: bool = False
    """Whether regulators or capacitors moved in it."""


class Engine(Protocol):
    """The power flow of one feeder. One engine must not be used by two threads at once; several do not disturb."""

    package: FeederPackage
    layout: FeederLayout

    def set_loads(self, p_w: FloatArray, q_var: FloatArray) -> None:
        """Set all loads at nominal voltage [W, var], each of shape (loads,); GridError for another shape or NaN."""
        ...

    def set_der(self, p_w: FloatArray, q_var: FloatArray) -> None:
        """Set all DER of the package [W, var, + = injection], each of shape (ders,); GridError as for loads."""
        ...

    def set_source_pu(self, v_pu: float) -> None:
        """Set the voltage behind the source's impedance [pu of its base]; GridError for one beyond 0.5 to 1.5."""
        ...

    def freeze_controls(self, frozen: bool) -> None:
        """Hold regulators and capacitors where they are, or let them act in each solution."""
        ...

    def frozen(self) -> bool:
        """Whether regulators and capacitors are held where they are."""
        ...

    def set_regulator_target(self, name: str, vreg_v: float) -> None:
        """Set the voltage that a regulator keeps, on the base of its sensor [V]; GridError for NaN or no such one."""
        ...

    def regulator_targets_v(self) -> dict[str, float]:
        """Voltage that every regulator keeps, on its own secondary base [V]."""
        ...

    def taps(self) -> dict[str, int]:
        """Tap number of every regulator; 0 is neutral."""
        ...

    def set_taps(self, taps: Mapping[str, int]) -> None:
        """Move the regulators named; ModelError for one not there."""
        ...

    def capacitors(self) -> dict[str, int]:
        """Steps that are on in every capacitor bank."""
        ...

    def set_capacitors(self, steps: Mapping[str, int]) -> None:
        """Switch steps of the banks named; ModelError for one not there, GridError for steps it does not have."""
        ...

    def switches(self) -> dict[str, bool]:
        """Which of the package's switches are closed, by full name."""
        ...

    def set_switches(self, closed: Mapping[str, bool]) -> None:
        """Close and open the switches named; ModelError for one not there."""
        ...

    def set_tolerance(self, v_pu: float) -> None:
        """Change of voltage between two iterations at which a solution has converged [pu]."""
        ...

    def solve(self) -> PowerFlow:
        """Solve with what is set.

        Raises
        ------
        NotConverged
            No solution, or not a finite one; the next `solve` starts clean.
        """
        ...

    def restart(self) -> None:
        """Compile the circuit anew: loads and DER as in its files, all else as it is.

        What is solved from there on does not depend on what was solved before.
        """
        ...

    def losses_w(self) -> float:
        """Losses of the last solution [W]."""
        ...

    def energised(self) -> BoolArray:
        """Nodes that the source reaches through what is closed, shape (nodes,)."""
        ...

    def network(self) -> Network:
        """The linear part at the present taps, capacitors and switches."""
        ...

    def close(self) -> None:
        """Give back what the engine holds; it cannot be used any more."""
        ...

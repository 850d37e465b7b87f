"""A small feeder with loads of every connection, and any feeder at an operating point with full solutions nearby."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from derms.domain.arrays import FloatArray
from derms.domain.grid import Between, DerBinding, FeederPackage, SwitchBinding, SwitchState, VoltageLimits
from derms.grid.engine import PowerFlow
from derms.grid.linearise import Tangent
from derms.grid.opendss import FeederEngine

STEP_W = 1e3
TIGHT_PU = 1e-10

SMALL = """
Clear
New Circuit.small bus1=src basekv=4.16 pu=1.02 R1=0.01 X1=0.05 R0=0.01 X0=0.05
New Line.head bus1=src bus2=a phases=3 r1=0.3 x1=0.6 r0=0.6 x0=1.2 c1=10 c0=5 length=1 normamps=300
New Line.tie bus1=a bus2=b phases=3 r1=0.3 x1=0.6 r0=0.6 x0=1.2 c1=10 c0=5 length=1 normamps=200
New Load.wye bus1=b phases=3 kv=4.16 kw=600 kvar=150 model={model} vminpu=0.6 vmaxpu=1.4
New Load.delta bus1=a phases=3 conn=delta kv=4.16 kw=300 kvar=90 model={model} vminpu=0.6 vmaxpu=1.4
New Load.across bus1=b.1.2 phases=1 conn=delta kv=4.16 kw=90 kvar=30 model={model} vminpu=0.6 vmaxpu=1.4
New Generator.pv bus1=b phases=3 kv=4.16 kva=900 model=1 kw=0 kvar=0 vminpu=0.6 vmaxpu=1.4
New Generator.battery bus1=b.2 phases=1 kv=2.4 kva=300 model=1 kw=0 kvar=0 vminpu=0.6 vmaxpu=1.4
{extra}
Set VoltageBases=(4.16)
CalcVoltageBases
"""


def small(
    folder: Path,
    *,
    model: str = "1",
    extra: str = "",
    between: Between = Between.NEUTRAL,
    without_der: bool = False,
) -> FeederPackage:
    """The package of `SMALL`, written to a folder."""
    circuit = folder / "small.dss"
    circuit.write_text(SMALL.format(model=model, extra=extra), encoding="utf8")
    ders = tuple(
        DerBinding(id=name, site="", element=f"Generator.{name}", kind=name, p_rated_w=p, s_rated_va=p, energy_wh=0.0)
        for name, p in (("pv", 900e3), ("battery", 300e3))
    )
    return FeederPackage(
        id="small",
        circuit=circuit,
        source_bus="src",
        head_element="Line.head",
        peak_w=1e6,
        sites=(),
        ders=() if without_der else ders,
        meters=(),
        limits=(VoltageLimits(35e3, 0.95, 1.05, between),),
        buses=frozenset({"src", "a", "b"}),
        switches=(SwitchBinding("tie", "Line.tie", SwitchState.CLOSED, 60.0),),
        own=True,
    )


class OperatingPoint:
    """An engine at an operating point, its tangent there, and full solutions nearby."""

    def __init__(self, package: FeederPackage, der_w: float, der_var: float) -> None:
        self.engine = FeederEngine(package)
        self.layout = self.engine.layout
        self.loads, self.ders = len(self.layout.loads), len(self.layout.ders)
        self.elements = self.loads + self.ders
        self.p_w = np.concatenate([self.layout.nominal_load_w, np.full(self.ders, der_w)])
        self.q_var = np.concatenate([self.layout.nominal_load_var, np.full(self.ders, der_var)])
        self.engine.set_tolerance(TIGHT_PU)
        self.at(self.p_w, self.q_var)
        self.engine.freeze_controls(True)
        self.flow = self.at(self.p_w, self.q_var)
        self.tangent = self.touching(self.flow)

    def at(self, p_w: FloatArray, q_var: FloatArray) -> PowerFlow:
        self.engine.set_loads(p_w[: self.loads], q_var[: self.loads])
        self.engine.set_der(p_w[self.loads :], q_var[self.loads :])
        return self.engine.solve()

    def touching(self, flow: PowerFlow, dp_dv: FloatArray | None = None, dq_dv: FloatArray | None = None) -> Tangent:
        powers = (self.p_w[: self.loads], self.q_var[: self.loads], self.p_w[self.loads :], self.q_var[self.loads :])
        return Tangent(self.layout, self.engine.network(), flow.v_v, *powers, dp_dv=dp_dv, dq_dv=dq_dv)

    def differences(self, elements: list[int], quantity: Callable[[PowerFlow], FloatArray]) -> FloatArray:
        """Two-sided, per W and then per var of each element, shape (quantities, 2 x elements)."""
        found = []
        for step_w, step_var in ((STEP_W, 0.0), (0.0, STEP_W)):
            for element in elements:
                chosen = np.arange(self.elements) == element
                up, down = (
                    quantity(self.at(self.p_w + side * step_w * chosen, self.q_var + side * step_var * chosen))
                    for side in (1.0, -1.0)
                )
                found.append((up - down) / (2.0 * STEP_W))
        self.at(self.p_w, self.q_var)
        return np.array(found).T


def assert_same(found: FloatArray, expected: FloatArray, rel: float = 1e-5) -> None:
    """Equal, measured by the greatest of them."""
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= rel * np.abs(expected).max()

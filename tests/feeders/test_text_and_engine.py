"""What is read from a circuit's text is what OpenDSS makes of it: elements, buses, live phases and base voltages."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from derms.grid.dss import altdss
from feeders.catalog import PACKAGES
from feeders.circuit import JOINING_KINDS, SHUNT_KINDS, CircuitText, read
from feeders.recipes import RECIPES
from feeders.tracing import trace
from tests.feeders.packages import CIRCUIT

GUIDE = Path(__file__).parents[2] / "docs" / "feeders.md"
DIALECTS = """
// As test circuits are written
Clear
New object=circuit.dialects
~ basekv=69 pu=1.02 angle=30 mvasc3=200000  ! stiff
New Transformer.SubXF Phases=3 Windings=2 Xhl=(8 1000 /)
~ wdg=1 bus=sourcebus conn=Delta kv=69    kva=25000   %r=(.5 1000 /)
~ wdg=2 bus=800       conn=wye   kv=24.9  kva=25000   %r=0.0005
New linecode.300 nphases=3 rmatrix = (0.1 | 0.01 0.1 | 0.01 0.01 0.1) xmatrix = (0.1 | 0.01 0.1 | 0.01 0.01 0.1)
New linecode.303 nphases=1 rmatrix=(.1) xmatrix=[.1]
New Line.L1     Phases=3 Bus1=800.1.2.3  Bus2=802.1.2.3  LineCode=300  Length=2.58   units=kft
New Line.L4     Bus1=802.2      Bus2=810.2      LineCode=303  Length=5.804   units=kft
new line.L7 802 814r 300 .01
new transformer.reg1a phases=1 windings=2 bank=reg1 buses=(814r.1 850.1) conns='wye wye' kvs="14.376 14.376 " XHL=1
new regcontrol.creg1a transformer=reg1a winding=2 vreg=122 band=2 ptratio=120 ctprim=100 R=2.7 X=1.6
new transformer.reg1b like=reg1a buses=(814r.2 850.2)
new transformer.reg1c like=reg1b buses=(814r.3 850.3)
/*********** Original *********************
New Line.zz bus1=q bus2=p
****End Comment******/
New Load.S860       Bus1=850   Phases=3 Conn=Wye   Model=1 kV= 24.900 kW=  60.0 kVAR=  48.0
New Load.S830a      Bus1=850.1.2 Phases=1 Conn=Delta Model=2 kV= 24.900 kW=  10.0 kVAR=   5.0
Load.s860.vminpu=.85
New Line.671692    Phases=3 Bus1=850   Bus2=692  Switch=y  r1=1e-4 r0=1e-4 x1=0.000 x0=0.000 c1=0.000 c0=0.000
new xfmrcode.CT25 phases=1 windings=3 kvs=[14.376 .12 .12] kvas=[25 25 25] %imag=.5
new transformer.t1 xfmrcode=CT25 buses=[692.1 sx.1.0 sx.0.2]
new linecode.tri nphases=2 rmatrix=[.1|.01 .1] xmatrix=[.1|.01 .1]
new line.tpx linecode=tri bus1=sx.1.2 bus2=house.1.2 length=10 units=ft
new load.h1 phases=1 bus1=house.1 kv=.12 kw=1
new load.h2 phases=1 bus1=house.1.2 kv=.208 kw=1
New PVSystem.roof phases=1 bus1=house.1.2 kv=.24 pmpp=7 kva=6
New Storage.bat phases=1 bus1=house.1.2 kv=.24 kwrated=5 kwhrated=13.5 kva=5
New Line.gone bus1=802 bus2=nowhere enabled=no
New "EnergyMeter.feeder" element=line.L1 terminal=1
Set VoltageBases = "69,24.9,4.16, .48, .208"
calcv
Solve
"""


@pytest.fixture(params=[*sorted(RECIPES), "street", "village", "dialects"])
def circuit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[CircuitText, Any]]:
    """A circuit as its text is read, and as the engine has it."""
    village = re.findall(r"^```dss\n(.*?)^```$", GUIDE.read_text(encoding="utf8"), re.MULTILINE | re.DOTALL)
    written = {"street": CIRCUIT, "village": village[0], "dialects": DIALECTS}
    path = PACKAGES / request.param / "master.dss"
    if request.param in written:
        path = tmp_path / "master.dss"
        path.write_text(written[request.param], encoding="utf8")
    engine = altdss.NewContext()
    engine(f'Redirect "{path}"')
    engine("MakeBusList")
    engine("Solve")
    text = read(path)
    assert text.problems == []
    yield text, engine
    engine("ClearAll")


def test_elements_are_those_of_the_engine(circuit: tuple[CircuitText, Any]) -> None:
    text, engine = circuit
    batches = (engine.Line, engine.Load, engine.Generator, engine.PVSystem, engine.Storage, engine.Transformer)
    more = (engine.Capacitor, engine.Reactor, engine.AutoTrans)
    there = {element.FullName().lower(): element for batch in (*batches, *more) for element in batch}
    ours = {element.full: element for element in text.of(*JOINING_KINDS, *SHUNT_KINDS)}
    assert ours.keys() == there.keys()
    for name, element in ours.items():
        assert (element.phases, element.enabled) == (there[name].Phases, bool(there[name].Enabled)), name
        names = [terminal.bus for terminal in element.terminals]
        buses = getattr(there[name], "Buses", None) or [
            there[name].Bus1,
            *([there[name].Bus2] if len(names) > 1 else []),
        ]
        assert names == [bus.lower().partition(".")[0] for bus in buses], name


def test_live_phases_and_base_voltages_are_those_of_the_engine(circuit: tuple[CircuitText, Any]) -> None:
    text, engine = circuit
    found = trace(text, {})
    live: dict[str, set[int]] = {}
    for node, v_pu in zip(engine.NodeNames(), engine.BusVMagPU(), strict=True):
        bus, _, phase = node.lower().partition(".")
        if v_pu > 0.1:
            live.setdefault(bus, set()).add(int(phase))
    assert found.fed == live
    assert text.buses == {bus.Name.lower() for bus in engine.Bus}
    base_kv = {bus.Name.lower(): bus.kVBase for bus in engine.Bus}
    assert found.base_kv == pytest.approx({bus: base_kv[bus] for bus in live}, rel=0.01)

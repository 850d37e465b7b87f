"""A feeder of three buses from somebody else: a regulator, a capacitor, a switch, two loads and a PV plant."""

from pathlib import Path

from derms.domain.grid import (
    ControlBinding,
    DerBinding,
    FeederPackage,
    SiteBinding,
    SwitchBinding,
    SwitchState,
    VoltageLimits,
)

CIRCUIT = """\
New Circuit.village bus1=source basekv=4.16 pu=1.0
New Line.head bus1=source bus2=green r1=0.3 x1=0.5 r0=0.6 x0=1.2 c1=0 c0=0
New Transformer.reg windings=2 buses=(green market) conns=(wye wye) kvs=(4.16 4.16) kvas=(2000 2000) xhl=1
New RegControl.reg transformer=reg winding=2 vreg=122 band=2 ptratio=20
New Line.tie bus1=market bus2=mill r1=0.2 x1=0.3 r0=0.4 x0=0.8 c1=0 c0=0
New Load.mill bus1=mill kv=4.16 kw=300 kvar=100
New Load.shop bus1=market.1 phases=1 kv=2.4 kw=50 kvar=10
New Capacitor.bank bus1=market kv=4.16 kvar=100 numsteps=2
New Generator.sun bus1=mill kv=4.16 kw=0 kvar=0 kva=500 model=1
Redirect bases.dss
"""
BASES = """\
New LoadShape.day npts=2 csvfile=day.csv
Set voltagebases=[4.16]
Calcvoltagebases
"""


def village(folder: Path, more: str = "") -> FeederPackage:
    """The feeder, its files written into a folder, with more commands after the circuit."""
    folder.mkdir(exist_ok=True)
    circuit = folder / "village.dss"
    circuit.write_text(CIRCUIT + more, encoding="utf8")
    (folder / "bases.dss").write_text(BASES, encoding="utf8")
    (folder / "day.csv").write_text("0.5\n1.0\n", encoding="utf8")
    return FeederPackage(
        id="village",
        circuit=circuit,
        source_bus="source",
        head_element="Line.head",
        peak_w=4e5,
        sites=(SiteBinding("mill", "mill", "Transformer.reg", 5e5),),
        ders=(DerBinding("sun", "mill", "Generator.sun", "pv", 4e5, 5e5, 0.0),),
        meters=(),
        limits=(VoltageLimits(1e4, 0.95, 1.05),),
        buses=frozenset({"source", "green", "market", "mill"}),
        switches=(SwitchBinding("tie", "Line.tie", SwitchState.CLOSED, 60.0),),
        regulators=(ControlBinding("reg", "RegControl.reg", 60.0),),
        capacitors=(ControlBinding("bank", "Capacitor.bank", 60.0),),
    )

"""A feeder of one street, small enough to read, and what the catalog says of it."""

from pathlib import Path

import pytest

from derms.errors import ConfigError, Problem
from feeders.catalog import load

CIRCUIT = """
Clear
New Circuit.street bus1=sub basekv=4.16
New LineCode.ug nphases=3 units=km r1=0.2 x1=0.1 r0=0.4 x0=0.3
New Line.trunk bus1=sub bus2=corner linecode=ug length=0.4
New Line.east bus1=corner.1 bus2=east.1 phases=1 r1=0.1 x1=0.1 length=1
New Line.tie bus1=corner bus2=beyond linecode=ug length=0.2
Open Line.tie 1
New Line.back bus1=beyond bus2=corner linecode=ug length=0.2
New Transformer.t1 phases=1 windings=2 xhl=2
~ wdg=1 bus=east.1 kv=2.402 kva=50
~ wdg=2 bus=home.1 kv=0.24 kva=50
New Load.corner bus1=corner kv=4.16 kw=300 kvar=100
New Load.home bus1=home.1 phases=1 kv=0.24 kw=4
New Capacitor.bank bus1=corner kv=4.16 kvar=100
New Generator.roof bus1=home.1 phases=1 kv=0.24 kw=0 kva=8
Set VoltageBases=[4.16]
CalcVoltageBases
SetkVBase bus=home kvln=0.24
"""

MANIFEST = """
schema = 2
id = "street"
source = "made up for the tests"
circuit = "master.dss"
source_bus = "sub"
head_element = "Line.trunk"
peak_kw = 304

[[limit]]
v_base_max_v = inf
v_min_pu = 0.95
v_max_pu = 1.05

[[switch]]
id = "tie"
element = "Line.tie"
normal = "open"
age_max_s = 900

[[capacitor]]
id = "bank"
element = "Capacitor.bank"
age_max_s = 300

[[site]]
id = "home"
bus = "home"
transformer = "Transformer.t1"
s_rated_kva = 50

[[der]]
id = "roof"
site = "home"
element = "Generator.roof"
kind = "pv"
p_rated_kw = 7
s_rated_kva = 8

[[invisible_pv]]
load = "Load.corner"
p_rated_kw = 40
"""


def package(folder: Path, circuit: str = CIRCUIT, manifest: str = MANIFEST) -> Path:
    """Write the package into a folder."""
    (folder / "master.dss").write_text(circuit, encoding="utf8")
    (folder / "manifest.toml").write_text(manifest, encoding="utf8")
    return folder


def changed(text: str, good: str, bad: str) -> str:
    """A text with one place of it replaced."""
    assert text.count(good) >= 1, good
    return text.replace(good, bad, 1)


def problems(folder: Path) -> list[Problem]:
    """What the catalog finds wrong."""
    with pytest.raises(ConfigError) as caught:
        load(str(folder))
    return caught.value.problems


def problem(folder: Path) -> str:
    """The one thing that the catalog finds wrong, as a sentence."""
    (only,) = problems(folder)
    return str(only)

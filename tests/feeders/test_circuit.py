"""Reading names out of OpenDSS text, in the dialects that circuits come in."""

from pathlib import Path

import pytest

from derms.errors import ConfigError
from feeders.circuit import read


def test_buses_are_found_in_every_way_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "lines.dss").write_text("new line.L1 Bus1=A.1.2.3 bus2 = b.1.2.3 ! bus1=ghost\n", encoding="utf8")
    master = tmp_path / "master.dss"
    master.write_text(
        "Clear\n"
        "New object=Circuit.test bus1=source basekv=4.16 // bus2=ghost\n"
        "Redirect lines.dss\n"
        "New Transformer.T1 windings=2 Buses=[b.1, Low.1]\n"
        "New Transformer.T2 windings=2\n"
        "~ wdg=1 bus=source kv=4.16\n"
        "~wdg=2 bus=a kv=4.16\n"
        "New RegControl.r1 transformer=T2 bus=remote.1\n"
        "New Linecode.cable nphases=1\n"
        "Set VoltageBases=[4.16]\n"
        "~ bus=ghost\n",
        encoding="utf8",
    )
    circuit = read(master)
    assert circuit.buses == {"source", "a", "b", "low"}
    assert circuit.elements["transformer.t2"] == ("source", "a")
    assert circuit.elements["line.l1"] == ("a", "b")
    assert circuit.elements["regcontrol.r1"] == ()


def test_missing_and_circular_files_are_said_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.dss").write_text("Redirect b.dss\n", encoding="utf8")
    (tmp_path / "b.dss").write_text("Redirect a.dss\n", encoding="utf8")
    with pytest.raises(ConfigError, match=r"a\.dss: redirect"):
        read(tmp_path / "a.dss")
    with pytest.raises(ConfigError, match=r"c\.dss: file"):
        read(tmp_path / "c.dss")

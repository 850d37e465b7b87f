"""What the site file names is what is opened: sources, outlets, and the token from the environment alone."""

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from derms.domain.alarm import Event
from derms.domain.mode import Mode
from derms.errors import ConfigError
from derms.ports import FieldOptions, ScadaSource
from derms.scada.meter import MeterScada
from derms.scada.publish import Publisher
from derms.scada.source import LinkedScada
from derms.service.config import Site
from derms.service.scada import Wiring, open_publisher, open_source
from drivers.scada import ModbusEms
from tests.scada.rig import HandClock
from tests.scada.test_point_map import GOOD, site, write


def opened(found: Site) -> tuple[ScadaSource, Publisher | None, list[Event], list[FieldOptions]]:
    events: list[Event] = []
    asked: list[FieldOptions] = []

    def modbus(options: FieldOptions, chance: random.Random) -> ModbusEms:
        asked.append(options)
        return ModbusEms(options, chance)

    wiring = Wiring(clock=HandClock(), chance=random.Random(1), on_event=events.append, modbus=modbus)
    return open_source(found, wiring), open_publisher(found, wiring), events, asked


def site_of(tmp_path: Path, where: str, scada: str, **changes: Any) -> Site:
    write(tmp_path / "points.csv", (GOOD[0].replace(",load,,", f",{where},,"),))
    return replace(site(tmp_path, 'points = "points.csv"\n' + scada), **changes)


def test_the_meter_is_opened_without_a_word_and_a_file_with_one(tmp_path: Path) -> None:
    source, publisher, _, asked = opened(site(tmp_path, ""))
    assert (type(source), publisher, asked) == (MeterScada, None, [])
    source, publisher, _, asked = opened(
        site_of(tmp_path, "load", 'source = "file"\npath = "ems.csv"\npublish = "plan.csv"\n')
    )
    assert (type(source), type(publisher), asked) == (LinkedScada, Publisher, [])


def test_a_token_comes_from_the_environment_and_without_it_nothing_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = site_of(
        tmp_path,
        "/load",
        'source = "rest"\nurl = "https://ems.example.org/points"\ntoken_variable = "EMS_TEST_TOKEN"\n',
    )
    monkeypatch.delenv("EMS_TEST_TOKEN", raising=False)
    with pytest.raises(ConfigError, match="EMS_TEST_TOKEN is not set"):
        opened(found)
    monkeypatch.setenv("EMS_TEST_TOKEN", "s3cret")
    assert isinstance(opened(found)[0], LinkedScada)


@pytest.mark.parametrize(("mode", "reads_only"), [(Mode.OBSERVE, True), (Mode.AUTO, False)])
def test_over_modbus_the_plan_goes_out_in_auto_mode_alone(tmp_path: Path, mode: Mode, reads_only: bool) -> None:
    scada = 'source = "modbus"\nurl = "modbus://10.0.0.5"\npublish = "modbus://10.0.0.5/1/1000"\n'
    source, publisher, events, asked = opened(site_of(tmp_path, "1/holding/100/float32", scada, mode=mode))
    assert isinstance(source, LinkedScada)
    assert (publisher is None) is reads_only
    assert [event.kind for event in events] == ["publish-off"] * reads_only
    assert {options.read_only for options in asked} == {reads_only}

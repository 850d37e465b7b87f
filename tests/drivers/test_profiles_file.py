"""Profile files: what is right is read whole, what is wrong is told with its line and remedy, and nothing is run."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from derms.domain.der import DeviceKind
from derms.domain.dispatch import Quantity
from derms.domain.telemetry import COLUMNS
from derms.errors import ConfigError, Problem
from drivers.modbus.quirks import LinkQuirks
from drivers.modbus.unit import Table
from drivers.profiles.control import Heartbeat, Per
from drivers.profiles.loader import FOLDER, load_profile, load_profiles, packaged, read_profiles
from drivers.profiles.point import Point, Text
from drivers.profiles.profile import Level, Profile, Speaks
from drivers.profiles.rules import Either, Many, Named, Rule, Section
from drivers.profiles.schema import LINK, PROFILE, SUNSPEC, json_schema
from drivers.profiles.yaml_tree import BYTES_MAX
from drivers.sunspec.quirks import SunSpecQuirks

METER = """\
profile: acme
title: Acme meter
speaks: registers
kinds: [head-meter]
telemetry:
  p_w: {address: 52, type: float32}
"""


def loaded(folder: Path, text: str, name: str = "acme") -> Profile:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf8")
    return load_profile(path)


def mistakes(folder: Path, text: str, name: str = "acme") -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, name)
    return caught.value.problems


def test_the_least_profile_is_a_meter_with_one_point(tmp_path: Path) -> None:
    profile = loaded(tmp_path, METER)
    assert (profile.id, profile.speaks, profile.kinds) == ("acme", Speaks.REGISTERS, frozenset({DeviceKind.HEAD_METER}))
    assert (profile.level, profile.unit, profile.link) == (Level.BRONZE, 1, LinkQuirks())
    assert profile.telemetry[0].points == (Point(52, "float32"),)
    assert profile.controls == {}
    assert profile.reversion_class == ""


def test_a_broken_profile_costs_none_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_text(METER)
    (tmp_path / "bad.yaml").write_text(METER)
    shelf = read_profiles(tmp_path)
    assert set(shelf.profiles) == {"acme"}
    assert {name: [problem.file for problem in each] for name, each in shelf.problems.items()} == {"bad": ["bad.yaml"]}


def test_every_packaged_profile_is_named_as_its_file() -> None:
    names = {path.stem for path in FOLDER.glob("*.yaml")} - {"TEMPLATE"}
    assert set(packaged()) == names
    assert names == {
        *("solaredge", "fronius-int", "fronius-float", "sma"),
        *("site-battery", "meter", "ev-charger", "load-switch"),
    }


def test_the_template_is_itself_a_profile_and_says_everything_it_may_say() -> None:
    profile = load_profile(FOLDER / "TEMPLATE.yaml")
    p_w = profile.telemetry[0].points[0]
    assert p_w == Point(100, "int32", "CDAB", Table.INPUT, scale=-10.0, absent=(-(2**31),))
    assert profile.nameplate.model == Text(10, 8)
    assert profile.nameplate.serial == Point(22, "uint32")
    control = profile.controls[Quantity.P_SET]
    assert (control.per, control.low, control.high) == (Per.WATT, -10e3, 10e3)
    assert profile.heartbeat == Heartbeat(203, 0, 0xFFFF, 60.0, Point(212))
    assert profile.reversion_class == "B"


def _keys(rule: Rule) -> set[str]:
    """Every key that a rule and what is in it know."""
    match rule:
        case Section(keys=keys):
            return set(keys) | {key for inner in keys.values() for key in _keys(inner)}
        case Many(of=inner) | Named(of=inner):
            return _keys(inner)
        case Either(of=options):
            return {key for option in options for key in _keys(option)}
    return set()


def test_the_template_shows_every_key_of_the_schema() -> None:
    text = (FOLDER / "TEMPLATE.yaml").read_text(encoding="utf8")
    assert {key for key in _keys(PROFILE) if f"{key}:" not in text} == set()


def test_the_schema_knows_every_quirk_of_links_and_of_sunspec() -> None:
    assert set(LINK.keys) == {field.name for field in fields(LinkQuirks)}
    assert set(SUNSPEC.keys) == {field.name for field in fields(SunSpecQuirks)}


def test_the_schema_for_editors_is_the_table() -> None:
    """`python -m drivers.profiles.schema > drivers/profiles/profile.schema.json` writes it anew."""
    stored = (FOLDER / "profile.schema.json").read_text(encoding="utf8")
    assert stored == json_schema()
    schema = json.loads(stored)
    assert schema["properties"]["telemetry"]["propertyNames"]["enum"] == list(COLUMNS)
    assert schema["additionalProperties"] is False


def test_every_mistake_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
profile: acme
speaks: modbus
kinds: [head-meter, toaster]
telemetry:
  p_w: {adress: 52, type: float23}
  v_phase_v: {address: 12}
  q_watt: {address: 70000}
  pf: {address: 65535, type: uint32}
reads: {hole_max: many}
"""
    found = {(problem.where, problem.wrong): problem.right for problem in mistakes(tmp_path, text)}
    assert found == {
        ("line 1", "title: is missing"): "add it: make and kind, for people",
        ("line 2", "speaks: 'modbus'"): "give sunspec, registers",
        ("line 3", "kinds.2: 'toaster'"): found["line 3", "kinds.2: 'toaster'"],
        ("line 5", "telemetry.p_w.adress: unknown key"): "did you mean 'address'?",
        ("line 5", "telemetry.p_w.type: 'float23'"): "did you mean 'float32'?",
        ("line 6", "telemetry.v_phase_v.address: v_phase_v has three phases"): (
            "give three addresses, for phases a, b, c"
        ),
        ("line 7", "telemetry.q_watt: unknown key"): found["line 7", "telemetry.q_watt: unknown key"],
        ("line 8", "telemetry.pf.address: 2 registers from 65535 end beyond 65535"): "give its first one",
        ("line 9", "reads.hole_max: 'many'"): "give a whole number from 0 to 125",
    }
    assert "ev-charger" in found["line 3", "kinds.2: 'toaster'"]


@pytest.mark.parametrize("word", ["010", "1_000", "1:30", "0b1", ".nan", "1e999", "yes", "'5'", "5.5", "-1", "~", "[]"])
def test_what_yaml_would_make_a_number_of_is_none(tmp_path: Path, word: str) -> None:
    assert mistakes(tmp_path, METER.replace("52", word))[0].where == "line 6"


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("profile: !!python/object/apply:os.system ['true']", "the tag"),
        ("profile: &a acme\ntitle: *a", "anchors"),
        ("profile: acme\n<<: {title: x}", "unknown key"),
        ("{a: " * 40 + "1" + "}" * 40, "nested deeper"),
        ("[" * 20_000, "nested deeper"),
        ("profile: acme\n---\nprofile: acme", "second document"),
        ("profile: [acme", "is not YAML"),
        ("profile: \x07", "is not YAML"),
        ("? [a]\n: 1", "a key is not a word"),
        ("", "the file is empty"),
        ("- acme", "a list of 1"),
        ("x" * (BYTES_MAX + 1), "more than"),
    ],
)
def test_hostile_files_are_refused_and_nothing_in_them_is_run(tmp_path: Path, text: str, wrong: str) -> None:
    assert any(wrong in problem.wrong for problem in mistakes(tmp_path, text))


def test_a_billion_laughs_are_refused_at_the_first(tmp_path: Path) -> None:
    text = "a: &a [lol, lol]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}]\n" for n in range(9))
    assert [problem.where for problem in mistakes(tmp_path, text)] == ["line 1"]


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").write_bytes(METER.encode() + b"\xff\xfe")
    with pytest.raises(ConfigError, match="line 7: is not UTF-8"):
        load_profile(tmp_path / "acme.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_profile(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "where", "wrong"),
    [
        (("profile: acme", "profile: acne"), "line 1", "'acne' in the file acme.yaml"),
        (("title: Acme meter", "title: Acme\ntitle: Acme"), "line 3", "stands here a second time"),
        (("[head-meter]", "[head-meter, pv]"), "line 4", "both meters and DER"),
        (("speaks: registers", "speaks: sunspec"), "line 5", "in a device that speaks sunspec"),
        (("52, type: float32", "52, absent: [-1]"), "line 6", "-1 is no value of uint16"),
        (("type: float32", "type: float32, codes: {1: 2}"), "line 6", "of a number with a fraction"),
        (("type: float32", "codes: {one: 2}"), "line 6", "is no whole number"),
        (("type: float32", "sign: 0"), "line 6", "'0'"),
        (("p_w:", "f_hz:"), "line 5", "has neither p_w nor v_v"),
    ],
)
def test_what_does_not_go_together_is_told(tmp_path: Path, change: tuple[str, str], where: str, wrong: str) -> None:
    problems = mistakes(tmp_path, METER.replace(*change))
    assert [(where, True)] == [(problem.where, wrong in problem.wrong) for problem in problems]


CONTROL = """
controls:
  p_set:
    value: {address: 1}
    enable: {address: 2}
"""


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (("    enable: {address: 2}\n", ""), "has neither enable nor release"),
        (("enable: {address: 2}", "enable: {address: 2}\n    release: 5"), "has both enable and release"),
        (("{address: 1}", "{address: 1, table: input}"), "input registers cannot be written"),
        (("    value", "    low: 5\n    high: 2\n    value"), "is above high"),
        (("    value", "    timer: {address: 5, sign: -1}\n    value"), "of a time"),
        (("value:", "valu:"), "unknown key"),
    ],
)
def test_a_control_that_could_not_be_handed_back_is_refused(
    tmp_path: Path, change: tuple[str, str], wrong: str
) -> None:
    text = METER.replace("head-meter", "battery") + CONTROL
    assert loaded(tmp_path, text).reversion_class == "C"
    assert [wrong in problem.wrong for problem in mistakes(tmp_path, text.replace(*change))] == [True]


def test_a_meter_takes_no_commands(tmp_path: Path) -> None:
    assert "in a meter" in mistakes(tmp_path, METER + CONTROL)[0].wrong


def test_mistakes_of_a_whole_folder_come_together(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("profile: one", encoding="utf8")
    (tmp_path / "two.yaml").write_text("profile: two", encoding="utf8")
    with pytest.raises(ConfigError) as caught:
        load_profiles(tmp_path)
    assert {problem.file for problem in caught.value.problems} == {"one.yaml", "two.yaml"}


def test_solaredge_is_as_its_technical_notes_have_it() -> None:
    profile = packaged()["solaredge"]
    control = profile.controls[Quantity.P_LIMIT]
    assert control.value == Point(62242, "float32", "CDAB")
    assert control.timer == Point(62224, "uint32", "CDAB")
    assert control.enable_first
    assert (profile.link.in_flight, profile.link.settle_s, profile.reversion_class) == (1, 1.0, "A")


def test_sma_answers_at_its_native_unit_plus_123() -> None:
    assert packaged()["sma"].unit == 3 + 123

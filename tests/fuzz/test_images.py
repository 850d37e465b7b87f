"""Random register images find nothing in our decoding, and find what is planted in it."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drivers.sunspec import codec, gather, models, sources, telemetry
from tests.fuzz import frames, values
from tests.fuzz.images import Found, fuzz_images, replay

CORPUS = Path(__file__).with_name("corpus.jsonl")
"""What has been found so far, mostly in decoding with something planted in it."""
IMAGES = 4000
Planted = Callable[[pytest.MonkeyPatch], None]


def test_no_register_image_is_decoded_to_another_value_than_it_holds() -> None:
    found = fuzz_images(IMAGES, seed=2026)
    assert found.cases == []
    assert (found.images, found.wrong) == (IMAGES, 0)
    assert min(found.numbers, found.missing) > 5 * IMAGES


def test_the_same_seed_makes_the_same_images() -> None:
    first, second, other = fuzz_images(200, seed=3), fuzz_images(200, seed=3), fuzz_images(200, seed=4)
    assert (first.numbers, first.missing) == (second.numbers, second.missing)
    assert (first.numbers, first.missing) != (other.numbers, other.missing)


def any_scale(patch: pytest.MonkeyPatch) -> None:
    exponents = np.arange(0x10000, dtype=np.uint16).view(np.int16).astype(np.float64)
    patch.setattr(gather, "_SCALES", 10.0 ** np.clip(exponents, -99.0, 99.0))


def sentinels_are_numbers(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(telemetry, "sentinel", lambda point_type: None)


def everything_is_signed(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(telemetry, "number_format", lambda point_type: models.number_format(point_type).lower())


def enabled_or_not(patch: pytest.MonkeyPatch) -> None:
    eager = {name: tuple(replace(source, when=()) for source in some) for name, some in sources.SOURCES.items()}
    patch.setattr(telemetry, "SOURCES", eager)


def unknown_states(patch: pytest.MonkeyPatch) -> None:
    eager = {name: tuple(replace(source, codes=()) for source in some) for name, some in sources.SOURCES.items()}
    patch.setattr(telemetry, "SOURCES", eager)


def percent_for_a_fraction(patch: pytest.MonkeyPatch) -> None:
    whole = {name: tuple(replace(source, factor=1.0) for source in some) for name, some in sources.SOURCES.items()}
    patch.setattr(telemetry, "SOURCES", whole)


def zeros_beyond_the_end(patch: pytest.MonkeyPatch) -> None:
    held = codec.Image.registers
    patch.setattr(codec.Image, "registers", lambda image, point: held(image, point).ljust(2 * point.size, b"\0"))


def plant(planted: Planted, patch: pytest.MonkeyPatch) -> None:
    """Change our decoding, in layouts that nobody else ever sees."""
    patch.setattr(telemetry, "_shared", lambda layout: layout)
    planted(patch)


@pytest.mark.parametrize(
    "planted",
    [
        any_scale,
        sentinels_are_numbers,
        everything_is_signed,
        enabled_or_not,
        unknown_states,
        percent_for_a_fraction,
        zeros_beyond_the_end,
    ],
)
def test_what_is_planted_in_our_decoding_is_found(planted: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(planted, monkeypatch)
    found = Found()
    for seed in range(IMAGES // 200):
        found = fuzz_images(200, seed)
        if found.wrong:
            break
    assert found.wrong
    assert len(found.cases) == min(found.wrong, 100)


def test_what_was_found_once_is_decoded_as_it_should_be() -> None:
    cases = [case for case in CORPUS.read_text().splitlines() if json.loads(case)["what"] == "images_wrong"]
    assert len(cases) >= 7
    for case in cases:
        found = replay(case)
        assert (found.images, found.cases) == (1, [])


@pytest.mark.parametrize(
    ("name", "words", "value"),
    [
        ("W", {"W": 0xFF9C, "W_SF": 1}, -1000.0),
        ("W", {"W": 0x8000, "W_SF": 1}, math.nan),
        ("W", {"W": 100, "W_SF": 0x8000}, math.nan),
        ("W", {"W": 100, "W_SF": 11}, math.nan),
        ("W", {"W": 3, "W_SF": 10}, 3e10),
        ("W", {"W": 3, "W_SF": 0xFFF6}, 3e-10),
        ("LNV", {"LNV": 0xFFFE, "V_SF": 0xFFFF}, 6553.4),
        ("LNV", {"LNV": 0xFFFF, "V_SF": 0}, math.nan),
        ("InvSt", {"InvSt": 3}, 3.0),
        ("InvSt", {"InvSt": 0xFFFF}, math.nan),
    ],
)
def test_the_strict_decoder_knows_registers_written_by_hand(name: str, words: dict[str, int], value: float) -> None:
    registers = bytearray(2 * values.size(701))
    for point, word in words.items():
        at = 2 * values.points(701)[point].at
        registers[at : at + 2] = word.to_bytes(2, "big")
    assert values.number(701, bytes(registers), name) == pytest.approx(value, rel=1e-12, nan_ok=True)
    assert math.isnan(values.number(701, bytes(registers[: 2 * values.points(701)["W_SF"].at]), "W"))


def test_the_fuzzer_as_a_program_ends_in_one_json_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cases = tmp_path / "cases.jsonl"
    assert frames.main(["--frames", "400", "--images", "64", "--seed", "9", "--cases", str(cases)]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    none = {"accepted_wrong": 0, "refused_good": 0, "crashes": 0, "hangs": 0, "images_wrong": 0}
    assert {key: result[key] for key in (*none, "frames", "images", "seed")} == {
        **none,
        "frames": 400,
        "images": 64,
        "seed": 9,
    }
    assert not cases.exists()

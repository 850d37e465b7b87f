"""The fuzzer finds nothing in our link, and finds what is planted in a lax one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from drivers.modbus.frames import Framing, Mbap, Question, Rtu
from drivers.modbus.link import Link
from tests.fuzz.frames import Fuzzer
from tests.fuzz.oracle import Asked, Good, Incomplete, Refused, Wrong, answer_to, crc16, judge_chunks, refusal_of

FRAMES = 20_000
CORPUS = Path(__file__).with_name("corpus.jsonl")
"""What has been found so far, mostly in links with something planted in them."""


@pytest.mark.parametrize("frames", [FRAMES // 10, pytest.param(FRAMES, marks=pytest.mark.slow)])
def test_no_mutated_answer_is_taken_for_a_good_one(frames: int) -> None:
    fuzzer = Fuzzer(seed=2026)
    fuzzer.run(frames)
    assert fuzzer.tally.cases == []
    assert fuzzer.tally.clean
    assert min(fuzzer.tally.kinds.values()) > frames // 20
    assert min(fuzzer.tally.verdicts[name] for name in ("Good", "Incomplete", "Refused", "Wrong")) > frames // 200


def test_the_same_seed_makes_the_same_frames() -> None:
    tallies = []
    for _ in range(2):
        fuzzer = Fuzzer(seed=5)
        fuzzer.run(500)
        tallies.append((fuzzer.tally.kinds, fuzzer.tally.verdicts))
    assert tallies[0] == tallies[1]


def finds(fuzzer: Fuzzer, what: str) -> bool:
    """Whether some finding of a kind is made within the frames of a small run."""
    while fuzzer.tally.frames < FRAMES and not getattr(fuzzer.tally, what):
        fuzzer.run(fuzzer.tally.frames + 500)
    return bool(getattr(fuzzer.tally, what))


class LaxMbap(Mbap):
    """Modbus/TCP frames without one of the checks."""

    def __init__(self, unchecked: str) -> None:
        super().__init__()
        self._unchecked = unchecked

    def wrong(self, received: bytes, question: Question) -> str:
        found = super().wrong(received, question)
        return "" if found.startswith(self._unchecked) else found


class LaxRtu(Rtu):
    """Serial frames without one of the checks."""

    def __init__(self, unchecked: str) -> None:
        super().__init__()
        self._unchecked = unchecked

    def wrong(self, received: bytes, question: Question) -> str:
        found = super().wrong(received, question)
        return "" if found.startswith(self._unchecked) else found


@pytest.mark.parametrize(
    "lax",
    [
        *(LaxMbap(what) for what in ("protocol id", "unit", "function code", "frame length", "byte count or echo")),
        *(LaxRtu(what) for what in ("unit", "function code", "byte count or echo", "checksum")),
    ],
    ids=lambda lax: f"{type(lax).__name__} {lax._unchecked}",
)
def test_a_missing_check_is_found(lax: Framing) -> None:
    assert finds(Fuzzer(seed=1, framings=(lax,)), "accepted_wrong")


class AnyTransaction(Link):
    """Takes every answer for that to the request in flight."""

    def data_received(self, data: bytes) -> None:
        for transaction in self._window:
            data = transaction + data[2:]
        super().data_received(data)


class WithoutDeadline(Link):
    """Waits for ever."""

    def _set_deadline_timer(self, deadline_s: float) -> None:
        pass


class Stumbling(Link):
    """Expects a byte that may not have come."""

    def data_received(self, data: bytes) -> None:
        if data[8] > 250:
            data = data[:9] + data[10:]
        super().data_received(data)


@pytest.mark.parametrize(
    ("faulty", "what"),
    [(AnyTransaction, "accepted_wrong"), (WithoutDeadline, "hangs"), (Stumbling, "crashes")],
)
def test_a_faulty_link_is_found(faulty: type[Link], what: str) -> None:
    assert finds(Fuzzer(seed=1, make_link=faulty, framings=(Mbap(),)), what)


def test_what_was_found_once_is_judged_as_it_should_be() -> None:
    fuzzer = Fuzzer(seed=1)
    cases = [case for case in CORPUS.read_text().splitlines() if json.loads(case)["what"] != "images_wrong"]
    for case in cases:
        fuzzer.replay(case)
    assert fuzzer.tally.cases == []
    assert fuzzer.tally.frames == len(cases) >= 12


def test_a_case_that_was_written_down_is_found_again_by_the_link_that_it_was_found_in() -> None:
    first = Fuzzer(seed=1, make_link=AnyTransaction, framings=(Mbap(),))
    assert finds(first, "accepted_wrong")
    again = Fuzzer(seed=2, make_link=AnyTransaction)
    for case in first.tally.cases:
        again.replay(case)
    assert again.tally.cases == first.tally.cases


READ = Asked(unit=1, function=3, address=40000, registers=2, transaction=9)


@pytest.mark.parametrize(
    ("chunks", "verdict"),
    [
        ([bytes.fromhex("0009 0000 0007 01 03 04 53756e53")], Good(b"SunS")),
        ([bytes.fromhex("0009 0000 0003 01 83 02")], Refused(2)),
        ([bytes.fromhex("0009 0000 0007 01 03 04 5375")], Incomplete()),
        ([bytes.fromhex("0008 0000 0007 01 03 04 53756e53")], Wrong()),
        ([bytes.fromhex("0009 0000 0005 01 03 02 5375")], Wrong()),
        ([bytes.fromhex("0009 0000 0007 01 04 04 53756e53")], Wrong()),
        ([bytes.fromhex("0009 0000 0007 01 03 04 53756e53"), b"more"], Good(b"SunS")),
    ],
)
def test_the_oracle_knows_frames_written_by_hand(chunks: Sequence[bytes], verdict: object) -> None:
    assert judge_chunks(READ, chunks, rtu=False) == verdict


def test_the_oracle_knows_serial_frames() -> None:
    """MODBUS over Serial Line 1.02, 6.2.2: the checksum of 02 07 is 0x1241, sent as 41 12."""
    assert crc16(bytes.fromhex("0207")) == 0x1241
    assert judge_chunks(READ, [answer_to(READ, b"SunS", rtu=True)], rtu=True) == Good(b"SunS")
    assert judge_chunks(READ, [refusal_of(READ, 2, rtu=True)], rtu=True) == Refused(2)

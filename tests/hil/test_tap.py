"""The oracle at the bytes: planted violations of every kind, and right writes that it passes."""

import struct

import pytest

from drivers.sunspec.models import layout
from hil import tap as tables
from hil.tap import Plate, Tap

RATED_W, ENERGY_WH = 50e3, 200e3
PLATES = {
    "pv": Plate(RATED_W, 0.0, legacy=False),
    "bat": Plate(RATED_W, ENERGY_WH, legacy=False),
    "old": Plate(RATED_W, ENERGY_WH, legacy=True),
}
BASE = 40002


def writes(address: int, *registers: int) -> bytes:
    count = len(registers)
    body = struct.pack(">HHB", address, count, 2 * count) + struct.pack(f">{count}H", *(r & 0xFFFF for r in registers))
    return struct.pack(">HHHBB", 1, 0, 2 + len(body), 1, 16) + body


def modern_setpoint(p_w: int, reversion_s: int = 900) -> bytes:
    at = BASE + sum(layout(model).size for model in (1, 701, 702, 703))
    return writes(at + 22, 1, 1, p_w >> 16, p_w, 0, 0, 0, 0, 0, 0, reversion_s)


def modern_limit(percent: float) -> bytes:
    at = BASE + sum(layout(model).size for model in (1, 701, 702, 703))
    return writes(at + 14, 1, round(percent * 100), 0, 0, 0, 900)


def legacy_setpoint(percent: float, reversion_s: int = 900) -> list[bytes]:
    at = BASE + sum(layout(model).size for model in (1, 103, 120, 121, 122, 123))
    rate = round(percent * 100)
    return [writes(at + 12, rate, -rate, 0, reversion_s), writes(at + 5, 3)]


def legacy_limit(percent: float) -> bytes:
    at = BASE + sum(layout(model).size for model in (1, 103, 120, 121, 122))
    return writes(at + 5, round(percent * 100), 0, 900, 0, 1)


def reasons(device: str, *adus: bytes, soc_frac: float = 0.5) -> list[str]:
    tap = Tap(PLATES, lambda _: soc_frac)
    for adu in adus:
        tap.saw(device, adu)
    assert tap.writes == len(adus)
    return [violation.reason for violation in tap.violations]


def test_the_tables_stand_where_the_models_are() -> None:
    sizes = {model: layout(model).size for model in (1, 701, 702, 703, 103, 120, 121, 122, 123)}
    legacy = BASE + sizes[1] + sizes[103] + sizes[120] + sizes[121] + sizes[122]
    modern = BASE + sizes[1] + sizes[701] + sizes[702] + sizes[703]
    assert [modern, legacy, legacy + sizes[123]] == [tables.AT_704, tables.AT_123, tables.AT_124]


@pytest.mark.parametrize("p_w", [-50_000, -1, 0, 1, 50_000])
def test_a_setpoint_within_all_limits_passes(p_w: int) -> None:
    assert reasons("bat", modern_setpoint(p_w)) == []
    assert reasons("old", *legacy_setpoint(100 * p_w / RATED_W)) == []


@pytest.mark.parametrize("p_w", [50_001, -50_001])
def test_a_setpoint_beyond_nameplate_is_caught(p_w: int) -> None:
    assert reasons("bat", modern_setpoint(p_w)) == ["setpoint beyond nameplate"]


@pytest.mark.parametrize("percent", [100.01, -100.01])
def test_rates_beyond_the_battery_are_caught(percent: float) -> None:
    assert reasons("old", *legacy_setpoint(percent)) == ["setpoint beyond nameplate"]


@pytest.mark.parametrize("device", ["pv", "old"])
@pytest.mark.parametrize(
    ("percent", "expected"),
    [(0.0, []), (100.0, []), (100.01, ["limit beyond nameplate"]), (-0.01, ["limit below zero"])],
)
def test_limits_outside_zero_to_nameplate_are_caught(device: str, percent: float, expected: list[str]) -> None:
    assert reasons(device, legacy_limit(percent) if device == "old" else modern_limit(percent)) == expected


@pytest.mark.parametrize(("soc_frac", "expected"), [(0.11, []), (0.10, ["discharge at the reserve"])])
def test_discharge_at_the_reserve_is_caught(soc_frac: float, expected: list[str]) -> None:
    assert reasons("bat", modern_setpoint(2_000), soc_frac=soc_frac) == expected
    assert reasons("old", *legacy_setpoint(4.0), soc_frac=soc_frac) == expected


@pytest.mark.parametrize(("soc_frac", "expected"), [(0.94, []), (0.95, ["charge at the ceiling"])])
def test_charge_at_the_ceiling_is_caught(soc_frac: float, expected: list[str]) -> None:
    assert reasons("bat", modern_setpoint(-2_000), soc_frac=soc_frac) == expected
    assert reasons("old", *legacy_setpoint(-4.0), soc_frac=soc_frac) == expected


def test_energy_that_does_not_last_until_reversion_is_caught() -> None:
    starving = ["energy does not last until reversion"]
    assert reasons("bat", modern_setpoint(50_000, 900), soc_frac=0.11) == starving
    assert reasons("bat", modern_setpoint(50_000, 60), soc_frac=0.11) == []
    assert reasons("bat", modern_setpoint(-50_000, 7200), soc_frac=0.9) == starving
    assert reasons("old", *legacy_setpoint(100.0, 900), soc_frac=0.11) == starving


def test_a_setpoint_that_never_reverts_is_caught() -> None:
    assert reasons("bat", modern_setpoint(10, 0)) == ["energy does not last until reversion"]


def test_a_setpoint_to_an_inverter_without_battery_is_caught() -> None:
    assert reasons("pv", modern_setpoint(10)) == ["setpoint to a device without a battery"]


def test_a_later_write_of_one_register_is_judged_with_what_the_device_holds() -> None:
    one = struct.pack(">HHHBBHH", 2, 0, 6, 1, 6, tables.AT_704 + 32, 0)  # takes the reversion time away
    assert reasons("bat", modern_setpoint(10_000), one) == ["energy does not last until reversion"]


def test_a_release_is_never_a_violation() -> None:
    release = writes(tables.AT_704 + 22, 0)
    assert reasons("bat", modern_setpoint(2_000), release, soc_frac=0.105) == []


def test_reads_and_broken_requests_are_passed_over() -> None:
    read = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, tables.AT_704, 10)
    assert reasons("bat", read, modern_setpoint(60_000)[:-2]) == []

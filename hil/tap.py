"""An oracle at the bytes: what is written to devices, judged against nameplates and true states of charge.

Knows neither driver nor controller: addresses and scale factors of the simulated fleet stand in its own tables.
Every write request that reaches a server is fed to it as bytes, whatever the server then does with it.
"""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# 'SunS' at 40000, then models 1 (68 registers), 701 (155), 702 (52), 703 (19), 704; in older devices 1, 103 (52),
# 120 (28), 121 (32), 122 (46), 123 (26), 124.
AT_704 = 40002 + 68 + 155 + 52 + 19
AT_123 = 40002 + 68 + 52 + 28 + 32 + 46
AT_124 = AT_123 + 26
_PCT = 0.01
"""One count of every percentage."""

SOC_RESERVE_FRAC = 0.10
"""No discharge at or below."""
SOC_FULL_FRAC = 0.95
"""No charge at or above."""
SOC_FLOOR_FRAC, SOC_CEILING_FRAC = 0.05, 1.0
"""What no setpoint may leave, even if nobody refreshes it until it reverts."""
EFFICIENCY_FRAC = 0.95
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True)
class Plate:
    """What a device can do."""

    p_rated_w: float
    energy_wh: float
    """0 without a battery."""
    legacy: bool
    """Has 123 and 124 instead of 704."""


@dataclass(frozen=True, slots=True)
class Violation:
    """A write that should never have been on the wire."""

    device: str
    value_w: float
    reason: str


@dataclass(frozen=True, slots=True)
class _Held:
    """What a device holds after a write; None for a function that is off."""

    limit_w: float | None
    setpoint_w: float | None
    reversion_s: float
    """Of the setpoint; infinite without a timer."""


class Tap:
    """Follows every write to the fleet; `violations` is empty as long as all of them are right."""

    def __init__(self, plates: Mapping[str, Plate], soc_frac: Callable[[str], float]) -> None:
        """`soc_frac` tells the true state of charge of a device now [0..1]."""
        self.violations: list[Violation] = []
        self.writes = 0
        self._plates = plates
        self._soc_frac = soc_frac
        self._registers: dict[str, dict[int, int]] = {device: {} for device in plates}

    def saw(self, device: str, adu: bytes) -> None:
        """Take one write request, header included; anything but functions 6 and 16 is passed over."""
        self.writes += 1
        written = _written(adu)
        plate = self._plates.get(device)
        if not written or plate is None:
            return
        registers = self._registers[device]
        registers.update(written)
        held = _legacy(registers, plate) if plate.legacy else _modern(registers, plate)
        limits, setpoints = _blocks(plate)
        if held.limit_w is not None and not limits.isdisjoint(written):
            self._judge_limit(device, plate, held.limit_w)
        if held.setpoint_w is not None and not setpoints.isdisjoint(written):
            self._judge_setpoint(device, plate, held.setpoint_w, held.reversion_s)

    def _judge_limit(self, device: str, plate: Plate, limit_w: float) -> None:
        if limit_w < 0.0:
            self._add(device, limit_w, "limit below zero")
        elif limit_w > plate.p_rated_w * (1.0 + _ROUNDING):
            self._add(device, limit_w, "limit beyond nameplate")

    def _judge_setpoint(self, device: str, plate: Plate, p_w: float, reversion_s: float) -> None:
        if abs(p_w) > plate.p_rated_w * (1.0 + _ROUNDING):
            self._add(device, p_w, "setpoint beyond nameplate")
        if plate.energy_wh == 0.0:
            self._add(device, p_w, "setpoint to a device without a battery")
            return
        soc_frac = self._soc_frac(device)
        if p_w > 0.0 and soc_frac <= SOC_RESERVE_FRAC:
            self._add(device, p_w, "discharge at the reserve")
        if p_w < 0.0 and soc_frac >= SOC_FULL_FRAC:
            self._add(device, p_w, "charge at the ceiling")
        if p_w and not SOC_FLOOR_FRAC <= _left_frac(plate, soc_frac, p_w, reversion_s) <= SOC_CEILING_FRAC:
            self._add(device, p_w, "energy does not last until reversion")

    def _add(self, device: str, value_w: float, reason: str) -> None:
        self.violations.append(Violation(device, value_w, reason))


def _left_frac(plate: Plate, soc_frac: float, p_w: float, hold_s: float) -> float:
    """State of charge after holding a power for a time."""
    stored_w = -p_w / EFFICIENCY_FRAC if p_w > 0.0 else -p_w * EFFICIENCY_FRAC
    return soc_frac + stored_w * hold_s / 3600.0 / plate.energy_wh


def _written(adu: bytes) -> dict[int, int]:
    """Registers of a write request by address; empty for anything else."""
    body = adu[8:]
    if adu[7:8] == b"\x06" and len(body) == 4:
        address, value = struct.unpack(">HH", body)
        return {address: value}
    if adu[7:8] == b"\x10" and len(body) >= 5:
        address, count, _ = struct.unpack_from(">HHB", body)
        if len(body) == 5 + 2 * count:
            return dict(enumerate(struct.unpack(f">{count}H", body[5:]), start=address))
    return {}


def _blocks(plate: Plate) -> tuple[frozenset[int], frozenset[int]]:
    """Addresses whose writing commands a limit, and those that command a setpoint."""
    if plate.legacy:
        setpoint = {AT_124 + 5, *range(AT_124 + 12, AT_124 + 17)}
        return frozenset(range(AT_123 + 5, AT_123 + 10)), frozenset(setpoint)
    return frozenset(range(AT_704 + 14, AT_704 + 20)), frozenset(range(AT_704 + 22, AT_704 + 33))


def _signed(value: int, bits: int = 16) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value


def _modern(registers: Mapping[int, int], plate: Plate) -> _Held:
    """Decode 704: WMaxLimPctEna 14, WMaxLimPct 15; WSetEna 22, WSetMod 23, WSet 24, WSetPct 28, WSetRvrtTms 31."""

    def at(offset: int) -> int:
        return registers.get(AT_704 + offset, 0)

    per_pct_w = plate.p_rated_w / 100.0
    watts = float(_signed(at(24) << 16 | at(25), 32))
    percent_w = _signed(at(28)) * _PCT * per_pct_w
    return _Held(
        limit_w=_signed(at(15)) * _PCT * per_pct_w if at(14) == 1 else None,
        setpoint_w=(watts if at(23) == 1 else percent_w) if at(22) == 1 else None,
        reversion_s=float(at(31) << 16 | at(32)) or float("inf"),
    )


def _legacy(registers: Mapping[int, int], plate: Plate) -> _Held:
    """Decode 123: WMaxLimPct 5, WMaxLim_Ena 9; 124: StorCtl_Mod 5, OutWRte 12, InWRte 13, InOutWRte_RvrtTms 15."""
    per_count_w = plate.p_rated_w / 100.0 * _PCT
    limit_w = _signed(registers.get(AT_123 + 5, 0)) * per_count_w
    mode = registers.get(AT_124 + 5, 0)
    most_w = _signed(registers.get(AT_124 + 12, 0)) * per_count_w if mode & 2 else float("inf")
    least_w = -_signed(registers.get(AT_124 + 13, 0)) * per_count_w if mode & 1 else float("-inf")
    return _Held(
        limit_w=limit_w if registers.get(AT_123 + 9) == 1 else None,
        setpoint_w=min(max(0.0, least_w), most_w) if mode else None,
        reversion_s=float(registers.get(AT_124 + 15, 0)) or float("inf"),
    )

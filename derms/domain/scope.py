"""Scopes: a device, a group of DER, a feeder or everything; and which rows of the fleet are under each."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np

from derms.domain.arrays import BoolArray, IntArray

NAMES_SHOWN = 3
"""Devices that a sentence names before it only counts them."""


class Level(StrEnum):
    """How much a scope takes in."""

    DEVICE = "device"
    GROUP = "group"
    FEEDER = "feeder"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a tag, a lock, a mode or a stop is about; raises ValueError where a name is missing or too much."""

    level: Level
    name: str = ""
    """Id of the device, group or feeder; empty for all."""

    def __post_init__(self) -> None:
        if bool(self.name) == (self.level is Level.ALL):
            raise ValueError(f"a scope of level {self.level} with the name '{self.name}'")

    def __str__(self) -> str:
        return f"{self.level} {self.name}" if self.name else "all devices"


EVERYTHING = Scope(Level.ALL)


@dataclass(frozen=True)
class Places:
    """Where each device of the fleet is now, a row per device."""

    devices: tuple[str, ...]
    """Ids in the order of the fleet."""
    feeders: tuple[str, ...]
    """Feeder of each device; empty for one that no source reaches."""
    groups: Mapping[str, frozenset[str]]
    """Ids of the devices of each group of DER; a device may be in several."""

    def __post_init__(self) -> None:
        if len(self.devices) != len(self.feeders):
            raise ValueError(f"{len(self.devices)} devices and {len(self.feeders)} feeders")

    def __len__(self) -> int:
        return len(self.devices)

    def under(self, scope: Scope) -> BoolArray:
        """Rows under a scope, shape (n,); none for a name that nobody bears."""
        rows: BoolArray
        match scope.level:
            case Level.ALL:
                rows = np.ones(len(self), dtype=np.bool_)
            case Level.FEEDER:
                rows = self._feeder == self._feeder_codes.get(scope.name, -1)
            case Level.GROUP:
                rows = self._mask(self.groups.get(scope.name, frozenset()))
            case Level.DEVICE:
                rows = self._mask(frozenset((scope.name,)))
        return rows

    def overlap(self, one: Scope, other: Scope) -> bool:
        """Whether any device is under both."""
        return bool((self.under(one) & self.under(other)).any())

    def named(self, rows: BoolArray) -> str:
        """The devices of some rows for a sentence: the first few by name, the others counted."""
        ids = [self.devices[row] for row in np.flatnonzero(rows)]
        more = len(ids) - NAMES_SHOWN
        return ", ".join(ids[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")

    def _mask(self, ids: frozenset[str]) -> BoolArray:
        mask = np.zeros(len(self), dtype=np.bool_)
        mask[[self._row[device] for device in ids if device in self._row]] = True
        return mask

    @cached_property
    def _row(self) -> dict[str, int]:
        return {device: row for row, device in enumerate(self.devices)}

    @cached_property
    def _feeder_codes(self) -> dict[str, int]:
        return {feeder: code for code, feeder in enumerate(dict.fromkeys(self.feeders))}

    @cached_property
    def _feeder(self) -> IntArray:
        return np.array([self._feeder_codes[feeder] for feeder in self.feeders], dtype=np.intp)

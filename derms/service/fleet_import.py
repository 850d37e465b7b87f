"""`derms fleet import`: another fleet file in the place of the one in use, whole or not at all.

The new file is read with every check of the fleet file, compared cell by cell with the one in use and, if asked,
with the devices themselves; then it takes the other's name in one step, and the old one stays beside it.
"""

import argparse
import asyncio
import json
import math
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import count
from pathlib import Path

from derms.domain.der import Device
from derms.domain.telemetry import Identity
from derms.errors import ConfigError, FieldError, Problem
from derms.ports import Clock, DeviceDriver, DriverKit, FeederSource, FieldOptions
from derms.service.config import broken_drivers, load_fleet
from derms.service.files import read_csv, read_text

PROBES_AT_ONCE = 50
PROBE_TIMEOUT_S = 5.0
RATING_TOLERANCE = 0.10
"""Part by which a nameplate may differ from its row before it is a mistake."""


@dataclass(frozen=True, slots=True)
class Change:
    """One device that is not as it was; `cells` are empty for one that came or went."""

    id: str
    what: str
    """`added`, `removed`, `changed`."""
    cells: Mapping[str, tuple[str, str]]
    """Old and new text by column."""

    def __str__(self) -> str:
        cells = ", ".join(
            f"{column} {old or '(empty)'} -> {new or '(empty)'}" for column, (old, new) in self.cells.items()
        )
        return f"{self.what:<8} {self.id}" + (f": {cells}" if cells else "")


def difference(old: Mapping[str, Mapping[str, str]], new: Mapping[str, Mapping[str, str]]) -> list[Change]:
    """What changes from one fleet to another, rows by device id and text by column; removed ones last."""
    changes = []
    for name, row in new.items():
        before = old.get(name)
        if before is None:
            changes.append(Change(name, "added", {}))
            continue
        columns = dict.fromkeys([*before, *row])
        cells = {c: (before.get(c, ""), row.get(c, "")) for c in columns if before.get(c, "") != row.get(c, "")}
        if cells:
            changes.append(Change(name, "changed", cells))
    return changes + [Change(name, "removed", {}) for name in old if name not in new]


async def import_fleet(
    options: argparse.Namespace, kit: DriverKit, feeder: FeederSource, clock: Clock, chance: random.Random
) -> int:
    """Do what the command line asks; returns the exit status. Raises ConfigError with every mistake."""
    package = feeder(options.feeder) if options.feeder else None
    found = load_fleet(options.new, kit.names, package, broken_drivers(kit))
    if found.report.problems:
        raise ConfigError(found.report.problems)
    begins = not options.into.exists()
    changes = difference({} if begins else _rows(options.into), _rows(options.new))
    new = {change.id for change in changes if change.what != "removed"}
    if options.probe:
        asked = [device for device in found.devices if device.id in new]
        problems = await probe(asked, kit, clock, chance, file=str(options.new))
        if problems:
            raise ConfigError(problems)
    backup = None
    if changes and not options.dry_run:
        backup = _put(options.into, read_text(options.new), clock.utc())
    _show(options, changes, backup, begins=begins)
    return 0


def _rows(path: Path) -> Mapping[str, Mapping[str, str]]:
    """Text of every row by device id, and by column."""
    table = read_csv(path)
    rows = [dict(zip(table.header, cells, strict=False)) for _, cells in table.rows]
    return {row.get("id", ""): row for row in rows}


def _put(into: Path, text: str, now: datetime) -> Path | None:
    """Give the fleet file a new content in one step; returns where the old one is kept. Raises ConfigError."""
    fresh = into.with_name(f".{into.name}.new")
    backup = None
    try:
        if into.exists():
            backup = _keep(into, now)
        with fresh.open("w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(into)
    except OSError as error:
        wrong = f"cannot be written ({error.strerror})"
        raise ConfigError([Problem(str(into), "file", wrong, "nothing was changed; give a place to write")]) from error
    return backup


def _keep(into: Path, now: datetime) -> Path:
    """A second name for a file, which says when, with a number behind where that is taken; raises OSError."""
    stem = f"{into.stem}-{now:%Y%m%dT%H%M%SZ}"
    for number in count(1):
        backup = into.with_name(stem + (f"-{number}" if number > 1 else "") + into.suffix)
        with suppress(FileExistsError):
            os.link(into, backup)
            break
    return backup


def _show(options: argparse.Namespace, changes: Sequence[Change], backup: Path | None, *, begins: bool) -> None:
    done = bool(changes) and not options.dry_run
    if options.json:
        rows = [asdict(change) for change in changes]
        print(json.dumps({"ok": True, "written": done, "changes": rows, "backup": str(backup) if backup else None}))
        return
    for change in changes:
        print(change)
    counts = [(what, sum(change.what == what for change in changes)) for what in ("added", "removed", "changed")]
    told = ", ".join(f"{count} {what}" for what, count in counts)
    print(f"{told}: " + (f"{options.into} is written" if done else "nothing is written"))
    if begins and options.dry_run:
        print(f"there is no file {options.into} yet; without --dry-run it would be made")
    if backup is not None:
        print(f"the former file is {backup}")


async def probe(
    devices: Sequence[Device], kit: DriverKit, clock: Clock, chance: random.Random, *, file: str
) -> list[Problem]:
    """Ask devices, read only and some at once, who they are; a problem for each that is not what its row says."""
    options = FieldOptions(timeout_s=PROBE_TIMEOUT_S, connect_timeout_s=PROBE_TIMEOUT_S, read_only=True)
    opened = kit.open(devices, clock, options, chance)
    turn = asyncio.Semaphore(PROBES_AT_ONCE)

    async def ask(device: Device) -> list[Problem]:
        async with turn:
            return await _probe(device, opened[device.id], file)

    return [problem for problems in await asyncio.gather(*map(ask, devices)) for problem in problems]


async def _probe(device: Device, driver: DeviceDriver, file: str) -> list[Problem]:
    where = f"device {device.id}"
    try:
        identity = await driver.connect()
    except FieldError as error:
        return [Problem(file, where, str(error), "correct the row, or import without --probe")]
    finally:
        driver.disconnect()
    return [
        Problem(file, f"{where}, column {column}", wrong, right) for column, wrong, right in _judge(device, identity)
    ]


def _judge(device: Device, identity: Identity) -> list[tuple[str, str, str]]:
    """Column, what is wrong and what would be right, for every rating that is not the nameplate's."""
    pairs = (
        ("p_rated_kw", "kW", device.p_rated_w, identity.p_rated_w),
        ("energy_kwh", "kWh", device.energy_wh, identity.energy_wh),
    )
    return [
        (column, f"{told / 1e3:g} {unit}, and the device says {found / 1e3:g} {unit}", f"was {found / 1e3:g} meant?")
        for column, unit, told, found in pairs
        if device.is_der and told > 0 and math.isfinite(found) and abs(told - found) > RATING_TOLERANCE * found
    ]

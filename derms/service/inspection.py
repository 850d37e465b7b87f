"""What `derms check` looks at beyond the site's files: records of a newer version, and what polling costs each link."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from derms.domain.der import Fleet
from derms.domain.settings import FieldSettings
from derms.errors import ConfigError, Problem
from derms.field.journal import VERSION
from derms.field.plan import bytes_per_month, plan_for

JOURNAL = "commands.journal"
_HEADER_MAX = 4096
"""Bytes in which the first line of a journal ends."""


@dataclass(frozen=True, slots=True)
class LinkCost:
    """One class of devices that are polled alike."""

    name: str
    devices: int
    poll_s: float
    bytes: float
    """Of one device in 30 days, both directions."""

    def __str__(self) -> str:
        each = f"every {self.poll_s:g} s, {self.bytes / 1e6:.0f} MB a month each"
        return f"polling {self.name}: {self.devices} {'device' if self.devices == 1 else 'devices'} {each}"


def link_costs(fleet: Fleet, settings: FieldSettings) -> list[LinkCost]:
    """A row per class of polling that the fleet has, the largest class first."""
    plans = Counter(plan_for(device, settings) for device in fleet.devices)
    return [LinkCost(plan.name, count, plan.poll_s, bytes_per_month(plan)) for plan, count in plans.most_common()]


def find_newer_records(storage: Path) -> None:
    """Refuse a journal that a newer version wrote; raises ConfigError for that, and for one that cannot be read."""
    path = storage / JOURNAL
    try:
        with path.open("rb") as file:
            first = file.readline(_HEADER_MAX)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        right = "give the service's user leave to read and write there"
        raise ConfigError([Problem(str(path), "file", f"cannot be read ({error.strerror})", right)]) from error
    version = _version(first)
    if version > VERSION:
        wrong = f"written by version {version} of the journal, and this product knows version {VERSION}"
        right = "run the newer product, or name another [storage] directory"
        raise ConfigError([Problem(str(path), "line 1", wrong, right)])


def _version(line: bytes) -> int:
    """The version that a journal's first line names; 0 for a line that is none, which the journal itself judges."""
    try:
        fields = json.loads(line.partition(b" ")[2])
    except (ValueError, RecursionError):
        return 0
    version = fields.get("version") if isinstance(fields, dict) else None
    return version if isinstance(version, int) else 0

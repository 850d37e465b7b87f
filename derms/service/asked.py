"""What decision people name: by its number, as the last, or by a time of the site's own clocks."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from derms.errors import ConfigError, HistorianError, Problem
from derms.historian.store import Store, StoredDecision
from derms.service.files import did_you_mean

LAST = "last"
HOW_NAMED = f"a plan's number, {LAST}, or a time such as 2026-04-15T14:05"
"""How people name a decision."""
NUMBER_DIGITS = 18
"""A number with more digits is no plan's."""
NO_NUMBER = -1
LONG_AFTER = timedelta(hours=1)
"""A decision that is so much older than the time it was asked by is said to be."""
COMMAND_LINE = "command line"
"""What problems call it, where others name a file."""
TIME_TEXT = "%Y-%m-%d %H:%M:%S %Z"
_REMEDIES = (
    ("locked", "try again: another program is writing"),
    ("readonly", "run the command as a user who may write in that folder"),
    ("unable to open", "run the command as a user who may read and write in that folder"),
    ("", "put a backup of the file in its place, or give another decision"),
)
"""Words of the error when records cannot be read, and the way out; the first that fits."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A decision as it was named: by its number, by the time at which it was the latest, or as the last of all."""

    number: int | None = None
    until: datetime | None = None
    notes: tuple[str, ...] = ()
    """How a time was read that could be read otherwise."""


def asked(word: str, zone: tzinfo) -> Asked:
    """What a word names; a time without offset is local. Raises ConfigError for a word that names nothing."""
    if word == LAST:
        return Asked()
    if word.isdecimal():
        return Asked(number=int(word) if len(word) <= NUMBER_DIGITS else NO_NUMBER)
    try:
        at = datetime.fromisoformat(word)
        if at.tzinfo is not None:
            return Asked(until=at.astimezone(UTC))
        local = at.replace(tzinfo=zone)
        return Asked(until=local.astimezone(UTC), notes=_which(local))
    except (ValueError, OverflowError):
        wrong = f"'{word}' is nothing that a decision can be named by"
        raise ConfigError([Problem(COMMAND_LINE, "DECISION", wrong, f"give {HOW_NAMED}")]) from None


def _which(local: datetime) -> tuple[str, ...]:
    """How a time was taken that the local clocks show twice, or never."""
    second = local.replace(fold=1)
    if local.utcoffset() == second.utcoffset():
        return ()
    shown, taken = f"{local:%Y-%m-%d %H:%M}", local.astimezone(UTC).astimezone(local.tzinfo)
    if taken.replace(tzinfo=None) == local.replace(tzinfo=None):
        return (
            f"clocks show {shown} twice: the first is meant, {local:%H:%M %Z}; add {_offset(second)} for the second",
        )
    return (f"clocks never show {shown}, they are put forward: {taken:%H:%M %Z} is meant",)


def _offset(at: datetime) -> str:
    return at.isoformat()[-6:]


def look_up(
    store: Store, path: Path, word: str, zone: tzinfo, now: datetime | None
) -> tuple[StoredDecision | None, tuple[str, ...], list[Problem]]:
    """The decision that a word names, what there is to say of that, and what is wrong where there is none.

    `now` is the wall clock, by which a time is to come; None where nobody knows.

    Raises
    ------
    HistorianError
        The records cannot be read.
    """
    try:
        wanted = asked(word, zone)
    except ConfigError as error:
        return None, (), error.problems
    found = store.latest(plan_id=wanted.number, until=wanted.until)
    if found is not None:
        return found, (*wanted.notes, *_late(found, wanted, zone, now)), []
    last, first = store.latest(), store.first_decision_at()
    wrong, right = "there is none like that", "there is none at all yet"
    if last is not None and first is not None:
        right = f"the last one is {last.plan.id}"
        if wanted.until is not None:
            wrong = "none had been made by then"
            right = f"the first one was made {first.astimezone(zone):{TIME_TEXT}}; {right}"
    return None, (), [Problem(str(path), f"decision '{word}'", wrong, right)]


def _late(found: StoredDecision, wanted: Asked, zone: tzinfo, now: datetime | None) -> tuple[str, ...]:
    """What to say of a time at which the latest decision had long been made."""
    if wanted.until is None:
        return ()
    made = f"{found.plan.made_at.astimezone(zone):{TIME_TEXT}}"
    if now is not None and wanted.until > now:
        return (f"that time is still to come: this is the last decision so far, made {made}",)
    if wanted.until - found.plan.made_at > LONG_AFTER:
        return (f"nothing was decided in the hour before that time: the last decision before it was made {made}",)
    return ()


def unknown_device(der: str | None, device_ids: tuple[str, ...]) -> list[Problem]:
    """A problem when a device was not in the fleet of a decision."""
    if der is None or der in device_ids:
        return []
    right = did_you_mean(der, device_ids, "give the id of one that was")
    return [Problem(COMMAND_LINE, "--der", f"no device '{der}' was in the fleet then", right)]


def unreadable(path: Path, word: str, error: HistorianError) -> ConfigError:
    """Records that cannot be read, with a way out."""
    right = next(right for words, right in _REMEDIES if words in str(error))
    return ConfigError([Problem(str(path), f"decision '{word}'", f"cannot be read: {error}", right)])

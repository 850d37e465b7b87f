"""What a gateway has for the database: outcomes and events in the one order in which they became durable."""

from dataclasses import dataclass

from derms.domain.alarm import Event
from derms.domain.dispatch import CommandRecord

Entry = CommandRecord | Event


@dataclass(frozen=True, slots=True)
class Position:
    """How far one journal's entries have been taken."""

    origin: str = ""
    place: int = 0


@dataclass(frozen=True, slots=True)
class Records:
    """Some entries of a journal, without a gap between them."""

    origin: str
    """Of the journal."""
    first: int
    """Place of the first of them; where it is beyond the one asked for, what lies between is in the files only."""
    entries: tuple[Entry, ...]
    left: int
    """Entries behind these."""
    closed: bool = False
    """The gateway has ended: none will come behind those."""

    @property
    def until(self) -> Position:
        """Where the next ones start."""
        return Position(self.origin, self.first + len(self.entries))

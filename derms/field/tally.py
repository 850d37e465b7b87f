"""The tally of a day: how often each device's registers have been written, by quantity. Days are those of UTC."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from derms.domain.dispatch import Command, Quantity

Place = tuple[str, Quantity]
"""Device id, and what is set."""


def reaches_the_wire(command: Command) -> bool:
    """Whether a command writes anything: one of which the guards left nothing, NaN, does not."""
    return command.value_w is None or command.value_w == command.value_w


@dataclass(slots=True)
class Tally:
    """Writes of one day; a later day begins at nothing."""

    day: date = date.min
    writes: dict[Place, int] = field(default_factory=dict)

    def add(self, at: datetime, place: Place) -> None:
        """Count a write; one of an earlier day, as after a clock that was set back, counts for the day that is on."""
        day = at.astimezone(UTC).date()
        if day > self.day:
            self.day, self.writes = day, {}
        self.writes[place] = self.writes.get(place, 0) + 1

    def count(self, at: datetime, place: Place) -> int:
        """Writes of a place on the day of a time."""
        return self.writes.get(place, 0) if at.astimezone(UTC).date() <= self.day else 0

    def copy(self) -> "Tally":
        return Tally(self.day, dict(self.writes))

"""What the orders of a moment say about each device, as columns that are made once and used until something changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from derms.control import latch, modes, permissives
from derms.control.authority import Rank
from derms.control.guards import PowerBounds
from derms.control.modes import CEILING
from derms.domain.arrays import BoolArray, IntArray
from derms.domain.mode import Mode
from derms.domain.scope import Places
from derms.domain.tags import Act
from derms.field.orders_file import Kept


@dataclass(frozen=True)
class Laid:
    """What the orders of a moment say, in columns of shape (n,)."""

    kept: Kept
    places: Places
    site: Mode

    @cached_property
    def levels(self) -> IntArray:
        """Level of each device's mode, no higher than the site file allows."""
        found = modes.levels(self.kept.areas, self.places, self.kept.start)
        return np.minimum(found, CEILING[self.site].level)

    @cached_property
    def stopped(self) -> BoolArray:
        return latch.stopped(self.kept.latches, self.places)

    @cached_property
    def stop_bounds(self) -> PowerBounds:
        return latch.stop_bounds(self.kept.latches, self.places)

    @cached_property
    def tag_bounds(self) -> PowerBounds:
        return permissives.tag_bounds(self.kept.board, self.places)

    @cached_property
    def forbidden(self) -> Mapping[Act, BoolArray]:
        """Devices to which tags forbid each act."""
        return {act: self.kept.board.forbids(act, self.places) for act in Act}

    def passing(self, rank: Rank, *, approved: bool = False) -> BoolArray:
        """Devices that a rank's commands reach: no mode is in the way, and no tag."""
        passing = modes.passing(rank, self.levels, self.site, approved=approved)
        rows: BoolArray = passing & ~permissives.barred(rank, self.kept.board, self.places)
        return rows

    @cached_property
    def alone(self) -> BoolArray:
        """Devices that get nothing from plans and people, and keep what they hold.

        A stop has them, or a tag keeps them from energizing, which letting them go might do.
        """
        alone: BoolArray = self.stopped | self.forbidden[Act.ENERGIZE]
        return alone

"""Which process a feeder's engine runs in: text of this product in this one, any other in a confined one."""

from collections.abc import Mapping

from derms.domain.grid import FeederPackage
from derms.grid.engine import Engine
from derms.grid.opendss import FeederEngine
from derms.grid.remote import ConfinedEngine


def open_engine(package: FeederPackage, *, line_scale: Mapping[str, float] | None = None) -> Engine:
    """The engine of a feeder; parameters and errors as of `FeederEngine`."""
    if package.own:
        return FeederEngine(package, line_scale=line_scale)
    return ConfinedEngine(package, line_scale=line_scale)

"""Plug-ins by entry point: drivers, feeders and the demo live in packages that this one never imports.

Nothing heavy is imported here: the `derms` command answers before libraries are loaded.
"""

import random
from collections.abc import Callable, Coroutine, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from derms.errors import DermsError

if TYPE_CHECKING:
    from derms.ports import Clock, DriverKit, FeederSource, FieldOptions, ScadaKit

GROUP = "derms.plugins"

DeviceWork = Callable[["Clock", random.Random], Coroutine[Any, Any, int]]
"""What `derms device` does, given time and chance; ends with the exit status."""


class PluginMissing(DermsError):
    """No installed package offers a plug-in that is needed."""


def _load(name: str) -> Any:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise PluginMissing(f"no package offers '{name}' in the entry point group {GROUP}; reinstall the product")
    return next(iter(found)).load()


def drivers() -> "DriverKit":
    """The drivers that this installation has."""
    kit: DriverKit = _load("drivers")()
    return kit


def feeder_source() -> "FeederSource":
    """Loads feeders by id or path."""
    source: FeederSource = _load("feeders")
    return source


def feeder_skeleton() -> Callable[[Path], str]:
    """Makes the text of a manifest for a bare circuit."""
    skeleton: Callable[[Path], str] = _load("feeder_skeleton")
    return skeleton


def scada(options: "FieldOptions", chance: random.Random) -> "ScadaKit":
    """The utility's system over Modbus."""
    kit: ScadaKit = _load("scada")(options, chance)
    return kit


def demo() -> Callable[[Sequence[str]], int]:
    """The demo's main function; raises DermsError without what draws its report."""
    try:
        main: Callable[[Sequence[str]], int] = _load("demo")
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        raise DermsError("the demo draws its report with matplotlib: pip install 'derms[planner]'") from error
    return main


def device() -> Callable[[Sequence[str]], DeviceWork]:
    """Reads the arguments of `derms device`."""
    command: Callable[[Sequence[str]], DeviceWork] = _load("device")
    return command

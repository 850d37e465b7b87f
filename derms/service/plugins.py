"""Plug-ins by entry point: drivers, feeders and the demo live in packages that this one never imports."""

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

from derms.errors import DermsError
from derms.ports import DriverKit, FeederSource

GROUP = "derms.plugins"


class PluginMissing(DermsError):
    """No installed package offers a plug-in that is needed."""


def _load(name: str) -> Any:
    found = entry_points(group=GROUP, name=name)
    if not found:
        raise PluginMissing(f"no package offers '{name}' in the entry point group {GROUP}; reinstall the product")
    return next(iter(found)).load()


def drivers() -> DriverKit:
    """The drivers that this installation has."""
    kit: DriverKit = _load("drivers")()
    return kit


def feeder_source() -> FeederSource:
    """Loads feeders by id or path."""
    source: FeederSource = _load("feeders")
    return source


def demo() -> Callable[[Sequence[str]], int]:
    """The demo's main function."""
    main: Callable[[Sequence[str]], int] = _load("demo")
    return main

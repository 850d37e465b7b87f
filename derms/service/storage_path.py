"""Where the gateway of a site listens: what a command needs of a site file, without loading all that it names."""

import tomllib
from pathlib import Path

from derms.errors import ConfigError, Problem
from derms.link.local import SOCKET
from derms.service.files import read_text
from derms.service.settings import StorageTable


def storage_of(path: Path) -> Path:
    """The storage folder of a site file; raises ConfigError where that cannot be told."""
    try:
        table = tomllib.loads(read_text(path)).get("storage", {})
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        problem = Problem(str(path), "file", f"is not TOML ({error})", "see what derms check says")
        raise ConfigError([problem]) from error
    folder = table.get("directory", StorageTable().directory) if isinstance(table, dict) else None
    if not isinstance(folder, str):
        raise ConfigError([Problem(str(path), "[storage] directory", "is not a text", "name a folder")])
    return path.parent / folder


def socket_of(path: Path) -> Path:
    """The socket of the gateway of a site file."""
    return storage_of(path) / SOCKET

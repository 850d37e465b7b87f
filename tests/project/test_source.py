"""What holds for every source file: size, words, clocks, chance, broad excepts, and who may import which library."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("derms", "drivers", "feeders", "hil")
LINES_MAX = 800

CLOCKS = {
    *("time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.process_time"),
    *("time.sleep", "time.localtime", "time.gmtime"),
    *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today", "datetime.date.today"),
}
CLOCK_OWNERS = {
    "derms/service/clock.py": "the system clock",
    "derms/service/paced.py": "the loop that runs faster than real time",
    "hil/demo.py": "how long a demo took",
    "derms/grid/remote.py": "how long a confined process may take to answer",
    "derms/link/local.py": "how long a command waits for an answer",
    "derms/service/stop_command.py": "how long a command follows a stop",
}
SEEDED = {"random.Random", "numpy.random.default_rng", "numpy.random.SeedSequence", "numpy.random.Generator"}
UNSEEDED_OWNER = "derms/service/cli.py"
"""In real time back-off jitter must differ from process to process."""

LIBRARY_OWNERS: dict[str, str | tuple[str, ...]] = {
    "altdss": "derms/grid/dss.py",
    "cvxpy": "derms/optimize/horizon.py",
    "sqlalchemy": "derms/historian/",
    "apscheduler": "derms/service/cadence.py",
    "pvlib": "derms/forecast/pv.py",
    "sklearn": "derms/forecast/",
    "piqp": "derms/optimize/",
    "pymodbus": "drivers/modbus/",
    "matplotlib": ("hil/", "derms/grid/one_line.py"),
}
"""Each of these is imported in one place only, so that it can be replaced there."""

SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def _trees() -> tuple[tuple[str, ast.Module], ...]:
    return tuple((_name(path), ast.parse(path.read_text(encoding="utf8"))) for path in SOURCES)


@cache
def _nodes(tree: ast.Module) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree))


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Local names and the dotted names they stand for."""
    for node in _nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield (
                    alias.asname or alias.name.partition(".")[0],
                    alias.name if alias.asname else alias.name.partition(".")[0],
                )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def _dotted(node: ast.expr) -> str:
    """`a.b.c` as it is written; empty for what is not a name and its attributes."""
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value)
        return owner and f"{owner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


@cache
def _uses(tree: ast.Module) -> tuple[tuple[str, bool], ...]:
    """Dotted names of everything called or handed on, and whether it is called without an argument."""
    known = dict(_imports(tree))
    bare = {id(node.func): not (node.args or node.keywords) for node in _nodes(tree) if isinstance(node, ast.Call)}
    found = []
    for node in _nodes(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            first, dot, rest = _dotted(node).partition(".")
            if first in known:
                found.append((f"{known[first]}{dot}{rest}", bare.get(id(node), False)))
    return tuple(found)


def _broad(tree: ast.Module) -> int:
    handlers = [node.type for node in _nodes(tree) if isinstance(node, ast.ExceptHandler)]
    names = [
        {sub.id for sub in ast.walk(kind) if isinstance(sub, ast.Name)} if kind else {"Exception"} for kind in handlers
    ]
    return sum(bool(found & {"Exception", "BaseException"}) for found in names)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.monotonic()", "time.monotonic"),
        ("from time import time as t\nx = t()", "time.time"),
        ("import datetime as d\nd.datetime.now()", "datetime.datetime.now"),
        ("from datetime import datetime\nfactory = datetime.now", "datetime.datetime.now"),
        ("import numpy as np\nnp.random.rand(3)", "numpy.random.rand"),
    ],
)
def test_the_search_sees_through_aliases(source: str, found: str) -> None:
    assert found in {name for name, _ in _uses(ast.parse(source))}


def test_only_the_clocks_ask_what_time_it_is() -> None:
    askers = {name for name, tree in _trees() if any(use in CLOCKS for use, _ in _uses(tree))}
    assert askers == set(CLOCK_OWNERS)


def test_chance_is_always_handed_in_with_its_seed() -> None:
    found = []
    for name, tree in _trees():
        for use, without_seed in _uses(tree):
            drawn = re.fullmatch(r"(random|numpy\.random)\.\w+", use) and use not in SEEDED
            if drawn or (use in SEEDED and without_seed and name != UNSEEDED_OWNER):
                found.append((name, use))
    assert found == []


def test_one_supervisor_catches_broadly_and_nobody_else() -> None:
    assert {name: count for name, tree in _trees() if (count := _broad(tree))} == {"derms/service/supervisor.py": 1}


@pytest.mark.parametrize(("library", "owner"), LIBRARY_OWNERS.items())
def test_a_library_is_imported_in_one_place(library: str, owner: str | tuple[str, ...]) -> None:
    importers = {
        name for name, tree in _trees() if any(full.partition(".")[0] == library for _, full in _imports(tree))
    }
    assert importers
    assert {name for name in importers if not name.startswith(owner)} == set()


def test_modules_are_short_and_begin_by_saying_what_they_are() -> None:
    for name, tree in _trees():
        text = (ROOT / name).read_text(encoding="utf8")
        assert len(text.splitlines()) <= LINES_MAX, name
        assert not text.strip() or ast.get_docstring(tree), f"{name} has no docstring"


def test_nothing_is_left_for_later() -> None:
    words = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|HA" + r"CK)\b")
    folders = [ROOT / name for name in (*PACKAGES, "tests", "docs", ".ci")]
    texts = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".md", ".toml", ".dss")]
    texts += [ROOT / name for name in ("Makefile", "README.md", "CHANGELOG.md", "pyproject.toml", ".ci/run")]
    assert [_name(path) for path in texts if words.search(path.read_text(encoding="utf8"))] == []


def test_the_licence_is_there() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf8")
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_plug_ins_and_commands_load() -> None:
    plugins = {point.name: point.load() for point in entry_points(group="derms.plugins")}
    assert set(plugins) == {"drivers", "scada", "feeders", "feeder_skeleton", "device", "demo"}
    assert "sunspec" in plugins["drivers"]().names
    assert plugins["feeders"]("ieee123").id == "ieee123"
    commands = {
        point.name: point.load()
        for point in entry_points(group="console_scripts")
        if point.dist and point.dist.name == "derms"
    }
    assert set(commands) == {"derms", "derms-hil"}
    assert all(callable(command) for command in [*commands.values(), plugins["demo"]])

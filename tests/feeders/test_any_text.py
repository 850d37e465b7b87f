"""Whatever a circuit's text says, it is read or told: nothing is raised but the problems themselves."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derms.errors import ConfigError, Problem
from feeders.catalog import load
from feeders.importing import skeleton
from tests.feeders.packages import CIRCUIT, package

KINDS = (
    "line",
    "load",
    "transformer",
    "capacitor",
    "regcontrol",
    "storage",
    "linecode",
    "xfmrcode",
    "swtcontrol",
    "circuit",
)
NAMES = (
    "bus1",
    "bus2",
    "buses",
    "wdg",
    "windings",
    "phases",
    "kv",
    "kvs",
    "conn",
    "like",
    "enabled",
    "transformer",
    "bus",
)
VALUES = (
    *("sub", "corner", "corner.1.2", "home.1", "a.7.8", "b.-1", "3", "0", "-2", "1e400", "nan", "99999999999", "yes"),
    *("(1 2)", "[sub corner]", "(4.16 3 sqrt /)", "delta", "trunk", "t1", '""', "'", "(", "@x", "ü", "٣"),
)
COMMANDS = (
    *("New", "Edit", "~", "More", "Open", "Close", "Disable", "BatchEdit", "Select", "SetkVBase", "Redirect", "Clear"),
    *("Set", "Show", "?", "", "/*", "*/", "!", "n", "ca"),
)

WORDS = st.one_of(
    st.builds("{}.{}".format, st.sampled_from(KINDS), st.sampled_from(("trunk", "t1", "home", "x", ".*", "(a+)+$"))),
    st.builds("{}={}".format, st.sampled_from(NAMES), st.sampled_from(VALUES)),
    st.sampled_from((*VALUES, ",", "=", "==", "master.dss")),
    st.text(max_size=8),
)
LINES = st.builds(
    lambda command, words: " ".join([command, *words]), st.sampled_from(COMMANDS), st.lists(WORDS, max_size=6)
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(lines=st.lists(LINES, max_size=12), place=st.integers(0, CIRCUIT.count("\n")))
def test_any_text_is_read_or_told(lines: list[str], place: int) -> None:
    around = CIRCUIT.split("\n")
    text = "\n".join([*around[:place], *lines, *around[place:]])
    with TemporaryDirectory() as folder:
        path = package(Path(folder), "")
        (path / "master.dss").write_bytes(text.encode("utf8", "surrogatepass"))
        for problem in (*told(lambda: load(folder)), *told(lambda: skeleton(path / "master.dss"))):
            assert problem.wrong
            assert problem.right


def told(read: Callable[[], object]) -> list[Problem]:
    try:
        read()
    except ConfigError as error:
        return error.problems
    return []

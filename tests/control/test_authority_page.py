"""The tables of docs/authority.md are those of the code."""

from collections.abc import Mapping
from pathlib import Path

from derms.control.authority import HOLD_MAX_S, Rank
from derms.control.degraded import LADDER
from derms.control.guards import GUARDS
from derms.control.latch import APPROVAL_S
from derms.control.modes import PASSES, ControlMode
from derms.control.permissives import SELECT_S
from derms.control.stopping import WAYS
from derms.domain.tags import FORBIDS, Act

PAGE = (Path(__file__).parents[2] / "docs" / "authority.md").read_text(encoding="utf8")


def _table(heading: str) -> Mapping[str, list[str]]:
    """The first table under a heading: the other cells of each row by its first."""
    section = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[2:]}


def test_what_each_tag_forbids() -> None:
    told = {tag: cells[0] for tag, cells in _table("Tags").items()}
    assert told.pop("caution").startswith("nothing")
    assert told == {kind: ", ".join(act for act in Act if act in acts) for kind, acts in FORBIDS.items() if acts}


def test_the_guards_in_their_order() -> None:
    assert list(_table("Guards")) == [name for name, _ in GUARDS]


def test_the_ranks_and_whom_each_mode_lets_pass() -> None:
    ranks = ", ".join(rank.label for rank in Rank)
    assert ranks.capitalize() in PAGE
    told, before = _table("Modes"), frozenset[Rank]()
    assert list(told) == list(ControlMode)
    for mode in ControlMode:
        added = ", ".join(rank.label for rank in Rank if rank in PASSES[mode] - before)
        assert told[mode][0].removeprefix("and ") == added or "once approved" in told[mode][0]
        before = PASSES[mode]


def test_the_rungs_of_the_degraded_ladder() -> None:
    def cells(enter_s: float, leave_s: float, *allowed: bool) -> list[str]:
        times = [f"{time_s:.0f} s" if time_s else "at once" for time_s in (enter_s, leave_s)]
        return [*times, *("yes" if yes else "no" for yes in allowed)]

    assert dict(_table("Degraded ladder")) == {
        step.rung.name.lower().replace("_", " "): cells(step.enter_s, step.leave_s, step.setpoints, step.schedules)
        for step in LADDER
    }


def test_what_each_stop_tries() -> None:
    words = {
        how: [", ".join(means.name.lower().replace("_", " ") for means in way.ladder)] for how, way in WAYS.items()
    }
    assert dict(_table("Stops")) == {str(how): tried for how, tried in words.items()}


def test_the_times() -> None:
    assert f"a selection ends after {SELECT_S:.0f} s" in PAGE
    assert f"at most {HOLD_MAX_S / 3600:.0f} h ahead" in PAGE
    assert f"lasts at most {HOLD_MAX_S / 3600:.0f} h" in PAGE
    assert f"within {APPROVAL_S / 60:.0f} minutes" in PAGE

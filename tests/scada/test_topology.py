"""What the utility tells of switches reaches the feeder's state, the decision and the log, each change once."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from derms.control.cycle import ControlState, Decision
from derms.control.signs import SignChanges
from derms.domain.dispatch import Dispatch
from derms.domain.grid import GridState, SwitchState, Topology
from derms.domain.quality import Quality
from derms.domain.scada import PointKind, PointValue, ScadaPoint, ScadaReading, head_phases
from derms.historian.replay import pack, unpack
from derms.scada.topology import as_operated, changes, with_doubt
from tests.optimize.territory import territory
from tests.scada.rig import SW1, SW7, TAP, plan_of

AT = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)


def reading(points: tuple[ScadaPoint, ...], values: Mapping[str, tuple[float, Quality]]) -> ScadaReading:
    known = {id_: PointValue(value, quality, AT, AT, 0.0) for id_, (value, quality) in values.items()}
    return ScadaReading(AT, points, known)


def told(sw1: float, sw7: float, quality: Quality = Quality.GOOD) -> Topology:
    return reading((SW1, SW7, TAP), {"sw1": (sw1, quality), "sw7": (sw7, quality)}).topology


NORMAL = told(SwitchState.CLOSED, SwitchState.OPEN)


def state(quality: Quality = Quality.GOOD) -> GridState:
    one = np.ones(3)
    return GridState("ieee123", AT, one, ("1.1", "1.2", "1.3"), one, one, one, one, one, 0.0, quality, 0)


@pytest.mark.parametrize(
    ("topology", "quality"),
    [
        (Topology(), Quality.GOOD),
        (NORMAL, Quality.GOOD),
        (told(SwitchState.OPEN, SwitchState.OPEN), Quality.SUSPECT),
        (told(SwitchState.INTERMEDIATE, SwitchState.OPEN), Quality.SUSPECT),
        (told(SwitchState.CLOSED, SwitchState.OPEN, Quality.STALE), Quality.SUSPECT),
    ],
)
def test_the_state_is_suspect_while_the_model_may_not_be_what_stands_outside(
    topology: Topology, quality: Quality
) -> None:
    assert as_operated(state(), topology).quality is quality
    assert as_operated(state(Quality.STALE), topology).quality is Quality.STALE
    assert as_operated(state(), topology).topology is topology


def test_stale_switches_are_unknown_whatever_they_last_were() -> None:
    topology = told(SwitchState.CLOSED, SwitchState.CLOSED, Quality.STALE)
    assert set(topology.switches.values()) == {SwitchState.UNKNOWN}
    assert (topology.unknown, topology.abnormal) == (("line.sw1", "line.sw7"), ())
    assert topology.quality is Quality.STALE


def test_points_that_nobody_has_told_yet_are_unknown_too() -> None:
    assert reading((SW1,), {}).topology.unknown == ("line.sw1",)
    assert reading((SW1,), {}).topology.quality is Quality.MISSING


PORTFOLIO = territory(ders=1, feeders=1, congested=0, seed=1)


def decision(reason: str = "") -> Decision:
    nothing = np.full((1, 2), np.nan)
    dispatch = Dispatch(1, AT, 0.0, np.array([0.0, 1.0]), nothing, nothing)
    plan = replace(plan_of([2e6]), reason=reason)
    return Decision(
        plan=plan,
        dispatch=dispatch,
        state=ControlState(),
        rejected=(),
        portfolio=PORTFOLIO,
        fleet_plan=None,
        caps=np.ones(1),
        sign_changes=SignChanges(0.0, 0.0),
    )


def test_a_decision_says_that_it_was_made_with_a_model_in_doubt() -> None:
    doubt = told(SwitchState.OPEN, SwitchState.UNKNOWN)
    assert with_doubt(decision(), doubt).plan.reason == (
        "switches not known: line.sw7; switches not as in the model: line.sw1"
    )
    assert with_doubt(decision("no solver"), doubt).plan.reason.startswith("no solver | switches not known")
    assert with_doubt(decision(), NORMAL).plan.reason == ""


def test_each_change_of_switches_is_one_event_however_many_move() -> None:
    both_unknown = told(SwitchState.UNKNOWN, SwitchState.UNKNOWN)
    story = (Topology(), NORMAL, both_unknown, both_unknown, told(SwitchState.OPEN, SwitchState.OPEN), NORMAL)
    kinds = [
        [event.kind for event in changes(before, as_operated(state(), after))] for before, after in pairwise(story)
    ]
    assert kinds == [[], ["switch-unknown"], [], ["switch-abnormal", "switch-normal"], ["switch-normal"]]


def test_a_topology_is_stored_with_the_decision_and_comes_back_equal() -> None:
    topology = told(SwitchState.OPEN, SwitchState.INTERMEDIATE)
    kept = unpack(pack(Topology(topology.quality, topology.switches, {}, topology.unknown, topology.abnormal)))
    assert (kept.switches, kept.unknown, kept.quality) == (topology.switches, topology.unknown, topology.quality)
    assert isinstance(kept.switches["line.sw1"], SwitchState)


def test_a_total_at_the_head_is_spread_like_the_model_and_phases_stay_as_told() -> None:
    np.testing.assert_allclose(head_phases([6e5], np.array([1.0, 2.0, 3.0])), [1e5, 2e5, 3e5])
    np.testing.assert_allclose(head_phases([6e5], np.array([1.0, -1.0, 3.0])), [2e5, 2e5, 2e5])
    np.testing.assert_allclose(head_phases([1.0, 2.0, 3.0], np.ones(3)), [1.0, 2.0, 3.0])
    assert np.isnan(head_phases((), np.ones(3))).all()


def test_net_load_in_parts_is_known_only_when_every_part_is() -> None:
    parts = tuple(ScadaPoint(id=id_, kind=PointKind.NET_LOAD, element=id_, where=id_) for id_ in ("north", "south"))
    good = {"north": (1e6, Quality.GOOD), "south": (2e6, Quality.GOOD)}
    assert reading(parts, good).net_load_w == 3e6
    assert np.isnan(reading(parts, {**good, "south": (2e6, Quality.STALE)}).net_load_w)

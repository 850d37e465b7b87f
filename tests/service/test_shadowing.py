"""What is counted of a feeder while it is watched, estimate by estimate and plan by plan."""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from derms.control.modes import ControlMode, Scorecard
from derms.control.scorecard import Hour
from derms.domain.dispatch import Dispatch
from derms.domain.grid import GridState, Topology
from derms.domain.plan import PlanSource
from derms.domain.presence import BrainTold
from derms.domain.quality import Quality
from derms.domain.scada import PointValue, ScadaReading
from derms.domain.scope import Level, Scope
from derms.domain.settings import EstimateSettings, PlanSettings
from derms.errors import NotConverged
from derms.grid.estimate import Voltages
from derms.historian.store import Store
from derms.link.messages import PACKER, Observed, Tell
from derms.service.shadowing import LASTS_S, Shadowing
from tests.control.values import NOON, fleet_of, forecast_of, snapshot_of, strain_of
from tests.scada.rig import LOAD, HandClock

FEEDER = Scope(Level.FEEDER, "f1")
FLEET = fleet_of(2, 1, 1)
DER_ROWS = (0, 1, 2)
SOC = (0.5, 0.5, np.nan, np.nan)
THREE = np.zeros(3)
STATE = GridState(
    "f1", NOON, np.array([1.0, 1.02]), ("1.1", "2.1"), THREE, THREE, THREE, THREE, THREE, 0.0, Quality.GOOD, 0
)
GOOD, SUSPECT, ASLEEP = Quality.GOOD, Quality.SUSPECT, Quality.EXPECTED_SILENT
ALL_GOOD = (GOOD,) * 4
EVERY_S = 60.0


def _dispatch(*set_w: float, limit_w: float = np.nan) -> Dispatch:
    """For two batteries and one inverter, as long as a test takes."""
    setpoints = np.array([*set_w, np.nan, np.nan])
    limits = np.array([np.nan, np.nan, limit_w, np.nan])
    times = np.array([0.0, 1e6])
    return Dispatch(1, NOON, 1e6, times, np.column_stack([setpoints] * 2), np.column_stack([limits] * 2))


@dataclass
class Rig:
    """A feeder f1 with a reading of its voltages at two points."""

    folder: Path
    digest: str = "model 1"
    clock: HandClock = field(default_factory=lambda: HandClock(NOON))
    mode: ControlMode = ControlMode.SHADOW
    p_w: tuple[float, ...] = (0.0, 0.0, 20e3, np.nan)
    quality: tuple[Quality, ...] = ALL_GOOD
    net_w: float = 9e6
    shadowing: Shadowing = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(f"sqlite:///{self.folder / 'db'}", FLEET)
        self.start()

    def start(self) -> None:
        """A brain begins."""
        package = SimpleNamespace(id="f1", digest=self.digest)
        site: Any = SimpleNamespace(
            package=package, fleet=FLEET, plan=PlanSettings(), estimate=EstimateSettings(every_s=EVERY_S)
        )
        self.shadowing = Shadowing(site, DER_ROWS, self.store, self.clock)

    def seen(self) -> Observed:
        at = self.clock.utc()
        value = PointValue(self.net_w, GOOD, at, at, self.clock.monotonic_s())
        return Observed(
            snapshot=snapshot_of(self.p_w, soc_frac=SOC, quality=self.quality, at=at),
            reading=ScadaReading(at, (LOAD,), {LOAD.id: value}),
            commandable=np.ones(len(FLEET), dtype=np.bool_),
            modes={"f1": self.mode},
            writes=0,
            failed=0,
            alarms=0,
        )

    def estimate(
        self, times: int = 1, *, v_pu: tuple[float, float] = (1.0, 1.02), harm: float = math.nan, doubt: str = ""
    ) -> None:
        """So many estimates, a minute after each other."""
        topology = Topology(unknown=(doubt,) if doubt else ())
        voltages = Voltages(("a", "b"), np.array([0, 1]), np.array(v_pu), np.array([0.002, 0.01]))
        for _ in range(times):
            self.clock.pass_(EVERY_S)
            state = replace(STATE, topology=topology)
            self.shadowing.estimated(self.seen(), state, voltages, np.array([True, True]), harm)

    def plan(self, dispatch: Dispatch, source: PlanSource = PlanSource.OPTIMIZER) -> None:
        decision: Any = SimpleNamespace(dispatch=dispatch, plan=SimpleNamespace(source=source))
        forecast = forecast_of(np.full(8, 9e6), start=self.clock.utc())
        self.shadowing.decided(decision, forecast, self.seen())

    def card(self) -> Scorecard:
        return self.shadowing.cards()[FEEDER]


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_time_between_estimates_is_watched_but_for_long_gaps_doubt_and_off(rig: Rig) -> None:
    assert rig.shadowing.cards() == {}
    rig.estimate(11)
    assert rig.card().shadow_h == pytest.approx(600.0 / 3600.0)  # the first begins it
    rig.clock.pass_(600.0)
    rig.estimate(2)
    assert rig.card().shadow_h == pytest.approx(660.0 / 3600.0)
    rig.estimate(5, doubt="sw1")
    rig.mode = ControlMode.OFF
    rig.estimate(5)
    assert rig.card().shadow_h == pytest.approx(660.0 / 3600.0)
    assert rig.card().taken_s == rig.clock.monotonic_s() - 600.0
    rig.mode = ControlMode.AUTO
    rig.estimate(2)
    assert rig.card().shadow_h == pytest.approx(720.0 / 3600.0)


def test_devices_that_are_expected_to_be_silent_are_left_out(rig: Rig) -> None:
    rig.quality = (GOOD, SUSPECT, ASLEEP, GOOD)
    rig.estimate()
    assert rig.card().seen_frac == pytest.approx(2.0 / 3.0)


def test_voltages_are_held_against_the_estimate_that_had_not_seen_them_by_how_exact_they_are(rig: Rig) -> None:
    rig.estimate(v_pu=(1.5, 1.5))
    assert math.isnan(rig.card().voltage_error_pu)
    rig.estimate(v_pu=(1.002, 1.12))
    weights = np.array([0.002, 0.01]) ** -2.0
    expected = math.sqrt(float(weights @ np.array([0.002, 0.1]) ** 2 / weights.sum()))
    assert rig.card().voltage_error_pu == pytest.approx(expected)


def test_plans_count_by_their_source_and_forecasts_by_what_comes_an_hour_later_without_the_batteries(rig: Rig) -> None:
    rig.estimate()
    rig.plan(_dispatch(0.0, 0.0))
    rig.plan(_dispatch(0.0, 0.0), PlanSource.RULES)
    rig.p_w, rig.net_w = (5e5, 4e5, 0.0, np.nan), 9e6
    rig.estimate(80)
    card = rig.card()
    assert (card.plans, card.verified_frac) == (2.0, 0.5)
    assert card.forecast_error_frac == pytest.approx(0.1)


def test_nobody_judges_a_forecast_while_a_plan_holds_pv_back(rig: Rig) -> None:
    rig.mode = ControlMode.AUTO
    rig.estimate()
    rig.plan(_dispatch(0.0, 0.0, limit_w=1e3))
    rig.estimate(80)
    assert math.isnan(rig.card().forecast_error_frac)


def test_a_setpoint_counts_as_clamped_where_a_guard_moves_it_by_more_than_a_trifle(rig: Rig) -> None:
    rig.estimate()
    rig.plan(_dispatch(25.2e3, 10e3, limit_w=20e3))
    assert rig.card().clamped_frac == 0.0
    rig.plan(_dispatch(30e3, 10e3))
    assert rig.card().clamped_frac == pytest.approx(1.0 / 5.0)
    rig.quality = (GOOD, SUSPECT, GOOD, GOOD)
    rig.plan(_dispatch(0.0, 0.0))
    assert rig.card().clamped_frac == pytest.approx(2.0 / 7.0)


def test_harm_is_what_the_plan_adds_to_batteries_at_rest_with_the_loads_and_the_sun_that_came(rig: Rig) -> None:
    asked = []

    def look_ahead(der_w: Any, factor: float) -> Any:
        asked.append((tuple(der_w.tolist()), factor))
        resting = not der_w[:2].any()
        return strain_of(3, 0.001 if resting else 0.02, violations=1 if resting else 6)

    def harm() -> float:
        return rig.shadowing.harm_nodes(STATE, rig.seen().snapshot, look_ahead)

    assert math.isnan(harm())
    rig.plan(_dispatch(0.0, 0.0))
    rig.p_w = (3e3, 0.0, 20e3, np.nan)
    assert harm() == 0.0
    assert asked == []
    rig.plan(_dispatch(7e3, np.nan, limit_w=15e3))
    assert harm() == 5.0
    assert asked == [((0.0, 0.0, 20e3), 1.0), ((7e3, 0.0, 15e3), 1.0)]
    rig.clock.pass_(2e6)
    assert math.isnan(harm())


@pytest.mark.parametrize(
    ("planned", "bare", "harm"),
    [
        (strain_of(3, 0.0049, violations=4), strain_of(3), 0.0),
        (strain_of(3, 0.02, violations=1), strain_of(3, 0.01, violations=3), 0.0),
        (None, strain_of(3), float(len(STATE.points))),
        (strain_of(3), None, math.nan),
    ],
    ids=["no more than the verifier tolerates", "fewer points", "no solution with the plan", "none without it"],
)
def test_where_nothing_is_added_there_is_no_harm_and_without_a_solution_all_of_it(
    planned: Any, bare: Any, harm: float, rig: Rig
) -> None:
    def look_ahead(der_w: Any, factor: float) -> Any:
        found = planned if der_w.any() else bare
        if found is None:
            raise NotConverged("no solution")
        return found

    rig.plan(_dispatch(7e3, 0.0))
    rig.p_w = (0.0, 0.0, 0.0, np.nan)
    np.testing.assert_equal(rig.shadowing.harm_nodes(STATE, rig.seen().snapshot, look_ahead), harm)


def test_harm_counts_as_far_as_it_lasts(rig: Rig) -> None:
    lasts = round(LASTS_S / EVERY_S)
    rig.estimate(2)
    assert math.isnan(rig.card().harm_node_min)
    for _ in range(3):
        rig.estimate(lasts, harm=8.0)
        rig.estimate(harm=0.0)
    assert rig.card().harm_node_min == 0.0
    rig.estimate(lasts, harm=8.0)
    rig.estimate()  # nobody can tell
    rig.estimate(lasts, harm=8.0)
    assert rig.card().harm_node_min == 0.0
    rig.estimate(harm=3.0)
    rig.estimate(harm=8.0)
    assert rig.card().harm_node_min == 6.0


def test_a_brain_that_comes_back_goes_on_with_its_hours_and_not_with_those_of_another_model(rig: Rig) -> None:
    rig.estimate(2, harm=0.0)
    rig.plan(_dispatch(0.0, 0.0))
    rig.estimate(90, harm=0.0)
    before = rig.card()
    rig.store.flush()
    rig.clock.pass_(300.0)
    rig.start()
    assert replace(rig.card(), taken_s=before.taken_s) == before
    assert rig.card().taken_s == pytest.approx(before.taken_s)
    rig.estimate(2, harm=0.0)
    assert rig.card().shadow_h == pytest.approx(before.shadow_h + 60.0 / 3600.0)
    rig.digest = "model 2"
    rig.start()
    assert rig.shadowing.cards() == {}


def test_what_was_shown_and_the_modes_travel(rig: Rig) -> None:
    rig.estimate(2, harm=0.0)
    told = Tell(BrainTold(0.0, 0.0, 0.0, 0.0), rig.shadowing.cards())
    came = PACKER.unpack(PACKER.pack(told))
    assert came.scorecards.keys() == told.scorecards.keys()
    np.testing.assert_equal(asdict(came.scorecards[FEEDER]), asdict(rig.card()))
    assert PACKER.unpack(PACKER.pack(rig.seen())).modes == {"f1": ControlMode.SHADOW}


def test_the_database_keeps_the_latest_of_each_hour_and_forgets_what_does_not_count_any_more(rig: Rig) -> None:
    for number, plans in ((100, 1.0), (101, 2.0), (101, 3.0)):
        rig.store.watched("f1", "a", Hour(number=number, until_s=0.0, plans=plans))
    rig.store.watched("f2", "a", Hour(number=100, until_s=0.0))
    rig.store.flush()
    rig.store.watched("f1", "a", Hour(number=101, until_s=0.0, plans=4.0))
    rig.store.flush()
    assert [(hour.number, hour.plans) for hour in rig.store.watched_hours("f1", "a")] == [(100, 1.0), (101, 4.0)]
    assert rig.store.watched_hours("f1", "b") == []
    rig.store.watched("f1", "b", Hour(number=100 + 14 * 24, until_s=0.0))
    rig.store.flush()
    assert [hour.number for hour in rig.store.watched_hours("f1", "a")] == [101]
    assert [hour.number for hour in rig.store.watched_hours("f2", "a")] == [100]

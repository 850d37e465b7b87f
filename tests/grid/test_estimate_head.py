"""Estimates of feeders whose head is not measured, or not wholly: what is there counts, what is not makes unsure."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import GridState
from derms.domain.quality import Quality
from derms.grid.engine import PowerFlow
from derms.grid.estimate import NO_VOLTAGES, Voltages, estimate
from derms.grid.opendss import FeederEngine
from derms.grid.unknowns import Operating, level_slopes
from feeders.catalog import load

AT = datetime(2026, 4, 15, 19, tzinfo=UTC)
NOT_KNOWN = np.full((2, 3), np.nan)
V_SIGMA = 0.003
SEEDS = 10


def known_head(flow: PowerFlow) -> FloatArray:
    return np.array([flow.head_w, flow.head_var])


@dataclass
class Feeder:
    """A model, and another engine that stands for the feeder outside."""

    model: FeederEngine
    plant: FeederEngine

    @property
    def nominal(self) -> FloatArray:
        return np.array([self.model.layout.nominal_load_w, self.model.layout.nominal_load_var])

    def truth(self, level: float, rng: np.random.Generator, scatter: float = 0.3, phase_b: float = 1.0) -> PowerFlow:
        """The feeder at a level of its loads, each by a lognormal beside it; its regulators act, and then stand."""
        self.plant.freeze_controls(False)
        beside = rng.lognormal(0.0, scatter, len(self.model.layout.loads))
        beside[self.model.layout.load_phase == 1] *= phase_b
        self.plant.set_loads(*(level * beside * self.nominal))
        self.plant.set_der(*np.zeros((2, len(self.model.layout.ders))))
        self.plant.solve()
        self.plant.freeze_controls(True)
        return self.plant.solve()

    def estimate(
        self, head: FloatArray, *, voltages: Voltages = NO_VOLTAGES, before: GridState | None = None, act: bool = False
    ) -> GridState:
        none = np.zeros(len(self.model.layout.ders))
        return estimate(
            self.model,
            self.model.package,
            at=AT,
            head_w=head[0],
            head_var=head[1],
            der_w=none,
            der_var=none,
            previous=before,
            voltages=voltages,
            regulators_act=act,
        )

    def sensors(self, truth: PowerFlow, count: int, rng: np.random.Generator) -> Voltages:
        points = rng.permutation(np.flatnonzero(self.model.layout.v_base_v > 2000.0))[:count]
        v_pu = truth.v_pu[points] * (1.0 + V_SIGMA * rng.standard_normal(count))
        return Voltages(tuple(self.model.layout.points[p] for p in points), points, v_pu, np.full(count, V_SIGMA))


@pytest.fixture(scope="module")
def feeder() -> Feeder:
    package = load("ieee123")
    model = FeederEngine(package)
    scale = np.random.default_rng(1).lognormal(0.0, 0.1, len(model.layout.lines))
    plant = FeederEngine(package, line_scale=dict(zip(model.layout.lines, scale.tolist(), strict=True)))
    return Feeder(model, plant)


@pytest.fixture(scope="module")
def delta() -> Feeder:
    package = load("ieee37")
    return Feeder(FeederEngine(package), FeederEngine(package))


@pytest.mark.parametrize("act", [False, True], ids=["taps known", "regulators act unseen"])
@pytest.mark.parametrize("sensors", [0, 3, 28])
def test_without_a_head_the_truth_lies_where_the_state_says_it_does(feeder: Feeder, sensors: int, act: bool) -> None:
    rng = np.random.default_rng(sensors)
    covered, errors, sigmas, levels = [], [], [], np.clip(rng.standard_normal(SEEDS), -2.0, 2.0)
    before = feeder.estimate(known_head(feeder.truth(0.7, rng, 0.0)))
    for level in 0.7 * (1.0 + 0.3 * levels):
        truth = feeder.truth(level, rng)
        if not act:
            feeder.model.set_taps(feeder.plant.taps())
        voltages = feeder.sensors(truth, sensors, rng)
        state = feeder.estimate(NOT_KNOWN, voltages=voltages, before=before, act=act)
        apart = np.abs(state.v_pu - truth.v_pu)
        covered.append(np.mean(apart <= 1.96 * state.v_sigma_pu))
        errors.append(np.mean(np.square(apart)))
        sigmas.append(np.mean(state.v_sigma_pu))
    assert 0.9 <= np.mean(covered) <= 1.0
    assert np.mean(sigmas) < 2.5 * np.sqrt(np.mean(errors)), "but not by being unsure of everything"


def test_without_a_head_voltages_tell_the_level_of_the_load(feeder: Feeder) -> None:
    rng = np.random.default_rng(4)
    truth = feeder.truth(0.5, rng)
    feeder.model.set_taps(feeder.plant.taps())
    blind = feeder.estimate(NOT_KNOWN)
    state = feeder.estimate(NOT_KNOWN, voltages=feeder.sensors(truth, 28, rng))
    assert blind.load_w.sum() == pytest.approx(feeder.nominal[0].sum())
    assert state.load_w.sum() == pytest.approx(truth.head_w.sum(), rel=0.2)
    assert state.quality is Quality.STALE
    assert np.isnan(state.residual_w)
    assert state.bad == ()


def test_a_state_without_a_head_is_far_less_sure_than_one_with_it(feeder: Feeder) -> None:
    truth = feeder.truth(0.9, np.random.default_rng(2))
    feeder.model.set_taps(feeder.plant.taps())
    seen, blind = feeder.estimate(known_head(truth)), feeder.estimate(NOT_KNOWN)
    assert blind.v_sigma_pu.mean() > 2.0 * seen.v_sigma_pu.mean()


@pytest.mark.parametrize("phase", [0, 1, 2])
def test_one_missing_phase_of_the_head_leaves_the_others_and_goes_with_them(feeder: Feeder, phase: int) -> None:
    truth = feeder.truth(0.6, np.random.default_rng(3), 0.05)
    feeder.model.set_taps(feeder.plant.taps())
    head = known_head(truth)
    head[:, phase] = np.nan
    there = np.arange(3) != phase
    state, whole, blind = (feeder.estimate(given) for given in (head, known_head(truth), NOT_KNOWN))
    assert state.quality is Quality.SUSPECT
    assert state.head_w[there] == pytest.approx(truth.head_w[there], rel=0.01)
    assert state.head_w[phase] == pytest.approx(truth.head_w[phase], rel=0.1)
    assert abs(state.residual_w) < 0.01 * truth.head_w.sum()
    assert whole.v_sigma_pu.mean() < state.v_sigma_pu.mean() < blind.v_sigma_pu.mean()


def test_a_missing_phase_that_goes_its_own_way_lies_within_what_is_said_of_it(feeder: Feeder) -> None:
    truth = feeder.truth(0.8, np.random.default_rng(6), 0.1, phase_b=1.4)
    feeder.model.set_taps(feeder.plant.taps())
    head = known_head(truth)
    head[:, 1] = np.nan
    state = feeder.estimate(head)
    on_b = np.array([point.endswith(".2") for point in state.points])
    apart = np.abs(state.v_pu - truth.v_pu)
    assert (apart <= 1.96 * state.v_sigma_pu)[on_b].mean() > 0.9
    assert state.v_sigma_pu[on_b].mean() > 1.3 * feeder.estimate(known_head(truth)).v_sigma_pu[on_b].mean()


def test_a_head_that_tells_watts_only_takes_the_power_factor_as_it_was(feeder: Feeder) -> None:
    truth = feeder.truth(0.6, np.random.default_rng(3), 0.05)
    feeder.model.set_taps(feeder.plant.taps())
    head = known_head(truth)
    head[1] = np.nan
    state = feeder.estimate(head)
    assert state.quality is Quality.SUSPECT
    assert state.head_w == pytest.approx(truth.head_w, rel=0.01)
    assert state.load_var.sum() == pytest.approx(0.6 * feeder.nominal[1].sum(), rel=0.05)


def test_of_three_wires_a_phase_alone_tells_nothing(delta: Feeder) -> None:
    truth = delta.truth(0.6, np.random.default_rng(3), 0.05)
    head = known_head(truth)
    head[:, 2] = np.nan
    part, blind, whole = (delta.estimate(given) for given in (head, NOT_KNOWN, known_head(truth)))
    assert part.quality is Quality.STALE
    assert part.v_pu == pytest.approx(blind.v_pu)
    assert part.v_sigma_pu == pytest.approx(blind.v_sigma_pu)
    assert whole.quality is Quality.GOOD


def test_regulators_go_with_the_level_and_stand_afterwards_as_before(feeder: Feeder) -> None:
    model = feeder.model
    nothing, none = np.zeros(len(model.layout.loads)), np.zeros((2, len(model.layout.ders)))
    model.set_loads(*feeder.nominal)
    model.set_der(*none)
    model.solve()
    taps, banks = model.taps(), model.capacitors()
    slopes = level_slopes(
        model, Operating(feeder.nominal, nothing, feeder.nominal, none, none, np.ones_like(feeder.nominal))
    )
    assert slopes["creg1a"] > 1.0
    assert (model.taps(), model.capacitors()) == (taps, banks)

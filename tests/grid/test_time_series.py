"""Time series of a small feeder: warm from step to step, killed and gone on with, without a solution, side by side."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from derms.domain.arrays import FloatArray
from derms.domain.grid import FeederPackage, VoltageLimits
from derms.errors import GridError
from derms.grid.opendss import FeederEngine
from derms.grid.recording import Column
from derms.grid.scenarios import Failed, Scenario, run_all
from derms.grid.time_series import Computed, Powers, Run, Series, Study, printer, run
from tests.grid.village import village

STEPS = 230
LOADS_W, LOADS_VAR = np.array([300e3, 50e3]), np.array([100e3, 10e3])
EVERY = tuple(Column)


@pytest.fixture
def package(tmp_path: Path) -> FeederPackage:
    return replace(village(tmp_path / "village"), own=True)


def factors(steps: int = STEPS) -> FloatArray:
    """A load that rises and falls, with a chance of its own in each step."""
    course = 1.0 + 0.6 * np.sin(2 * np.pi * np.arange(steps) / 24)
    values: FloatArray = course[:, None] * np.random.default_rng(3).uniform(0.8, 1.2, (steps, 2))
    return values


def study(load: FloatArray, columns: tuple[Column, ...] = EVERY, chunk_steps: int = 90) -> Study:
    loads = Series(load * LOADS_W, load * LOADS_VAR)
    return Study(steps=len(load), loads=loads, columns=columns, chunk_steps=chunk_steps)


def computed(step: int) -> Powers:
    factor = factors(40)[step]
    return factor * LOADS_W, factor * LOADS_VAR


def deadly(step: int) -> Powers:
    os._exit(3)


def faulty(step: int) -> Powers:
    raise ZeroDivisionError(f"at step {step}")


def same(one: Run, other: Run) -> bool:
    equal = all(one.columns[name].tobytes() == other.columns[name].tobytes() for name in one.columns)
    return equal and one.missing.tobytes() == other.missing.tobytes() and one.taps == other.taps


class Killed(Exception):
    """Stands for the end of the process."""


def test_every_step_is_what_the_engine_solves_from_the_taps_of_the_step_before(package: FeederPackage) -> None:
    load, engine = factors(48), FeederEngine(package)
    found = run(engine, study(load)).columns
    alone = FeederEngine(package)
    alone.set_der(np.zeros(1), np.zeros(1))
    moved, before = 0, alone.taps()["reg"]
    for step, factor in enumerate(load):
        alone.set_loads(factor * LOADS_W, factor * LOADS_VAR)
        flow = alone.solve()
        assert found[Column.VOLTAGES][step] == pytest.approx(flow.v_pu, abs=1e-5)
        assert found[Column.HEAD_W][step] == pytest.approx(flow.head_w, rel=1e-3)
        assert found[Column.LOSSES_W][step] == pytest.approx(alone.losses_w(), rel=1e-2)
        moved += abs(alone.taps()["reg"] - before)
        before = alone.taps()["reg"]
    assert found[Column.TAPS_MOVED].sum() == moved > 0


def test_columns_over_points_and_steps_agree_with_all_voltages(package: FeederPackage) -> None:
    engine = FeederEngine(replace(package, limits=(VoltageLimits(1e4, 0.98, 1.02),)))
    found = run(engine, study(factors())).columns
    v_pu = found[Column.VOLTAGES]
    assert np.array_equal(found[Column.V_MIN], v_pu.min(axis=0))
    assert np.array_equal(found[Column.V_MAX], v_pu.max(axis=0))
    assert np.array_equal(found[Column.V_OUTSIDE], engine.layout.violating(v_pu).sum(axis=1))
    assert found[Column.V_OUTSIDE].max() > 0


def test_energy_is_that_of_the_head_by_direction_and_steps_without_a_result_count_nothing(
    package: FeederPackage,
) -> None:
    load = factors(24)
    load[3] *= 100.0
    sun_w = np.where(np.arange(24) < 12, 0.0, 700e3).reshape(-1, 1)
    wanted = replace(study(load), ders=Series(sun_w, 0.0 * sun_w))
    found = run(FeederEngine(package), wanted)
    imported_wh, exported_wh = found.energy_wh(900.0)
    head_w = found.columns[Column.HEAD_W].sum(axis=1)
    assert np.isnan(head_w[3])
    assert imported_wh == pytest.approx(0.25 * np.nansum(head_w[head_w > 0.0]))
    assert exported_wh == pytest.approx(-0.25 * np.nansum(head_w[head_w < 0.0]))
    assert min(imported_wh, exported_wh) > 0.0
    with pytest.raises(GridError, match="no energy without the column head_w"):
        run(FeederEngine(package), study(factors(2), (Column.V_MIN,))).energy_wh(900.0)


def test_regulators_that_are_held_do_not_move(package: FeederPackage) -> None:
    engine = FeederEngine(package)
    taps = engine.taps()
    found = run(engine, replace(study(factors(48)), controls_act=False))
    assert found.taps == taps
    assert not found.columns[Column.TAPS_MOVED].any()


def test_run_that_was_killed_goes_on_and_gives_the_same_bytes(package: FeederPackage, tmp_path: Path) -> None:
    saved, wanted = tmp_path / "run.npz", study(factors())
    whole = run(FeederEngine(package), wanted)

    def kill(done: int, steps: int, missing: int) -> None:
        if done >= 200:
            raise Killed

    with pytest.raises(Killed):
        run(FeederEngine(package), wanted, saved=saved, progress=kill)
    begun_at: list[int] = []
    resumed = run(FeederEngine(package), wanted, saved=saved, progress=lambda done, *_: begun_at.append(done))
    assert min(begun_at) == 200, "two chunks were not run again"
    assert same(resumed, whole)
    assert same(run(FeederEngine(package), wanted, saved=saved), whole), "a run that is done is only read"


def test_saved_run_of_other_loads_or_another_feeder_is_refused(package: FeederPackage, tmp_path: Path) -> None:
    saved, load = tmp_path / "run.npz", factors(20)
    run(FeederEngine(package), study(load), saved=saved)
    other = load.copy()
    other[7, 1] += 1e-9
    with pytest.raises(GridError, match=r"run\.npz: a saved run with other inputs"):
        run(FeederEngine(package), study(other), saved=saved)
    with pytest.raises(GridError, match="other inputs"):
        run(FeederEngine(replace(package, id="hamlet")), study(load), saved=saved)


@pytest.mark.parametrize("keep", [0, 10, 900])
def test_saved_run_that_is_damaged_is_named(package: FeederPackage, tmp_path: Path, keep: int) -> None:
    saved = tmp_path / "run.npz"
    run(FeederEngine(package), study(factors(20)), saved=saved)
    saved.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(GridError, match=r"run\.npz: no saved run that can be read"):
        run(FeederEngine(package), study(factors(20)), saved=saved)


def test_step_without_a_solution_is_counted_and_the_run_goes_on(package: FeederPackage) -> None:
    load = factors(40)
    load[17] *= 100.0
    found = run(FeederEngine(package), study(load))
    assert np.flatnonzero(found.missing).tolist() == [17]
    without = {name: np.isnan(found.columns[name]) for name in (Column.HEAD_W, Column.V_OUTSIDE, Column.VOLTAGES)}
    for absent in without.values():
        assert np.flatnonzero(absent.reshape(40, -1).any(axis=1)).tolist() == [17]
    assert np.isfinite(found.columns[Column.V_MIN]).all()


def test_everything_wrong_with_a_study_is_said_at_once(package: FeederPackage) -> None:
    load = factors(20)
    load[4, 0] = np.nan
    wrong = replace(study(load), ders=Series(np.zeros((20, 3)), np.zeros((20, 1))))
    with pytest.raises(GridError) as error:
        run(FeederEngine(package), wrong)
    assert "p_w of loads: not finite at 1 steps, the first is 4" in str(error.value)
    assert "p_w of DER: shape (20, 1) expected, (20, 3) given" in str(error.value)


def test_computed_value_that_is_not_finite_is_named_with_its_step(package: FeederPackage) -> None:
    loads = Computed(lambda step: (LOADS_W / (step != 5 or np.nan), LOADS_VAR), "breaks at 5")
    with pytest.raises(GridError, match="village: step 5: load power: 2 values are not finite"):
        run(FeederEngine(package), Study(steps=9, loads=loads))


def test_computed_loads_give_what_the_same_columns_give(package: FeederPackage) -> None:
    columns = run(FeederEngine(package), study(factors(40)))
    stepwise = replace(study(factors(40)), loads=Computed(computed, "factors of 40"))
    assert same(run(FeederEngine(package), stepwise), columns)


def test_progress_is_one_line_that_ends_with_the_run(package: FeederPackage) -> None:
    stream = io.StringIO()
    run(FeederEngine(package), study(factors()), progress=printer("village", stream))
    assert stream.getvalue().split("\r")[-1] == "village: 100%, 230 of 230\n"
    assert "43%, 100 of 230" in stream.getvalue()


@pytest.mark.slow
def test_scenarios_that_fail_or_kill_their_process_do_not_take_the_others(
    package: FeederPackage, tmp_path: Path
) -> None:
    good = study(factors(40))
    studies = {
        "good": good,
        "deadly": replace(good, loads=Computed(deadly, "kills")),
        "faulty": replace(good, loads=Computed(faulty, "raises")),
        "again": replace(good, loads=Computed(computed, "factors of 40")),
    }
    scenarios = [Scenario(name, package, one) for name, one in studies.items()]
    told: list[tuple[int, int, int]] = []
    found = run_all(scenarios, workers=2, folder=tmp_path / "runs", progress=lambda *now: told.append(now))
    alone = run(FeederEngine(package), good)
    assert list(found) == list(studies)
    for name in ("good", "again"):
        outcome = found[name]
        assert isinstance(outcome, Run)
        assert same(outcome, alone), "whichever process, and whatever ran in it before"
        assert (tmp_path / "runs" / f"{name}.npz").exists()
    assert found["deadly"] == Failed("deadly", "its process died")
    assert found["faulty"] == Failed("faulty", "ZeroDivisionError: at step 0")
    assert told[-1] == (4, 4, 2)


def test_scenarios_with_names_twice_or_of_no_file_are_refused(package: FeederPackage) -> None:
    one = Scenario("a", package, study(factors(3)))
    with pytest.raises(GridError, match=r"'\.\./b': give letters.*'a' is there 2 times"):
        run_all([one, one, replace(one, name="../b")])

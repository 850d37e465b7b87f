"""The made-up territory: the same bytes from the same seed, and every feeder of it a package that solves."""

import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derms.errors import ConfigError
from derms.grid.opendss import FeederEngine
from derms.grid.territory import Station, Territory
from feeders.catalog import load
from feeders.territory.generate import DIGEST, digest, stations, write
from feeders.territory.spec import TEMPLATE, parse

SMALL = """
stations = 2
feeders = 6
delta_frac = 0.4
"""
PROFILES = Path(__file__).parents[2] / "drivers" / "profiles"


def small(**fields: Any) -> Mapping[str, Any]:
    """The template's territory, with six small feeders."""
    found = tomllib.loads(TEMPLATE.read_text(encoding="utf8")) | tomllib.loads(SMALL) | fields
    found["feeder"] |= {"buses_min": 12, "buses_max": 20}
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("territory")
    write(parse(small(), "spec.toml"), folder)
    return folder


def test_same_seed_gives_the_same_bytes_and_another_seed_others(made: Path, tmp_path: Path) -> None:
    again = write(parse(small(), "spec.toml"), tmp_path / "again")
    other = write(parse(small(seed=2), "spec.toml"), tmp_path / "other")
    assert (made / DIGEST).read_text().strip() == digest(made) == again.sha256 != other.sha256


@pytest.mark.slow
def test_order_of_hashing_in_a_process_changes_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    text = TEMPLATE.read_text(encoding="utf8")
    spec.write_text(text.replace("feeders = 24", "feeders = 4"), encoding="utf8")
    found = []
    for seed in ("0", "4711"):
        command = [sys.executable, "-m", "feeders.territory", str(spec), "--out", str(tmp_path / seed), "--json"]
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, timeout=60)
        found.append((tmp_path / seed / DIGEST).read_text())
    assert found[0] == found[1]


def test_a_feeder_is_the_same_in_however_large_a_territory(made: Path, tmp_path: Path) -> None:
    write(parse(small(feeders=2), "spec.toml"), tmp_path / "two")
    name = "basin_0002/master.dss"
    assert (tmp_path / "two" / name).read_bytes() == (made / name).read_bytes()


def test_every_feeder_is_a_package_and_all_solve_behind_their_stations(made: Path) -> None:
    names = sorted(path.parent.name for path in made.glob("*/manifest.toml"))
    # Text from elsewhere is confined; this process has just made this text itself.
    packages = {name: replace(load(str(made / name)), own=True) for name in names}
    engines = {name: FeederEngine(package) for name, package in packages.items()}
    territory = Territory(engines, [Station(**asdict(plan)) for plan in stations(made)])
    p_w, q_var = (
        np.concatenate([getattr(engine.layout, f"nominal_load_{unit}") for engine in engines.values()])
        for unit in ("w", "var")
    )
    ratings_w = np.array([der.p_rated_w for package in packages.values() for der in package.ders])
    zero = np.zeros(ratings_w.size)
    for loads, ders in (((p_w, q_var), (zero, zero)), ((0.3 * p_w, 0.3 * q_var), (ratings_w, zero))):
        flow = territory.step(loads, ders)
        assert flow.converged
        assert flow.passes <= 3
        assert 0.93 < flow.v_pu.min() < flow.v_pu.max() < 1.07
    for engine in engines.values():
        engine.close()


def test_both_kinds_of_feeder_and_all_kinds_of_der_are_there(made: Path) -> None:
    sources = [load(str(path.parent)).source for path in made.glob("*/manifest.toml")]
    assert any("delta" in source for source in sources)
    assert any("wye" in source for source in sources)
    rows = [row.split(",") for path in made.glob("*/devices.csv") for row in path.read_text().splitlines()[1:]]
    assert {row[1] for row in rows} == {"pv", "battery", "ev-charger"}
    assert all((PROFILES / f"{row[3]}.yaml").is_file() for row in rows)


def test_a_folder_that_is_in_use_is_left_alone(made: Path) -> None:
    before = digest(made)
    with pytest.raises(ConfigError, match="not empty"):
        write(parse(small(), "spec.toml"), made)
    assert digest(made) == before


def test_every_mistake_of_a_spec_is_told(tmp_path: Path) -> None:
    found = {**small(seed=-1, delta_frac=1.5, device=[], colour="red"), "sizes": {"pv_kw": float("nan")}}
    with pytest.raises(ConfigError) as error:
        parse(found, "spec.toml")
    told = str(error.value)
    for where in ("seed", "delta_frac", "[[device]]", "colour", "[sizes], pv_kw", "[sizes], battery_kw"):
        assert where in told

"""The packaged feeder still gives the results that are kept beside it."""

import json

import pytest

from derms.grid.golden import GOLDEN, golden_results, golden_text
from feeders.catalog import load


def test_packaged_feeder_gives_its_golden_results() -> None:
    package = load("ieee123")
    golden = json.loads(package.circuit.with_name(GOLDEN).read_text(encoding="utf8"))
    results = golden_results(package)
    assert golden.keys() == results.keys() == {"base.dss", "master.dss"}
    for circuit, expected in golden.items():
        found = results[circuit]
        assert found["taps"] == expected["taps"]
        assert found["head_kw"] == pytest.approx(expected["head_kw"], rel=1e-5)
        assert found["head_kvar"] == pytest.approx(expected["head_kvar"], rel=1e-5)
        assert found["v_pu"] == pytest.approx(expected["v_pu"], abs=2e-5)


def test_golden_text_repeats() -> None:
    package = load("ieee123")
    assert golden_text(package) == golden_text(package)


def test_idle_services_do_not_move_the_feeder() -> None:
    golden = golden_results(load("ieee123"))
    base, master = golden["base.dss"]["v_pu"], golden["master.dss"]["v_pu"]
    assert {node: master[node] for node in base} == pytest.approx(base, abs=1e-4)
    assert len(master) == len(base) + 120

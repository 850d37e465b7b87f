"""The generator: same bytes each time, and sites as a utility would find them."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from derms.domain.grid import Between, FeederPackage, VoltageLimits
from feeders.catalog import PACKAGES, load
from feeders.circuit import read
from feeders.generate import write
from feeders.recipes import RECIPES
from feeders.siting import SERVICE_CLASSES, sites
from feeders.tracing import trace


@pytest.mark.parametrize("feeder", sorted(RECIPES))
def test_regenerating_gives_the_bytes_that_are_packaged(feeder: str, tmp_path: Path) -> None:
    packaged = PACKAGES / feeder
    shutil.copytree(packaged / "tables", tmp_path / "tables")
    write(feeder, tmp_path)
    for name in ("base.dss", "master.dss", "manifest.toml"):
        assert (tmp_path / name).read_bytes() == (packaged / name).read_bytes(), name


@pytest.mark.parametrize(("feeder", "pv", "batteries"), [("ieee13", 24, 12), ("ieee37", 24, 12), ("ieee123", 40, 20)])
def test_packaged_feeders_have_their_der_behind_services_of_240_v(feeder: str, pv: int, batteries: int) -> None:
    package = load(feeder)
    assert Counter(der.kind for der in package.ders) == {"pv": pv, "battery": batteries}
    circuit = read(package.circuit)
    for site in package.sites:
        winding = circuit.elements[site.transformer.lower()].terminals[1]
        assert (winding.kv, winding.nodes[1:]) == (0.24, ())


def test_der_of_ieee123_are_the_shares_of_its_peak_that_they_should_be() -> None:
    package = load("ieee123")
    pv = [der for der in package.ders if der.kind == "pv"]
    batteries = [der for der in package.ders if der.kind == "battery"]
    assert [der.id for der in package.ders] == [f"pv{n:02d}" for n in range(1, 41)] + [
        f"bat{n:02d}" for n in range(1, 21)
    ]
    assert sum(der.p_rated_w for der in pv) / package.peak_w == pytest.approx(0.6, abs=0.0005)
    assert sum(der.p_rated_w for der in batteries) / package.peak_w == pytest.approx(0.2, abs=0.0005)
    assert {der.energy_wh / der.p_rated_w for der in batteries} == {4.0}
    assert min(der.p_rated_w for der in pv) >= 30e3
    assert max(der.p_rated_w for der in pv) <= 75e3
    assert all(25e3 <= der.p_rated_w <= 50e3 for der in batteries)


@pytest.mark.parametrize("feeder", sorted(RECIPES))
def test_every_service_transformer_carries_its_inverter(feeder: str) -> None:
    package = load(feeder)
    site_va = {site.id: site.s_rated_va for site in package.sites}
    assert all(der.p_rated_w < der.s_rated_va <= site_va[der.site] for der in package.ders)
    assert set(site_va.values()) <= {service.kva * 1e3 for service in SERVICE_CLASSES}


def test_sites_stand_on_phases_that_their_bus_has_and_every_phase_gets_the_same_number() -> None:
    made = sites(["1.1", "2.2", "3.3", "4", "5.1.2", "6.2.3"], replace(RECIPES["ieee123"], turns=2))
    assert Counter(site.phases for site in made) == {(1,): 2, (2,): 2, (3,): 2}
    assert [(site.der, site.primary, site.node) for site in made] == [
        ("pv01", "1", 1),
        ("pv02", "2", 2),
        ("pv03", "4", 1),
        ("pv04", "4", 3),
        ("bat01", "3", 3),
        ("bat02", "5", 2),
    ]


def test_on_a_delta_sites_stand_between_the_phases_of_a_load() -> None:
    made = sites(["1.1.2", "2.2.3", "3.3.1", "4"], replace(RECIPES["ieee37"], turns=2))
    assert [(site.der, site.primary, site.phases) for site in made] == [
        ("pv01", "1", (1, 2)),
        ("pv02", "2", (2, 3)),
        ("pv03", "4", (1, 2)),
        ("pv04", "4", (3, 1)),
        ("bat01", "3", (3, 1)),
        ("bat02", "4", (2, 3)),
    ]


def test_services_of_ieee37_lie_between_two_phases_of_4800_v_and_only_its_sites_have_a_neutral() -> None:
    package = load("ieee37")
    circuit = read(package.circuit)
    primaries = [circuit.elements[site.transformer.lower()].terminals[0] for site in package.sites]
    assert Counter(primary.nodes for primary in primaries) == {(1, 2): 12, (2, 3): 12, (3, 1): 12}
    assert {(primary.kv, primary.delta) for primary in primaries} == {(4.8, True)}
    measured = {bus: limit_of(package, kv * 3**0.5 * 1e3).between for bus, kv in trace(circuit, {}).base_kv.items()}
    served = {site.bus for site in package.sites} | {site.bus.replace("site_", "low_") for site in package.sites}
    assert {bus for bus, between in measured.items() if between is Between.NEUTRAL} == served


def limit_of(package: FeederPackage, base_v: float) -> VoltageLimits:
    return next(limit for limit in package.limits if base_v <= limit.v_base_max_v)


def test_ties_of_ieee123_keep_the_stubs_of_the_tables_and_join_what_lies_beyond() -> None:
    circuit = read(load("ieee123").circuit)
    ends = {
        name: [terminal.bus for terminal in circuit.elements[name].terminals]
        for name in ("line.stub_sw7", "line.sw7", "line.stub_sw8", "line.sw8")
    }
    assert ends == {
        "line.stub_sw7": ["151", "300_open"],
        "line.sw7": ["300_open", "300"],
        "line.stub_sw8": ["54", "94_open"],
        "line.sw8": ["94_open", "94"],
    }
    closed = trace(circuit, {"line.sw7": True, "line.sw8": True}).loops
    assert len(closed) == 2
    assert any("line.sw7" in loop for loop in closed)
    assert any("line.sw8" in loop for loop in closed)


def test_phases_of_ieee123_share_pv_and_storage_evenly() -> None:
    package = load("ieee123")
    master = package.circuit.read_text(encoding="ascii")
    on_phase = Counter[str]()
    for der in package.ders:
        phase = master.split(f"New Generator.{der.id} bus1={der.site}.")[1][0]
        on_phase[phase] += round(der.p_rated_w)
    total_w = sum(on_phase.values())
    assert all(abs(p_w / total_w - 1 / 3) < 0.02 for p_w in on_phase.values())

"""The generator: same bytes each time, and sites as a utility would find them."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from feeders.catalog import PACKAGES, load
from feeders.generate import write
from feeders.siting import SERVICE_CLASSES, sites


def test_regenerating_gives_the_bytes_that_are_packaged(tmp_path: Path) -> None:
    packaged = PACKAGES / "ieee123"
    shutil.copytree(packaged / "tables", tmp_path / "tables")
    write("ieee123", tmp_path)
    for name in ("base.dss", "master.dss", "manifest.toml"):
        assert (tmp_path / name).read_bytes() == (packaged / name).read_bytes(), name


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


def test_every_service_transformer_carries_its_inverter() -> None:
    package = load("ieee123")
    site_va = {site.id: site.s_rated_va for site in package.sites}
    assert all(der.p_rated_w < der.s_rated_va <= site_va[der.site] for der in package.ders)
    assert set(site_va.values()) <= {service.kva * 1e3 for service in SERVICE_CLASSES}


def test_sites_stand_on_phases_that_their_bus_has_and_every_phase_gets_the_same_number() -> None:
    made = sites(["1.1", "2.2", "3.3", "4", "5.1.2", "6.2.3"], turns=2)
    assert Counter(site.phase for site in made) == {1: 2, 2: 2, 3: 2}
    assert [(site.der, site.primary, site.phase) for site in made] == [
        ("pv01", "1", 1),
        ("pv02", "2", 2),
        ("pv03", "4", 1),
        ("pv04", "4", 3),
        ("bat01", "3", 3),
        ("bat02", "5", 2),
    ]


def test_phases_of_ieee123_share_pv_and_storage_evenly() -> None:
    package = load("ieee123")
    master = package.circuit.read_text(encoding="ascii")
    on_phase = Counter[str]()
    for der in package.ders:
        phase = master.split(f"New Generator.{der.id} bus1={der.site}.")[1][0]
        on_phase[phase] += round(der.p_rated_w)
    total_w = sum(on_phase.values())
    assert all(abs(p_w / total_w - 1 / 3) < 0.02 for p_w in on_phase.values())

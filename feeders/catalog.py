"""Feeder packages by id or by folder, every name in the manifest checked against the circuit's text.

OpenDSS is not asked: it accepts names that do not exist without a word. Text that is not ours is only read here.
"""

from pathlib import Path

from derms.domain.grid import (
    Between,
    ControlBinding,
    DerBinding,
    FeederPackage,
    InvisiblePv,
    MeterBinding,
    SiteBinding,
    SwitchBinding,
    SwitchState,
    VoltageLimits,
)
from derms.errors import ConfigError
from feeders import circuit, manifest
from feeders.checks import check, normal_states
from feeders.circuit import CircuitText
from feeders.manifest import Manifest, Table
from feeders.soundness import unsound
from feeders.tracing import trace

PACKAGES = Path(__file__).parent
MANIFEST = "manifest.toml"


def load(feeder: str) -> FeederPackage:
    """Load a packaged feeder by its id, or any folder by its path.

    Raises
    ------
    ConfigError
        With every problem found: in the manifest, in the circuit, and between the two.
    """
    own = _is_packaged(feeder)
    folder = PACKAGES / feeder if own else Path(feeder)
    found = manifest.read(folder / MANIFEST)
    if "circuit" not in found.head:
        raise ConfigError(found.problems)
    master = folder / found.head["circuit"]
    text = circuit.read(master, folder)
    _check(found, text, master.name)
    if found.problems:
        raise ConfigError(found.problems)
    return _package(found, master.resolve(), text, own=own)


def _is_packaged(feeder: str) -> bool:
    """Whether a name is the id of one of the product's own feeders: a folder directly under `feeders/`, no path."""
    path = (PACKAGES / feeder / MANIFEST).resolve()
    return Path(feeder).name == feeder and path.parent.parent == PACKAGES.resolve() and path.is_file()


def _check(found: Manifest, text: CircuitText, master: str) -> None:
    found.problems += text.problems
    stated = found.head.get("sha256")
    if stated and text.complete and stated.lower() != text.digest:
        found.report("file, sha256", "the circuit's files are not those that it was made for", f"give {text.digest}")
    if text.complete:
        traced = trace(text, normal_states(found))
        check(found, text, traced)
        found.problems += unsound(text, traced, master)


def _package(found: Manifest, master: Path, text: CircuitText, *, own: bool) -> FeederPackage:
    head = found.head
    return FeederPackage(
        id=head["id"],
        circuit=master,
        source_bus=head["source_bus"].lower(),
        head_element=head["head_element"],
        peak_w=_base_unit(head["peak_kw"]),
        sites=tuple(map(_site, found.of("site").values())),
        ders=tuple(map(_der, found.of("der").values())),
        meters=tuple(map(_meter, found.of("meter").values())),
        limits=tuple(map(_limit, found.of("limit").values())),
        buses=text.buses,
        elements=frozenset(text.elements),
        switches=tuple(map(_switch, found.of("switch").values())),
        regulators=tuple(ControlBinding(**table) for table in found.of("regulator").values()),
        capacitors=tuple(ControlBinding(**table) for table in found.of("capacitor").values()),
        invisible_pv=tuple(map(_invisible, found.of("invisible_pv").values())),
        source=head["source"],
        digest=text.digest,
        own=own,
    )


def _site(table: Table) -> SiteBinding:
    return SiteBinding(table["id"], table["bus"].lower(), table["transformer"], _base_unit(table["s_rated_kva"]))


def _der(table: Table) -> DerBinding:
    return DerBinding(
        id=table["id"],
        site=table["site"],
        element=table["element"],
        kind=table["kind"],
        p_rated_w=_base_unit(table["p_rated_kw"]),
        s_rated_va=_base_unit(table["s_rated_kva"]),
        energy_wh=_base_unit(table["energy_kwh"]),
    )


def _meter(table: Table) -> MeterBinding:
    return MeterBinding(**{**table, "bus": table["bus"].lower(), "phases": tuple(table["phases"])})


def _limit(table: Table) -> VoltageLimits:
    return VoltageLimits(**{**table, "between": Between(table["between"])})


def _switch(table: Table) -> SwitchBinding:
    return SwitchBinding(**{**table, "normal": SwitchState[table["normal"].upper()]})


def _invisible(table: Table) -> InvisiblePv:
    return InvisiblePv(table["load"], _base_unit(table["p_rated_kw"]))


def _base_unit(kilo: float) -> float:
    return round(kilo * 1e3, 3)  # 64.35 kW is 64350 W and nothing beside it

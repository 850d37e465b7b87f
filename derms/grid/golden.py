"""Golden results of a feeder package: what the engine finds for it, kept beside it and compared ever after.

`python -m derms.grid.golden ieee123` writes them anew. The package's own circuit is solved with all DER at 0, and
beside it the bare circuit that it builds on, where there is one (`base.dss`).
"""

import argparse
import json
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from derms.domain.grid import FeederPackage
from derms.errors import ConfigError, Problem
from derms.grid.engine import Engine, PowerFlow
from derms.grid.open import open_engine
from derms.ports import FeederSource

BASE = "base.dss"
GOLDEN = "golden.json"
V_TOLERANCE_PU = 1e-4


def golden_results(package: FeederPackage) -> dict[str, Any]:
    """Head power [kW, kvar per phase], losses [kW], taps and voltages [pu] of a package's circuits, by file name.

    Rounded, so that they repeat on any machine.
    """
    results = {package.circuit.name: _solved(package)}
    base = package.circuit.with_name(BASE)
    if base.is_file():
        results[BASE] = _solved(replace(package, circuit=base, sites=(), ders=(), meters=(), switches=()))
    return results


def golden_text(package: FeederPackage) -> str:
    """The same as the text of the golden file."""
    return json.dumps(golden_results(package), indent=1) + "\n"


def deviations(package: FeederPackage, engine: Engine, flow: PowerFlow) -> list[str]:
    """What differs between a solution of a package's own circuit and its golden file; empty without such a file.

    Raises ConfigError for a file that holds no golden results.
    """
    path = package.circuit.with_name(GOLDEN)
    if not path.is_file():
        return []
    known = _known(path, package.circuit.name)
    found = _results(engine, flow)
    told = [
        f"{name}: {found[name]}, golden {known.get(name)}"
        for name in ("head_kw", "losses_kw")
        if np.shape(known[name]) != np.shape(found[name])
        or not np.allclose(known[name], found[name], rtol=1e-3, atol=0.1)
    ]
    if known.get("taps") != found["taps"]:
        told.append(f"taps: {found['taps']}, golden {known.get('taps')}")
    golden_v = known.get("v_pu", {})
    if golden_v.keys() != found["v_pu"].keys():
        told.append("voltage points: not those of the golden file")
    else:
        apart = {point: abs(v - golden_v[point]) for point, v in found["v_pu"].items()}
        worst = max(apart, key=lambda point: apart[point])
        if apart[worst] > V_TOLERANCE_PU:
            told.append(f"voltage {worst}: {found['v_pu'][worst]} pu, golden {golden_v[worst]} pu")
    return told


def _known(path: Path, circuit: str) -> dict[str, Any]:
    """What a golden file says of a circuit; empty when it says nothing."""
    try:
        known: dict[str, Any] = dict(json.loads(path.read_text(encoding="utf8")).get(circuit, {}))
        for name in ("head_kw", "losses_kw"):
            known[name] = np.array(known.get(name, np.nan), dtype=np.float64).tolist()
        known["v_pu"] = {point: float(v) for point, v in known.get("v_pu", {}).items()}
        return known
    except (OSError, ValueError, TypeError, AttributeError) as error:
        right = "write it anew with python -m derms.grid.golden, or delete it"
        raise ConfigError([Problem(path.name, "file", f"no golden results: {error}", right)]) from error


def _solved(package: FeederPackage) -> dict[str, Any]:
    engine = open_engine(package)
    results = _results(engine, engine.solve())
    engine.close()
    return results


def _results(engine: Engine, flow: PowerFlow) -> dict[str, Any]:
    return {
        "head_kw": (flow.head_w / 1e3).round(3).tolist(),
        "head_kvar": (flow.head_var / 1e3).round(3).tolist(),
        "losses_kw": round(engine.losses_w() / 1e3, 3),
        "taps": engine.taps(),
        "v_pu": dict(zip(engine.layout.points, flow.v_pu.round(5).tolist(), strict=True)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m derms.grid.golden", description=__doc__)
    parser.add_argument("feeder", help="id of a packaged feeder, or a folder")
    (plugin,) = entry_points(group="derms.plugins", name="feeders")
    load: FeederSource = plugin.load()
    package = load(parser.parse_args().feeder)
    Path(package.circuit.with_name(GOLDEN)).write_text(golden_text(package), encoding="utf8", newline="\n")


if __name__ == "__main__":
    main()

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

from derms.domain.grid import FeederPackage
from derms.grid.engine import FeederEngine
from derms.ports import FeederSource

BASE = "base.dss"
GOLDEN = "golden.json"


def golden_results(package: FeederPackage) -> dict[str, Any]:
    """Head power [kW, kvar per phase], losses [kW], taps and node voltages [pu] of a package's circuits, by file name.

    Rounded, so that they repeat on any machine.
    """
    results = {package.circuit.name: _solved(package)}
    base = package.circuit.with_name(BASE)
    if base.is_file():
        results[BASE] = _solved(replace(package, circuit=base, sites=(), ders=(), meters=()))
    return results


def golden_text(package: FeederPackage) -> str:
    """The same as the text of the golden file."""
    return json.dumps(golden_results(package), indent=1) + "\n"


def _solved(package: FeederPackage) -> dict[str, Any]:
    engine = FeederEngine(package)
    flow = engine.solve()
    return {
        "head_kw": (flow.head_w / 1e3).round(3).tolist(),
        "head_kvar": (flow.head_var / 1e3).round(3).tolist(),
        "losses_kw": round(flow.losses_w / 1e3, 3),
        "taps": engine.taps(),
        "v_pu": dict(zip(engine.nodes, flow.v_pu.round(5).tolist(), strict=True)),
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

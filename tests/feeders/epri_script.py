"""EPRI's own OpenDSS engine in a process of its own: it prints to stdout and changes the working directory.

`python epri_script.py result.json circuit.dss ...` writes the node voltages [pu] of each circuit, by its path.
"""

import json
import sys
from pathlib import Path

import py_dss_interface

SETTINGS = "Set Tolerance=1e-9 MaxIterations=100 MaxControlIter=50"


def main(result: str, circuits: list[str]) -> None:
    dss = py_dss_interface.DSS()
    found = {}
    for circuit in circuits:
        dss.text("ClearAll")
        dss.text(f'Redirect "{circuit}"')
        dss.text(SETTINGS)
        dss.text("Solve")
        names = [name.lower() for name in dss.circuit.nodes_names]
        found[circuit] = dict(zip(names, dss.circuit.buses_vmag_pu, strict=True)) if dss.solution.converged else {}
    Path(result).write_text(json.dumps(found), encoding="utf8")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).resolve()), [str(Path(name).resolve()) for name in sys.argv[2:]])

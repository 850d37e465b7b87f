"""Guard and gateway stay light: neither optimizer nor power flow nor web is in their process.

The contract in pyproject.toml names their modules, and import-linter reads the sources. Here the list is held complete,
and a process that imports all of them, and every driver, is asked what it has loaded.
"""

import json
import pkgutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import derms.control

ROOT = Path(__file__).parents[2]
CONTRACT = "guard and gateway know neither optimizer nor power flow nor web"
BRAINS = {"derms.control.compose", "derms.control.cycle"}
"""Of the control room's core: what makes plans. Everything else there is for the gateway."""
PROCESS = ("derms.service.cli", "derms.service.serving", "feeders.catalog", "drivers")
"""Whatever else is in the process of the gateway; command line and processes import the parts only where they run."""
LIBRARIES = {
    *("cvxpy", "osqp", "piqp", "clarabel"),
    *("altdss", "dss", "dss_python", "opendssdirect"),
    *("fastapi", "starlette", "uvicorn"),
}
IMPORT_ALL = """
import importlib, json, pkgutil, sys
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", ()), f"{name}."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
print(json.dumps(sorted(sys.modules)))
"""


def _contract() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["tool"]["importlinter"]
    assert settings["include_external_packages"] is True
    return next(contract for contract in settings["contracts"] if contract["name"] == CONTRACT)


def _loaded_with(*names: str) -> set[str]:
    """What a fresh process has loaded once it has imported these, and all that is in them."""
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(run.stdout))


@pytest.mark.slow
def test_a_process_with_guard_gateway_link_and_drivers_has_no_optimizer_no_power_flow_and_no_web() -> None:
    loaded = _loaded_with(*_contract()["source_modules"], *PROCESS)
    assert {"derms.field.reconcile", "derms.control.guards", "derms.service.gateway", "drivers.registry"} <= loaded
    assert {name.partition(".")[0] for name in loaded} & LIBRARIES == set()
    assert {name for name in loaded if name in BRAINS or name.startswith(("derms.optimize", "derms.grid"))} == set()


@pytest.mark.slow
def test_the_same_question_finds_the_optimizer_where_it_is() -> None:
    assert {"cvxpy", "piqp"} <= _loaded_with("derms.control.cycle", "derms.optimize.master")


def test_the_contract_forbids_all_of_these_to_every_module_of_guard_and_gateway() -> None:
    contract = _contract()
    assert set(contract["forbidden_modules"]) == {"derms.optimize", "derms.grid", *LIBRARIES}
    sources = set(contract["source_modules"])
    assert {"derms.field", "derms.link", "derms.service.gateway"} <= sources
    core = {found.name for found in pkgutil.walk_packages(derms.control.__path__, "derms.control.")}
    assert core - BRAINS == {name for name in sources if name.startswith("derms.control.")}
    assert core >= BRAINS

"""The lock files: hashed, free of addresses, in step with pyproject.toml, and not too much for one machine."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
RUNTIME, DEVELOPMENT = "requirements.lock", "requirements-dev.lock"
PACKAGES_MAX = 50

LINUX = {"sys_platform": "linux", "os_name": "posix", "platform_system": "Linux", "platform_machine": "x86_64"}
PYTHON = {
    "python_version": "3.11",
    "python_full_version": "3.11.2",
    "implementation_name": "cpython",
    "platform_python_implementation": "CPython",
}


def _entries(name: str) -> list[str]:
    """The requirements of a lock file, each with its hashes in one line."""
    text = (ROOT / name).read_text(encoding="utf8")
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return lines.replace("\\\n", " ").splitlines()


def _locked(name: str) -> dict[str, str]:
    """Version by package, of those that CPython 3.11 on Linux takes."""
    found: dict[str, str] = {}
    for entry in _entries(name):
        requirement = Requirement(entry.partition("--hash")[0].strip())
        if requirement.marker is None or requirement.marker.evaluate({**LINUX, **PYTHON}):
            key = canonicalize_name(requirement.name)
            assert key not in found, f"{key} is locked twice for one platform"
            found[key] = next(iter(requirement.specifier)).version
    return found


@pytest.mark.parametrize("name", [RUNTIME, DEVELOPMENT])
def test_every_package_is_pinned_and_hashed(name: str) -> None:
    for entry in _entries(name):
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", entry), entry


@pytest.mark.parametrize("name", [RUNTIME, DEVELOPMENT])
def test_a_lock_file_names_no_address_and_no_folder(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf8")
    assert re.findall(r"://|file:|--\w+-url|--find-links|(?<!\w)/\w", text) == []


def test_the_runtime_needs_no_more_than_fifty_packages() -> None:
    assert len(_locked(RUNTIME)) <= PACKAGES_MAX


def test_development_has_the_runtime_at_the_same_versions() -> None:
    assert _locked(RUNTIME).items() <= _locked(DEVELOPMENT).items()


@pytest.mark.parametrize("name", [RUNTIME, DEVELOPMENT])
def test_the_lock_serves_what_pyproject_asks_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    asked = project["dependencies"] + (project["optional-dependencies"]["dev"] if name == DEVELOPMENT else [])
    locked = _locked(name)
    for text in asked:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text


def test_the_build_backend_comes_from_the_lock() -> None:
    """So that installing the project itself fetches nothing."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["build-system"]
    locked = _locked(DEVELOPMENT)
    for text in build["requires"]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), text
    assert "editables" in locked

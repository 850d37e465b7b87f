"""A feeder and moments for the tests of the simulated world."""

from datetime import UTC, datetime

import pytest

from derms.domain.grid import FeederPackage
from feeders.catalog import load

NOON = datetime(2026, 4, 15, 19, 0, tzinfo=UTC)
"""12:00 in Los Angeles."""


@pytest.fixture(scope="session")
def package() -> FeederPackage:
    return load("ieee123")


@pytest.fixture
def noon() -> datetime:
    return NOON


@pytest.fixture
def midnight() -> datetime:
    return datetime(2026, 4, 15, 7, 0, tzinfo=UTC)

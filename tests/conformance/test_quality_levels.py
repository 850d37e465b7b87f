"""Every registered driver and profile against its simulated device: it reaches the quality level that it claims."""

from collections.abc import Callable

import pytest

from drivers.profiles.profile import Level
from tests.conformance.checks import CHECKS, failure, reached
from tests.conformance.devices import KIT, make

ORDER = list(Level)


@pytest.mark.parametrize("name", sorted({*KIT.names, *KIT.problems}))
def test_a_driver_reaches_the_level_that_it_claims(name: str, record_property: Callable[[str, object], None]) -> None:
    assert name not in KIT.problems, "\n".join(map(str, KIT.problems[name]))
    subject = make(name)
    failures = {check.name: failure(subject, check) for check in CHECKS}
    level = reached(failures)
    lacking = "; ".join(f"{check}: {why}" for check, why in failures.items() if why)
    record_property("quality level", (name, level.value if level else "none", subject.claims.value, lacking))
    assert level is not None, lacking
    assert ORDER.index(level) >= ORDER.index(subject.claims), lacking

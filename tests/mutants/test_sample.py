"""Ten of the planted faults, spread over the table, are caught; `make mutants` plants all."""

import pytest

from tests.mutants.fault import spread
from tests.mutants.run import Verdict, examined
from tests.mutants.table import FAULTS

SAMPLE = 10


@pytest.mark.slow
def test_each_of_ten_planted_faults_is_caught() -> None:
    findings = examined(spread(FAULTS, SAMPLE), print)
    assert [str(finding) for finding in findings if finding.verdict is not Verdict.CAUGHT] == []
    assert len(findings) == SAMPLE

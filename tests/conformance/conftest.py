"""The table of quality levels at the end of a run of the conformance suite."""

import pytest

PROPERTY = "quality level"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    rows = [value for report in calls for name, value in report.user_properties if name == PROPERTY]
    if not rows:
        return
    terminalreporter.section("quality levels of drivers")
    for driver, level, claim, lacking in sorted(rows):
        terminalreporter.line(f"{driver:<16} {level:<8} claims {claim:<8} {lacking}")

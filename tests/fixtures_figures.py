"""Figures that tests measure, shown together before pytest's closing line, wherever the tests ran."""

from collections.abc import Callable

import pytest

NAME = "figures"


@pytest.fixture
def figures(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Shows a line at the end of the run. Workers of pytest-xdist have no terminal to print on."""
    return lambda line: record_property(NAME, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Shows the lines of all tests."""
    reports = [one for found in terminalreporter.stats.values() for one in found if isinstance(one, pytest.TestReport)]
    lines = [str(text) for report in reports for name, text in report.user_properties if name == NAME]
    if lines:
        terminalreporter.section(NAME)
        for line in dict.fromkeys(lines):
            terminalreporter.write_line(line)

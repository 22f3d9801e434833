import subprocess
import sys

import pytest

PROGRAM = """
import structlog
from pathlib import Path
from bin.logs import configure_logs
from eventlog.configuration import load_settings

configure_logs(load_settings({"WALDEN_LOGGING_FORMAT": "%s"}, Path("/nonexistent/walden.toml")), "test")

def fails(password):
    return 1 / len(password.strip(password))

try:
    fails("correct horse")
except ZeroDivisionError as error:
    structlog.get_logger().error("it failed", exc_info=error)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_in_the_log_shows_no_passwords(form: str) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", PROGRAM % form], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "ZeroDivisionError" in printed and "fails" in printed
    assert "correct horse" not in printed

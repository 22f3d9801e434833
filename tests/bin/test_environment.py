"""The environment beside the checkout is made again when, and only when, what pip reads has changed."""

import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "bin" / "environment.py"
SETUP = """\
[options]
install_requires =
    psycopg>=3.3
[options.extras_require]
test =
    pytest
[mypy]
strict = true
"""


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], dict[str, Any]]:
    """The script's names, with a checkout that has this setup.cfg."""

    def load(setup: str) -> dict[str, Any]:
        (tmp_path / "setup.cfg").write_text(setup)
        names: dict[str, Any] = runpy.run_path(str(SCRIPT))
        there = names["_wanted"].__globals__
        there["CHECKOUT"], there["ENVIRONMENT"] = tmp_path, tmp_path / ".venv"
        there["PYTHON"] = tmp_path / ".venv" / "bin" / "python"
        return there

    return load


def test_settings_of_linters_do_not_make_it_old_and_requirements_do(script: Callable[[str], dict[str, Any]]) -> None:
    before = script(SETUP)["_wanted"]()
    assert script(SETUP.replace("strict = true", "strict = false"))["_wanted"]() == before
    assert script(SETUP.replace("psycopg>=3.3", "psycopg>=3.4"))["_wanted"]() != before
    assert script(SETUP.replace("    pytest\n", "    pytest\n    hypothesis\n"))["_wanted"]() != before


def test_only_a_finished_environment_fits(script: Callable[[str], dict[str, Any]]) -> None:
    there = script(SETUP)
    assert not there["_fits"]("")
    there["PYTHON"].parent.mkdir(parents=True)
    there["PYTHON"].symlink_to(sys.executable)
    assert not there["_fits"]("")
    there["_stamp"]("test").write_text(there["_wanted"]())
    assert there["_fits"]("test")
    assert there["_fits"](""), "the test environment has all that a run needs"
    there["PYTHON"].unlink()
    there["PYTHON"].symlink_to("/nonexistent/python")
    assert not there["_fits"]("")


def test_the_configuration_is_the_checkouts_unless_the_environment_names_another(
    script: Callable[[str], dict[str, Any]], tmp_path: Path
) -> None:
    defaults = script(SETUP)["_defaults"]
    assert defaults("walden", {}) == {"WALDEN_CONFIG": str(tmp_path / "walden.toml")}
    assert defaults("walden", {"WALDEN_CONFIG": "", "WALDEN_DATA_DIR": ""}) == defaults("walden", {})
    assert defaults("walden", {"WALDEN_DATA_DIR": "somewhere"}) == {}
    assert defaults("walden", {"WALDEN_CONFIG": "my.toml"}) == {}
    assert defaults("python", {}) == {}


def test_it_needs_nothing_but_the_standard_library() -> None:
    check = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", check, str(SCRIPT)], capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()) - {"__main__", "__mp_main__"} <= sys.stdlib_module_names | {"__main__"}

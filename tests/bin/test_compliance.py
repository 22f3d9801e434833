"""bin/compliance: runs of Complement's tests beside the committed result, and the page that explains what does not pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bin.compliance import COMMITTED, OUTCOMES, UnreadableRun, compare, main, read_run

PAGE = COMMITTED.parents[1] / "docs" / "compliance.md"
PACKAGE = "github.com/matrix-org/complement/tests/csapi"


def event(test: str, action: str, package: str = PACKAGE) -> str:
    """A line of `go test -json`."""
    return json.dumps({"Time": "2026-01-01T00:00:00Z", "Action": action, "Package": package, "Test": test}) + "\n"


def ran(**outcomes: str) -> str:
    """The lines of a run; a double underscore is the slash between a test and its part."""
    names = {name.replace("__", "/"): outcome for name, outcome in outcomes.items()}
    return "".join([event(name, "run") + event(name, outcome) for name, outcome in names.items()])


def invoke(tmp_path: Path, run: str, committed: dict[str, str], *options: str) -> Result:
    (tmp_path / "run.json").write_text(run)
    (tmp_path / "committed.json").write_text(json.dumps(committed))
    arguments = [str(tmp_path / "run.json"), "--committed", str(tmp_path / "committed.json"), *options]
    return CliRunner().invoke(main, arguments)


def test_a_parent_is_not_counted_and_its_parts_are() -> None:
    run = ran(TestA="pass", TestB="fail", TestB__x="pass", TestB__y="fail", TestB__y__z="fail")
    assert read_run(run.splitlines(True), "csapi") == {"TestA": "pass", "TestB/x": "pass", "TestB/y/z": "fail"}


def test_a_test_that_never_ended_has_failed() -> None:
    assert read_run([event("TestA", "run"), event("TestA", "output")], "csapi") == {"TestA": "fail"}


def test_tests_of_other_packages_and_lines_of_the_compiler_are_passed_over() -> None:
    lines = ["# some/package\n", event("TestA", "pass", "example.org/tests/other"), event("TestB", "skip"), "ok  \n"]
    assert read_run(lines, "csapi") == {"TestB": "skip"}


def test_half_a_line_is_no_run() -> None:
    with pytest.raises(UnreadableRun, match="line 2"):
        read_run([event("TestA", "pass"), '{"Action": "pa'], "csapi")


def test_each_test_is_in_the_list_that_says_what_became_of_it() -> None:
    committed = {"a": "pass", "b": "pass", "c": "pass", "d": "fail", "e": "fail", "f": "pass"}
    found = compare({"a": "pass", "b": "fail", "c": "skip", "d": "pass", "e": "fail", "g": "fail"}, committed)
    assert (found.broken, found.absent, found.mended, found.new) == (("b", "c"), ("f",), ("d",), ("g",))


def test_a_run_in_which_nothing_broke_succeeds_though_tests_fail(tmp_path: Path) -> None:
    done = invoke(tmp_path, ran(TestA="pass", TestB="fail"), {"TestA": "pass", "TestB": "fail"})
    assert done.exit_code == 0
    assert done.output == "csapi: 1 of 2 passed, 1 failed, 0 skipped\n"


def test_recording_drops_what_failed_as_a_leaf_and_has_parts_now(tmp_path: Path) -> None:
    run = ran(TestA="pass", TestB="pass", TestB__x="pass", TestB__x__y="pass")
    done = invoke(tmp_path, run, {"TestA": "pass", "TestB": "fail", "TestB/x": "fail"}, "--record")
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "committed.json").read_text()) == {"TestA": "pass", "TestB/x/y": "pass"}


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (ran(TestA="fail"), "passed once, and fails: TestA"),
        (ran(TestA="skip"), "passed once, and fails: TestA"),
        (ran(TestB="pass"), "passed once, and was not run: TestA"),
        (event("TestA", "run"), "passed once, and fails: TestA"),
    ],
)
def test_what_passed_once_and_does_not_now_fails_the_run_and_is_not_recorded(
    tmp_path: Path, run: str, said: str
) -> None:
    done = invoke(tmp_path, run, {"TestA": "pass"}, "--record")
    assert done.exit_code == 1
    assert said in done.output
    assert json.loads((tmp_path / "committed.json").read_text()) == {"TestA": "pass"}


def test_recording_adds_what_passes_now_and_what_is_new(tmp_path: Path) -> None:
    done = invoke(
        tmp_path, ran(TestC="fail", TestB="pass", TestA="pass"), {"TestA": "pass", "TestB": "fail"}, "--record"
    )
    assert done.exit_code == 0
    recorded = json.loads((tmp_path / "committed.json").read_text())
    assert list(recorded.items()) == [("TestA", "pass"), ("TestB", "pass"), ("TestC", "fail")]


@pytest.mark.parametrize("run", ["", "no tests\n", ran(TestA="pass").replace("csapi", "other"), '{"Test": 1}\n'])
def test_a_file_without_such_tests_is_refused_in_a_sentence(tmp_path: Path, run: str) -> None:
    done = invoke(tmp_path, run, {})
    assert done.exit_code == 2
    assert "run.json" in done.output
    assert "Traceback" not in done.output


def test_the_committed_results_are_in_order_and_each_test_that_does_not_pass_has_its_reason_on_the_page() -> None:
    failing = []
    for path in COMMITTED.glob("*.json"):
        committed = json.loads(path.read_text(encoding="utf-8"))
        assert list(committed) == sorted(committed)
        assert set(committed.values()) <= set(OUTCOMES)
        failing += [test for test, outcome in committed.items() if outcome != "pass"]
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `Test")]
    # A row may name a test with everything below it.
    explained = [row.split("|")[1].strip().strip("`").strip() for row in rows]
    assert [test for test in failing if not any(f"{test}/".startswith(f"{name}/") for name in explained)] == []
    assert [name for name in explained if not any(f"{test}/".startswith(f"{name}/") for test in failing)] == []

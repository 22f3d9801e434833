"""What bin/compliance does: holds a run of Complement's tests against the result that is committed.

Invariant: what has passed once has to pass; only a person who edits the committed file by hand takes a test back. Leaf tests
alone are compared, for a parent's outcome is made of its children's.
"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bin.outcome import USAGE, fail

COMMITTED = Path(__file__).resolve().parent.parent / "tests" / "compliance"
"""The folder with a file for each package."""
OUTCOMES = ("pass", "fail", "skip")


class UnreadableRun(Exception):
    """The file is not what `go test -json` prints; the message says where."""


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """A run beside the committed result: test names, each list sorted."""

    broken: tuple[str, ...]
    """Passed once, and do not pass now."""
    absent: tuple[str, ...]
    """Passed once, and were not run."""
    mended: tuple[str, ...]
    """Pass now, and did not."""
    new: tuple[str, ...]
    """Not known to the committed result."""

    @property
    def good(self) -> bool:
        """Whether everything that passed once passes now."""
        return not self.broken and not self.absent


def read_run(lines: Iterable[str], package: str) -> dict[str, str]:
    """Outcome of each leaf test of a package (its last path segment) by name: `pass`, `fail` or `skip`.

    A test that began and never ended, for the run was cut off or panicked, has failed. Raises UnreadableRun.
    """
    began: set[str] = set()
    ended: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        # `go test` puts what the compiler says between the lines of JSON.
        if not line.startswith("{"):
            continue
        event = _event(line, number)
        test = event.get("Test")
        if test is None or event.get("Package", "").rpartition("/")[2] != package:
            continue
        if event.get("Action") == "run":
            began.add(test)
        elif event.get("Action") in OUTCOMES:
            began.add(test)
            ended[test] = event["Action"]
    return {test: ended.get(test, "fail") for test in sorted(began - _parents(began))}


def _parents(tests: Iterable[str]) -> set[str]:
    """The names above those of tests."""
    return {test[:place] for test in tests for place, letter in enumerate(test) if letter == "/"}


def _event(line: str, number: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise UnreadableRun(f"line {number} is not JSON: {error}") from None
    if not isinstance(event.get("Test", ""), str) or not isinstance(event.get("Package", ""), str):
        raise UnreadableRun(f"line {number} is no event of `go test -json`")
    return dict(event)


def compare(run: dict[str, str], committed: dict[str, str]) -> Comparison:
    """Test by test."""
    passed = {test for test, outcome in committed.items() if outcome == "pass"}
    passing = {test for test, outcome in run.items() if outcome == "pass"}
    return Comparison(
        broken=tuple(sorted(test for test in passed - passing if test in run)),
        absent=tuple(sorted(passed - run.keys())),
        mended=tuple(sorted(passing & (committed.keys() - passed))),
        new=tuple(sorted(run.keys() - committed.keys())),
    )


def merged(run: dict[str, str], committed: dict[str, str]) -> dict[str, str]:
    """What is to be committed after a run in which nothing broke."""
    parents = _parents(run)
    # A test that used to fail before it came to its children was a leaf, and is none now.
    return {test: outcome for test, outcome in sorted((committed | run).items()) if test not in parents}


def counted(outcomes: dict[str, str]) -> str:
    """How many passed, failed and were skipped, in words."""
    counts = Counter(outcomes.values())
    return f"{counts['pass']} of {len(outcomes)} passed, {counts['fail']} failed, {counts['skip']} skipped"


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--package", default="csapi", show_default=True, help="The package of Complement's tests to look at.")
@click.option(
    "--committed",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The result to compare with.  [default: tests/compliance/PACKAGE.json]",
)
@click.option("--record", is_flag=True, help="If nothing broke, write what this run has passed into it.")
def main(file: str, package: str, committed: Path | None, record: bool) -> None:
    """Compare a run of Complement's tests with the committed result, test by test.

    FILE is what `go test -json` printed, or - for standard input. Exit code 1 when a test that once passed fails or was not
    run. docs/compliance.md says how the tests are run, and why some do not pass.
    """
    committed = committed or COMMITTED / f"{package}.json"
    known: dict[str, str] = json.loads(committed.read_text(encoding="utf-8")) if committed.exists() else {}
    try:
        with click.open_file(file, encoding="utf-8", errors="replace") as lines:
            run = read_run(lines, package)
    except (OSError, UnreadableRun) as problem:
        fail(f"{file}: {problem}", USAGE)
    if not run:
        fail(f"{file} has no test of the package {package}: it must be what `go test -json` printed", USAGE)
    found = compare(run, known)
    click.echo(f"{package}: {counted(run)}")
    for words, tests in (
        ("passed once, and fails", found.broken),
        ("passed once, and was not run", found.absent),
        ("passes now", found.mended),
        ("is new", found.new),
    ):
        for test in tests:
            click.echo(f"  {words}: {test}{'' if test not in found.new else f' ({run[test]})'}")
    if not found.good:
        sys.exit(1)
    if record:
        committed.write_text(json.dumps(merged(run, known), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        click.echo(f"recorded in {committed}")


if __name__ == "__main__":
    main()

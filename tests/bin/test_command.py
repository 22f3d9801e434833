"""The command line: help for everything, one sentence and an exit code for every mistake."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import psycopg
import pytest
from click.testing import CliRunner

from bin.command import main
from bin.outcome import told


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


CHECKOUT = Path(__file__).resolve().parents[2]
ALL = dict(_commands(main))


def test_every_promised_subcommand_is_there() -> None:
    promised = "init up migrate api roomserver reader user status doctor demo psql"
    assert set(promised.split()) <= {path[0] for path in ALL}
    assert {path[1] for path in ALL if path[0] == "user" and path[1:]} == {
        "add",
        "list",
        "password",
        "deactivate",
        "admin",
        "lock",
        "unlock",
        "suspend",
        "unsuspend",
    }
    assert {path[1] for path in ALL if path[0] == "registration-token" and path[1:]} == {"make", "list", "end"}


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_subcommand_and_option_has_a_help_text(path: tuple[str, ...]) -> None:
    command = ALL[path]
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert command.help.split("\n")[0][:40] in result.output


def _documented() -> Iterator[str]:
    """Every `walden` command of the pages for people, in a block of its own or in the text."""
    for page in ("README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in (CHECKOUT / "docs").glob("*.md"))):
        text = (CHECKOUT / page).read_text(encoding="utf-8")
        yield from re.findall(r"(?:^|\| )bin/walden (.+?)(?: +#.*| \|.*)?$", text, re.MULTILINE)
        yield from re.findall(r"`(?:bin/)?walden ([a-z][^`]*)`", text)


def test_every_command_in_the_documentation_is_one_that_there_is() -> None:
    commands = set(_documented())
    assert {"demo", "user add alice --password-stdin", "status"} <= commands
    for words in map(shlex.split, sorted(commands)):
        group: click.Group | None = main
        while group is not None:
            _, command, words = group.resolve_command(click.Context(group), words)
            assert command is not None
            group = command if isinstance(command, click.Group) and words else None
        if words:
            command.make_context("walden", list(words))


def _run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bin.command", *arguments],
        env={"PATH": "/usr/bin:/bin", **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "message"),
    [
        (["nonsense"], {}, 2, "No such command"),
        (["status"], {"WALDEN_REGISTRATION": "closed"}, 3, "WALDEN_REGISTRATION"),
        (["status"], {}, 4, ""),
        (["status", "--json"], {"WALDEN_DATABASE_DSN": "host=/nonexistent dbname=x"}, 4, ""),
        (["migrate"], {"WALDEN_DATABASE_DSN": "host=/nonexistent dbname=x"}, 4, "cannot be reached"),
        (["user", "list"], {"WALDEN_DATABASE_DSN": "host=/nonexistent dbname=x"}, 4, "cannot be reached"),
        (["user", "list"], {}, 3, "run `walden init` first"),
        (["psql"], {}, 3, "run `walden init` first"),
        (["reader", "nonsense"], {}, 2, "there are maintenance"),
        (["postgres"], {"WALDEN_DATABASE_DSN": "dbname=x"}, 3, "no embedded database"),
        (["doctor"], {"WALDEN_DATABASE_DSN": "host=/nonexistent dbname=x"}, 1, ""),
    ],
)
def test_a_mistake_is_one_sentence_and_its_exit_code(
    tmp_path: Path, arguments: list[str], environ: dict[str, str], code: int, message: str
) -> None:
    done = _run(*arguments, WALDEN_DATA_DIR=str(tmp_path), **environ)
    assert done.returncode == code, done
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_may_not_be_entered_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left, told():
        raise PermissionError(13, "Permission denied", "/somewhere/walden.toml")
    assert left.value.code == 1
    assert capsys.readouterr().err == (
        "walden: /somewhere/walden.toml may not be entered or written by this user: Permission denied\n"
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (psycopg.OperationalError("connection failed"), 4, "the database cannot be reached: connection failed"),
        (psycopg.errors.AdminShutdown("terminating connection"), 4, "the database cannot be reached: terminating"),
        (psycopg.errors.QueryCanceled("statement timeout"), 1, "the database could not do it: statement timeout"),
        (psycopg.errors.DiskFull("No space left"), 1, "the database could not do it: No space left"),
        (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), 2, "not UTF-8"),
    ],
)
def test_a_database_that_is_not_there_is_told_from_one_that_could_not(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int, message: str
) -> None:
    with pytest.raises(SystemExit) as left, told():
        raise error
    assert (left.value.code, message in capsys.readouterr().err) == (code, True)


def test_psql_is_given_the_password_by_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from bin import running

    seen: list[object] = []
    monkeypatch.setattr(running.os, "execve", lambda *arguments: seen.extend(arguments))
    running.become_psql("host=/s dbname=d user=u password=secret", ("-c", "select 1"))
    program, arguments, environment = seen
    assert "secret" not in " ".join([str(program), *arguments])  # type: ignore[misc]
    assert environment["PGPASSWORD"] == "secret"  # type: ignore[index]
    assert environment["PGHOST"] == "/s"  # type: ignore[index]

"""What every SQL file keeps to."""

from __future__ import annotations

import re
from pathlib import Path

import pglast
import pytest
from pglast.parser import scan
from schema_files import ROOT, SQL, installed_files, migration_files, query_files, schema_files

from eventlog.migrations import migration_names

PARAMETER = re.compile(r"%\((\w+)\)s")
HEADER = re.compile(r"^-- ([a-z0-9_]+) --$", re.MULTILINE)

SCHEMA = [*schema_files(), *installed_files()]
QUERIES = query_files()


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def parseable(text: str) -> str:
    """Queries with PostgreSQL's parameters in the place of psycopg's."""
    return PARAMETER.sub("$1", text).replace("%%", "%")


def bodies(text: str) -> list[str]:
    """The text itself and every dollar-quoted body in it."""
    return [re.sub(r"\$\$.*?\$\$", "''", text, flags=re.DOTALL), *re.findall(r"\$\$(.*?)\$\$", text, re.DOTALL)]


def without_comments(text: str) -> str:
    return re.sub(r"--.*", "", text)


def test_there_is_sql_to_look_at() -> None:
    assert len(SCHEMA) > 30
    assert len(QUERIES) > 5
    assert set(SQL.rglob("*.sql")) == {*SCHEMA, *migration_files()}


@pytest.mark.parametrize("file", [*SCHEMA, *migration_files()], ids=name_of)
def test_every_file_parses(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert pglast.parse_sql(text)


@pytest.mark.parametrize("file", QUERIES, ids=name_of)
def test_every_query_has_a_name_a_sentence_and_one_statement(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    parts = HEADER.split(text)
    assert not parts[0].strip(), "something stands before the first query"
    names = parts[1::2]
    assert len(set(names)) == len(names)
    for name, block in zip(names, parts[2::2], strict=True):
        lines = block.strip("\n").splitlines()
        comment = [line for line in lines if line.startswith("--")]
        assert comment, f"{name} has no sentence"
        assert lines[0].startswith("-- ") and comment[-1].endswith("."), (
            f"{name}: the sentence comes first, with a full stop"
        )
        assert len(pglast.parse_sql(parseable(block))) == 1, f"{name} is not one statement"


@pytest.mark.parametrize("file", [*SCHEMA, *QUERIES], ids=name_of)
def test_keywords_are_lower_case(file: Path) -> None:
    shouted = []
    for body in bodies(parseable(file.read_text(encoding="utf-8"))):
        encoded = body.encode()
        for token in scan(body):
            text = encoded[token.start : token.end + 1].decode()
            if token.kind != "NO_KEYWORD" and text != text.lower():
                shouted.append(text)
    assert shouted == []


@pytest.mark.parametrize("file", schema_files(), ids=name_of)
def test_no_function_or_view_selects_a_bare_star(file: Path) -> None:
    text = without_comments(file.read_text(encoding="utf-8"))
    assert not re.search(r"select\s+\*", text), "name the columns: a new one must not change the result"


@pytest.mark.parametrize("file", schema_files(), ids=name_of)
def test_functions_with_the_rights_of_their_owner_have_a_search_path(file: Path) -> None:
    for statement in pglast.parse_sql(file.read_text(encoding="utf-8")):
        if isinstance(statement.stmt, pglast.ast.CreateFunctionStmt):
            options = statement.stmt.options or ()
            if any(option.defname == "security" and option.arg.boolval for option in options):
                assert "search_path" in [option.arg.name for option in options if option.defname == "set"]


def test_no_two_migrations_have_one_number() -> None:
    # Gaps are allowed: work done side by side takes a range each.
    numbers = [int(name[:4]) for name in migration_names()]
    assert numbers == sorted(set(numbers))

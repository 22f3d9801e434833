"""docs/history.md names everything that the schema promises, with its columns: what is renamed or taken away fails here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import psycopg
import pytest

pytestmark = pytest.mark.postgres

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "history.md"
VERSION: Final = 1

# What the functions on the page are made of: nobody is promised these.
PARTS: Final = frozenset(
    {
        "change_time",
        "known_place",
        "latest_edit",
        "redacted_content",
        "redaction_of",
        "sent_time",
        "sight_by",
        "sight_of",
        "span_start",
        "value_before",
    }
)

VIEWS = """
    select c.relname::text, array_agg(a.attname::text order by a.attnum)
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    where c.relnamespace = 'history'::regnamespace and c.relkind = 'v'
    group by c.relname
"""
# For functions that name their own columns, those; the columns of the others are a view's.
FUNCTIONS = """
    select p.proname::text, array(select n from unnest(p.proargnames, p.proargmodes) as m (n, mode) where mode = 't')
    from pg_proc p where p.pronamespace = 'history'::regnamespace
"""


def test_every_view_is_on_the_page_with_all_its_columns(database: str) -> None:
    with psycopg.connect(database) as connection:
        there = dict(connection.execute(VIEWS).fetchall())
    told = {
        name: re.findall(r"`(\w+)`", columns)
        for name, columns in re.findall(r"^\| `(\w+)` \| [^|]+ \| (`[^|]+`) \|$", PAGE.read_text(), re.MULTILINE)
    }
    assert told == there


def test_every_function_that_is_promised_is_on_the_page_with_what_it_gives(database: str) -> None:
    with psycopg.connect(database) as connection:
        there = dict(connection.execute(FUNCTIONS).fetchall())
    rows = re.findall(r"^\| (`\w+\([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    told = {name: gives for names, gives in rows for name in re.findall(r"`(\w+)\(", names)}
    assert told.keys() == there.keys() - PARTS
    for name, columns in there.items():
        missing = {column for column in columns if f"`{column}`" not in told.get(name, "")}
        assert name in PARTS or not missing, f"the page does not say that {name} gives {', '.join(sorted(missing))}"


def test_the_page_is_of_the_version_that_the_schema_has(database: str) -> None:
    with psycopg.connect(database) as connection:
        row = connection.execute("select history.version()").fetchone()
    assert row == (VERSION,)
    assert f"`select history.version()` is {VERSION}" in PAGE.read_text()

"""What is applied when: before new code starts, once no old code runs, and never out of order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest

from eventlog.migrations import MigrationOrder, applied, due, migrate, migration_names, phase_of

PRE, POST, LATER = "0001_pre_a.sql", "0002_post_b.sql", "0003_pre_c.sql"


def test_the_phase_is_in_the_name() -> None:
    assert (phase_of(PRE), phase_of(POST)) == ("pre", "post")


def test_each_phase_takes_its_own_and_everything_takes_all() -> None:
    assert due([PRE, POST], "pre") == [PRE]
    assert due([POST], "post") == [POST]
    assert due([PRE, POST, LATER], "all") == [PRE, POST, LATER]
    assert due([], "pre") == due([], "post") == []


def test_what_would_run_too_early_is_refused_with_the_way_to_go() -> None:
    with pytest.raises(MigrationOrder, match="release by release"):
        due([POST, LATER], "pre")
    with pytest.raises(MigrationOrder, match="migrate --pre"):
        due([PRE, POST], "post")


@pytest.mark.postgres
def test_a_migration_that_fails_leaves_the_database_as_it_was_and_the_ones_before_it_applied(
    database: str, tmp_path: Path
) -> None:
    for name in migration_names():
        (tmp_path / name).write_text("applied already")
    (tmp_path / "9000_pre_good.sql").write_text("create table eventlog.good (n integer);")
    (tmp_path / "9001_pre_bad.sql").write_text("create table eventlog.bad (n integer); select 1 / 0;")
    with pytest.raises(psycopg.errors.DivisionByZero):
        asyncio.run(migrate(database, source=tmp_path))
    with psycopg.connect(database) as connection:
        row = connection.execute("select to_regclass('eventlog.good'), to_regclass('eventlog.bad')").fetchone()
    assert row == ("eventlog.good", None)

    async def names() -> list[str]:
        async with await psycopg.AsyncConnection.connect(database) as connection:
            return await applied(connection)

    assert "9000_pre_good.sql" in asyncio.run(names())
    assert "9001_pre_bad.sql" not in asyncio.run(names())

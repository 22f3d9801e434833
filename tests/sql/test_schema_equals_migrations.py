"""The files under sql/ say what the schema is; the migrations must make exactly that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from importlib.resources import files

import psycopg
import pytest
from catalogue import describe
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from schema_files import SQL, schema_files

from eventlog.migrations import applied, migrate, migration_names

pytestmark = pytest.mark.postgres


@pytest.fixture
def from_files(database: str) -> Iterator[str]:
    """DSN of a database made from the files, without migrations."""
    name = f"{conninfo_to_dict(database)['dbname']}_files"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            dsn = make_conninfo(database, dbname=name)
            with psycopg.connect(dsn, autocommit=True) as connection:
                for file in [SQL / "roles.sql", *schema_files(), SQL / "publications.sql"]:
                    connection.execute(file.read_bytes())
                connection.execute("select eventlog.make_partitions()")
                connection.execute((SQL / "grants.sql").read_bytes())
            yield dsn
        finally:
            owner.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def migrated_now(database: str) -> Iterator[str]:
    """DSN of a database that all migrations made, one after the other, just now: partitions are of their days."""
    name = f"{conninfo_to_dict(database)['dbname']}_migrated"
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        try:
            dsn = make_conninfo(database, dbname=name)
            asyncio.run(migrate(dsn, source=files("sql").joinpath("migrations")))
            yield dsn
        finally:
            owner.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def test_the_migrations_make_what_the_files_say(migrated_now: str, from_files: str) -> None:
    with psycopg.connect(migrated_now) as migrated, psycopg.connect(from_files) as plain:
        ours, theirs = describe(plain), describe(migrated)
    for kind, objects in ours.items():
        assert objects, f"no {kind} found: the comparison looks at nothing"
        assert theirs[kind] == objects, f"{kind} differ: run the freeze, or write a migration"


def test_a_second_migration_does_nothing_and_changes_nothing(migrated_now: str) -> None:
    with psycopg.connect(migrated_now, autocommit=True) as connection:
        before = describe(connection)
        assert asyncio.run(migrate(migrated_now)) == []
        assert describe(connection) == before


def test_an_installed_walden_has_all_of_the_files() -> None:
    # Setuptools takes files along with the packages that they are in.
    lacking = {str(file.parent) for file in schema_files() if not (file.parent / "__init__.py").exists()}
    assert lacking == set()


async def test_every_migration_is_noted_as_applied(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        assert await applied(connection) == migration_names()


def test_everything_in_the_schemas_has_a_comment(database: str) -> None:
    with psycopg.connect(database) as connection:
        found = describe(connection)
    # A partition has its parent's; sequences belong to their columns.
    partitions = {row[0] for row in found["relations"] if row[6] is not None or row[7] is not None}
    silent = [row[0] for row in found["schemas"] if not row[1]]
    silent += [row[0] for row in found["relations"] if row[1] in "rpvm" and row[0] not in partitions and not row[4]]
    composite = {row[0] for row in found["relations"] if row[1] == "c"}
    silent += [f"{row[0]}.{row[2]}" for row in found["columns"] if row[0] not in partitions | composite and not row[9]]
    silent += [row[0] for row in found["functions"] if not row[2]]
    silent += [row[0] for row in found["types"] if not (row[2] or row[3])]
    assert silent == []

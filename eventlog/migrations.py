"""Migrations: numbered SQL files, each applied once, in order, in a transaction of its own, on a server that is at work.

An empty database is made from the files that say what the schema is, and has nothing to migrate.

`sql/migrations/NNNN_pre_name.sql` runs before new code starts, `NNNN_post_name.sql` once no old code runs. The files under
`sql/tables` and `sql/functions` are what the schema is; a test holds that all migrations together make exactly that.

Invariant: nobody waits long for a migration. Whoever wants a lock that a migration waits for waits behind it, so a migration waits
`LOCK_WAIT` at most, gives up all that it holds, and begins again later. One that begins with `CONCURRENTLY` runs statement by
statement, outside a transaction: for indexes that are built while others write. It may be broken off, and must bear being repeated.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final, Literal

import psycopg
import structlog
from psycopg import AsyncConnection, sql

from eventlog.faults import Failure
from eventlog.queries import read_sql
from eventlog.schema_files import schema_files

Phase = Literal["all", "pre", "post"]
"""What to apply: everything, or what is due before new code starts, or once no old code runs."""

CONCURRENTLY: Final = "-- outside a transaction"
LOCK_WAIT: Final = "200ms"
MOST_TRIES: Final = 300
MOST_PAUSE: Final = 4.0
"""Seconds between tries: twenty minutes of them all in all, longer than any read should take."""

log = structlog.get_logger(__name__)
_NAME = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")

# One number for all installations: the lock is per database.
_LOCK = 0x57616C64


class MigrationOrder(Failure):
    """What was asked for would run before something that has to run first."""


def _source() -> Traversable:
    return files("sql").joinpath("migrations")


def migration_names(source: Traversable | None = None) -> list[str]:
    """File names of all migrations in order."""
    names = sorted(f.name for f in (source or _source()).iterdir() if f.name.endswith(".sql"))
    bad = [name for name in names if not _NAME.match(name)]
    if bad:
        raise ValueError(f"migration file names must be NNNN_pre_name.sql or NNNN_post_name.sql: {', '.join(bad)}")
    return names


def phase_of(name: str) -> Phase:
    """`pre` or `post`, by the migration's name."""
    return "pre" if _NAME.sub(r"\2", name) == "pre" else "post"


def due(missing: list[str], phase: Phase) -> list[str]:
    """Those of the missing migrations, in order, that the phase applies. Raises MigrationOrder."""
    if phase == "all":
        return missing
    kinds = [phase_of(name) for name in missing]
    if phase == "post":
        if "pre" in kinds:
            raise MigrationOrder(
                f"{missing[kinds.index('pre')]} is not applied, so that new code cannot be running yet",
                "run `walden migrate --pre` and start the new code, then `walden migrate --post`",
            )
        return missing
    late = kinds.index("post") if "post" in kinds else len(kinds)
    if "pre" in kinds[late:]:
        raise MigrationOrder(
            f"{missing[late]}, of an earlier release, is not applied, and comes first",
            "upgrade release by release, or stop all processes and run `walden migrate`",
        )
    return missing[:late]


async def applied(connection: AsyncConnection) -> list[str]:
    """Names of the migrations this database has."""
    exists = await (await connection.execute("select to_regclass('public.walden_migrations') is not null")).fetchone()
    if exists is None or not exists[0]:
        return []
    cursor = await connection.execute("select name from public.walden_migrations order by name")
    return [row[0] for row in await cursor.fetchall()]


async def migrate(
    dsn: str,
    phase: Phase = "all",
    *,
    source: Traversable | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Applies what is missing to the database and brings grants and publications up to date; returns the names applied.

    An empty database is made whole, unless there is a phase or a `source` of other migrations. Safe to run twice and from two
    machines at once: a session lock makes the second wait. `say` is told, once each, what is waited for. Raises MigrationOrder, and
    psycopg.Error with the database as it was before the migration that failed.
    """
    done: list[str] = []
    folder = source or _source()
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("set lock_timeout = '10min'")
        await connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        await connection.execute(
            "create table if not exists public.walden_migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        await connection.execute(read_sql("sql", "roles.sql"))
        if source is None and phase == "all" and await _is_empty(connection):
            await _insist(connection, "the schema", _whole_schema(), say, note=False)
            say("made the schema")
        present = set(await applied(connection))
        names = due([name for name in migration_names(source) if name not in present], phase)
        for name in names:
            text = folder.joinpath(name).read_text(encoding="utf-8")
            if text.startswith(CONCURRENTLY):
                import pglast  # 8 MB, in processes that never migrate

                for statement in pglast.split(text):
                    await connection.execute(statement.encode())
                await connection.execute("insert into public.walden_migrations (name) values (%s)", [name])
            else:
                await _insist(connection, name, text, say)
            done.append(name)
        for name, text in (
            ("publications.sql", read_sql("sql", "publications.sql")),
            ("making partitions", "select eventlog.make_partitions()"),
            ("grants.sql", read_sql("sql", "grants.sql")),
        ):
            await _insist(connection, name, text, say, note=False)
    return done


async def _is_empty(connection: AsyncConnection) -> bool:
    row = await (await connection.execute("select to_regnamespace('eventlog') is null")).fetchone()
    return row is not None and row[0] and not await applied(connection)


def _whole_schema() -> str:
    """What the files say, with all migrations noted as applied."""
    texts = [file.read_text(encoding="utf-8") for file in schema_files()]
    noted = sql.SQL("insert into public.walden_migrations (name) select unnest({}::text[])").format(migration_names())
    return "\n".join([*texts, noted.as_string(None)])


async def _insist(
    connection: AsyncConnection, name: str, text: str, say: Callable[[str], None], *, note: bool = True
) -> None:
    """Runs a file in a transaction, again and again for as long as others hold what it needs."""
    said: set[str] = set()
    for attempt in range(1, MOST_TRIES + 1):
        try:
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{LOCK_WAIT}'".encode())
                await connection.execute(text.encode())
                if note:
                    await connection.execute("insert into public.walden_migrations (name) values (%s)", [name])
            return
        except (
            psycopg.errors.LockNotAvailable,
            psycopg.errors.DeadlockDetected,
            # Two sessions changed one row of a catalogue, as when a partition goes while rights are given.
            psycopg.errors.InternalError_,
            psycopg.errors.UndefinedTable,
        ) as error:
            catalogue = isinstance(error, psycopg.errors.InternalError_ | psycopg.errors.UndefinedTable)
            if attempt == MOST_TRIES or (catalogue and (note or attempt > 5)):
                raise
            for who in await _in_the_way(connection) - said:
                said.add(who)
                say(f"{name} waits for {who}")
            log.info("a migration is tried again", name=name, attempt=attempt, error=str(error).strip())
            await asyncio.sleep(min(0.1 * 2 ** min(attempt, 10), MOST_PAUSE) * random.uniform(0.5, 1.0))


async def _in_the_way(connection: AsyncConnection) -> set[str]:
    """The sessions that have been in one transaction for longest: nothing else holds a lock of a table for long."""
    cursor = await connection.execute(
        "select pid, usename, application_name from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and xact_start < now() - interval '1 second' order by xact_start limit 3"
    )
    return {f"process {pid} ({user}, {name or 'unnamed'})" for pid, user, name in await cursor.fetchall()}

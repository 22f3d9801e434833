"""Migrations: numbered SQL files, each applied once, in order, in a transaction of its own.

`sql/migrations/NNNN_pre_name.sql` runs before new code starts, `NNNN_post_name.sql` once no old code runs. The files under
`sql/tables` and `sql/functions` are what the schema is; a test holds that all migrations together make exactly that.
"""

from __future__ import annotations

import re
from importlib.resources import files

from psycopg import AsyncConnection

from eventlog.queries import read_sql

_NAME = re.compile(r"^(\d{4})_(pre|post)_[a-z0-9_]+\.sql$")

# One number for all installations: the lock is per database.
_LOCK = 0x57616C64


def migration_names() -> list[str]:
    """File names of all migrations in order."""
    names = sorted(f.name for f in files("sql").joinpath("migrations").iterdir() if f.name.endswith(".sql"))
    bad = [name for name in names if not _NAME.match(name)]
    if bad:
        raise ValueError(f"migration file names must be NNNN_pre_name.sql or NNNN_post_name.sql: {', '.join(bad)}")
    return names


async def applied(connection: AsyncConnection) -> list[str]:
    """Names of the migrations this database has."""
    exists = await (await connection.execute("select to_regclass('public.walden_migrations') is not null")).fetchone()
    if exists is None or not exists[0]:
        return []
    cursor = await connection.execute("select name from public.walden_migrations order by name")
    return [row[0] for row in await cursor.fetchall()]


async def migrate(dsn: str) -> list[str]:
    """Applies what is missing to the database and brings grants and publications up to date; returns the names applied.

    Safe to run twice and from two machines at once: a session lock makes the second wait. Raises psycopg.Error, with the
    database as it was before the migration that failed.
    """
    done: list[str] = []
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("set lock_timeout = '60s'")
        await connection.execute("select pg_advisory_lock(%s)", [_LOCK])
        await connection.execute(
            "create table if not exists public.walden_migrations"
            " (name text primary key, applied_at timestamptz not null default now())"
        )
        present = set(await applied(connection))
        await connection.execute(read_sql("sql", "roles.sql"))
        for name in migration_names():
            if name in present:
                continue
            async with connection.transaction():
                await connection.execute(read_sql("sql.migrations", name))
                await connection.execute("insert into public.walden_migrations (name) values (%s)", [name])
            done.append(name)
        await connection.execute(read_sql("sql", "publications.sql"))
        await connection.execute("select eventlog.make_partitions()")
        await connection.execute(read_sql("sql", "grants.sql"))
    return done

"""Making an installation ready: signing key, schema, logins, publications and slots, each if it is absent.

Invariant: it can be run at any time, also half done, and changes nothing that is as it should be. Whatever the login
it was given may not do is told as the SQL that a database administrator has to run, before anything is changed.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, get_args

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from bin.logins import (
    GROUPS,
    Login,
    make_logins,
    missing_logins,
    statements,
    unknown_logins,
    used_elsewhere,
    wanted_logins,
)
from bin.places import data_folder
from bin.pooling import ELSEWHERE, leads_elsewhere
from eventlog import history
from eventlog.configuration import Settings
from eventlog.history import Restored, Standing
from eventlog.key_file import make_key, read_key
from eventlog.migrations import applied, migrate, migration_names
from eventlog.provision import Identity, check_identity, provision
from eventlog.queries import Queries
from eventlog.seen import read_seen
from eventlog.settings import Role
from eventlog.slots import SlotBlocked
from matrix.signatures import SigningKey

QUERIES = Queries("bin", "initialise.sql")
OLDEST, NEWEST = 150_000, 190_000
OUTAGE_SECONDS = 60.0
BLOCKED_SECONDS = 900.0
RECOVERING_SECONDS = 600.0


class InitialiseError(Exception):
    """The database cannot be set up with what was given; the message says what is missing and what would do."""


def make_ready(settings: Settings) -> None:
    """Make the data directory, and look at the signing key if there is one. Raises ConfigurationError, PlacesError."""
    data_folder(settings.server.data_dir)
    _key_there(settings)


def _key_there(settings: Settings) -> SigningKey | None:
    path = settings.server.signing_key
    return read_key(path) if os.path.lexists(path) else None


def initialise_waiting(settings: Settings, say: Callable[[str], None]) -> None:
    """`initialise`, again for as long as it is only to be waited for; a sentence per thing made.

    Waited for are the embedded database if it restarts in the middle, and transactions of other people that have
    written: PostgreSQL makes no replication slot while one is open, in any database of the cluster.
    """
    began = time.monotonic()
    while True:
        try:
            asyncio.run(initialise(settings, say))
            return
        except SlotBlocked as error:
            if time.monotonic() - began > BLOCKED_SECONDS:
                raise
            say(f"waiting: {error}")
        except psycopg.OperationalError as error:
            passing = error.sqlstate is None or error.sqlstate in ("57P01", "57P02", "57P03", "08006")
            if not settings.embedded or not passing or time.monotonic() - began > OUTAGE_SECONDS:
                raise
            time.sleep(0.5)


async def initialise(settings: Settings, say: Callable[[str], None]) -> None:
    """Bring the database up to date; a sentence per thing made.

    Raises InitialiseError, WrongInstallation (the database is another server's), Restored, psycopg.Error.
    """
    key = _key_there(settings)
    identity = identity_of(settings, key)
    async with await AsyncConnection.connect(settings.dsn(direct=True), autocommit=True) as connection:
        facts = await read_facts(connection)
        refuse(facts)
        await history.wait_until_recovered(connection, RECOVERING_SECONDS)
        # Before anything is changed: a database that was restored is somebody's evidence.
        seen = read_seen(settings.server.data_dir)
        finding = await history.examine(connection, replication_dsns(settings), seen)
        if finding.standing is not Standing.EMPTY:
            await check_identity(connection, identity)
        elif key is None:
            # For a new server alone: whoever has lost the key of another one is not helped by a new one.
            identity = identity_of(settings, make_key(settings.server.signing_key))
            say(f"made the signing key {settings.server.signing_key}: keep a copy of it in a safe place")
        if finding.refused:
            raise Restored(finding)
        await bring_up_to_date(settings, connection, facts, say, [])
    if settings.pooler and await leads_elsewhere(settings):
        raise InitialiseError(f"{ELSEWHERE}; correct one of them, also where the environment sets it")
    for sentence in await provision(settings.dsn(direct=True), settings.dsn("replication"), identity):
        say(sentence)


async def bring_up_to_date(
    settings: Settings,
    connection: AsyncConnection,
    facts: dict[str, Any],
    say: Callable[[str], None],
    stale: list[Login],
) -> None:
    """Schema, grants and logins; `stale` logins get their passwords again. Raises InitialiseError."""
    logins = wanted_logins(settings, facts["database_oid"])
    missing = await missing_logins(connection, logins)
    if not may_do_everything(facts) and (missing or not await _prepared(connection, facts)):
        _explain(settings, facts, missing)
    renewed = [one for one in unknown_logins(settings.server.data_dir, logins) if one not in (*missing, *stale)]
    if renewed and (used := await used_elsewhere(connection, renewed)):
        raise InitialiseError(
            f"another machine's Walden, or a pooler, is connected to this database as {', '.join(used)}, with passwords that "
            f"{settings.server.data_dir / 'logins.json'} does not have: copy that file from the other machine's data directory, "
            "and the signing key with it; or stop what is connected, and run this again to give the logins new passwords"
        )
    # Processes of another machine may be of an older release: what these cannot bear waits until they are gone.
    others = (await (await connection.execute(QUERIES["others"])).fetchall()) if await _known(connection) else []
    for name in await migrate(settings.dsn(direct=True), "pre" if others else "all", say=say):
        say(f"applied migration {name}")
    if others and (left := set(migration_names()) - set(await applied(connection))):
        say(f"other processes run: `walden migrate --post` once all are of this release, for {', '.join(sorted(left))}")
    made = await make_logins(connection, settings.server.data_dir, logins, missing, stale, guests(settings))
    for sentence in made:
        say(sentence)


async def _known(connection: AsyncConnection) -> bool:
    """Whether the database has been migrated before."""
    return bool(await applied(connection))


async def stale_logins(settings: Settings, connection: AsyncConnection) -> list[Login]:
    """Logins that this installation uses and that do not get in: missing, or with the password of another time."""
    facts = await read_facts(connection)
    stale = []
    for login in wanted_logins(settings, facts["database_oid"]):
        dsn = make_conninfo(settings.dsn(direct=True), user=login.name, password=login.password)
        try:
            async with await AsyncConnection.connect(dsn, connect_timeout=settings.database.connect_timeout):
                pass
        except psycopg.OperationalError:
            stale.append(login)
    return stale


def identity_of(settings: Settings, key: SigningKey | None) -> Identity:
    """Who the settings and the key, if there is one, say this server is."""
    key_id, public_key = (key.key_id, key.verify_key_base64) if key else ("", "")
    return Identity(settings.server.name, key_id, public_key, settings.log.shards)


def replication_dsns(settings: Settings) -> list[str]:
    """Ways to a walsender: the installation's own login, which a restored cluster may not have, then the owner."""
    return [settings.dsn("replication"), settings.dsn(direct=True)]


async def read_facts(connection: AsyncConnection) -> dict[str, Any]:
    """One row about server, database and login."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        row = await (await cursor.execute(QUERIES["facts"])).fetchone()
    assert row is not None
    return row


def refuse(facts: dict[str, Any]) -> None:
    """Raise InitialiseError when no right of any login would help."""
    if not OLDEST <= facts["version"] < NEWEST:
        raise InitialiseError(
            f"the server is PostgreSQL {facts['version'] // 10_000}, and Walden knows 15 to 18: use one of those"
        )
    if facts["wal_level"] != "logical":
        raise InitialiseError(
            f"wal_level is {facts['wal_level']}: run `alter system set wal_level = 'logical'` as a superuser "
            "(managed services have a parameter for it) and restart PostgreSQL"
        )
    if facts["encoding"] != "UTF8":
        raise InitialiseError(
            f"database {facts['database']} is encoded in {facts['encoding']}: make one with "
            "`create database walden encoding 'UTF8' locale 'C' template template0`"
        )


def may_do_everything(facts: dict[str, Any]) -> bool:
    """Whether the login can make tables, logins and a replication role by itself.

    PostgreSQL 15 lets only a superuser grant REPLICATION; from 16 a role with CREATEROLE passes on what it has.
    """
    roles = facts["creates_roles"] and facts["replicates"] and facts["version"] >= 160_000
    return bool(facts["superuser"] or (roles and facts["creates_tables"]))


async def _prepared(connection: AsyncConnection, facts: dict[str, Any]) -> bool:
    """Whether an administrator has done what this login may not do."""
    cursor = await connection.execute(QUERIES["members"], {"names": list(GROUPS.values())})
    members = {row[0] for row in await cursor.fetchall()}
    return bool(facts["creates_tables"]) and members >= set(GROUPS.values())


def guests(settings: Settings) -> list[str]:
    """The logins of components that have a DSN of their own."""
    users = (
        conninfo_to_dict(settings.dsn(role)).get("user")
        for role in get_args(Role)
        if getattr(settings.database, f"{role}_dsn", "")
    )
    return [str(user) for user in users if user]


def _explain(settings: Settings, facts: dict[str, Any], missing: list[Login]) -> None:
    text = "\n".join(statements(settings.server.data_dir, facts["database"], facts["login"], missing, guests(settings)))
    raise InitialiseError(
        f"the login {facts['login']} may not do all that is needed. Have an administrator run this in database "
        f"{facts['database']}, then run the same again:\n\n{text}\n"
    )

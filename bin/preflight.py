"""The database's part of `walden doctor`: server settings, schema, slots, publications, logins and their rights.

Invariant: reads only, and bounded: nothing here scans a log.
"""

import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from bin.connections import totals
from bin.findings import Finding, error, fine, warning
from bin.initialise import NEWEST, OLDEST, guests, replication_dsns
from bin.logins import GROUPS
from bin.slot_checks import abandoned_slots, check_abandoned, check_slots, durable_slots
from bin.standbys import check_standbys
from eventlog.configuration import ConfigurationError, Role, Settings
from eventlog.faults import Interrupted
from eventlog.history import REMEDY, Standing, examine
from eventlog.key_file import read_key
from eventlog.migrations import applied, migration_names, phase_of
from eventlog.provision import (
    OUTPUTS_PUBLICATION,
    Identity,
    WrongInstallation,
    check_identity,
    entries_publication,
)
from eventlog.queries import Queries
from eventlog.seen import read_seen
from eventlog.slots import database_oid, slot_health

QUERIES = Queries("bin", "doctor.sql")
CLOCK_WARNS, CLOCK_FAILS = 2.0, 60.0
FULL = ("connection slots are reserved", "too many clients", "too many connections")
"""What PostgreSQL says when it takes no more sessions: of the server, of a database or of a login."""

RIGHTS: tuple[tuple[str, str, str, bool], ...] = (
    ("execute", "eventlog.append_v1(jsonb)", "walden_writer", True),
    ("execute", "roomserver.commit_v1(jsonb)", "walden_roomserver", True),
    ("select", "eventlog.events", "walden_writer", True),
    ("select", "eventlog.events", "walden_roomserver", True),
    ("select", "eventlog.outputs", "walden_reader", True),
    *(
        (kind, table, role, False)
        for role in ("walden_writer", "walden_roomserver", "walden_reader", "walden_history")
        for table in ("eventlog.events", "eventlog.outputs")
        for kind in ("update", "delete", "truncate")
    ),
)
"""Kind of right, object, group role, and whether it must have the right or must not."""


async def check_database(settings: Settings, connection: AsyncConnection) -> list[Finding]:
    """Everything that the owner's connection can tell."""
    server = (await _rows(connection, "server"))[0]
    found = [*_server(server), *_headroom(settings, server), *_clock(server["clock"])]
    found += [one async for one in _strings(connection)]
    missing = sorted(set(migration_names()) - set(await applied(connection)))
    if any(phase_of(name) == "pre" for name in missing):
        return [*found, error("schema", f"not applied: {', '.join(missing)}", "run `walden migrate`")]
    if missing:
        remedy = "run `walden migrate --post` once no process of an older release runs"
        found.append(warning("schema", f"not applied: {', '.join(missing)}", remedy))
    else:
        found.append(fine("schema", "all migrations are applied"))
    found.append(await _history(settings, connection))
    found += [one async for one in _identity(settings, connection)]
    found += [one async for one in _publications(settings, connection)]
    oid = await database_oid(connection)
    wanted = durable_slots(oid, settings.log.shards)
    found += check_slots(wanted, {one.slot_name: one for one in await slot_health(connection)}, server["version"])
    found += check_abandoned(await abandoned_slots(connection, wanted))
    found += await check_standbys(settings, connection, wanted)
    found += [one async for one in _rights(connection)]
    found += [one async for one in _strangers(settings, connection)]
    for row in await _rows(connection, "long_transactions"):
        text = f"process {row['pid']} ({row['application_name']}) in {row['datname']} holds a transaction, {row['seconds']} s"
        found.append(warning("transactions", text, "end it: no replication slot can be made meanwhile"))
    return found


def _server(server: dict[str, Any]) -> Iterator[Finding]:
    major = server["version"] // 10_000
    if not OLDEST <= server["version"] < NEWEST:
        yield error("server", f"it is PostgreSQL {major}", "use PostgreSQL 15 to 18")
    else:
        yield fine("server", f"PostgreSQL {major}.{server['version'] % 10_000}")
    if server["wal_level"] != "logical":
        text = f"wal_level is {server['wal_level']}"
        yield error("server", text, "alter system set wal_level = 'logical', and restart PostgreSQL")
    if server["standby"]:
        yield error("server", "it is a standby", "point database.dsn at the primary")
    for name in ("fsync", "full_page_writes"):
        if server[name] != "on":
            yield error(
                "durability", f"{name} is off: a crash loses acknowledged events", f"alter system set {name} = 'on'"
            )
    if server["synchronous_commit"] == "off":
        remedy = "alter system set synchronous_commit = 'on'"
        yield error("durability", "synchronous_commit is off: a crash loses acknowledged events", remedy)
    if server["slot_wal_megabytes"] < 0:
        text = "max_slot_wal_keep_size is unlimited: a consumer that is down can fill the disk"
        yield warning("server", text, "alter system set max_slot_wal_keep_size = '4GB' (what the disk can spare)")
    if server["sender_timeout_ms"] == 0:
        text = "wal_sender_timeout is off: a slot whose consumer's machine died stays taken"
        yield warning("server", text, "alter system set wal_sender_timeout = '60s'")


def _headroom(settings: Settings, server: dict[str, Any]) -> Iterator[Finding]:
    need = totals(settings)
    # Slots: one for each stream and one more for the readers to copy; then a few for restarts.
    for name, used, limit, more in (
        ("max_replication_slots", server["slots_used"], server["slots"], need["stream"] + 3),
        ("max_wal_senders", server["senders_used"], server["senders"], need["stream"] + 2),
    ):
        if limit < more:
            text = f"{name} is {limit}, and this installation wants {more} (in use by all: {used})"
            yield error("headroom", text, f"alter system set {name} = {max(32, 2 * more)}, and restart PostgreSQL")
        elif limit - used < 2:
            text = f"{used} of {limit} {name} are in use"
            yield warning("headroom", text, f"raise {name}, or drop slots that nobody uses")
        else:
            yield fine("headroom", f"{name}: {used} of {limit} in use")
    yield from _connections(settings, server, need["direct"] + (0 if settings.pooler else need["pooled"]))


def _connections(settings: Settings, server: dict[str, Any], most: int) -> Iterator[Finding]:
    """Whether the sessions of this machine's processes have room beside those of others (`walden connections`)."""
    by_kind = "`walden connections` tells which"
    past = ", beside what the pooler opens" if settings.pooler else ""
    room = server["connections"] - server["reserved_connections"] - server["foreign_sessions"]
    if room < most:
        text = (
            f"Walden may open {most} sessions here{past}, and {room} of {server['connections']} connections are left to it "
            f"({server['foreign_sessions']} are others', {server['reserved_connections']} are reserved); {by_kind}"
        )
        more = server["connections"] + most - room + 20
        remedy = f"lower database.pool_max, put PgBouncer in between, or alter system set max_connections = {more}"
        yield warning("connections", text, remedy)
    elif -1 < server["database_limit"] < most:
        text = f"the database takes {server['database_limit']} connections, and Walden may open {most}{past}; {by_kind}"
        yield warning("connections", text, f"alter database {server['database']} connection limit {most + 10}")
    else:
        yield fine("connections", f"at most {most} sessions{past}, {room} of {server['connections']} are left to them")


def _clock(theirs: float) -> Iterator[Finding]:
    difference = abs(time.time() - theirs)
    remedy = "let both machines follow a time server"
    if difference > CLOCK_FAILS:
        yield error("clock", f"the database's clock and ours differ by {difference:.0f} s", remedy)
    elif difference > CLOCK_WARNS:
        yield warning("clock", f"the database's clock and ours differ by {difference:.1f} s", remedy)


async def _strings(connection: AsyncConnection) -> AsyncIterator[Finding]:
    row = (await _rows(connection, "collation"))[0]
    make = "create database walden encoding 'UTF8' locale 'C' template template0"
    if row["encoding"] != "UTF8":
        yield error("strings", f"the database's encoding is {row['encoding']}", f"make another: {make}")
    if row["by_language"]:
        text = f"strings compare by language ({row['collation']}), not by code point"
        yield warning(
            "strings", text, f'Walden\'s columns say "C" themselves; your own queries may not. Better: {make}'
        )
    else:
        yield fine("strings", f"encoding {row['encoding']}, collation {row['collation']}")


async def _history(settings: Settings, connection: AsyncConnection) -> Finding:
    seen = read_seen(settings.server.data_dir)
    try:
        what = await examine(connection, replication_dsns(settings), seen)
    except Interrupted as problem:
        return error("history", str(problem), problem.remedy)
    if what.refused:
        return error("history", f"this database is not to be served as it is, {what.why}", REMEDY)
    if what.standing is Standing.FAILOVER:
        return fine("history", f"{what.why}: the room server begins an epoch when it starts")
    return fine("history", f"the database is the one it was, epoch {what.epoch}")


async def _identity(settings: Settings, connection: AsyncConnection) -> AsyncIterator[Finding]:
    try:
        key = read_key(settings.server.signing_key)
        await check_identity(
            connection, Identity(settings.server.name, key.key_id, key.verify_key_base64, settings.log.shards)
        )
        yield fine("identity", f"the database belongs to {settings.server.name}")
    except WrongInstallation as problem:
        yield error("identity", str(problem), "the message says what to set")
    except ConfigurationError:
        return  # Said already, by the check of the file.


async def _publications(settings: Settings, connection: AsyncConnection) -> AsyncIterator[Finding]:
    present = {row["pubname"]: row for row in await _rows(connection, "publications")}
    for name in (OUTPUTS_PUBLICATION, *(entries_publication(shard) for shard in range(settings.log.shards))):
        row = present.get(name)
        if row is None:
            yield error("publications", f"{name} is missing", "run `walden init`")
        elif not row["pubinsert"] or row["more"] or not row["pubviaroot"]:
            remedy = f"drop publication {name}, then run `walden init`"
            yield error("publications", f"{name} has been changed: it must publish inserts alone, by the root", remedy)
        else:
            yield fine("publications", name)


async def _rights(connection: AsyncConnection) -> AsyncIterator[Finding]:
    kinds, names, roles, wants = (list(column) for column in zip(*RIGHTS, strict=True))
    wrong = [
        row
        for row in await _rows(connection, "rights", kinds=kinds, names=names, roles=roles, wants=wants)
        if row["granted"] is not row["want"]
    ]
    for row in wrong:
        if row["want"]:
            text = f"{row['role']} may not {row['kind']} {row['name']}"
            yield error("rights", text, "run `walden migrate`, which renews all grants")
        else:
            text = f"{row['role']} may {row['kind']} {row['name']}, and nobody may"
            yield error("rights", text, f"revoke {row['kind']} on {row['name']} from {row['role']}")
    if not wrong:
        yield fine("rights", "the components may do what they have to, and none may change the log")


async def _strangers(settings: Settings, connection: AsyncConnection) -> AsyncIterator[Finding]:
    """The groups are the whole cluster's: CONNECT alone keeps another installation's logins from this database's tables."""
    (row,) = await _rows(connection, "strangers", guests=guests(settings))
    if row["strangers"]:
        text = f"logins of other installations get in, with the rights of its own: {', '.join(row['strangers'])}"
        own = ", ".join(f'"{name}"' for name in row["own"])
        remedy = (
            f'grant connect on database "{row["database"]}" to {own}; '
            f'revoke connect, temporary on database "{row["database"]}" from public'
        )
        yield warning("rights", text, remedy)


async def check_logins(settings: Settings) -> list[Finding]:
    """Each component's login: does it get in, and is it what it should be?"""
    found = []
    for role in (role for role in get_args(Role) if role != "owner"):
        try:
            found.append(await _login(settings, role))
        except (psycopg.Error, ConfigurationError) as problem:
            text = f"the login for {role} does not get in: {str(problem).strip()}"
            remedy = "run `walden init`, or correct the DSN"
            if any(sign in text for sign in FULL):
                remedy = "end other sessions, or raise max_connections (see the finding on connections)"
            elif role == "replication" and not settings.pooler:
                remedy += "; if database.dsn goes through a pooler, set database.direct_dsn past it"
            found.append(error("logins", text, remedy))
    return found


async def _login(settings: Settings, role: Role) -> Finding:
    group = GROUPS.get(role)
    kind: dict[str, Any] = {"connect_timeout": settings.database.connect_timeout, "autocommit": True}
    async with await AsyncConnection.connect(settings.dsn(role, direct=True), **kind) as connection:
        row = (await _rows(connection, "login", group=group or ""))[0]
    if role == "replication":
        if not row["replicates"]:
            return error("logins", f"{row['login']} may not replicate", f'alter role "{row["login"]}" replication')
        # The way past a pooler: a pooler refuses this.
        async with await AsyncConnection.connect(settings.dsn(role), **kind, replication="database") as connection:
            await connection.execute("IDENTIFY_SYSTEM")
    elif not row["member"]:
        return error("logins", f"{row['login']} is no member of {group}", f'grant {group} to "{row["login"]}"')
    if row["superuser"]:
        text = f"{role} uses the superuser {row['login']}, whom no grant restrains"
        return warning("logins", text, "run `walden init`, which makes logins of their own")
    return fine("logins", f"{role} is {row['login']}")


async def _rows(connection: AsyncConnection, query: str, **values: Any) -> list[dict[str, Any]]:
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES[query], values)
        return await cursor.fetchall()

"""What a migrated database needs before components can start: its identity, first epoch, positions, publications, slots.

Invariant: everything here is made if absent and left alone otherwise, so that init can be run again at any time; a database
that belongs to another server name or signing key is refused.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from psycopg import AsyncClientCursor, AsyncConnection, sql

from eventlog.queries import Queries
from eventlog.slots import CREATE_SECONDS, SlotName, create_slot

SQL = Queries("eventlog", "provision.sql")


class WrongInstallation(Exception):
    """The database belongs to another server name or key; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this server is: name, signing key id (`ed25519:a_abcd`) and public key (unpadded base64), number of shards.

    Without a signing key, id and public key are empty.
    """

    server_name: str
    key_id: str
    public_key: str
    shards: int


def entries_publication(shard: int) -> str:
    """Name of the publication that carries one shard's entries to its room server."""
    return f"walden_entries_{shard}"


OUTPUTS_PUBLICATION = "walden_outputs"


def roomserver_slot(database_oid: int, shard: int) -> SlotName:
    """The durable slot of a shard's room server."""
    return SlotName(database_oid, "roomserver", f"s{shard}")


def outputs_slot(database_oid: int) -> SlotName:
    """The durable slot that readers' processes copy."""
    return SlotName(database_oid, "outputs")


async def check_identity(connection: AsyncConnection, identity: Identity) -> None:
    """Raises WrongInstallation unless the database is this server's."""
    row = await (await connection.execute(SQL["installation"])).fetchone()
    if row is None:
        raise WrongInstallation("this database was never initialised: run walden init")
    name, key_id, key, shards = row
    if name != identity.server_name:
        raise WrongInstallation(
            f"this database belongs to the server {name}, but server.name is {identity.server_name}: "
            f"set server.name = {name!r}, or use another database"
        )
    if (key_id, key) != (identity.key_id, identity.public_key):
        held = f"the file that server.signing_key names holds {identity.key_id} ({identity.public_key})"
        raise WrongInstallation(
            f"events in this database are signed with {key_id} (public key {key}), but "
            f"{held if identity.key_id else 'there is no file that server.signing_key names'}: "
            "put the original key file back (it is part of the backup)"
        )
    if shards != identity.shards:
        raise WrongInstallation(
            f"this database has {shards} shard(s), but log.shards is {identity.shards}: set log.shards = {shards}"
        )


async def provision(
    dsn: str, replication_dsn: str, identity: Identity, *, lock_timeout: float = CREATE_SECONDS
) -> list[str]:
    """Makes what is missing and returns a sentence per thing made. Slots last: each wants no write transaction open.

    `lock_timeout`: seconds that a slot waits for each such transaction.

    Raises WrongInstallation for a database of another server, eventlog.slots' errors when a slot cannot be made.
    """
    made: list[str] = []
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute(
            SQL["make_installation"],
            {
                "server_name": identity.server_name,
                "key_id": identity.key_id,
                "key": identity.public_key,
                "shards": identity.shards,
            },
        )
        await check_identity(connection, identity)
        fresh = await (await connection.execute(SQL["make_epoch"], {"epoch": secrets.token_hex(4)})).fetchone()
        if fresh is not None:
            made.append(f"began epoch {fresh[0]}")
        await connection.execute(SQL["name_database"])
        for shard in range(identity.shards):
            await connection.execute(SQL["make_position"], {"component": "roomserver", "shard": shard})
            name = entries_publication(shard)
            exists = await (await connection.execute(SQL["publication"], {"name": name})).fetchone()
            if exists is None:
                await connection.execute(
                    sql.SQL(
                        "create publication {} for table eventlog.events"
                        " (id, kind, shard, local, seq, event_id, room_id, type, state_key, sender, json) where (shard = {})"
                        " with (publish = 'insert', publish_via_partition_root = true)"
                    ).format(sql.Identifier(name), sql.Literal(shard))
                )
                made.append(f"made publication {name}")
        oid = await (await connection.execute(SQL["database_oid"])).fetchone()
        assert oid is not None
        wanted = [roomserver_slot(oid[0], shard) for shard in range(identity.shards)] + [outputs_slot(oid[0])]
        present = {row[0] for row in await (await connection.execute(SQL["slots"])).fetchall()}
    missing = [name for name in wanted if str(name) not in present]
    if missing:
        # A walsender knows only the simple protocol, so parameters are put in by the client.
        async with await AsyncConnection.connect(
            replication_dsn, autocommit=True, replication="database", cursor_factory=AsyncClientCursor
        ) as walsender:
            for slot in missing:
                # Kept in step on standbys where the server can do that: after a failover it is there.
                await create_slot(walsender, slot, failover=True, lock_timeout=lock_timeout)
                made.append(f"made replication slot {slot}")
    return made

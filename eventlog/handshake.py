"""From a DSN to a running stream: the steps a replication connection takes, in order, each of which may refuse.

Invariant: when the last step has passed, the server sends exactly what was committed after `start_lsn`; whatever would make
it skip something in silence has been refused by a step that names the remedy.

The connection knows only the simple protocol, so parameters are merged on the client. LSNs are integers (bytes of WAL).
PostgreSQL documentation, "Streaming Replication Protocol" and "Logical Streaming Replication Parameters".
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncClientCursor, AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from eventlog.faults import Interrupted, Misconfigured
from eventlog.queries import Queries
from eventlog.slots import (
    Loss,
    SlotActive,
    SlotHealth,
    SlotLost,
    copy_slot,
    create_temporary_slot,
    said_as_lost,
    slot_health,
)

QUERIES: Final = Queries("eventlog", "handshake.sql")
CONNECT_SECONDS: Final = "10"
"""As connect_timeout, where the DSN does not say."""
STEP_SECONDS: Final = 30.0
"""A step is one or two small queries; an fsync elsewhere on the disk was seen to hold up a server for 13 s."""


class History(NamedTuple):
    """What a stored position depends on: LSNs compare only within one system identifier and timeline, and a slot brings
    only what its publications (their OIDs, sorted; empty: not compared) covered when it was committed."""

    system_id: str
    timeline: int
    publications: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class System:
    """What IDENTIFY_SYSTEM says."""

    system_id: str
    timeline: int
    wal_end: int
    database: str


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What the stream depends on. `wal_sender_timeout` 0 means none."""

    wal_level: str
    wal_sender_timeout: float
    in_recovery: bool


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is subscribed to, unchanged over reconnects."""

    dsn: str
    slot: str
    publications: tuple[str, ...]
    temporary_copy_of: str | None
    messages: bool
    history: History | None


@dataclass(slots=True)
class Setup:
    """One connection's way to the stream: each step reads what the ones before found, and adds its own."""

    connection: AsyncConnection[Any]
    subscription: Subscription
    slot: str
    start_lsn: int
    system: System = field(init=False)
    settings: ServerSettings = field(init=False)
    publications: tuple[int, ...] = field(init=False)
    health: SlotHealth = field(init=False)

    @property
    def history(self) -> History:
        """What to store beside a position of this stream."""
        return History(self.system.system_id, self.system.timeline, self.publications)


async def identify_system(setup: Setup) -> None:
    """Read who the server is; a stored position of another history has no meaning here."""
    cursor = await setup.connection.execute("IDENTIFY_SYSTEM")
    row = await cursor.fetchone()
    if row is None:
        raise Misconfigured("the server does not identify itself", "connect to PostgreSQL directly, without a pooler")
    high, _, low = str(row[2]).partition("/")
    setup.system = System(str(row[0]), int(row[1]), int(high, 16) << 32 | int(low, 16), str(row[3]))
    expected = setup.subscription.history
    if expected is not None and (expected.system_id, expected.timeline) != (
        setup.system.system_id,
        setup.system.timeline,
    ):
        detail = (
            f"stored {expected.system_id}/{expected.timeline}, found {setup.system.system_id}/{setup.system.timeline}"
        )
        raise SlotLost(setup.slot, Loss.OTHER_HISTORY, detail)
    if setup.start_lsn > setup.system.wal_end:
        raise SlotLost(setup.slot, Loss.OTHER_HISTORY, "the server's WAL ends before the stored position")


async def read_settings(setup: Setup) -> None:
    """Read what the stream depends on."""
    async with setup.connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["settings"])
        row = await cursor.fetchone()
    assert row is not None
    setup.settings = ServerSettings(**row)
    if setup.settings.wal_level != "logical":
        raise Misconfigured(
            f"wal_level is {setup.settings.wal_level}", "set wal_level = logical and restart the server"
        )


async def check_publications(setup: Setup) -> None:
    """The server looks a publication up as of the time of each row. Of what was committed while it was away (dropped and
    made again), 15 to 17 say that it does not exist, for ever; 18 leaves the rows out in silence."""
    names = setup.subscription.publications
    cursor = await setup.connection.execute(QUERIES["publications"], {"names": list(names)})
    found = {str(name): int(oid) for name, oid in await cursor.fetchall()}
    if missing := [name for name in names if name not in found]:
        raise Misconfigured(f"publication {', '.join(missing)} does not exist", "run `walden migrate`")
    setup.publications = tuple(sorted(found.values()))
    expected = setup.subscription.history
    if expected is not None and expected.publications and expected.publications != setup.publications:
        raise SlotLost(setup.slot, Loss.OTHER_PUBLICATION, ", ".join(names))


async def copy_durable_slot(setup: Setup) -> None:
    """Where the subscription is to a temporary copy, make it: it lives as long as this connection."""
    if (source := setup.subscription.temporary_copy_of) is not None:
        # A cut connection's session may hold the old name until the server notices.
        setup.slot = f"{setup.slot}_{secrets.token_hex(3)}"
        if setup.settings.in_recovery:
            # A standby may not have the durable slot (before 17 never), and one that is kept in step is not to be copied.
            await create_temporary_slot(setup.connection, setup.slot)
        else:
            await copy_slot(setup.connection, source, setup.slot, temporary=True)


async def check_slot(setup: Setup) -> None:
    """The slot must be there, alive and free, and not be past the stored position: the server would skip in silence."""
    found = await slot_health(setup.connection, setup.slot)
    if not found:
        raise SlotLost(setup.slot, Loss.MISSING)
    setup.health = health = found[0]
    if health.lost:
        raise SlotLost(setup.slot, Loss.INVALIDATED, health.invalidation_reason or "lost")
    if health.plugin != "pgoutput":
        raise Misconfigured(f"slot {setup.slot} has the plugin {health.plugin}", "drop it; it is made anew")
    if health.active_pid is not None and not health.temporary:
        raise SlotActive(setup.slot, health.active_pid)
    if health.confirmed_lsn is None:
        raise SlotLost(setup.slot, Loss.MISSING, "it was never finished")
    if setup.start_lsn and health.confirmed_lsn > setup.start_lsn:
        raise SlotLost(setup.slot, Loss.AHEAD, f"slot at {health.confirmed_lsn:X}, stored {setup.start_lsn:X}")
    setup.start_lsn = setup.start_lsn or health.confirmed_lsn


async def start(setup: Setup) -> None:
    """Turn the connection into a stream."""
    quoted = sql.SQL(",").join(map(sql.Identifier, setup.subscription.publications))
    command = sql.SQL(
        "START_REPLICATION SLOT {} LOGICAL {} (proto_version '1', publication_names {}, messages {})"
    ).format(
        sql.Identifier(setup.slot),
        sql.SQL(f"{setup.start_lsn >> 32:X}/{setup.start_lsn & 0xFFFFFFFF:X}"),  # the grammar wants it bare
        sql.Literal(quoted.as_string(setup.connection)),
        sql.Literal("true" if setup.subscription.messages else "false"),
    )
    with said_as_lost(setup.slot):
        await setup.connection.execute(command)


SETUP: Final[Sequence[tuple[str, Callable[[Setup], Awaitable[None]]]]] = (
    ("identify the system", identify_system),
    ("read its settings", read_settings),
    ("check the publications", check_publications),
    ("copy the slot", copy_durable_slot),
    ("check the slot", check_slot),
    ("start the stream", start),
)
"""What must hold before the first row, in the order in which the remedies have to be applied."""


async def shake_hands(subscription: Subscription, start_lsn: int) -> Setup:
    """Connect and take every step. Raises SlotLost, SlotActive, Misconfigured, Interrupted or psycopg.Error."""
    defaults = {"connect_timeout": CONNECT_SECONDS, "fallback_application_name": f"walden {subscription.slot}"}
    parameters: dict[str, Any] = {**defaults, **conninfo_to_dict(subscription.dsn)}
    try:
        connection = await AsyncConnection.connect(
            make_conninfo(**{**parameters, "replication": "database"}),
            autocommit=True,
            cursor_factory=AsyncClientCursor,
        )
    except psycopg.OperationalError as error:
        await _explain_refusal(make_conninfo(**parameters), error)
        raise
    setup = Setup(connection, subscription, subscription.slot, start_lsn)
    for purpose, step in SETUP:
        try:
            async with asyncio.timeout(STEP_SECONDS):
                await step(setup)
        except BaseException as error:
            await connection.close()
            if isinstance(error, TimeoutError):
                raise Interrupted(f"the server took over {STEP_SECONDS:.0f} s to {purpose}", "see its log") from error
            error.add_note(f"while trying to {purpose} for slot {setup.slot}")
            raise
    return setup


async def _explain_refusal(dsn: str, error: psycopg.OperationalError) -> None:
    """libpq keeps the SQLSTATE of a refused connection to itself, so the commonest cause is looked for: Misconfigured if
    the role may log in, but not replicate."""
    try:
        connection = await AsyncConnection.connect(dsn, autocommit=True)
    except psycopg.OperationalError:
        return
    async with connection:
        row = await (await connection.execute(QUERIES["may_replicate"])).fetchone()
    if row is not None and not row[1]:
        raise Misconfigured(f"role {row[0]} may not replicate", f'run: alter role "{row[0]}" replication') from error

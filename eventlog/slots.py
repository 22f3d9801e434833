"""Replication slots: their names, making, copying, moving, dropping, and how they are.

Invariants: a name carries the OID of its database, because slot names are global to a cluster and a restored copy of
an installation must not meet the original's; nothing here drops a slot of another database; nothing waits without a
bound for other people's transactions.

Every function takes a connection in autocommit, an ordinary one or one opened with `replication="database"`: parameters
are merged on the client, as a walsender knows only the simple protocol. LSNs are integers (bytes of WAL).
"""

from __future__ import annotations

import contextlib
import enum
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import psycopg
from psycopg import AsyncClientCursor
from psycopg.rows import dict_row

from eventlog.faults import Failure, Policy
from eventlog.queries import Queries

Connection = psycopg.AsyncConnection[Any]

QUERIES: Final = Queries("eventlog", "slots.sql")
NAME_LENGTH: Final = 63
"""NAMEDATALEN - 1: the server refuses longer names."""
CREATE_SECONDS: Final = 5.0
"""How long making a slot waits for transactions that are open. They hold up nothing but the new slot, so asking again
later costs nothing, whereas a longer wait holds up the set-up command."""

_NAME: Final = re.compile(r"walden_([1-9][0-9]{0,9})_([a-z0-9]+)(?:_([a-z0-9_]+))?")


class Loss(enum.Enum):
    """Why a slot is of no use to the consumer that asks for it."""

    MISSING = "it does not exist"
    INVALIDATED = "the server has removed WAL or rows that it needs"
    AHEAD = "it stands after the position that the consumer has stored"
    OTHER_PUBLICATION = "its publication was made again, and what was committed in between is not in the stream"
    OTHER_HISTORY = "the stored position belongs to another system, timeline or future"


SETTINGS: Final[Mapping[str, str]] = {
    "lost": "raise max_slot_wal_keep_size",
    "wal_removed": "raise max_slot_wal_keep_size",
    "rows_removed": "set hot_standby_feedback = on",
    "wal_level_insufficient": "keep wal_level = logical on the primary",
    "idle_timeout": "raise idle_replication_slot_timeout or keep the consumer running",
}
"""What keeps a slot alive, by the server's reason for giving one up (before 17 by its wal_status)."""


class SlotLost(Failure):
    """The slot cannot bring what follows the stored position. The consumer works from the tables and makes a new one."""

    def __init__(self, slot: str, loss: Loss, detail: str = "") -> None:
        why = f"{loss.value} ({detail})" if detail else loss.value
        remedy = "the consumer catches up from the tables by itself"
        if (setting := SETTINGS.get(detail)) is not None:
            remedy += f"; to spare it that, {setting}"
        super().__init__(f"replication slot {slot} is lost, {why}", remedy)
        self.slot = slot
        self.loss = loss


class SlotActive(Failure):
    """Another session streams from the slot."""

    policy = Policy.RETRY

    def __init__(self, slot: str, pid: int) -> None:
        super().__init__(
            f"replication slot {slot} is active for process {pid}",
            "stop the other consumer; a dead one's session ends within wal_sender_timeout",
        )
        self.pid = pid


class SlotBlocked(Failure):
    """A slot could not be made in time, because a transaction that has written is open. Nothing is left behind."""

    policy = Policy.RETRY


class ForeignSlot(Failure):
    """The slot belongs to another database of the cluster."""

    def __init__(self, slot: str, database: str | None) -> None:
        super().__init__(
            f"replication slot {slot} belongs to the database {database}", "connect to that database to drop it"
        )


@dataclass(frozen=True, slots=True)
class SlotName:
    """`walden_<database oid>_<role>[_<suffix>]`. The role has no underscore, so that a name is read in one way only."""

    database_oid: int
    role: str
    suffix: str = ""

    def __post_init__(self) -> None:
        if len(str(self)) > NAME_LENGTH:
            raise ValueError(f"slot name {self} is longer than {NAME_LENGTH} characters")
        if not _NAME.fullmatch(str(self)) or "_" in self.role:
            raise ValueError(f"slot name {self} may hold only a-z, 0-9 and _, and no _ in the role")

    def __str__(self) -> str:
        return f"walden_{self.database_oid}_{self.role}" + (f"_{self.suffix}" if self.suffix else "")

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a name. ValueError: it is not one of ours."""
        if not (match := _NAME.fullmatch(name)):
            raise ValueError(f"{name!r} is not the name of a Walden slot")
        return cls(int(match[1]), match[2], match[3] or "")


@dataclass(frozen=True, slots=True)
class SlotHealth:
    """A logical slot of this database as pg_replication_slots shows it; lags are bytes of WAL."""

    slot_name: str
    plugin: str
    temporary: bool
    active_pid: int | None
    wal_status: str | None
    """reserved, extended, unreserved (about to be lost) or lost."""
    safe_wal_size: int | None
    """Bytes that can be written before the slot may be lost; None without a limit."""
    confirmed_lsn: int | None
    restart_lag: int | None
    """WAL that the slot keeps on disk."""
    confirmed_lag: int | None
    """WAL that its consumer has not confirmed."""
    catalog_xmin_age: int | None
    """Transactions for which VACUUM cannot clean catalogs."""
    invalidation_reason: str | None
    """Why the slot was invalidated (server 17 and newer)."""
    failover: bool

    @property
    def lost(self) -> bool:
        """True if the slot will never deliver again."""
        return self.wal_status == "lost" or self.invalidation_reason is not None


async def slot_health(connection: Connection, name: str | None = None) -> list[SlotHealth]:
    """The logical slots of this database (or the one named, if it is there), ours and others, sorted by name."""
    cursor = AsyncClientCursor(connection, row_factory=dict_row)
    await cursor.execute(QUERIES["logical_slots"], {"name": name})
    return [SlotHealth(**row) for row in await cursor.fetchall()]


async def database_oid(connection: Connection) -> int:
    """The OID of the connected database, for `SlotName`."""
    return int(await _value(connection, "database_oid"))


async def create_slot(
    connection: Connection, name: SlotName | str, *, failover: bool = False, lock_timeout: float = CREATE_SECONDS
) -> int:
    """Make a durable pgoutput slot; returns where it begins (LSN).

    It waits until every transaction of the cluster that had written has ended, `lock_timeout` seconds at most for each:
    then SlotBlocked, which names the transactions. psycopg.errors.DuplicateObject: it exists. Servers before 17 know no
    `failover` and make an ordinary slot.
    """
    _autocommit(connection)
    before = str(await _value(connection, "lock_timeout"))
    version = int(await _value(connection, "server_version"))
    query = "create_failover_slot" if failover and version >= 170000 else "create_slot"
    await _value(connection, "set_lock_timeout", timeout=f"{max(1, round(lock_timeout * 1000))}ms")
    try:
        return int(await _value(connection, query, name=str(name)))
    except psycopg.errors.LockNotAvailable as error:
        cursor = await AsyncClientCursor(connection).execute(QUERIES["open_write_transactions"])
        open_ones = "; ".join(f"process {pid} in {db} ({app}), {s} s" for pid, db, app, s in await cursor.fetchall())
        raise SlotBlocked(
            f"slot {name} was not made within {lock_timeout} s, a write transaction is open: {open_ones or 'unknown'}",
            "end the transaction or wait for it, then try again",
        ) from error
    finally:
        if not connection.broken:
            await _value(connection, "set_lock_timeout", timeout=before)


async def copy_slot(
    connection: Connection, source: SlotName | str, name: SlotName | str, *, temporary: bool = True
) -> int:
    """Make `name` begin where `source` stands; returns that position (LSN). Waits for no transaction.

    A temporary slot lives and dies with the session that made it: make it on the connection that will stream from it.
    SlotLost: the source is missing or invalidated.
    """
    _autocommit(connection)
    found = await slot_health(connection, str(source))
    if not found:
        raise SlotLost(str(source), Loss.MISSING)
    if found[0].lost:
        raise SlotLost(
            str(source), Loss.INVALIDATED, found[0].invalidation_reason or found[0].wal_status or "unfinished"
        )
    with said_as_lost(str(source)):
        return int(await _value(connection, "copy_slot", source=str(source), name=str(name), temporary=temporary))


async def create_temporary_slot(connection: Connection, name: SlotName | str) -> int:
    """Make a slot of this session's own, beginning now; returns where (LSN). For standbys, where there may be none to copy.

    It waits for the primary to say which transactions run. SlotLost: this server decodes nothing.
    """
    _autocommit(connection)
    with said_as_lost(str(name)):
        return int(await _value(connection, "create_temporary_slot", name=str(name)))


@contextlib.contextmanager
def said_as_lost(slot: str) -> Iterator[None]:
    """Between a look at a slot and its use it may go: the server's errors for that become SlotLost."""
    try:
        yield
    except psycopg.errors.UndefinedObject as error:
        raise SlotLost(slot, Loss.MISSING) from error
    except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.UndefinedFile) as error:
        raise SlotLost(slot, Loss.INVALIDATED, error.diag.message_primary or "") from error


async def advance_slot(connection: Connection, name: SlotName | str, lsn: int) -> int:
    """Move an inactive slot to `lsn` or the nearest point it can reach; returns where it stands.

    Raises psycopg.errors.ObjectInUse while somebody streams from it, ForeignSlot for another database's.
    """
    _autocommit(connection)
    await _ours(connection, str(name))
    return int(await _value(connection, "advance_slot", name=str(name), lsn=lsn))


async def drop_slot(connection: Connection, name: SlotName | str) -> bool:
    """Drop a slot of this database; False if there was none. ForeignSlot: it is another database's.

    Raises psycopg.errors.ObjectInUse while somebody streams from it.
    """
    _autocommit(connection)
    if not await _ours(connection, str(name)):
        return False
    cursor = await AsyncClientCursor(connection).execute(QUERIES["drop_slot"], {"name": str(name)})
    return bool(await cursor.fetchall())


async def _ours(connection: Connection, name: str) -> bool:
    """False if there is no such slot, ForeignSlot if it is another database's."""
    cursor = await AsyncClientCursor(connection).execute(QUERIES["slot_owner"], {"name": name})
    owner = await cursor.fetchone()
    if owner is None:
        return False
    if owner[0] != connection.info.dbname:
        raise ForeignSlot(name, owner[0])
    try:
        parsed = SlotName.parse(name)
    except ValueError:
        return True
    if parsed.database_oid != await database_oid(connection):
        raise ForeignSlot(name, f"with OID {parsed.database_oid}")
    return True


async def _value(connection: Connection, query: str, **values: Any) -> Any:
    row = await (await AsyncClientCursor(connection).execute(QUERIES[query], values or None)).fetchone()
    if row is None:
        raise LookupError(f"query {query} returned no row")
    return row[0]


def _autocommit(connection: Connection) -> None:
    if not connection.autocommit:
        raise ValueError("slots are managed on a connection in autocommit: a slot waits for open transactions")

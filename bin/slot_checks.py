"""Slots looked at as a DBA would: near their limit, behind, holding back VACUUM, left behind by somebody.

Invariant: reads only. A slot is called abandoned when nobody uses it and it holds something back; of other people's slots that is
said too, since they fill the same disk, and dropping one is always left to a person: the command is named.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection, sql
from psycopg.rows import dict_row

from bin.findings import Finding, error, fine, warning
from eventlog.provision import outputs_slot, roomserver_slot
from eventlog.queries import Queries
from eventlog.slots import SlotHealth

QUERIES = Queries("bin", "slot_checks.sql")
SAFE_BYTES: Final = 512 << 20
"""Less WAL than this before a slot may be lost is worth a warning: an hour of a busy server, minutes of somebody's bulk load."""
HELD_BYTES: Final = 64 << 20
"""An idle slot of somebody else that holds back less may just have been made."""
CATALOG_AGE: Final = 10_000_000
"""Transactions for which VACUUM could not clean the catalogs: by then they are bloated; autovacuum's alarm is at 200 million."""


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A slot that nobody uses. `command` frees what it holds back, run by any role with REPLICATION."""

    name: str
    kind: str
    """physical or logical."""
    database: str | None
    retained: int
    """Bytes of WAL."""
    since: str | None
    """When it was last used (server 17 and newer)."""
    ours: bool
    command: str


def durable_slots(database_oid: int, shards: int) -> list[str]:
    """The names of the durable slots that an installation uses."""
    return [str(roomserver_slot(database_oid, shard)) for shard in range(shards)] + [str(outputs_slot(database_oid))]


async def abandoned_slots(connection: AsyncConnection, wanted: Iterable[str]) -> list[Abandoned]:
    """The abandoned slots of the whole cluster; those of `wanted` are not, however far behind they are."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(QUERIES["unused_slots"], {"wanted": list(wanted), "held": HELD_BYTES})
        rows: list[dict[str, Any]] = await cursor.fetchall()
    command = sql.SQL("select pg_drop_replication_slot({});")
    return [Abandoned(**row, command=command.format(sql.Literal(row["name"])).as_string(None)) for row in rows]


def check_abandoned(found: Iterable[Abandoned]) -> Iterator[Finding]:
    """A warning for each."""
    for slot in found:
        whose = "of this database, and nothing here uses it" if slot.ours else f"of {slot.database or 'a standby'}"
        since = f", unused since {slot.since}" if slot.since else ""
        yield warning(
            "slots",
            f"{slot.kind} slot {slot.name} ({whose}) is idle{since} and holds back {slot.retained >> 20} MiB of WAL",
            f"if nobody will need it: {slot.command}",
        )


def check_slots(wanted: list[str], present: dict[str, SlotHealth], version: int) -> Iterator[Finding]:
    """How the installation's own durable slots are."""
    for name in wanted:
        slot = present.get(name)
        if slot is None:
            yield warning("slots", f"{name} is missing", "run `walden init`; consumers work from the tables meanwhile")
            continue
        if slot.lost:
            text = f"{name} is lost ({slot.invalidation_reason or slot.wal_status})"
            yield warning("slots", text, "its consumer makes it again; give max_slot_wal_keep_size more room")
            continue
        worse = list(_risks(slot, version))
        yield from worse
        if not worse:
            safe = "" if slot.safe_wal_size is None else f", {slot.safe_wal_size >> 20} MiB more are safe"
            yield fine("slots", f"{name} holds back {(slot.restart_lag or 0) >> 10} kiB{safe}")


def _risks(slot: SlotHealth, version: int) -> Iterator[Finding]:
    behind = f"{slot.slot_name} holds back {(slot.restart_lag or 0) >> 20} MiB"
    if slot.wal_status == "unreserved":
        yield error("slots", f"{behind} and is about to be lost", "see why its consumer is behind (`walden status`)")
    elif slot.safe_wal_size is not None and slot.safe_wal_size < SAFE_BYTES < (slot.restart_lag or 0):
        text = f"{behind}, and {slot.safe_wal_size >> 20} MiB more may lose it"
        yield warning("slots", text, "see why its consumer is behind, or give max_slot_wal_keep_size more room")
    if (slot.catalog_xmin_age or 0) > CATALOG_AGE:
        text = f"{slot.slot_name} keeps VACUUM from cleaning catalogs for {slot.catalog_xmin_age} transactions"
        yield warning("slots", text, "start its consumer (`walden up`), or drop the slot: it is made again")
    if version >= 170_000 and not slot.failover:
        remedy = f"with Walden stopped: select pg_drop_replication_slot('{slot.slot_name}'); then `walden init`"
        yield warning("slots", f"{slot.slot_name} does not go over to a standby", remedy)

"""Maintenance: what has to happen regularly and belongs to nobody else.

Reads: outputs with their entries, by position, to count them; for retention see readers/retention. Writes: partitions, the outputs
slot's position, the counts of schema activity, removals of what has expired.
Shards by: nothing. Safe to run N of: yes, each step is harmless twice. Dead for an hour: nothing is noticed; for weeks:
rows go to the default partitions, and the outputs slot holds back WAL until max_slot_wal_keep_size.

Invariant: the durable outputs slot, which reader processes copy and nobody streams from, exists and is never far behind; a standby
that database.dsn names has no slots of its own from a time as the primary for longer than a moment.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial

import psycopg
import structlog
from psycopg import AsyncConnection

from eventlog import leftover_slots
from eventlog.faults import Failure
from eventlog.pools import component_dsn
from eventlog.provision import outputs_slot
from eventlog.queries import Queries
from eventlog.settings import Media, Settings
from eventlog.slots import SlotBlocked, SlotName, advance_slot, create_slot, database_oid, drop_slot, slot_health
from eventlog.standing import end, persist
from readers.media.pruning import prune
from readers.retention.record import Busy
from readers.retention.rounds import go_round

SQL = Queries("readers", "maintenance.sql")
log = structlog.get_logger(__name__)

# A process that copies the slot decodes what was written since it was moved: some seconds' worth at most.
SLOT_SECONDS = 10.0
STANDBY_SECONDS = 20.0
EXPIRY_SECONDS = 600.0
PARTITION_SECONDS = 3600.0
LOCKED_SECONDS = 60.0
LOOK_SECONDS = 5.0
RETENTION_SECONDS = 3600.0
# Outputs are counted some thousand a transaction; what one round does not reach, the next one does.
FOLDED_AT_ONCE = 2_000
FOLDS = 50
STRAYS = 1_000
EXPIRED_AT_ONCE = 5_000
DAYS = {
    "forget_txns": 7,
    "end_uia_sessions": 1,
    "end_sessions": 7,
    "end_validations": 1,
    "end_login_tokens": 0,
    "end_openid_tokens": 0,
    "forget_quarantine": 30,
}
"""How long rows live that expire, by the query that removes them."""


async def run(settings: Settings) -> None:
    """Work until cancelled. Raises what does not pass by itself, and what has not passed within five minutes."""
    retention = asyncio.create_task(_retention(settings), name="retention")
    try:
        await persist(partial(_work, settings), "maintenance")
    finally:
        await end(retention)


async def _retention(settings: Settings) -> None:
    """Rounds of retention beside everything else, for one may last. What stops one is tried again by the next."""
    while True:
        try:
            async with await AsyncConnection.connect(
                component_dsn(settings, "maintenance", direct=True), autocommit=True, connect_timeout=10
            ) as connection:
                await go_round(connection, settings.retention)
        except Busy:
            log.info("retention waits: somebody purges something")
        except (psycopg.Error, Failure, OSError) as error:
            log.warning("retention was interrupted", error=str(error).strip())
        except Exception:
            # An event that cannot be read must stop neither this process nor what else it does.
            log.exception("retention was stopped by a fault")
        await asyncio.sleep(RETENTION_SECONDS)


async def _work(settings: Settings) -> None:
    ours = component_dsn(settings, "maintenance", direct=True)
    # An ordinary session of the role that may move slots.
    movers = component_dsn(settings, "replication", direct=True, name="maintenance")
    async with (
        await AsyncConnection.connect(ours, autocommit=True, connect_timeout=10) as connection,
        await AsyncConnection.connect(movers, autocommit=True, connect_timeout=10) as mover,
    ):
        slot = outputs_slot(await database_oid(mover))
        due = {"partitions": 0.0, "expiry": 0.0, "standbys": 0.0}
        while True:
            now = time.monotonic()
            if now >= due["partitions"]:
                due["partitions"] = now + (PARTITION_SECONDS if await _make_partitions(connection) else LOCKED_SECONDS)
            if now >= due["expiry"]:
                due["expiry"] = now + EXPIRY_SECONDS
                await _remove_expired(connection)
                await _forget_strays(connection)
                await _prune_media(connection, settings.media)
            await _count_activity(connection)
            await _move_slot(mover, slot)
            if now >= due["standbys"]:
                due["standbys"] = now + STANDBY_SECONDS
                await _look_at_standbys(movers)
            await asyncio.sleep(SLOT_SECONDS)


async def _look_at_standbys(dsn: str) -> None:
    """Frees the servers that the DSN names of what they kept from their time as the primary."""
    for node in leftover_slots.nodes(dsn):
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                dropped = await leftover_slots.drop_leftovers(node)
        except (psycopg.Error, OSError, TimeoutError):
            # One that is away is missed by whoever runs it, and what it has kept is dropped when it is back.
            continue
        if dropped:
            log.info("a standby had slots from its time as the primary: they were dropped", slots=dropped)


async def _make_partitions(connection: AsyncConnection) -> bool:
    """Makes and drops what is due; False where somebody's long read is in the way."""
    try:
        async with connection.transaction():
            await connection.execute(SQL["wait_briefly"])
            row = await (await connection.execute(SQL["make_partitions"])).fetchone()
    except psycopg.errors.LockNotAvailable:
        log.info("partitions are made later: the log is in use")
        return False
    if row is not None and row[0]:
        log.info("partitions were made", made=row[0])
    try:
        row = await (await connection.execute(SQL["drop_ephemeral"])).fetchone()
    except psycopg.errors.LockNotAvailable:
        log.info("ephemeral outputs are dropped later: the log is in use")
        return False
    if row is not None and row[0]:
        log.info("partitions of ephemeral outputs were dropped", dropped=row[0])
    return True


async def _count_activity(connection: AsyncConnection) -> None:
    for _ in range(FOLDS):
        row = await (await connection.execute(SQL["fold_activity"], {"most": FOLDED_AT_ONCE})).fetchone()
        if row is None or not row[0]:
            break


async def _remove_expired(connection: AsyncConnection) -> None:
    for name, days in DAYS.items():
        while True:
            removed = (await connection.execute(SQL[name], {"days": days, "most": EXPIRED_AT_ONCE})).rowcount
            if removed < EXPIRED_AT_ONCE:
                break


async def _forget_strays(connection: AsyncConnection) -> None:
    """Says in the log that nobody waits for messages to devices that are no more; a part at a time, the next one a round later."""
    row = await (await connection.execute(SQL["forget_strays"], {"most": STRAYS})).fetchone()
    if row is not None and row[0]:
        log.info("messages to devices that are no more are taken away", devices=row[0])


async def _prune_media(connection: AsyncConnection, settings: Media) -> None:
    try:
        done = await prune(connection, settings)
    except OSError as error:
        # A directory that is away must not keep the rest from being done.
        log.warning("media were not taken away", error=str(error))
        return
    if done:
        log.info("media were taken away", uploads=done.uploads, previews=done.previews, contents=done.contents)


async def _move_slot(mover: AsyncConnection, slot: SlotName) -> None:
    found = await slot_health(mover, str(slot))
    try:
        if not found or found[0].lost:
            log.warning("the outputs slot is lost: making it again", slot=str(slot))
            await drop_slot(mover, slot)
            await create_slot(mover, slot, failover=True)
            return
        row = await (await mover.execute(SQL["wal_end"])).fetchone()
        assert row is not None
        if row[0] > (found[0].confirmed_lsn or 0):
            await advance_slot(mover, slot, row[0])
    except SlotBlocked as error:
        log.warning("the outputs slot cannot be made yet", why=str(error))
    except psycopg.errors.ObjectInUse:
        # A process is copying it, or a person streams from it; the next round moves it.
        log.info("the outputs slot is in use", slot=str(slot))

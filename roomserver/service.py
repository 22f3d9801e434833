"""The room server of one shard: takes entries from the slot, decides, commits, confirms.

Invariant: one room server a shard. Its position moves by compare-and-set in the transaction of its effects, and nothing is
confirmed to the slot that is not so stored; what it is shown twice it skips, what it was not shown it finds in the tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from datetime import timedelta

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.pq import TransactionStatus

from eventlog import history
from eventlog.faults import Policy, Retries, is_of_the_database, judge
from eventlog.history import Restored, Standing
from eventlog.key_file import read_key
from eventlog.leftover_slots import drop_leftovers
from eventlog.pgoutput import Commit, Message
from eventlog.pools import component_dsn
from eventlog.provision import Identity, check_identity, entries_publication, roomserver_slot
from eventlog.replication import Batch, Subscriber
from eventlog.seen import Epochs, Seen, lineage, read_seen, write_seen
from eventlog.settings import Settings
from eventlog.slots import Loss, SlotLost, create_slot, drop_slot
from eventlog.standing import end, stand
from roomserver.decisions import Decisions, lsn_text
from roomserver.entries import WANTED, Entry, from_row
from roomserver.store import SQL
from roomserver.typing import typing_key

log = structlog.get_logger(__name__)

# One call's effects stay well below a megabyte, and a lone writer's group is far smaller.
MAX_ROWS = 400
MAX_BYTES = 1 << 20
# Entries this much older than the last move of the position are still looked for when catching up: far longer than a
# transaction of a writer may take.
MARGIN = timedelta(hours=1)
CHUNK = 500
# Sessions in a row that end without having moved the position before the supervisor is left to decide, and the longest pause
# between them: a failover is noticed as soon as it has happened.
MAX_FAILURES = 120
MOST_PAUSE = 0.5
# Between looks whether somebody has mended what keeps it from working.
STOPPED_PAUSE = 2.0
# How often a position without output is stored, so that an idle server's slot moves.
IDLE_SECONDS = 10.0
# How often the data directory is told how far the shard is.
SEEN_SECONDS = 1.0
# How long a process that is to end tries to give its shard back.
LEAVE_SECONDS = 5.0


class RoomServer:
    """One shard's room server; `run` until cancelled."""

    def __init__(self, settings: Settings, shard: int) -> None:
        self.settings = settings
        self.shard = shard
        self.owner = str(uuid.uuid4())
        self.decisions = Decisions(shard, self.owner, typing_key(settings), self._connect, self._end_session)
        self.lsn = 0
        # Until the stream has passed this, it may show entries that were found in the tables.
        self.seen_until = 0
        self._dsn = component_dsn(settings, "roomserver", direct=True, name=f"roomserver {shard}")
        self._begun = False
        self._failure: BaseException | None = None
        self._following: asyncio.Task[None] | None = None
        self._epochs: Epochs = {}

    async def run(self) -> None:
        """Serves until cancelled. Raises OwnershipLost when another room server took over, psycopg.Error past its budget,
        Restored when the database is not the one it was.

        A session that loses its connection is begun again from what is stored: whether its last batch was committed, the
        position tells.
        """
        failures = 0
        while True:
            before = self.decisions.position
            try:
                await self._session()
            except psycopg.Error as error:
                if not is_of_the_database(error):
                    raise
                failures = 1 if self.decisions.position > before else failures + 1
                if failures > MAX_FAILURES:
                    raise
                fault = judge(error)
                if fault.policy is Policy.STOP:
                    # Every entry would meet it: none is judged, nor set aside, until somebody has mended it.
                    log.error(
                        "the room server cannot work", shard=self.shard, error=str(error).strip(), remedy=fault.remedy
                    )
                    await asyncio.sleep(STOPPED_PAUSE)
                    continue
                log.warning("room server lost its connection", shard=self.shard, error=str(error).strip())
                await asyncio.sleep(min(0.05 * 2 ** min(failures, 10), MOST_PAUSE))

    async def _session(self) -> None:
        async with await self._connect() as connection:
            await self._wait_for_lock(connection)
            await self._check_history(connection)
            clean = await self._take(connection)
            remembering = stand(self._remember, "remember")
            try:
                await self.decisions.settle()
                if not clean and not self._begun:
                    log.warning("the last room server did not stop in order: trying entries singly", shard=self.shard)
                    await self._catch_up(connection, singly=True)
                self._begun = True
                self.decisions.resume()
                await self._watch(asyncio.create_task(self._follow(), name="follow"))
            finally:
                await end(remembering)
                await self.decisions.end()
                if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
                    # A commit that still waits for a standby: nothing may be asked, nor cancelled, on its connection.
                    await connection.close()
                if not connection.closed and not connection.broken:
                    await self._leave_in_time(connection)

    async def _watch(self, following: asyncio.Task[None]) -> None:
        self._following, self._failure = following, None
        try:
            await following
        except asyncio.CancelledError:
            if self._failure is None:
                await end(following)
                raise
            raise self._failure from None

    async def _connect(self) -> AsyncConnection:
        return await AsyncConnection.connect(self._dsn, autocommit=True, prepare_threshold=0, connect_timeout=10)

    async def _wait_for_lock(self, connection: AsyncConnection) -> None:
        said = False
        while True:
            row = await (await connection.execute(SQL["lock"], {"shard": self.shard})).fetchone()
            if row is not None and row[0]:
                return
            if not said:
                log.info("another room server has the shard: standing by", shard=self.shard)
                said = True
            await asyncio.sleep(0.5)

    async def _take(self, connection: AsyncConnection) -> bool:
        cursor = await connection.execute(SQL["take"], {"owner": self.owner, "pid": os.getpid(), "shard": self.shard})
        row = await cursor.fetchone()
        if row is None:
            raise RuntimeError(f"shard {self.shard} has no position: run walden init")
        position, self.lsn, clean = row
        await self.decisions.begin(connection, position)
        log.info("room server took its shard", shard=self.shard, position=position)
        return bool(clean)

    async def _follow(self) -> None:
        row = await (await self._live().execute(SQL["database_oid"])).fetchone()
        assert row is not None
        slot = roomserver_slot(row[0], self.shard)
        while True:
            subscriber = Subscriber(
                component_dsn(self.settings, "replication", name=f"roomserver {self.shard}"),
                str(slot),
                [entries_publication(self.shard)],
                wanted=WANTED,
                start_lsn=self.lsn,
                heartbeat=self._heartbeat,
                retries=Retries(most=MOST_PAUSE),
                without=self._work_without_a_stream,
            )
            try:
                async with subscriber:
                    self.decisions.metrics.connected(subscriber)
                    await self._catch_up(self._live())
                    async for batch in subscriber.batches(
                        max_rows=MAX_ROWS, max_bytes=MAX_BYTES, max_wait=IDLE_SECONDS
                    ):
                        await self._take_batch(batch)
                        subscriber.confirm(batch.end_lsn)
            except SlotLost as loss:
                if loss.loss is Loss.OTHER_HISTORY:
                    # The slot may have come over to the new primary and be good there. The session begins again, for it is what
                    # tells a failover.
                    raise psycopg.OperationalError(str(loss)) from loss
                # The tables are the truth: work from them until a new slot can be made, then look once more.
                log.warning("slot lost: working from the tables", slot=str(slot), why=str(loss))
                self.decisions.metrics.slot_losses.inc()
                await self._remake_slot(str(slot))

    async def _work_without_a_stream(self) -> None:
        await self._catch_up(self._live())

    async def _check_history(self, connection: AsyncConnection) -> None:
        """Begins an epoch after a failover, before an LSN stored under the old one is read: the tables tell what is open.

        Raises Restored for what a person has to decide on.
        """
        await history.wait_until_recovered(connection)
        replication = component_dsn(self.settings, "replication", name=f"roomserver {self.shard}")
        finding = await history.examine(connection, [replication], read_seen(self.settings.server.data_dir))
        if finding.refused:
            raise Restored(finding)
        self._epochs = finding.epochs
        if finding.standing is not Standing.FAILOVER:
            return
        epoch = await history.begin_epoch(connection, finding, "failover")
        self._epochs = {**finding.epochs, epoch: (finding.epoch, finding.positions)}
        log.warning(
            "a new epoch begins",
            why=finding.why,
            before=finding.epoch,
            epoch=epoch,
            positions_lost=finding.lost or None,
        )
        # What this server had from an earlier time as the primary: catalogs that it would decode by may be gone since.
        if dropped := await drop_leftovers(replication, promoted=True):
            log.info("slots from another time were dropped", slots=dropped)

    async def _remember(self) -> None:
        """Tells the data directory how far the shard is, a moment behind: nothing that is not safe on the database's disk."""
        told = -1
        waiting: tuple[int, str, int] | None = None
        while True:
            await asyncio.sleep(SEEN_SECONDS)
            if waiting is None and self.decisions.position == told:
                continue
            try:
                row = await (await self._live().execute(SQL["flushed"], {"shard": self.shard})).fetchone()
                assert row is not None
                position, epoch, inserted, flushed = row
                if waiting is not None and waiting[2] <= flushed:
                    await self._tell(waiting[0], waiting[1])
                    told = waiting[0]
                waiting = None if position == told else (position, epoch, inserted)
            except (psycopg.Error, OSError) as error:
                # The session notices by itself when its connection is gone.
                log.warning("the data directory was not told the position", error=str(error).strip())
                waiting = None

    async def _tell(self, position: int, epoch: str) -> None:
        seen = Seen(self.shard, epoch, position, lineage(epoch, self._epochs))
        await asyncio.to_thread(write_seen, self.settings.server.data_dir, seen)

    async def _leave_in_time(self, connection: AsyncConnection) -> None:
        """Leaves, unless that has to wait for a standby that is away: cancelled then, for nobody builds on it."""
        leaving = asyncio.create_task(self._leave(connection), name="leave")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
            leaving.cancel()
            await asyncio.wait([leaving], timeout=LEAVE_SECONDS)
        if not leaving.done():
            await connection.close()
        elif not leaving.cancelled() and (error := leaving.exception()) is not None:
            log.info("the shard was not given back in order", shard=self.shard, why=str(error).strip())

    async def _leave(self, connection: AsyncConnection) -> None:
        """The session ends in order: the last position is told, the shard given back."""
        row = await (await connection.execute(SQL["flushed"], {"shard": self.shard})).fetchone()
        # Its commit flushes what was written before it, also by those who do not wait for that.
        await connection.execute(SQL["leave"], {"shard": self.shard, "owner": self.owner})
        now = await (await connection.execute(SQL["flushed"], {"shard": self.shard})).fetchone()
        if row is not None and now is not None and row[2] <= now[3]:
            with contextlib.suppress(OSError):
                await self._tell(row[0], row[1])

    def _live(self) -> AsyncConnection:
        return self.decisions.live()

    def _end_session(self, error: BaseException) -> None:
        self._failure = error
        if self._following is not None:
            self._following.cancel()

    async def _heartbeat(self, payload: bytes) -> None:
        await self._live().execute("select pg_logical_emit_message(false, 'walden.heartbeat', %s::bytea)", [payload])

    async def _remake_slot(self, slot: str) -> None:
        replication = component_dsn(self.settings, "replication", name=f"roomserver {self.shard}")
        making: asyncio.Task[None] | None = None

        async def make() -> None:
            async with await AsyncConnection.connect(replication, autocommit=True, replication="database") as walsender:
                # One that was invalidated is there, but of no use.
                await drop_slot(walsender, slot)
                await create_slot(walsender, slot, failover=True)

        try:
            while making is None or not making.done() or making.exception() is not None:
                if making is None or making.done():
                    if making is not None:
                        log.info("the slot cannot be made yet", why=str(making.exception()))
                        await asyncio.sleep(0.5)
                    making = asyncio.create_task(make(), name="make slot")
                await self._catch_up(self._live())
                await asyncio.wait([making], timeout=0.2)
        finally:
            if making is not None and not making.done():
                making.cancel()
        # Whatever the new slot shows from before is known from the tables.
        self.lsn = 0

    async def _catch_up(self, connection: AsyncConnection, *, singly: bool = False) -> None:
        """Judges every entry that has no verdict, from the tables."""
        row = await (await connection.execute(SQL["behind"], {"shard": self.shard})).fetchone()
        assert row is not None
        moved_at, at = row
        since = max(0, int((moved_at - MARGIN).timestamp() * 1000)) << 20
        found = 0
        while True:
            cursor = await connection.execute(
                SQL["unjudged"], {"shard": self.shard, "since": since, "most": 50 if singly else CHUNK}
            )
            entries = [Entry(*row) for row in await cursor.fetchall()]
            if not entries:
                break
            found += len(entries)
            if singly:
                await self.decisions.process_singly(entries)
            else:
                await self.decisions.process(entries, None)
            connection = self._live()
        caught_up = {"shard": self.shard, "owner": self.owner, "at": at}
        row = await (await connection.execute(SQL["caught_up"], caught_up)).fetchone()
        assert row is not None
        self.seen_until = int(row[0])
        if found:
            log.info("caught up from the tables", shard=self.shard, entries=found, position=self.decisions.position)

    async def _take_batch(self, batch: Batch) -> None:
        entries: list[Entry] = []
        messages: list[Message] = []
        xids: list[int] = []
        for item in batch.items:
            if isinstance(item, Commit):
                if item.end_lsn > self.lsn:
                    if item.rows:
                        xids.append(item.xid)
                    entries += [from_row(row) for row in item.rows]
                    messages += [other for other in item.others if isinstance(other, Message)]
            else:
                messages.append(item)
        if entries and self.lsn < self.seen_until:
            entries = await self.decisions.unjudged(entries)
        typing = [message for message in messages if message.prefix == "walden.typing"]
        if entries or typing:
            await self.decisions.process(entries, batch.end_lsn, typing, xids)
        elif batch.end_lsn > self.lsn:
            await self._live().execute(
                SQL["store_lsn"], {"shard": self.shard, "owner": self.owner, "lsn": lsn_text(batch.end_lsn)}
            )
        self.lsn = max(self.lsn, batch.end_lsn)


async def run(settings: Settings, shard: int) -> None:
    """Runs the room server of a shard until cancelled. Raises WrongInstallation, and what `RoomServer.run` does."""
    key = read_key(settings.server.signing_key)
    server = RoomServer(settings, shard)
    try:
        async with await server._connect() as connection:
            await check_identity(
                connection, Identity(settings.server.name, key.key_id, key.verify_key_base64, settings.log.shards)
            )
        await server.run()
    finally:
        server.decisions.close()


async def catch_up(settings: Settings, shard: int) -> int:
    """Judges every entry of a shard that has no verdict, from the tables alone, for `walden recover`; how far the shard is then.

    No room server may run. The database's history is for the caller to have looked at.
    """
    server = RoomServer(settings, shard)
    try:
        async with await server._connect() as connection:
            await server._wait_for_lock(connection)
            await server._take(connection)
            try:
                await server.decisions.settle()
                await server._catch_up(connection)
            finally:
                await server.decisions.end()
            await connection.execute(SQL["leave"], {"shard": shard, "owner": server.owner})
            return server.decisions.position
    finally:
        server.decisions.close()

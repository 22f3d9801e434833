"""The room server of one shard: takes entries from the slot, decides, commits, confirms.

Invariant: one room server a shard. Its position moves by compare-and-set in the transaction of its effects, and nothing is
confirmed to the slot that is not so stored; what it is shown twice it skips, what it was not shown it finds in the tables.

A batch that fails is done again entry by entry with durable attempt counts; the third failure of an entry puts it into
quarantine, and the room goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from datetime import datetime, timedelta

import psycopg
import structlog
from psycopg import AsyncConnection

from eventlog.pgoutput import Commit, Message
from eventlog.pools import component_dsn
from eventlog.provision import entries_publication, roomserver_slot
from eventlog.replication import Batch, Subscriber
from eventlog.settings import Settings
from eventlog.slots import SlotLost, create_slot, drop_slot
from roomserver.deferrals import Deferrals
from roomserver.effects import Effects
from roomserver.entries import WANTED, Entry, from_row
from roomserver.forks import Fork, resolve_here
from roomserver.judge import MissingEvents, OffMainLine, judge_event
from roomserver.metrics import Metrics
from roomserver.resolving import ProcessResolver
from roomserver.rooms import Rooms
from roomserver.store import SQL, Store
from roomserver.typing import judge_typing, typing_key
from roomserver.user_entries import judge_user_entry

log = structlog.get_logger(__name__)

# One call's effects stay well below a megabyte, and a lone writer's group is far smaller.
MAX_ROWS = 400
MAX_BYTES = 1 << 20
# Entries this much older than the last move of the position are still looked for when catching up: far longer than a
# transaction of a writer may take.
MARGIN = timedelta(hours=1)
CHUNK = 500
MAX_ATTEMPTS = 3
# Joined members from which a room's resolutions are carried out aside.
LARGE_ROOM = 500
# Sessions in a row that end without having moved the position before the supervisor is left to decide.
MAX_FAILURES = 30
# How often a position without output is stored, so that an idle server's slot moves.
IDLE_SECONDS = 10.0


class OwnershipLost(Exception):
    """Another room server has taken the shard."""


class RoomServer:
    """One shard's room server; `run` until cancelled."""

    def __init__(self, settings: Settings, shard: int) -> None:
        self.settings = settings
        self.shard = shard
        self.owner = str(uuid.uuid4())
        self.rooms = Rooms()
        self.store = Store(self.rooms)
        self.deferrals = Deferrals(shard)
        self.metrics = Metrics(shard)
        self.position = 0
        self.lsn = 0
        # Until the stream has passed this, it may show entries that were found in the tables.
        self.seen_until = 0
        self.large_room = LARGE_ROOM
        self._dsn = component_dsn(settings, "roomserver", direct=True, name=f"roomserver {shard}")
        self._connection: AsyncConnection | None = None
        self._begun = False
        # Batches and the outcomes of resolutions take turns.
        self._busy = asyncio.Lock()
        self._resolving = asyncio.Semaphore(1)
        self._resolver = ProcessResolver()
        self._resolutions: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None
        self._following: asyncio.Task[None] | None = None
        self._typing_key = typing_key(settings)

    async def run(self) -> None:
        """Serves until cancelled. Raises OwnershipLost when another room server took over, psycopg.Error past its budget.

        A session that loses its connection is begun again from what is stored: whether its last batch was committed, the
        position tells.
        """
        failures = 0
        while True:
            before = self.position
            try:
                await self._session()
            except (psycopg.OperationalError, psycopg.InterfaceError) as error:
                failures = 1 if self.position > before else failures + 1
                if failures > MAX_FAILURES:
                    raise
                log.warning("room server lost its connection", shard=self.shard, error=str(error).strip())
                await asyncio.sleep(min(0.05 * 2**failures, 3.0))

    async def _session(self) -> None:
        async with await self._connect() as connection:
            self._connection = connection
            await self._wait_for_lock(connection)
            clean, moved_at = await self._take(connection)
            self.rooms.clear()
            try:
                await self.deferrals.load(connection)
                if not clean and not self._begun:
                    log.warning("the last room server did not stop in order: trying entries singly", shard=self.shard)
                    await self._catch_up(connection, moved_at, singly=True)
                self._begun = True
                for room_id in self.deferrals.blocked_rooms():
                    self._start_resolution(self.deferrals.first(room_id))
                await self._watch(asyncio.create_task(self._follow(moved_at), name="follow"))
            finally:
                for task in [*self._resolutions]:
                    task.cancel()
                await asyncio.gather(*self._resolutions, return_exceptions=True)
                with contextlib.suppress(psycopg.Error, asyncio.CancelledError):
                    if not connection.closed and not connection.broken:
                        await asyncio.shield(
                            connection.execute(SQL["leave"], {"shard": self.shard, "owner": self.owner})
                        )

    async def _watch(self, following: asyncio.Task[None]) -> None:
        self._following, self._failure = following, None
        try:
            await following
        except asyncio.CancelledError:
            if self._failure is None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
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

    async def _take(self, connection: AsyncConnection) -> tuple[bool, datetime]:
        cursor = await connection.execute(SQL["take"], {"owner": self.owner, "pid": os.getpid(), "shard": self.shard})
        row = await cursor.fetchone()
        if row is None:
            raise RuntimeError(f"shard {self.shard} has no position: run walden init")
        self.position, self.lsn, _, clean, moved_at = row
        log.info("room server took its shard", shard=self.shard, position=self.position)
        return clean, moved_at

    async def _follow(self, moved_at: datetime) -> None:
        assert self._connection is not None
        row = await (await self._connection.execute(SQL["database_oid"])).fetchone()
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
            )
            try:
                async with subscriber:
                    self.metrics.connected(subscriber)
                    await self._check_history(subscriber)
                    await self._catch_up(self._live(), moved_at)
                    async for batch in subscriber.batches(
                        max_rows=MAX_ROWS, max_bytes=MAX_BYTES, max_wait=IDLE_SECONDS
                    ):
                        await self._take_batch(batch)
                        subscriber.confirm(batch.end_lsn)
            except SlotLost as loss:
                # The tables are the truth: work from them until a new slot can be made, then look once more.
                log.warning("slot lost: working from the tables", slot=str(slot), why=str(loss))
                self.metrics.slot_losses.inc()
                await self._remake_slot(str(slot), moved_at)

    async def _check_history(self, subscriber: Subscriber) -> None:
        """A new timeline is a new epoch: the LSNs stored under the old one mean nothing, the tables tell what is open."""
        system = subscriber.setup.system
        row = await (await self._live().execute(SQL["epoch"])).fetchone()
        assert row is not None
        epoch, system_id, timeline = row
        if (system_id, timeline) == (system.system_id, system.timeline):
            return
        why = "failover" if system_id == system.system_id else "moved"
        cursor = await self._live().execute(
            SQL["begin_epoch"],
            {"epoch": secrets.token_hex(4), "why": why, "system": system.system_id, "timeline": system.timeline},
        )
        begun = await cursor.fetchone()
        log.warning("a new epoch begins", why=why, before=epoch, epoch=begun and begun[0], timeline=system.timeline)
        self.lsn = 0

    def _live(self) -> AsyncConnection:
        assert self._connection is not None
        return self._connection

    async def _heartbeat(self, payload: bytes) -> None:
        async with await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=10) as connection:
            await connection.execute("select pg_logical_emit_message(false, 'walden.heartbeat', %s::bytea)", [payload])

    async def _remake_slot(self, slot: str, moved_at: datetime) -> None:
        replication = component_dsn(self.settings, "replication", name=f"roomserver {self.shard}")
        making: asyncio.Task[None] | None = None

        async def make() -> None:
            async with await AsyncConnection.connect(replication, autocommit=True, replication="database") as walsender:
                # One that was invalidated is there, but of no use.
                await drop_slot(walsender, slot)
                await create_slot(walsender, slot)

        try:
            while making is None or not making.done() or making.exception() is not None:
                if making is None or making.done():
                    if making is not None:
                        log.info("the slot cannot be made yet", why=str(making.exception()))
                        await asyncio.sleep(0.5)
                    making = asyncio.create_task(make(), name="make slot")
                await self._catch_up(self._live(), moved_at)
                await asyncio.wait([making], timeout=0.2)
        finally:
            if making is not None and not making.done():
                making.cancel()
        # Whatever the new slot shows from before is known from the tables.
        self.lsn = 0

    async def _catch_up(self, connection: AsyncConnection, moved_at: datetime, *, singly: bool = False) -> None:
        """Judges every entry that has no verdict, from the tables."""
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
                async with self._busy:
                    for entry in entries:
                        await self._singly(entry)
            else:
                await self._process(entries, None)
            connection = self._live()
        row = await (
            await connection.execute("select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        ).fetchone()
        assert row is not None
        self.seen_until = int(row[0])
        if found:
            log.info("caught up from the tables", shard=self.shard, entries=found, position=self.position)

    async def _take_batch(self, batch: Batch) -> None:
        entries: list[Entry] = []
        messages: list[Message] = []
        for item in batch.items:
            if isinstance(item, Commit):
                if item.end_lsn > self.lsn:
                    entries += [from_row(row) for row in item.rows]
                    messages += [other for other in item.others if isinstance(other, Message)]
            else:
                messages.append(item)
        if entries and batch.end_lsn <= self.seen_until + (64 << 20):
            entries = await self._unjudged(entries)
        typing = [message for message in messages if message.prefix == "walden.typing"]
        if entries or typing:
            await self._process(entries, batch.end_lsn, typing)
        elif batch.end_lsn > self.lsn:
            await self._live().execute(
                SQL["store_lsn"], {"shard": self.shard, "owner": self.owner, "lsn": _lsn(batch.end_lsn)}
            )
        self.lsn = max(self.lsn, batch.end_lsn)

    async def _unjudged(self, entries: list[Entry]) -> list[Entry]:
        cursor = await self._live().execute(SQL["judged"], {"entries": [entry.id for entry in entries]})
        judged = {row[0] for row in await cursor.fetchall()}
        return [e for e in entries if e.id not in judged and not self.deferrals.holds(e.id)]

    async def _process(self, entries: Sequence[Entry], end_lsn: int | None, typing: Sequence[Message] = ()) -> None:
        """Judges entries in order and commits; what fails is done again singly."""
        async with self._busy:
            await self._process_alone(entries, end_lsn, typing)

    async def _process_alone(self, entries: Sequence[Entry], end_lsn: int | None, typing: Sequence[Message]) -> None:
        with self.metrics.batch(len(entries)):
            try:
                await self._judge(entries, end_lsn, typing)
            except (psycopg.OperationalError, psycopg.InterfaceError, OwnershipLost):
                raise
            except Exception:
                log.exception("a batch failed: trying its entries singly", shard=self.shard, entries=len(entries))
                await self._forget()
                for entry in await self._unjudged(list(entries)):
                    await self._singly(entry)

    async def _forget(self) -> None:
        """Drops everything remembered and reads the position again."""
        self.rooms.clear()
        row = await (await self._live().execute(SQL["position"], {"shard": self.shard})).fetchone()
        assert row is not None
        self.position = row[0]
        await self.deferrals.load(self._live())

    async def _singly(self, entry: Entry) -> None:
        """One entry alone, its attempts counted before they are made."""
        while True:
            connection = self._live()
            row = await (await connection.execute(SQL["attempt"], {"entry": entry.id})).fetchone()
            assert row is not None
            attempts, last_error = row
            if attempts > MAX_ATTEMPTS:
                await self._quarantine(entry, attempts - 1, last_error or "the process died while it was judged")
                return
            try:
                await self._judge([entry], None, finish=True)
                return
            except (psycopg.OperationalError, psycopg.InterfaceError, OwnershipLost):
                raise
            except Exception as error:
                log.exception("an entry failed", entry=entry.id, event_id=entry.event_id, attempt=attempts)
                await self._live().execute(
                    SQL["failed"], {"entry": entry.id, "error": f"{type(error).__name__}: {error}"[:2000]}
                )
                await self._forget()

    async def _quarantine(self, entry: Entry, attempts: int, error: str) -> None:
        log.error("entry quarantined", entry=entry.id, event_id=entry.event_id, room_id=entry.room_id, error=error)
        self.metrics.quarantined.inc()
        effects = Effects(self.position)
        position = effects.next_position()
        # Its room may be what fails to load: its number is not asked for.
        effects.output(position, entry.kind, entry.id, "q", reason="The room server could not process the event.")
        effects.add(
            "quarantined",
            entry=entry.id,
            room_id=entry.room_id,
            event_id=entry.event_id,
            error=error.replace("\0", " "),
            attempts=attempts,
            position=position,
        )
        effects.finished.append(entry.id)
        await self._commit(effects, None)
        if entry.local and entry.seq is not None and entry.room_id is not None:
            await self._live().execute("select roomserver.break_chain_v1(%s, %s)", [entry.room_id, entry.seq])
            self.rooms.forget(entry.room_id)

    async def _judge(
        self, entries: Sequence[Entry], end_lsn: int | None, typing: Sequence[Message] = (), *, finish: bool = False
    ) -> None:
        queue = deque(entries)
        while queue:
            chunk = list(queue)
            queue.clear()
            items = await self.store.prepare(self._live(), chunk)
            effects = Effects(self.position)
            verdicts: Counter[str] = Counter()
            for index, item in enumerate(items):
                if finish:
                    effects.finished.append(item.entry.id)
                try:
                    if item.entry.kind == "u":
                        verdict = judge_user_entry(item, self.store, effects)
                    elif item.entry.room_id is not None and self.deferrals.blocks(item.entry.room_id):
                        self.deferrals.block(item.entry, effects)
                        continue
                    else:
                        verdict = judge_event(item, self.store, effects)
                except MissingEvents as missing:
                    self.deferrals.defer(item.entry, missing.event_ids, effects)
                    continue
                except OffMainLine:
                    if item.room is not None and item.room.joined > self.large_room:
                        self._resolve_aside(item.entry, effects)
                        continue
                    # What was decided so far is committed first; the rest of the chunk is made ready again after it.
                    await self._commit(effects, None)
                    await self._off_main_line(item.entry, Effects(self.position))
                    effects = Effects(self.position)
                    queue.extend(chunk[index + 1 :])
                    break
                verdicts[verdict] += 1
                queue.extend(self.deferrals.released(item.entry.event_id, effects))
            await self._commit(effects, None if queue else end_lsn)
            for verdict, count in verdicts.items():
                self.metrics.verdict(verdict, count)
        if typing:
            effects = Effects(self.position)
            await judge_typing(self._live(), typing, effects, self._typing_key, self.store)
            await self._commit(effects, end_lsn)

    async def _off_main_line(self, entry: Entry, effects: Effects) -> None:
        connection = self._live()
        assert entry.room_id is not None
        self.rooms.forget(entry.room_id)
        (item,) = await self.store.prepare(connection, [entry])
        self.metrics.off_main_line.inc()
        try:
            fork = Fork(connection, self.store, item, resolve_here)
            await fork.gather()
            self.metrics.verdict(fork.apply(effects))
        except MissingEvents as missing:
            self.deferrals.defer(entry, missing.event_ids, effects)
        finally:
            self.rooms.forget(entry.room_id)
        await self._go_on(entry, self.deferrals.released(entry.event_id, effects), effects)

    async def _go_on(self, entry: Entry, waiting: Sequence[Entry], effects: Effects) -> None:
        """Commits what was decided on an entry, then judges what waited for it."""
        await self._commit(effects, None)
        if waiting:
            await self._judge(waiting, None)

    def _resolve_aside(self, entry: Entry, effects: Effects) -> None:
        """A large room's resolution is carried out in another process; the room stands still, the others do not."""
        self.deferrals.block(entry, effects)
        self._start_resolution(entry)

    def _start_resolution(self, entry: Entry) -> None:
        task = asyncio.create_task(self._resolution(entry), name=f"resolution of {entry.room_id}")
        self._resolutions.add(task)
        task.add_done_callback(self._resolutions.discard)
        task.add_done_callback(self._resolution_done)

    def _resolution_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            # A side task may not die unseen: the session ends, and the deferred entry is found again.
            self._failure = task.exception()
            if self._following is not None:
                self._following.cancel()

    async def _resolution(self, entry: Entry) -> None:
        assert entry.room_id is not None
        async with self._resolving, await self._connect() as connection:
            (item,) = await Store(Rooms()).prepare(connection, [entry])
            fork = Fork(connection, self.store, item, self._resolver)
            missing: list[str] = []
            try:
                await fork.gather()
            except MissingEvents as error:
                missing = error.event_ids
        async with self._busy:
            effects = Effects(self.position)
            waiting = self.deferrals.unblock(entry.room_id, effects)
            self.rooms.forget(entry.room_id)
            if missing:
                effects.finished.remove(entry.id)
                self.deferrals.defer(entry, missing, effects)
            else:
                self.metrics.verdict(fork.apply(effects))
                waiting = [*self.deferrals.released(entry.event_id, effects), *waiting]
            await self._go_on(entry, waiting, effects)

    async def _commit(self, effects: Effects, end_lsn: int | None) -> None:
        if not effects:
            return
        batch = effects.encode(shard=self.shard, owner=self.owner, lsn=None if end_lsn is None else _lsn(end_lsn))
        try:
            await self._live().execute("select roomserver.commit_v1(%s::json)", [batch])
        except psycopg.errors.ObjectInUse as error:
            raise OwnershipLost(str(error)) from error
        self.position = effects.position
        for room in effects.touched.values():
            room.is_new = False
        self.rooms.shrink()


def _lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


async def run(settings: Settings, shard: int) -> None:
    """Runs the room server of a shard until cancelled."""
    await RoomServer(settings, shard).run()

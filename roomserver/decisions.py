"""Deciding: batches of entries in order, each committed with its position, failures singled out.

Invariant: batches and the outcomes of resolutions carried out aside take turns; between turns memory says what the tables say.
Whatever fails in a turn is forgotten and read again, and an entry that fails three times is set aside. What is the database's
failure (`faults.is_of_the_database`) is no entry's: it ends the session, and is counted against none.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import psycopg
import structlog
from psycopg import AsyncConnection

from eventlog.faults import is_of_the_database
from eventlog.pgoutput import Message
from eventlog.standing import end
from eventlog.statement import Statement
from roomserver.deferrals import Deferrals
from roomserver.effects import Effects
from roomserver.entries import Entry
from roomserver.forks import Fork, resolve_here
from roomserver.judge import NO_ROOM, MissingEvents, OffMainLine, judge_event
from roomserver.metrics import Metrics
from roomserver.resolving import ProcessResolver
from roomserver.rooms import Rooms
from roomserver.store import SQL, Store
from roomserver.typing import judge_typing
from roomserver.user_entries import judge_user_entry

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 3
# Joined members from which a room's resolutions are carried out aside.
LARGE_ROOM = 500
# A transaction is visible microseconds after it was decoded, unless it waits for a synchronous standby.
INVISIBLE_SECONDS = 0.001
SLOW_SECONDS = 1.0
# How long a commit under way is waited for by a process that is to end.
COMMIT_SECONDS = 10.0


class OwnershipLost(Exception):
    """Another room server has taken the shard."""


class Decisions:
    """Decides for one shard. `position` is the last one committed, `failed` is called when a resolution aside fails."""

    def __init__(
        self,
        shard: int,
        owner: str,
        typing_key: bytes,
        connect: Callable[[], Awaitable[AsyncConnection]],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.shard = shard
        self.owner = owner
        self.position = 0
        self.rooms = Rooms()
        self.store = Store(self.rooms)
        self.deferrals = Deferrals(shard)
        self.metrics = Metrics(shard)
        self.large_room = LARGE_ROOM
        self.connection: AsyncConnection | None = None
        self._connect = connect
        self._failed = failed
        self._typing_key = typing_key
        self._busy = asyncio.Lock()
        self._resolving = asyncio.Semaphore(1)
        self._resolver = ProcessResolver()
        self._resolutions: set[asyncio.Task[None]] = set()
        # Transactions that the entries under way came with, until a commit has found them visible.
        self._xids: Sequence[int] = ()
        # Entries with a row in roomserver.attempts or roomserver.deferred, which goes with their verdict.
        self._noted: set[int] = set()
        # Those whose last attempt was broken off by a failure of the database.
        self._excused: set[int] = set()
        self._commit_statement: Statement | None = None

    def live(self) -> AsyncConnection:
        """The session's connection."""
        assert self.connection is not None
        return self.connection

    async def begin(self, connection: AsyncConnection, position: int) -> None:
        """A session begins: everything remembered is read again."""
        self.connection, self.position, self._xids = connection, position, ()
        await self._read_again()

    async def settle(self) -> None:
        """Judges what waited and is ready: the process that released it ended before it was judged."""
        async with self._busy:
            await self._settle()

    async def _settle(self) -> None:
        while ready := self.deferrals.take_ready():
            # What failed has had everything read again, also what is in hand.
            for entry in await self.unjudged(ready):
                await self._singly(entry)

    def resume(self) -> None:
        """Begins again the resolutions that rooms stand still for."""
        for room_id in self.deferrals.blocked_rooms():
            self._start_resolution(self.deferrals.first(room_id))

    async def end(self) -> None:
        """A session ends: resolutions are broken off, and found again in the table."""
        await end(*self._resolutions)

    def close(self) -> None:
        """Ends what was started aside."""
        self._resolver.close()

    async def unjudged(self, entries: list[Entry]) -> list[Entry]:
        """Those of the entries that have no verdict and do not wait."""
        cursor = await self.live().execute(SQL["judged"], {"entries": [entry.id for entry in entries]})
        judged = {row[0] for row in await cursor.fetchall()}
        return [e for e in entries if e.id not in judged and not self.deferrals.holds(e.id)]

    async def process(
        self,
        entries: Sequence[Entry],
        end_lsn: int | None,
        typing: Sequence[Message] = (),
        xids: Sequence[int] = (),
    ) -> None:
        """Judges entries in order and commits; what fails is done again singly.

        `xids` are the transactions that entries of the stream came with: nothing of them is committed before they are visible.
        """
        async with self._busy:
            self._xids = xids
            await self._process_alone(entries, end_lsn, typing)

    async def _process_alone(self, entries: Sequence[Entry], end_lsn: int | None, typing: Sequence[Message]) -> None:
        with self.metrics.batch(len(entries)):
            try:
                await self._judge(entries, end_lsn, typing)
            except OwnershipLost:
                raise
            except Exception as error:
                if is_of_the_database(error):
                    raise
                log.exception("a batch failed: trying its entries singly", shard=self.shard, entries=len(entries))
                await self._forget()
                await self._settle()
                for entry in await self.unjudged(list(entries)):
                    await self._singly(entry)

    async def process_singly(self, entries: Sequence[Entry]) -> None:
        """Judges entries each in a transaction of its own, with attempts counted."""
        async with self._busy:
            for entry in entries:
                await self._singly(entry)

    async def _forget(self) -> None:
        """Drops everything remembered and reads the position again."""
        row = await (await self.live().execute(SQL["position"], {"shard": self.shard})).fetchone()
        assert row is not None
        self.position = row[0]
        await self._read_again()

    async def _read_again(self) -> None:
        self.rooms.clear()
        await self.deferrals.load(self.live())
        cursor = await self.live().execute(SQL["noted"], {"shard": self.shard})
        self._noted = {row[0] for row in await cursor.fetchall()}

    async def _singly(self, entry: Entry) -> None:
        """One entry alone, its attempts counted before they are made."""
        while True:
            connection = self.live()
            one = 0 if entry.id in self._excused else 1
            row = await (await connection.execute(SQL["attempt"], {"entry": entry.id, "one": one})).fetchone()
            assert row is not None
            attempts, last_error = row
            self._noted.add(entry.id)
            self._excused.discard(entry.id)
            if attempts > MAX_ATTEMPTS:
                await self._quarantine(entry, attempts - 1, last_error or "the process died while it was judged")
                return
            try:
                await self._judge([entry], None)
                return
            except OwnershipLost:
                raise
            except Exception as error:
                if is_of_the_database(error):
                    self._excused.add(entry.id)
                    raise
                log.exception("an entry failed", entry=entry.id, event_id=entry.event_id, attempt=attempts)
                await self.live().execute(SQL["failed"], {"entry": entry.id, "error": _described(error)})
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
        # At once: a chain that went on from an event in quarantine would never end.
        async with self.live().transaction():
            await self._commit(effects, None)
            if entry.local and entry.seq is not None and entry.room_id is not None:
                await self.live().execute("select roomserver.break_chain_v1(%s, %s)", [entry.room_id, entry.seq])
                self.rooms.forget(entry.room_id)

    async def _judge(self, entries: Sequence[Entry], end_lsn: int | None, typing: Sequence[Message] = ()) -> None:
        queue = deque(entries)
        while queue:
            chunk = list(queue)
            queue.clear()
            items = await self.store.prepare(self.live(), chunk)
            effects = Effects(self.position)
            verdicts: Counter[str] = Counter()
            for index, item in enumerate(items):
                try:
                    if item.entry.kind == "u":
                        verdict = judge_user_entry(item, self.store, effects)
                    elif item.entry.room_id is not None and self.deferrals.blocks(item.entry.room_id):
                        self._noted.add(item.entry.id)
                        self.deferrals.block(item.entry, effects)
                        continue
                    else:
                        verdict = judge_event(item, self.store, effects)
                except MissingEvents as missing:
                    self._defer(item.entry, missing.event_ids, effects)
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
                queue.extend(self._judged(item.entry, effects))
            await self._commit(effects, None if queue else end_lsn)
            for item in items:
                if item.room is not None:
                    item.room.trim()
            for verdict, count in verdicts.items():
                self.metrics.verdict(verdict, count)
        if typing:
            effects = Effects(self.position)
            await judge_typing(self.live(), typing, effects, self._typing_key, self.store)
            await self._commit(effects, end_lsn)

    async def _off_main_line(self, entry: Entry, effects: Effects) -> None:
        connection = self.live()
        assert entry.room_id is not None
        self.rooms.forget(entry.room_id)
        (item,) = await self.store.prepare(connection, [entry])
        self.metrics.off_main_line.inc()
        try:
            fork = Fork(connection, self.store, item, resolve_here)
            await fork.gather()
            self.metrics.verdict(fork.apply(effects))
            waiting = self._judged(entry, effects)
        except MissingEvents as missing:
            self._defer(entry, missing.event_ids, effects)
            waiting = []
        finally:
            self.rooms.forget(entry.room_id)
        await self._go_on(waiting, effects)

    def _judged(self, entry: Entry, effects: Effects) -> list[Entry]:
        """An entry has a verdict: what was noted of it goes, and what waited for it is returned, to be judged next."""
        if entry.id in self._noted:
            effects.finished.append(entry.id)
        released = self.deferrals.released(entry.event_id)
        if entry.type == "m.room.create":
            released += self.deferrals.released(f"{NO_ROOM}{entry.room_id}")
        return released

    def _defer(self, entry: Entry, missing: list[str], effects: Effects) -> None:
        self._noted.add(entry.id)
        if not self.deferrals.defer(entry, missing, effects):
            effects.finished.append(entry.id)

    async def _go_on(self, waiting: Sequence[Entry], effects: Effects) -> None:
        """Commits what was decided on an entry, then judges what waited for it."""
        await self._commit(effects, None)
        if waiting:
            await self._judge(waiting, None)

    def _resolve_aside(self, entry: Entry, effects: Effects) -> None:
        """A large room's resolution is carried out in another process; the room stands still, the others do not."""
        self._noted.add(entry.id)
        self.deferrals.block(entry, effects)
        self._start_resolution(entry)

    def _start_resolution(self, entry: Entry) -> None:
        task = asyncio.create_task(self._resolution(entry), name=f"resolution of {entry.room_id}")
        self._resolutions.add(task)
        task.add_done_callback(self._resolutions.discard)
        task.add_done_callback(self._resolution_done)

    def _resolution_done(self, task: asyncio.Task[None]) -> None:
        # A side task may not die unseen: the session ends, and the deferred entry is found again.
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    async def _resolution(self, entry: Entry) -> None:
        async with self._busy:
            # What was decided before the entry in its batch is committed now, or all of the batch is forgotten.
            if not self.deferrals.stands_for(entry):
                return
        try:
            async with self._resolving, await self._connect() as connection:
                (item,) = await Store(Rooms()).prepare(connection, [entry])
                fork = Fork(connection, self.store, item, self._resolver)
                missing: list[str] = []
                try:
                    await fork.gather()
                except MissingEvents as error:
                    missing = error.event_ids
            async with self._busy:
                if self.deferrals.stands_for(entry):
                    await self._resolved(entry, fork, missing)
        except OwnershipLost:
            raise
        except Exception as error:
            if is_of_the_database(error):
                raise
            await self._not_resolved(entry, error)

    async def _resolved(self, entry: Entry, fork: Fork, missing: list[str]) -> None:
        assert entry.room_id is not None
        effects = Effects(self.position)
        waiting = self.deferrals.unblock(entry.room_id)
        self.rooms.forget(entry.room_id)
        if missing:
            self._defer(entry, missing, effects)
        else:
            self.metrics.verdict(fork.apply(effects))
            waiting = [*self._judged(entry, effects), *waiting]
        await self._go_on(waiting, effects)

    async def _not_resolved(self, entry: Entry, error: Exception) -> None:
        """A resolution failed: it is tried again, or the entry set aside and the room let go on."""
        assert entry.room_id is not None
        async with self._busy:
            await self._forget()
            await self._settle()
            if not self.deferrals.stands_for(entry):
                log.exception("what follows a resolution failed: it was tried singly", entry=entry.id)
                return
            row = await (await self.live().execute(SQL["attempt"], {"entry": entry.id, "one": 1})).fetchone()
            assert row is not None
            log.exception("a resolution failed", entry=entry.id, event_id=entry.event_id, attempt=row[0])
            if row[0] < MAX_ATTEMPTS:
                await self.live().execute(SQL["failed"], {"entry": entry.id, "error": _described(error)})
                self._start_resolution(entry)
                return
            waiting = self.deferrals.unblock(entry.room_id)
            await self._quarantine(entry, row[0], _described(error))
            if waiting:
                await self._process_alone(waiting, None, ())

    async def _commit(self, effects: Effects, end_lsn: int | None) -> None:
        if not effects:
            return
        lsn = None if end_lsn is None else lsn_text(end_lsn)
        batch = effects.encode(shard=self.shard, owner=self.owner, lsn=lsn, xids=self._xids)
        waited = 0.0
        try:
            while not await _undisturbed(self._try_commit(batch)):
                waited += INVISIBLE_SECONDS
                if waited - INVISIBLE_SECONDS < SLOW_SECONDS <= waited:
                    log.warning("what the slot has delivered is not visible yet", shard=self.shard, lsn=lsn)
                await asyncio.sleep(INVISIBLE_SECONDS)
        except psycopg.errors.ObjectInUse as error:
            raise OwnershipLost(str(error)) from error
        self._xids = ()
        self._noted.difference_update(effects.finished)
        self.position = effects.position
        for room in effects.touched.values():
            room.is_new = False
        self.rooms.shrink()

    async def _try_commit(self, batch: bytes) -> bool:
        statement = self._commit_statement
        if statement is None or statement.connection is not self.live():
            statement = self._commit_statement = Statement(self.live(), "select roomserver.commit_v1($1::jsonb)")
        return await statement.run(batch) == [(b"t",)]


async def _undisturbed(commit: Coroutine[Any, Any, bool]) -> bool:
    """Runs a commit to its end, also when the process is asked to stop meanwhile.

    Cancelled while it waits for a synchronous standby, it would be visible here without being safe there, and be acknowledged.
    """
    running = asyncio.ensure_future(commit)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        # If the standby does not answer, the connection is closed: that, other than cancelling, makes nothing visible.
        await asyncio.wait([running], timeout=COMMIT_SECONDS)
        if running.done() and not running.cancelled():
            running.exception()
        raise


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def lsn_text(lsn: int) -> str:
    """An LSN as PostgreSQL writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"

"""Building events and appending them: the hot path of everything that changes something.

Invariant: one append is in flight per process, so that requests that arrive meanwhile form the next group: one statement, one
commit, one wait for the verdicts. Within a group the local events of a room chain, each auth-checked against the state as the ones
before it leave it. A request is answered when its events are committed and judged.

    requests ──▶ queue ──▶ group: views ▶ build ▶ append ──▶ verdicts ──▶ answers
                   ▲                                 │ moved, late, stale
                   └─────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import psycopg
import structlog

from eventlog.append import DatabaseClock, Entry, append_statement, release
from eventlog.head import Head, Verdict
from eventlog.metrics import Level
from eventlog.pools import Pool
from eventlog.shards import shard_of
from eventlog.standing import end, stand
from eventlog.statement import Statement
from eventlog.typing_messages import PREFIX, TypingMessage, encode
from matrix.errors import MatrixError
from matrix.room_versions import RoomVersion
from matrix.signatures import SigningKey
from writer import metrics
from writer.building import Group, Request, Rest, Signer, fail
from writer.drafts import Draft, Sent
from writer.views import RoomView, StateKey, Views, read_views, redact_view

log = structlog.get_logger(__name__)

MAX_QUEUE = 5_000
# Entries of this process without a verdict: more would only make the room server's lag grow.
MAX_UNJUDGED = 2_000
MAX_GROUP = 100
MAX_TRIES = 200
# How soon a room with another process's unjudged state event is looked at again.
UNSETTLED_SECONDS = 0.002


class LogWriter:
    """Appends for this process; `async with` it."""

    def __init__(
        self,
        pool: Pool,
        head: Head,
        *,
        server_name: str,
        key: SigningKey,
        typing_key: bytes,
        shards: int,
        timeout: float,
        appends: Pool | None = None,
    ) -> None:
        """`appends` is a pool for the appends alone: they should not queue behind the look-ups of other requests."""
        self._pool = pool
        self._appends = appends or pool
        self._head = head
        self._signer = Signer(server_name, key, shards)
        self._typing_key = typing_key
        self._timeout = timeout
        self._views = Views()
        self._queue: deque[Request] = deque()
        self._parked: dict[str, deque[Request]] = {}
        self._append: tuple[Statement, DatabaseClock] | None = None
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.acted: Callable[[str], None] | None = None
        """Told of every user who does something that others see."""
        self._settling: set[asyncio.Task[None]] = set()
        self._level = Level(metrics.QUEUE, self._waiting)

    async def __aenter__(self) -> LogWriter:
        self._task = stand(self._run, "log writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task, *self._settling)
        await self._let_go()

    async def send(self, drafts: Sequence[Draft]) -> list[Sent]:
        """Appends events of one room together and answers when all are accepted.

        Raises MatrixError: 403 when auth refuses one, 404 for a room that is not known, 413 for one too large, 503 when the
        queue is full or no verdict came in time (the same transaction id then gets the same event).
        """
        if self.acted is not None:
            self.acted(drafts[0].sender)
        return await self._submit(list(drafts), drafts[0].room_id)

    async def create_room(self, version: RoomVersion, create: Draft, rest: Rest) -> str:
        """Makes a room: its create event, and what `rest` makes of the room id, in one append; returns the room id."""
        room_id: list[str] = []

        def rest_of(made: str) -> Sequence[Draft]:
            room_id[:] = [made]
            return rest(made)

        await self._submit([create], None, version=version, rest=rest_of)
        return room_id[0]

    async def append_entry(
        self,
        *,
        type: str,
        user_id: str,
        content: dict[str, Any],
        room_id: str | None = None,
        device_id: str | None = None,
        txn_id: str | None = None,
        txn_path: str | None = None,
    ) -> Sent:
        """Appends an entry of a user (docs/log.md) and answers when it is judged. MatrixError 400 M_UNKNOWN if refused."""
        shard_key = room_id if type in ("m.receipt", "directory", "forget", "scrub") and room_id else user_id
        if type == "m.receipt" and self.acted is not None:
            self.acted(user_id)
        if type == "alias":
            shard_key = content["alias"]
        draft = Draft(room_id or "", user_id, type, content, device_id=device_id, txn_id=txn_id, txn_path=txn_path)
        entry = Entry(
            kind="u",
            shard=shard_of(shard_key, self._signer.shards),
            type=type,
            sender=user_id,
            json=orjson.dumps(content),
            room_id=room_id,
            device_id=device_id,
            txn_id=txn_id,
            key=draft.claim(),
        )
        return (await self._submit([draft], None, entry=entry))[0]

    def check_load(self) -> None:
        """MatrixError 503 when the room server is so far behind that nothing more should be appended."""
        if len(self._queue) >= MAX_QUEUE or self._head.unjudged >= MAX_UNJUDGED:
            raise MatrixError(503, "M_UNKNOWN", "The server is overloaded. Try again later.")

    async def settled(self, entry: int | None) -> None:
        """Waits until an entry that is committed is judged, a bounded time: what it says holds whether it is or not.

        None: there is nothing to wait for.
        """
        if entry is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._head.expect(entry)

    async def view(self, room_id: str, keys: Sequence[StateKey]) -> RoomView:
        """The room as its members read it, with the state keys asked for: what is redacted says no more than that leaves.

        MatrixError 404 M_NOT_FOUND when it is not known.
        """
        async with self._pool.connection() as connection:
            views = await read_views(connection, {room_id: keys})
            if room_id not in views:
                raise MatrixError(404, "M_NOT_FOUND", "Unknown room.")
            await redact_view(connection, views[room_id])
        return views[room_id]

    async def typing(self, room_id: str, user_id: str, typing: bool, timeout_ms: int) -> None:
        """Says that a user types, or stopped."""
        if self.acted is not None:
            self.acted(user_id)
        message = TypingMessage(room_id, user_id, typing, timeout_ms, int(time.time() * 1000))
        async with self._pool.connection() as connection:
            # Transactional, for its commit flushes it: an unflushed message may take wal_writer_delay.
            await connection.execute(
                "select pg_logical_emit_message(true, %s, %s::bytea)", [PREFIX, encode(message, self._typing_key)]
            )

    def _waiting(self) -> int:
        return len(self._queue) + sum(map(len, self._parked.values()))

    async def _submit(
        self,
        drafts: list[Draft],
        room_id: str | None,
        *,
        entry: Entry | None = None,
        version: RoomVersion | None = None,
        rest: Rest | None = None,
    ) -> list[Sent]:
        self.check_load()
        loop = asyncio.get_running_loop()
        request = Request(
            drafts, loop.create_future(), room_id, loop.time() + self._timeout, entry=entry, version=version, rest=rest
        )
        while True:
            self._queue.append(request)
            self._woken.set()
            try:
                async with asyncio.timeout_at(request.deadline):
                    placed = await request.future
                    began = time.perf_counter()
                    verdicts = [await self._head.expect(entry_id) for _, entry_id in placed]
                    metrics.VERDICT_SECONDS.observe(time.perf_counter() - began)
            except TimeoutError:
                metrics.TIMEOUTS.count += 1
                raise MatrixError(
                    503, "M_UNKNOWN", "The server is busy. Try again with the same transaction."
                ) from None
            if all(v.verdict == "a" for v in verdicts):
                return [
                    Sent(event_id, entry_id, v.position)
                    for (event_id, entry_id), v in zip(placed, verdicts, strict=True)
                ]
            if request.entry is not None:
                return [self._user_verdict(verdicts[0])]
            if room_id is not None:
                self._views.drop(room_id)
            await self._refused(request, verdicts)
            metrics.STALE.count += 1
            request.future = loop.create_future()

    def _user_verdict(self, verdict: Verdict) -> Sent:
        # Soft-failed: it changed nothing, an older receipt for instance.
        if verdict.verdict == "s":
            return Sent("", verdict.entry, verdict.position)
        if verdict.verdict == "q":
            raise MatrixError(500, "M_UNKNOWN", "The server could not process this.")
        raise MatrixError(400, "M_UNKNOWN", verdict.reason or "Refused.")

    async def _refused(self, request: Request, verdicts: list[Verdict]) -> None:
        """Raises for a final refusal; returns when the request is to be built again."""
        if any(v.verdict == "q" for v in verdicts):
            raise MatrixError(500, "M_UNKNOWN", "The server could not process this event.")
        final = next((v for v in verdicts if v.verdict in ("r", "s")), None)
        if final is not None:
            raise MatrixError(403, "M_FORBIDDEN", final.reason or "The event was refused.")
        request.tries += 1
        if request.tries > MAX_TRIES:
            raise MatrixError(503, "M_UNKNOWN", "The room is too busy. Try again.")
        claims = [
            (claim, v.entry)
            for draft, v in zip(request.drafts, verdicts, strict=False)
            if (claim := draft.claim()) is not None
        ]
        if claims:
            async with self._pool.connection() as connection:
                await release(connection, claims)

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._woken.clear()
                await self._woken.wait()
            group = self._take_group()
            if not group:
                continue
            try:
                began = time.perf_counter()
                round_ = Group(self._signer, self._views, self._pool, *await self._appending(), group)
                await round_.run()
                metrics.APPEND_SECONDS.observe(time.perf_counter() - began)
                metrics.GROUP_REQUESTS.observe(len(group))
                self._sort_out(round_)
            except psycopg.errors.UniqueViolation:
                # An event id or a claim was taken in the same moment: built again, they differ.
                self._again(group)
            except (psycopg.Error, OSError) as error:
                log.warning("an append failed", error=str(error).strip(), requests=len(group))
                self._lost(group)
                await asyncio.sleep(0.05)
            except Exception as error:
                log.exception("a group of appends failed", requests=len(group))
                for request in group:
                    if request.room_id is not None:
                        self._views.drop(request.room_id)
                    fail(request, MatrixError(500, "M_UNKNOWN", f"Internal error: {type(error).__name__}."))

    async def _appending(self) -> tuple[Statement, DatabaseClock]:
        """The append's statement and its database's clock, on a connection that is kept for them until it breaks."""
        appending = self._append
        if appending is None or not appending[0].usable:
            await self._let_go()
            connection = await self._appends.getconn()
            prepare = connection.prepare_threshold is not None
            appending = append_statement(connection, prepare=prepare), DatabaseClock(connection, prepare=prepare)
            self._append = appending
        return appending

    async def _let_go(self) -> None:
        appending, self._append = self._append, None
        if appending is not None:
            await self._appends.putconn(appending[0].connection)

    def _sort_out(self, group: Group) -> None:
        for room_id, entry in group.state_entry.items():
            self._park(room_id, entry)
        self._queue.extendleft(reversed(group.unbuilt))
        if group.again:
            self._again(group.again)
        for request in group.later:
            asyncio.get_running_loop().call_later(UNSETTLED_SECONDS, self._later, request)

    def _take_group(self) -> list[Request]:
        group: list[Request] = []
        claims: set[str] = set()
        while self._queue and len(group) < MAX_GROUP:
            request = self._queue.popleft()
            if request.future.done():
                continue
            if request.room_id is not None and request.room_id in self._parked:
                self._parked[request.room_id].append(request)
                continue
            claim = request.drafts[0].claim()
            if claim is not None:
                if claim in claims:
                    # The same transaction twice in one group: the second finds the first in the table.
                    self._queue.appendleft(request)
                    break
                claims.add(claim)
            group.append(request)
        return group

    def _again(self, group: Sequence[Request]) -> None:
        metrics.MOVED.count += len(group)
        for request in group:
            if request.room_id is not None:
                self._views.drop(request.room_id)
            request.tries += 1
            if request.tries > MAX_TRIES:
                fail(request, MatrixError(503, "M_UNKNOWN", "The room is too busy. Try again."))
        self._queue.extendleft(reversed([r for r in group if not r.future.done()]))
        self._woken.set()

    def _later(self, request: Request) -> None:
        """Puts a request into the queue again, to be built on the room as it then is; its deadline ends the waiting."""
        if request.room_id is not None:
            self._views.drop(request.room_id)
        self._queue.append(request)
        self._woken.set()

    def _lost(self, group: Sequence[Request]) -> None:
        """The answer to an append was lost. Where a claim tells whether it was made, it is tried again."""
        for request in group:
            if request.drafts[0].txn_id is None and request.checked:
                fail(request, MatrixError(503, "M_UNKNOWN", "The database did not answer. Try again."))
        # Also those that nobody waits for any more: they moved the views of their rooms on, over events that may not be there.
        self._again(group)

    def _park(self, room_id: str, entry: int) -> None:
        """Holds requests of a room back until the verdict on its last state event."""
        self._parked.setdefault(room_id, deque())
        task = asyncio.create_task(self._settle(room_id, entry), name=f"settle {room_id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, room_id: str, entry: int) -> None:
        try:
            await self._head.verdict(entry, self._timeout)
        except TimeoutError:
            log.warning("no verdict on a state event", room_id=room_id, entry=entry)
        finally:
            self._views.drop(room_id)
            self._queue.extend(self._parked.pop(room_id, ()))
            self._woken.set()

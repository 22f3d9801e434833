"""The committed head of the outputs, and the verdicts up to it.

Invariant: what the head says is committed: it was read from the table, or a notice of the room server's that continues what was
read said so (`eventlog.notices`); any other notice is only the reason to look. Writers wait here for the verdict on what they
appended, readers for the head to cover what their slot has shown them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from time import monotonic, time
from typing import NamedTuple

import psycopg
import structlog
from prometheus_client import Counter, Gauge
from psycopg import AsyncConnection

from eventlog.metrics import Level, Tally
from eventlog.notices import CHANNEL, Listener, Notice, parse_notice
from eventlog.queries import Queries
from eventlog.standing import end, stand

log = structlog.get_logger(__name__)
SQL = Queries("eventlog", "head.sql")

# Looked at even without a notice: one may be missed.
LOOK_SECONDS = 1.0
# Where there is none.
POLL_SECONDS = 0.25
# Between attempts to reach a database that is away.
MOST_PAUSE = 0.5
# Verdicts kept for appends whose answer is still on its way.
REMEMBERED = 5_000
# Entries judged later than this after their append are looked up singly.
WINDOW_SECONDS = 600
MOST = 5_000
REMEMBERED_AT_START = 1_000
# Senders of notices that are looked up at a time: whoever may connect may send.
MOST_STRANGERS = 50

_LOOKS = Tally(Counter("walden_head_looks", "Times that the committed head was read."))
_NOTICES = Tally(Counter("walden_head_notices", "Times that a notice moved the committed head."))
_LOST = Tally(Counter("walden_head_connection_losses", "Times that following the head lost its connection."))
_AGE = Gauge("walden_head_age_seconds", "Since the head was last read.", multiprocess_mode="livemax")
_WAITING = Gauge("walden_head_waiting_entries", "Entries whose verdict is waited for.", multiprocess_mode="livesum")


class Verdict(NamedTuple):
    """What was decided on an entry: a accepted, o outlier, s soft-failed, r rejected, t stale, q quarantined."""

    position: int
    entry: int
    verdict: str
    reason: str | None


class Head:
    """Follows the committed head in a task of its own; `async with` it.

    `positions` are the committed positions by shard, `epoch` the current epoch id.
    """

    def __init__(self, direct_dsn: str, *, want_verdicts: bool = True, polls: bool = False) -> None:
        """`polls`: on a standby, where nobody can listen; it looks oftener, and when `look_soon` is called."""
        self.polls = polls
        self._dsn = direct_dsn
        self._want_verdicts = want_verdicts
        self._verdicts: OrderedDict[int, Verdict] = OrderedDict()
        self._waiting: dict[int, list[asyncio.Future[Verdict]]] = {}
        self._watchers: list[Callable[[], None]] = []
        self._returns: list[Callable[[], None]] = []
        self._asked: set[int] = set()
        self._senders: dict[int, int] = {}
        self._strangers: dict[int, int] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.positions: list[int] = []
        self.epoch = ""
        self.looked_at = 0.0
        self._levels = (
            Level(_AGE, lambda: monotonic() - self.looked_at if self.looked_at else 0.0),
            Level(_WAITING, lambda: len(self._waiting)),
        )

    async def __aenter__(self) -> Head:
        ready = asyncio.get_running_loop().create_future()
        self._task = stand(partial(self._run, ready), "head")
        await ready
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)
        for waiting in self._waiting.values():
            for future in waiting:
                future.cancel()

    def watch(self, callback: Callable[[], None]) -> None:
        """Calls back, on the loop, whenever the head has moved."""
        self._watchers.append(callback)

    def watch_returns(self, callback: Callable[[], None]) -> None:
        """Calls back, on the loop, whenever the database is there again after it was lost."""
        self._returns.append(callback)

    @property
    def fresh(self) -> bool:
        """Whether the database answered within the last few seconds."""
        return monotonic() - self.looked_at < 5 * LOOK_SECONDS

    @property
    def unjudged(self) -> int:
        """How many entries somebody in this process waits for."""
        return len(self._waiting)

    def expect(self, entry: int) -> asyncio.Future[Verdict]:
        """A future of the verdict on an entry; whoever waits brings the timeout, and may cancel it."""
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        known = self._verdicts.get(entry)
        if known is not None:
            future.set_result(known)
            return future
        waiting = self._waiting.get(entry)
        if waiting is None:
            waiting = self._waiting[entry] = []
            if entry >> 20 < (time() - WINDOW_SECONDS / 2) * 1000:
                # Judged before this process looked: a duplicate of an old transaction.
                self._ask(entry)
        waiting.append(future)
        return future

    async def verdict(self, entry: int, timeout: float) -> Verdict:
        """Waits for the verdict on an entry; TimeoutError when there is none in time."""
        async with asyncio.timeout(timeout):
            return await self.expect(entry)

    def look_soon(self) -> None:
        """There may be something new."""
        self._woken.set()

    def known(self, entry: int) -> Verdict | None:
        """The verdict if it has been seen lately."""
        return self._verdicts.get(entry)

    def _ask(self, entry: int) -> None:
        self._asked.add(entry)
        self._woken.set()

    async def _run(self, ready: asyncio.Future[None]) -> None:
        delay, lost = 0.1, False
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    looking = await stack.enter_async_context(
                        await AsyncConnection.connect(
                            self._dsn, autocommit=True, connect_timeout=10, prepare_threshold=1
                        )
                    )
                    listener: Listener | None = None
                    # The numbers of another server's sessions, after a failover, say nothing.
                    self._senders.clear()
                    if not self.polls:
                        listening = await stack.enter_async_context(
                            await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=10)
                        )
                        await listening.execute(f"listen {CHANNEL}")
                        listener = Listener(listening, self._hear)
                    await self._look(looking)
                    if not ready.done():
                        ready.set_result(None)
                    elif lost:
                        for callback in self._returns:
                            callback()
                    delay, lost = 0.1, False
                    if listener is not None:
                        stack.enter_context(listener)
                    while True:
                        with contextlib.suppress(TimeoutError):
                            async with asyncio.timeout(POLL_SECONDS if self.polls else LOOK_SECONDS):
                                await self._woken.wait()
                        self._woken.clear()
                        if listener is not None:
                            listener.check()
                        await self._look(looking)
            except (psycopg.Error, OSError) as error:
                if not ready.done() and not isinstance(error, psycopg.OperationalError):
                    ready.set_exception(error)
                    return
                _LOST.count += 1
                lost = True
                log.warning("head lost its connection", error=str(error).strip(), again_in=delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, MOST_PAUSE)
            except asyncio.CancelledError:
                if not ready.done():
                    ready.cancel()
                raise

    def _hear(self, payload: str, sender: int) -> None:
        notice = parse_notice(payload)
        if notice is None or not self._sent_by_room_server(notice, sender) or not self._take(notice):
            self._woken.set()

    def _sent_by_room_server(self, notice: Notice, sender: int) -> bool:
        """Whether the session has been seen to be one; False when that takes a look."""
        if self._senders.get(notice.shard) == sender:
            return True
        if notice.shard < len(self.positions) and len(self._strangers) < MOST_STRANGERS:
            self._strangers[sender] = notice.shard
        return False

    async def _look_at_senders(self, connection: AsyncConnection) -> None:
        strangers, self._strangers = self._strangers, {}
        cursor = await connection.execute(SQL["room_servers"], {"pids": list(strangers)})
        # One session decides a shard: that of before may be anybody's by now.
        self._senders.update((strangers[pid], pid) for (pid,) in await cursor.fetchall())

    def _take(self, notice: Notice) -> bool:
        """Moves on by a notice; False when that takes a look."""
        shard, before, after, epoch, accepted = notice
        if shard >= len(self.positions) or epoch != self.epoch:
            return False
        if after <= self.positions[shard]:
            return True
        if before != self.positions[shard] or (accepted is None and self._want_verdicts):
            return False
        self.positions[shard] = after
        self.looked_at = monotonic()
        _NOTICES.count += 1
        # Readers first: who sent it has it on their screen already.
        self._move()
        if self._want_verdicts and accepted is not None:
            asyncio.get_running_loop().call_soon(self._accept, before, accepted)
        return True

    def _accept(self, before: int, entries: list[int]) -> None:
        for position, entry in enumerate(entries, before + 1):
            self._settle(Verdict(position, entry, "a", None))

    def _move(self) -> None:
        for callback in self._watchers:
            callback()

    async def _look(self, connection: AsyncConnection) -> None:
        moved = False
        while True:
            before = list(self.positions)
            rows = await self._read(connection)
            self.looked_at = monotonic()
            _LOOKS.count += 1
            if not rows:
                return
            if not self.positions:
                # The first look: what was judged lately may be what a request is about to wait for.
                self.positions = [max(0, position - REMEMBERED_AT_START) for _, position, *_ in rows]
                continue
            self.epoch = rows[0][2]
            seen: dict[int, int] = {}
            counts: dict[int, int] = {}
            heads: dict[int, int] = {}
            for shard, position, _, at, entry, verdict, reason in rows:
                heads[shard] = position
                if at is not None:
                    self._settle(Verdict(at, entry, verdict, reason))
                    seen[shard] = at
                    counts[shard] = counts.get(shard, 0) + 1
            more = False
            for shard, position in heads.items():
                if counts.get(shard, 0) == MOST:
                    position, more = seen[shard], True
                # A notice that came while this was read may have moved on beyond it.
                if self.positions[shard] != position and (
                    self.positions[shard] == before[shard] or self.positions[shard] < position
                ):
                    self.positions[shard] = position
                    moved = True
            if not more:
                break
        if self._strangers:
            await self._look_at_senders(connection)
        asked, self._asked = self._asked, set()
        for entry in asked:
            row = await (await connection.execute(SQL["verdict_of"], {"entry": entry})).fetchone()
            if row is not None:
                self._settle(Verdict(*row))
        self._sweep()
        if moved:
            self._move()

    async def _read(self, connection: AsyncConnection) -> list[tuple[int, int, str, int, int, str, str | None]]:
        since = int((time() - WINDOW_SECONDS) * 1000) << 20
        # Without shards there is nothing to join: the heads alone.
        shards = list(range(len(self.positions))) if self._want_verdicts else []
        cursor = await connection.execute(
            SQL["look"],
            {"shards": shards, "after": self.positions if shards else [], "since": since, "most": MOST},
        )
        return await cursor.fetchall()

    def _sweep(self) -> None:
        """Forgets entries that nobody waits for any more."""
        if len(self._waiting) > MOST:
            for entry in [e for e, futures in self._waiting.items() if all(f.done() for f in futures)]:
                del self._waiting[entry]

    def _settle(self, verdict: Verdict) -> None:
        self._verdicts[verdict.entry] = verdict
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)
        for future in self._waiting.pop(verdict.entry, ()):
            if not future.done():
                future.set_result(verdict)

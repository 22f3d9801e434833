"""The subscriber: a publication's commits as batches, in commit order, over a logical replication slot.

Invariants. A transaction is handed out whole, once per Subscriber, in commit order. What the server is told as flushed is
what `confirm` was called with, or, where the consumer stores no position, an idle position with nothing in flight. The
server hears from us at most a third of `wal_sender_timeout` apart, from a task of its own, however long a batch takes.
Nothing is read from the socket while a batch is processed: the kernel's buffer fills, the server waits, memory is bounded.

    async with Subscriber(dsn, slot, ["walden_events"], wanted=COLUMNS, start_lsn=stored) as subscriber:
        async for batch in subscriber.batches(max_rows=500):
            ...                                   # the effects and batch.end_lsn, in one transaction
            subscriber.confirm(batch.end_lsn)

Connecting is `handshake.SETUP`, a list of steps; streaming begins when the last has passed. LSNs are integers (bytes of
WAL), durations seconds. PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from struct import Struct
from types import TracebackType
from typing import Final, Self

import psycopg
import structlog
from psycopg.pq import ExecStatus

from eventlog.faults import Failure, Interrupted, Policy, Retries, judge
from eventlog.handshake import History, Setup, Subscription, shake_hands
from eventlog.heartbeat import PREFIX, Emit, Heartbeat
from eventlog.pgoutput import EPOCH_2000, Commit, DecodeError, Decoder, Message, Wanted
from eventlog.progress import Progress
from eventlog.slots import Loss, SlotActive, SlotLost
from eventlog.standing import end

MOST_SILENT: Final = 10.0
"""Seconds between status messages where a third of wal_sender_timeout would be more, or the timeout is off: what the
server knows of our progress, and shows in pg_stat_replication, is never older."""
PATIENCE: Final = 60.0
"""Seconds without a word from the server, though asked, after which the connection counts as dead, where wal_sender_timeout
(by which the server judges us) is off."""
GATHER_CONFIRMS: Final = 0.2
"""Seconds in which confirmations are gathered into one status message: each wakes the server's process, and none is
urgent, as the position is stored already."""
LAZY_SECONDS: Final = 0.5
"""How long a consumer that is not hungry leaves in the socket what has come."""
SLICE_BYTES: Final = 128 << 10
"""Decoded at a stretch before other tasks of the process get a turn: about 2 ms."""

NO_STREAM: Final = (SlotActive, psycopg.errors.TooManyConnections)

_KEEPALIVE: Final = Struct(">xQqB").unpack_from
_STATUS: Final = Struct(">cQQQqB").pack
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Batch:
    """Commits and non-transactional messages in order; without items, the news that nothing came before `end_lsn`."""

    items: list[Commit | Message]
    end_lsn: int
    rows: int
    size: int
    """Bytes received for it."""


class Subscriber:
    """Follows a slot; an async context manager. One task iterates `batches` until it leaves; any may call `confirm`.

    `wanted` says which columns of which tables to decode. `start_lsn` is the stored position (0: wherever the slot is) and
    `history` what `setup.history` was when it was stored. With `temporary_copy_of` the stream comes from a copy of
    that slot, named `slot` and a suffix, made anew on each connection. `adopt_idle`: let the server forget idle WAL
    unasked. By default that is so for temporary copies only, as a durable slot must never be past the stored position: its
    consumer stores the `end_lsn` of batches without items instead. `heartbeat` sends a payload round the loop every
    `heartbeat_seconds`. A batch that takes over `away_seconds` while the server has more to send costs the connection,
    which is made again. A transaction beyond `transaction_bytes` is a DecodeError. While `hungry` says no, what comes is left in
    the socket for up to `LAZY_SECONDS` or until `nudge`: the server sends a transaction in pieces, each of which wakes a process.
    `without` is run between attempts at a server that is there and gives no stream, since a session that hangs has the slot or
    all walsenders are taken: the tables may be worked from meanwhile.

    Entering and iterating raise SlotLost (catch up from the tables), Misconfigured, DecodeError, an error that `judge`s to
    stop, or the last one when the budget of `retries` is spent.
    """

    def __init__(
        self,
        dsn: str,
        slot: str,
        publications: Sequence[str],
        *,
        wanted: Wanted,
        start_lsn: int = 0,
        history: History | None = None,
        temporary_copy_of: str | None = None,
        messages: bool = True,
        adopt_idle: bool | None = None,
        heartbeat: Emit | None = None,
        heartbeat_seconds: float = 15.0,
        away_seconds: float = 60.0,
        transaction_bytes: int = 256 << 20,
        retries: Retries | None = None,
        hungry: Callable[[], bool] | None = None,
        without: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.progress = Progress(received=start_lsn, delivered=start_lsn, confirmed=start_lsn)
        self._subscription = Subscription(dsn, slot, tuple(publications), temporary_copy_of, messages, history)
        self._wanted = wanted
        self._transaction_bytes = transaction_bytes
        self._adopt_idle = temporary_copy_of is not None if adopt_idle is None else adopt_idle
        self._heartbeat = Heartbeat(heartbeat, heartbeat_seconds) if heartbeat is not None else None
        self._retries, self._hungry, self._without = retries or Retries(), hungry, without
        self._delays: Iterator[float] | None = None
        self._setup: Setup | None = None
        self._news = asyncio.Event()
        self._woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reporter: asyncio.Task[None] | None = None
        self._heart: asyncio.Task[None] | None = None
        self._broken: BaseException | None = None
        self._opened = self._heard = self._moved = self._asked = 0.0
        self._away_seconds = away_seconds
        self._away_since: float | None = None
        self._missing = False

    async def __aenter__(self) -> Self:
        await self._connect(None)
        self._away_since = time.monotonic()
        if self._heartbeat is not None:
            self._heart = asyncio.create_task(self._heartbeat.run(), name="heartbeat")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(psycopg.Error, OSError):
            self._send_status()
        await end(self._heart)
        await self._disconnect()

    @property
    def setup(self) -> Setup:
        """What the current connection found: the system and timeline, settings, the slot and its health."""
        if self._setup is None:
            raise psycopg.OperationalError("the subscriber is not connected")
        return self._setup

    def confirm(self, end_lsn: int) -> None:
        """Say that everything up to a batch's `end_lsn` is durably stored. Lower values than before change nothing."""
        if end_lsn > max(self.progress.delivered, self.progress.confirmed):
            raise ValueError(f"{end_lsn:X} is confirmed, but only {self.progress.delivered:X} was handed out")
        if end_lsn > self.progress.confirmed:
            self.progress.confirmed = end_lsn
            self._news.set()

    async def batches(
        self, *, max_rows: int = 1000, max_bytes: int = 4 << 20, max_wait: float = 5.0
    ) -> AsyncIterator[Batch]:
        """What is there, at once; an empty batch after `max_wait` seconds without anything.

        A batch ends with the transaction that reaches `max_rows` or `max_bytes`. Cut connections are made again within the
        budget, and what was handed out is not handed out again.
        """
        while True:
            try:
                batch = await self._gather(max_rows, max_bytes, max_wait)
            except (psycopg.Error, OSError, Interrupted) as error:
                # Whatever ended the stream, the handshake judges: it can tell a lost slot from a restarting server.
                missing = isinstance(error, psycopg.errors.UndefinedObject)
                if missing and self._missing:
                    # The handshake saw every publication, the stream does not: it is before they were made again.
                    raise SlotLost(self.setup.slot, Loss.OTHER_PUBLICATION) from error
                await self._connect(error)
                self._missing = missing
                continue
            self.progress.delivered = max(self.progress.delivered, batch.end_lsn)
            if batch.items:
                self._delays = None
            self._away_since = time.monotonic()
            yield batch

    async def _gather(self, max_rows: int, max_bytes: int, max_wait: float) -> Batch:
        items: list[Commit | Message] = []
        rows = size = stretch = 0
        deadline = time.monotonic() + max_wait
        if self._away_since is not None:
            # Nobody listened meanwhile: that does not count as the server's silence.
            away = time.monotonic() - self._away_since
            self._heard, self._moved, self._away_since = self._heard + away, self._moved + away, None
        if self._broken is not None:
            raise self._broken
        while rows < max_rows and size < max_bytes:
            data = self._receive()
            if data is None:
                if items:
                    break
                if not await self._readable(deadline):
                    return Batch(items, max(self.progress.received, self.progress.server_end), 0, 0)
                continue
            item = self._take(data)
            if isinstance(item, Commit):
                items.append(item)
                rows += len(item.rows)
                size += item.size
            elif item is not None:
                items.append(item)
                rows += 1
                size += len(item.content)
            stretch += len(data)
            if stretch > SLICE_BYTES:
                stretch = 0
                await asyncio.sleep(0)
        return Batch(items, self.progress.received, rows, size)

    def _receive(self) -> memoryview | bytes | None:
        """The next message that is here already, or None."""
        pgconn = self.setup.connection.pgconn
        # Decrypted bytes may wait inside libpq where the socket shows nothing, 16 kB a record, read 8 kB at a time or more.
        for attempt in range(3 if pgconn.ssl_in_use else 2):
            if attempt:
                pgconn.consume_input()
            length, data = pgconn.get_copy_data(1)
            if length > 0:
                self._heard = time.monotonic()
                return data
            if length < 0:
                result = pgconn.get_result()
                if result is not None and result.status == ExecStatus.FATAL_ERROR:
                    raise psycopg.errors.error_from_result(result)
                raise Interrupted("the server ended the stream", "see its log")
        return None

    def _take(self, data: memoryview | bytes) -> Commit | Message | None:
        """Take a message of the stream; returns what it completes, unless it was handed out before."""
        progress = self.progress
        if data[0] == 119:  # w, XLogData
            self._moved = self._heard
            item = self._decoder.feed(bytes(data))
            if item is None:
                return None
            lsn = item.end_lsn if isinstance(item, Commit) else item.lsn
            if isinstance(item, Message) and item.prefix == PREFIX:
                if self._heartbeat is not None:
                    self._heartbeat.returned(item.content)
                    progress.heartbeat_seconds = self._heartbeat.seconds
            elif lsn > progress.delivered and (isinstance(item, Message) or item.rows or item.others):
                progress.received = lsn
                return item
            progress.server_end = max(progress.server_end, lsn)
            return None
        if data[0] != 107:  # k, keepalive
            raise DecodeError(f"a replication message of kind {data[0]}; PostgreSQL 15 to 18 send none such")
        server_end, _, asked = _KEEPALIVE(data)
        if server_end > progress.server_end:
            progress.server_end = server_end
            self._moved = self._heard
        if asked:
            # We report before it would have to ask. Asking again at once it waits, to shut down, for a confirmation of its
            # last WAL, which a stored position may never bring.
            if self._heard - self._asked < self._interval:
                raise Interrupted("the server is shutting down", "it is waited for")
            self._asked = self._heard
            self._send_status()
        return None

    async def _readable(self, deadline: float) -> bool:
        """Wait for the socket; False once `deadline` (monotonic) has passed. Raises Interrupted if the stream is dead."""
        now = time.monotonic()
        if now >= deadline:
            await asyncio.sleep(0)
            return False
        if now - self._heard > self._patience:
            raise Interrupted(f"the server was silent for {self._patience:.0f} s", "see that the network reaches it")
        # Under backlog the heartbeat is late, but then something moves: only a standstill is a fault.
        if self._heartbeat is not None and min(self._heartbeat.waited(now), now - self._moved) > self._patience:
            raise Interrupted(f"nothing came round for {self._patience:.0f} s", "see the server's log of its walsender")
        loop = asyncio.get_running_loop()
        socket = self.setup.connection.pgconn.socket
        woken = self._woken = loop.create_future()
        armed = self._hungry is None or self._hungry()
        timer = loop.call_later(min(deadline - now, self._patience / 4 if armed else LAZY_SECONDS), self.nudge)
        if armed:
            loop.add_reader(socket, self.nudge)  # while waiting alone: armed beside unread data it fires on every turn
        try:
            await woken
        finally:
            timer.cancel()
            if armed:
                loop.remove_reader(socket)
        if self._broken is not None:
            raise self._broken
        return True

    def nudge(self) -> None:
        """Look at once for what has come."""
        if not self._woken.done():
            self._woken.set_result(None)

    async def _report(self) -> None:
        """Tell the server where we are, on time whatever the consumer does, and soon after it confirmed something."""
        while True:
            try:
                async with asyncio.timeout(min(self._interval, self._away_seconds)):
                    await self._news.wait()
                    await asyncio.sleep(GATHER_CONFIRMS)
            except TimeoutError:
                pass
            self._news.clear()
            now = time.monotonic()
            try:
                if self._away_since is not None and now - self._away_since > self._away_seconds:
                    self._let_go()
                self._send_status(ask=now - self._heard >= self._interval)
            except Exception as error:
                # Raised where the batches are taken: a stream without reports must not go on in silence.
                self._broken = error
                self.nudge()
                return

    def _let_go(self) -> None:
        """A server that is stuck in writing to us can neither end the session nor finish a checkpoint that gives the slot
        up, nor shut down: a consumer that takes too long gets its connection again when it is back."""
        pgconn, unread = self.setup.connection.pgconn, select.poll()
        unread.register(pgconn.socket, select.POLLIN)
        if unread.poll(0):
            pgconn.finish()
            raise Interrupted(f"a batch took over {self._away_seconds:.0f} s", "see what its consumer waits for")

    def _send_status(self, ask: bool = False) -> None:
        """A standby status update; `ask` makes the server answer."""
        progress = self.progress
        if self._adopt_idle and progress.confirmed >= progress.received and self._decoder.transaction is None:
            progress.confirmed = max(progress.confirmed, progress.server_end)
        seen = max(progress.received, progress.server_end, progress.confirmed)
        clock = time.time_ns() // 1000 - EPOCH_2000
        pgconn = self.setup.connection.pgconn
        pgconn.put_copy_data(_STATUS(b"r", seen, progress.confirmed, progress.confirmed, clock, ask))
        # What the socket does not take now, the next flush or read sends: the message is repeated anyway.
        pgconn.flush()

    async def _connect(self, cause: BaseException | None) -> None:
        """Make the stream (again), within the budget of the outage that `cause` began or prolonged."""
        await self._disconnect()
        if time.monotonic() - self._opened > self._retries.most:
            self._delays = None
        while True:
            if cause is not None:
                self.progress.reconnects += 1
                self._delays = self._delays or self._retries.delays()
                wait = next(self._delays, None)
                remedy = judge(cause).remedy
                _log.warning("stream cut", slot=self._subscription.slot, error=str(cause), remedy=remedy, retry_in=wait)
                if wait is None:
                    raise cause
                if self._without is not None and isinstance(cause, NO_STREAM):
                    await self._without()
                await asyncio.sleep(wait)
            try:
                self._start(await shake_hands(self._subscription, self.progress.confirmed))
            except (psycopg.Error, OSError, Failure) as error:
                if judge(error).policy is not Policy.RETRY:
                    raise
                cause = error
            else:
                return

    def _start(self, setup: Setup) -> None:
        self._setup = setup
        self._decoder = Decoder(self._wanted, self._transaction_bytes)
        timeout = setup.settings.wal_sender_timeout
        self._interval = min(timeout / 3, MOST_SILENT) if timeout else MOST_SILENT
        self._patience = timeout or PATIENCE
        # What happens to the publications from here on is noticed at the next connection.
        self._subscription = replace(self._subscription, history=setup.history)
        progress = self.progress
        progress.confirmed = max(progress.confirmed, setup.start_lsn)
        progress.delivered = max(progress.delivered, progress.confirmed)
        # What was received and not handed out comes again; what the server had said of the end no longer holds.
        progress.received = min(max(progress.received, progress.confirmed), progress.delivered)
        progress.server_end = progress.delivered
        self._opened = self._heard = self._moved = time.monotonic()
        self._broken = None
        if self._heartbeat is not None:
            self._heartbeat.forget()
        self._reporter = asyncio.create_task(self._report(), name="replication feedback")

    async def _disconnect(self) -> None:
        reporter, self._reporter = self._reporter, None
        await end(reporter)
        setup, self._setup = self._setup, None
        if setup is not None:
            await setup.connection.close()

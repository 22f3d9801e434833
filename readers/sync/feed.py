"""The outputs in order, as soon as they are committed: from the stream when it has them, from the tables when it has not.

Invariant: `apply` gets every output after the start exactly once, in order of position per shard, and none before the committed
head covers it. The slot is an optimisation: a cut stream, a lost slot or a gap is filled from the tables by position, and
nobody who waits can tell. Memory is bounded: what does not fit is read from the tables when its turn comes.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from operator import lt
from time import monotonic
from typing import Final

import psycopg
import structlog

from eventlog.faults import Failure, Retries
from eventlog.head import Head
from eventlog.metrics import Level
from eventlog.pgoutput import Commit, DecodeError
from eventlog.pools import Pool
from eventlog.provision import OUTPUTS_PUBLICATION, outputs_slot
from eventlog.queries import Queries
from eventlog.replication import Subscriber
from eventlog.slots import SlotName
from eventlog.standing import end
from readers.sync import metrics
from readers.sync.outputs import EVENTS, OUTPUTS, WANTED, Entry, Output

log = structlog.get_logger(__name__)
SQL: Final = Queries("readers.sync", "sync.sql")

STALL_SECONDS: Final = 0.25
"""How long the stream may lag behind the committed head before the tables are read instead."""
AGAIN_SECONDS: Final = 5.0
"""Between attempts to stream again after a slot was lost."""
PENDING_BYTES: Final = 32 << 20
"""Entries whose output has not come yet; the rest is read from the table."""
READY_ROWS: Final = 20_000
"""Outputs that wait for the head; likewise."""
SCRUB: Final = "scrub"
"""Type of the entry that says that something has left the log, which caches would go on showing."""
STEP: Final = 1_000
"""Outputs read from the tables at once."""

Apply = Callable[[list[Output]], None]


class Feed:
    """Follows the outputs; `async with` it. `positions` are those applied, by shard."""

    def __init__(self, replication_dsn: str, head: Head, pool: Pool, apply: Apply, parted: Callable[[], None]) -> None:
        """`parted` is called when what was applied is to be forgotten: the database has begun another epoch, or `apply` failed."""
        self._parted = parted
        self._epoch = ""
        self._dsn = replication_dsn
        self._head = head
        self._pool = pool
        self._apply = apply
        self.positions: list[int] = []
        self.from_tables = 0
        """Outputs that came from the tables instead of the stream, for metrics."""
        self.streaming = False
        self._pending: OrderedDict[int, Entry] = OrderedDict()
        self._pending_bytes = 0
        self._ready: list[dict[int, Output]] = []
        self._incomplete: set[int] = set()
        self._missing_since: list[float | None] = []
        self._behind = False
        self._busy = False
        self._moved = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._subscriber: Subscriber | None = None
        self._levels = (
            Level(metrics.LAG, lambda: sum(self._head.positions) - sum(self.positions)),
            Level(metrics.STREAMLESS, lambda: not self.streaming),
        )

    async def __aenter__(self) -> Feed:
        self.positions = list(self._head.positions)
        self._epoch = self._head.epoch
        self._ready = [{} for _ in self.positions]
        self._missing_since = [None] * len(self.positions)
        self._head.watch(self.release)
        self._tasks = [
            asyncio.create_task(self._stream(), name="sync stream"),
            asyncio.create_task(self._fill(), name="sync fill"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks, self._tasks = self._tasks, []
        await end(*tasks)

    def check(self) -> None:
        """Raises what ended one of the tasks: a reader without them would answer with the past for ever."""
        for task in self._tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise RuntimeError("sync no longer follows the outputs") from error

    def release(self) -> None:
        """Applies what is complete and committed. Runs on the loop whenever the head or the stream has moved."""
        if self._busy:
            return
        if self._head.epoch != self._epoch or any(map(lt, self._head.positions, self.positions)):
            self._part()
        released: list[Output] = []
        for shard, start in enumerate(self.positions):
            position, head, ready = start, self._head.positions[shard], self._ready[shard]
            while position < head:
                output = ready.get(position + 1)
                if output is None or output.entry in self._incomplete:
                    self._moved.set()
                    break
                position += 1
                released.append(ready.pop(position))
            if position != start:
                self.positions[shard] = position
                self._missing_since[shard] = None
        if released:
            self._hand_over(released)
        if self._subscriber is not None and self._is_behind():
            self._subscriber.nudge()

    def _is_behind(self) -> bool:
        """Whether something is committed that has not been applied: otherwise nothing in the stream is of use yet."""
        return any(map(lt, self.positions, self._head.positions))

    def _hand_over(self, outputs: list[Output]) -> None:
        try:
            self._apply(outputs)
        except Exception:
            # An output that is not what it should be must stop neither the feed nor, by way of the head, the writers: the
            # caches are made anew behind it, and the tables tell what it was about.
            log.exception("sync begins anew behind an output", shard=outputs[-1].shard, position=outputs[-1].position)
            self._parted()
            return
        if any(output.kind == "u" and output.type == SCRUB for output in outputs):
            log.info("sync begins anew: something has left the log")
            self._parted()

    def _part(self) -> None:
        """What has been applied may belong to an abandoned future: begin where the database now is."""
        log.warning("sync begins anew with another epoch", epoch=self._head.epoch, positions=self._head.positions)
        self._epoch = self._head.epoch
        self.positions[:] = self._head.positions
        for ready in self._ready:
            ready.clear()
        self._incomplete.clear()
        self._missing_since = [None] * len(self.positions)
        self._parted()

    async def _fill(self) -> None:
        """Reads from the tables what the stream did not bring in time."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            self._busy = True
            wait = 0.0
            try:
                for shard in range(len(self.positions)):
                    wait = max(wait, await self._fill_shard(shard))
            except (psycopg.Error, OSError) as error:
                log.warning("sync could not read the outputs", error=str(error).strip())
                wait = 1.0
            finally:
                self._busy = False
            if wait:
                # The stream may bring it meanwhile, and then `release` applies it.
                await asyncio.sleep(wait)
            self.release()

    async def _fill_shard(self, shard: int) -> float:
        """Brings a shard to the head; returns seconds to wait for the stream first."""
        ready = self._ready[shard]
        while (position := self.positions[shard]) < (head := self._head.positions[shard]):
            run: list[Output] = []
            while position < head and len(run) < STEP and position + 1 in ready:
                position += 1
                run.append(ready.pop(position))
            if run:
                await self._complete(run)
            else:
                if self.streaming and not self._behind:
                    now = monotonic()
                    since = self._missing_since[shard] = self._missing_since[shard] or now
                    if now - since < STALL_SECONDS:
                        return 0.01
                    self._behind = True
                    metrics.CATCH_UPS.count += 1
                    log.warning("sync stream is behind, reading the tables", shard=shard, position=position, head=head)
                upto = min((p - 1 for p in ready if p > position), default=head)
                run = await self._read(shard, position, min(upto, head))
                position = run[-1].position if len(run) == STEP else min(upto, head)
                for stale in [p for p in ready if p <= position]:
                    self._incomplete.discard(ready.pop(stale).entry)
            self.positions[shard] = position
            self._missing_since[shard] = None
            if run:
                self._hand_over(run)
        return 0.0

    async def _read(self, shard: int, after: int, upto: int) -> list[Output]:
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["outputs_between"], {"shard": shard, "after": after, "upto": upto, "most": STEP}
            )
            rows = await cursor.fetchall()
        run = [Output.of_row(row) for row in rows]
        self.from_tables += len(run)
        metrics.FROM_TABLES.count += len(run)
        return run

    async def _complete(self, run: list[Output]) -> None:
        """Joins outputs of the stream with entries that only the table has."""
        lacking = {o.entry: o for o in run if o.entry in self._incomplete}
        if not lacking:
            return
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["entries"], {"ids": list(lacking)})
            for row in await cursor.fetchall():
                lacking[row[0]].join((*row[:8], row[8].encode()))
        self._incomplete.difference_update(lacking)

    async def _stream(self) -> None:
        """Streams for ever, from a copy of the readers' slot that lives as long as the connection."""
        while True:
            try:
                async with self._pool.connection() as connection:
                    row = await (await connection.execute(SQL["database_oid"])).fetchone()
                assert row is not None
                async with Subscriber(
                    self._dsn,
                    str(SlotName(row[0], "sync", secrets.token_hex(3))),
                    [OUTPUTS_PUBLICATION],
                    wanted=WANTED,
                    temporary_copy_of=str(outputs_slot(row[0])),
                    messages=False,
                    retries=Retries(budget=30.0),
                    hungry=self._is_behind,
                ) as subscriber:
                    self._subscriber = subscriber
                    self.streaming, self._behind = True, False
                    async for batch in subscriber.batches():
                        for item in batch.items:
                            if isinstance(item, Commit):
                                self._take(item)
                        subscriber.confirm(batch.end_lsn)
                        if self._head.polls and batch.items:
                            self._head.look_soon()
                        self.release()
            except (psycopg.Error, OSError, Failure, DecodeError, TimeoutError) as error:
                log.warning("sync goes on from the tables", error=str(error).strip())
            finally:
                self._subscriber = None
                self.streaming = False
                self._pending.clear()
                self._pending_bytes = 0
            self._moved.set()
            await asyncio.sleep(AGAIN_SECONDS)

    def _take(self, commit: Commit) -> None:
        """Joins a transaction's outputs with the entries that came before them."""
        pending = self._pending
        for table, values in commit.rows:
            if table is EVENTS:
                pending[values[0]] = values
                self._pending_bytes += len(values[8])
                while self._pending_bytes > PENDING_BYTES:
                    self._pending_bytes -= len(pending.popitem(last=False)[1][8])
                continue
            assert table is OUTPUTS
            output = Output(*values)
            entry = pending.pop(output.entry, None)
            if entry is not None:
                self._pending_bytes -= len(entry[8])
            ready = self._ready[output.shard]
            if output.position <= self.positions[output.shard] or len(ready) >= READY_ROWS:
                continue
            self._behind = False
            if entry is not None:
                output.join(entry)
            elif output.kind != "e":
                self._incomplete.add(output.entry)
            ready[output.position] = output

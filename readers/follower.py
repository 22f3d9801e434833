"""A durable reader: follows the outputs from a stored position and keeps projections, each exactly once.

Invariant: a projection's rows and its position change in one transaction, and the position only from where this process left it
(compare-and-set): whoever finds it elsewhere has been overtaken, or reset for a rebuild, and begins again from what is stored. So a
kill at any moment, a second process, and a restored database all end in the same rows. Positions are dense and an output is visible
only with all before it, so the table itself is the queue: there is no slot to lose, and none that holds back WAL. The room server's
NOTIFY is the reason to look.

    class Words:                                                    # a Projection
        name = "words"
        async def begin(self, connection): ...                      # forget what is cached
        async def apply(self, connection, outputs): ...             # within the transaction
        async def clear(self, connection): ...                      # remove all rows, for a rebuild
        async def tidy(self, connection): ...                       # forget what retention dropped

    await Follower("projections", dsn, [Words()]).run()
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

import orjson
import psycopg
import structlog
from prometheus_client import Counter
from psycopg import AsyncConnection

from eventlog.faults import Failure, Policy, judge
from eventlog.metrics import Tallies
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from eventlog.standing import persist

SQL: Final = Queries("readers", "follower.sql")
log = structlog.get_logger(__name__)

MOST: Final = 500
"""Outputs applied in one transaction: with whole events well under a megabyte, usually."""
TOGETHER: Final = 100
"""Outputs that all projections which are in step take in within one transaction: three commits would say no more than one."""
LOOK_SECONDS: Final = 1.0
"""The table is looked at so often even without a NOTIFY."""
GATHER_SECONDS: Final = 0.03
"""Between two batches while outputs keep coming: a transaction for many costs hardly more than one for a single output."""
SHARE: Final = 0.25
"""How much of the time is worked while outputs wait, so that what catches up takes nothing from those who send."""
MOST_PAUSE: Final = 1.0
TIDY_SECONDS: Final = 3600.0

_APPLIED = Tallies(Counter("walden_projection_outputs", "Outputs applied to a projection.", ["projection"]))
_SKIPPED = Tallies(Counter("walden_projection_skipped_outputs", "Outputs that could not be applied.", ["projection"]))


class Judged(NamedTuple):
    """An output with its entry. `type` and `state_key` are as clients write them; `json` is the entry, empty if it is gone."""

    shard: int
    position: int
    kind: str
    entry: int
    room: int | None
    verdict: str
    timeline: int | None
    line: int
    notes: dict[str, Any]
    event_id: str
    room_id: str | None
    type: str
    state_key: str | None
    sender: str
    json: str

    @property
    def in_timeline(self) -> bool:
        """Whether it is an accepted event of a room's timeline."""
        return self.verdict == "a" and self.kind in "sm" and self.timeline is not None and bool(self.json)


SCRUB: Final = "scrub"
"""Type of the entry that says that something of a room or user has left the log (docs/log.md)."""


class Projection(Protocol):
    """What is kept of the outputs in tables of its own. `name` is its component in eventlog.positions."""

    @property
    def name(self) -> str:
        """Of the projection, its schema and its position."""

    async def begin(self, connection: AsyncConnection) -> None:
        """Called before the first batch, and whenever a batch was rolled back: what is cached may be wrong."""

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        """Brings the rows from before some successive outputs of a shard to after them. Runs in the transaction of the move."""

    async def clear(self, connection: AsyncConnection) -> None:
        """Removes all rows, in the transaction that resets the position."""

    async def tidy(self, connection: AsyncConnection) -> None:
        """Called now and then: forgets what retention has dropped from the log."""


class Overtaken(Failure):
    """The position is not where this process left it."""

    policy = Policy.RETRY


class Follower:
    """Keeps some projections. One process keeps a projection, others stand by."""

    def __init__(self, name: str, dsn: str, projections: Sequence[Projection], *, share: float = SHARE) -> None:
        """`dsn` is a reader's, past any pooler. `share` is how much of the time to work while outputs wait, at most 1."""
        self._name = name
        self._dsn = dsn
        self._projections = projections
        self._names = [one.name for one in projections]
        self._share = share
        self._latest: tuple[int, int, list[Judged]] | None = None
        self.positions: dict[str, dict[int, int]] = {}
        """By projection and shard."""

    async def run(self) -> None:
        """Follows until cancelled. Raises what does not pass by itself, and what has not passed within its budget."""
        await persist(self._session, f"the reader {self._name}")

    async def _session(self) -> None:
        async with await AsyncConnection.connect(
            self._dsn, autocommit=True, prepare_threshold=1, connect_timeout=10
        ) as connection:
            # A commit that a crash of the server loses takes its position with it: nobody waits for the disk here.
            await connection.execute("select set_config('synchronous_commit', 'off', false)")
            await self._wait_for_lock(connection)
            await connection.execute("listen walden_outputs")
            await self.take(connection)
            patience = checked = tidied = 0.0
            while True:
                # All hints that have come are one reason to look.
                async for _ in connection.notifies(timeout=patience, stop_after=1):
                    pass
                began = time.monotonic()
                if began - checked > LOOK_SECONDS:
                    # A projection that was reset has outputs to take in although none are new.
                    await self._check(connection)
                    checked = began
                if began - tidied > TIDY_SECONDS:
                    for projection in self._projections:
                        await projection.tidy(connection)
                    tidied = began
                patience = LOOK_SECONDS
                if await self.step(connection):
                    spent = time.monotonic() - began
                    await asyncio.sleep(max(GATHER_SECONDS, min(spent * (1 / self._share - 1), MOST_PAUSE)))
                    patience = 0.0

    async def _wait_for_lock(self, connection: AsyncConnection) -> None:
        said = False
        while True:
            row = await (await connection.execute(SQL["lock"], {"components": self._names})).fetchone()
            if row is not None and row[0]:
                return
            if not said:
                log.info("another process follows: standing by", reader=self._name)
                said = True
            await asyncio.sleep(LOOK_SECONDS / 2)

    async def take(self, connection: AsyncConnection) -> None:
        """Begins where the stored positions are."""
        await connection.execute(SQL["begin"], {"components": self._names})
        cursor = await connection.execute(SQL["take"], {"components": self._names, "pid": os.getpid()})
        self.positions = {name: {} for name in self._names}
        for component, shard, position in await cursor.fetchall():
            self.positions[component][shard] = position
        self._latest = None
        for projection in self._projections:
            await projection.begin(connection)
        log.info("a reader begins", reader=self._name, positions=self.positions)

    async def _check(self, connection: AsyncConnection) -> None:
        cursor = await connection.execute(SQL["stored"], {"components": self._names})
        if any(self.positions[name].get(shard) != position for name, shard, position in await cursor.fetchall()):
            raise Overtaken(f"positions of {', '.join(self._names)} were moved by somebody else", "they are read again")

    async def step(self, connection: AsyncConnection) -> int:
        """Applies the next outputs to every projection; returns how many there were."""
        count = 0
        # Those that are in step share one reading of the table.
        self._latest = None
        for shard in sorted({shard for shards in self.positions.values() for shard in shards}):
            abreast: dict[int, list[Projection]] = {}
            for projection in self._projections:
                if (after := self.positions[projection.name].get(shard)) is not None:
                    abreast.setdefault(after, []).append(projection)
            for after, projections in sorted(abreast.items()):
                outputs = await self._read(connection, shard, after)
                if not outputs:
                    continue
                for some in [projections] if len(outputs) <= TOGETHER else [[one] for one in projections]:
                    await self._apply(connection, some, after, outputs)
                count += len(outputs) * len(projections)
        return count

    async def _read(self, connection: AsyncConnection, shard: int, after: int) -> list[Judged]:
        if self._latest is not None and self._latest[:2] == (shard, after):
            return self._latest[2]
        cursor = await connection.execute(SQL["outputs_after"], {"shard": shard, "after": after, "most": MOST})
        outputs = [_judged(row) for row in await cursor.fetchall()]
        self._latest = (shard, after, outputs)
        return outputs

    async def _apply(
        self, connection: AsyncConnection, projections: Sequence[Projection], after: int, outputs: Sequence[Judged]
    ) -> None:
        """One transaction. What breaks is found by projection, then by halves of the outputs; that output is left out of it."""
        upto, shard = outputs[-1].position, outputs[0].shard
        try:
            async with connection.transaction():
                for projection in projections:
                    await self._move(connection, projection, shard, after, upto)
                    await projection.apply(connection, outputs)
        except (psycopg.OperationalError, psycopg.InterfaceError, OSError, Failure):
            raise
        except Exception as error:
            for projection in projections:
                await projection.begin(connection)
            if isinstance(error, psycopg.Error) and judge(error).policy is Policy.STOP:
                raise
            if len(projections) > 1:
                for projection in projections:
                    await self._apply(connection, [projection], after, outputs)
                return
            if len(outputs) > 1:
                half = len(outputs) // 2
                await self._apply(connection, projections, after, outputs[:half])
                await self._apply(connection, projections, outputs[half - 1].position, outputs[half:])
                return
            [broken] = projections
            log.exception("an output is left out of a projection", projection=broken.name, entry=outputs[0].entry)
            _SKIPPED.add(broken.name)
            async with connection.transaction():
                await self._move(connection, broken, shard, after, upto)
        for projection in projections:
            self.positions[projection.name][shard] = upto
            _APPLIED.add(projection.name, count=len(outputs))

    async def _move(
        self, connection: AsyncConnection, projection: Projection, shard: int, after: int, upto: int
    ) -> None:
        move = {"component": projection.name, "shard": shard, "after": after, "upto": upto}
        if (await connection.execute(SQL["move"], move)).rowcount != 1:
            raise Overtaken(f"the position of {projection.name} was moved by somebody else", "it is read again")


def _judged(row: tuple[Any, ...]) -> Judged:
    shard, position, letter, entry, room, verdict, timeline, line, annotation, *of_entry = row
    event_id, room_id, kind, state_key, sender, text = of_entry
    return Judged(
        shard,
        position,
        letter,
        entry,
        room,
        verdict,
        timeline,
        line,
        orjson.loads(annotation) if annotation else {},
        event_id or "",
        room_id,
        unsafe(kind or ""),
        None if state_key is None else unsafe(state_key),
        sender or "",
        text or "",
    )


def scrubbed(outputs: Sequence[Judged]) -> tuple[list[str], list[str]]:
    """Ids of the rooms and users of which some outputs say that something has left the log."""
    rooms: dict[str, None] = {}
    users: dict[str, None] = {}
    for output in outputs:
        if output.kind == "u" and output.type == SCRUB and output.verdict == "a" and output.json:
            body = orjson.loads(output.json)
            for found, name in ((rooms, "room_id"), (users, "user_id")):
                if isinstance(body.get(name), str):
                    found[body[name]] = None
    return list(rooms), list(users)


async def reset(connection: AsyncConnection, projection: Projection) -> None:
    """Empties a projection and lets it begin again; a running process notices, and fills it."""
    async with connection.transaction():
        await connection.execute(SQL["begin"], {"components": [projection.name]})
        await connection.execute(SQL["reset"], {"component": projection.name})
        await projection.clear(connection)


async def progress(connection: AsyncConnection, names: Sequence[str]) -> dict[str, tuple[int, int]]:
    """By projection: how many outputs it has taken in, and how many there are."""
    cursor = await connection.execute(SQL["progress"], {"components": list(names)})
    return {name: (position, head) for name, position, head in await cursor.fetchall()}


async def wait_until_current(connection: AsyncConnection, name: str, seconds: float) -> bool:
    """Waits until a projection has taken in all that was committed before, so that who asks finds what they did.

    False if it has not in time: it is behind, or nobody keeps it.
    """
    wanted: dict[int, int] | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            pause = 0.005
            while True:
                rows = await (await connection.execute(SQL["standing"], {"component": name})).fetchall()
                wanted = wanted or {shard: head for shard, head, _ in rows}
                if all(position >= wanted[shard] for shard, _, position in rows):
                    return True
                # The projection tells nobody: a NOTIFY for each of its batches would wake every process.
                await asyncio.sleep(pause)
                pause = min(pause * 1.5, 0.05)
    return False

"""Old partitions of the log: what must outlive them is kept, then they are dropped.

Invariant: a partition goes only when every consumer has passed it and everything in it is judged. Taking it out waits for nobody
longer than `lock_timeout` (25 ms), and holds up whoever comes behind it as long; while an analyst's query is open it is tried again
and again, and after some time the next hour. Nothing is dropped while it is part of the log, so that freeing disk holds up nobody.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import Final

import psycopg
import structlog
from psycopg import AsyncConnection

from readers.retention.policies import Policies
from readers.retention.record import PART, SQL, Record

log = structlog.get_logger(__name__)

KINDS: Final = {"m": "messages", "u": "user entries"}
ATTEMPTS: Final = 120
PAUSE: Final = 0.5
"""Seconds between attempts, about: in the whole a minute."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A partition of both logs that is older than the policy; `waits_for` says what it waits for."""

    kind: str
    label: str
    low: int
    high: int
    waits_for: str | None


async def expired(connection: AsyncConnection, kind: str, days: float) -> list[Expired]:
    """The partitions of a kind that are older than some days, oldest first up to the first that waits; none for 0 days."""
    if not days:
        return []
    rows = await (await connection.execute(SQL["expired"], {"kind": kind, "days": days})).fetchall()
    return [Expired(kind, *row) for row in rows]


async def drop_expired(
    connection: AsyncConnection, kind: str, days: float, policies: Policies, by: str = "maintenance"
) -> Record | None:
    """Drops what has expired of a kind; the record of it, or None when there was nothing to drop, or no moment to do it in."""
    found = await expired(connection, kind, days)
    for one in found:
        if one.waits_for is not None:
            log.warning(
                "a partition that has expired waits", kind=KINDS[kind], partition=one.label, because=one.waits_for
            )
    going = [one for one in found if one.waits_for is None]
    if not going:
        return None
    before = going[-1].high
    labels = [one.label for one in going]
    record = await Record.begin(connection, "partition", KINDS[kind], by, {"partitions": labels, "days": days})
    kept = await _keep(connection, kind, before, policies)
    if not await _retire(connection, kind, before, labels):
        log.warning(
            "partitions that have expired are in use: they are dropped later", kind=KINDS[kind], partitions=labels
        )
        return None
    await record.count(kept=kept)
    await finish(connection, record)
    await record.end()
    log.info(
        "partitions were dropped",
        kind=KINDS[kind],
        partitions=labels,
        events=record.events,
        kept=kept,
        bytes=record.bytes,
    )
    return record


async def finish(connection: AsyncConnection, record: Record | None = None) -> None:
    """Forgets and drops what was taken out of the log; without a record, what a run that was broken off left behind."""
    taken_up: dict[str, Record] = {}
    for (name,) in await (await connection.execute(SQL["retired"])).fetchall():
        letter = "u" if "_u" in name else "m"
        if record is None and letter not in taken_up:
            taken_up[letter] = await Record.begin(connection, "partition", KINDS[letter], "maintenance", {})
        of_name = record or taken_up[letter]
        if "events" in name:
            after = 0
            while True:
                parameters = {"name": name, "after": after, "most": PART}
                row = await (await connection.execute(SQL["forget_retired"], parameters)).fetchone()
                if row is None:
                    break
                after = row[0]
                await of_name.count(events=row[2])
        await _patiently(connection, "drop_retired", of_name, name)
    for one in taken_up.values():
        await one.end()


async def _keep(connection: AsyncConnection, kind: str, before: int, policies: Policies) -> int:
    """Copies what must stay to tables of its own; returns how many entries that were."""
    await _until_free(connection, "begin_keep", {"kind": kind, "before": before})
    kept = 0
    async with connection.cursor("survivors", withhold=True) as cursor:
        await cursor.execute(SQL["survivors"], {"kind": kind, "before": before, "rooms": policies.longer})
        while rows := await cursor.fetchmany(PART):
            parameters = {"kind": kind, "entries": [row[0] for row in rows]}
            row = await (await connection.execute(SQL["keep"], parameters)).fetchone()
            assert row is not None
            kept += row[0]
    return kept


async def _retire(connection: AsyncConnection, kind: str, before: int, labels: list[str]) -> bool:
    return await _until_free(connection, "retire", {"kind": kind, "before": before, "labels": labels})


async def _patiently(connection: AsyncConnection, query: str, record: Record, name: str) -> None:
    for _ in range(ATTEMPTS):
        try:
            row = await (await connection.execute(SQL[query], {"name": name})).fetchone()
        except psycopg.errors.LockNotAvailable:
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
            continue
        assert row is not None
        await record.count(freed=row[0])
        return
    log.warning("a table that was taken out of the log is in use: it is dropped later", table=name)


async def _until_free(connection: AsyncConnection, query: str, parameters: dict[str, object]) -> bool:
    """Runs a query that does not wait for locks until it gets them; False when it never did."""
    for _ in range(ATTEMPTS):
        try:
            await connection.execute(SQL[query], parameters)
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            # At odd times, for what is in the way may come as regularly.
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))
            continue
        return True
    return False

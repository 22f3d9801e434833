"""A room server in a task of the test, on a database of the test's own, and entries of other servers to feed it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

from eventlog.configuration import load_settings
from eventlog.settings import Settings
from eventlog.shards import shard_of
from matrix.canonical import encode_canonical
from matrix.events import Event
from roomserver.service import RoomServer


def settings_for(dsn: str, folder: Path) -> Settings:
    """Settings of a server on a test database."""
    (folder / "signing.key").write_text("ed25519 a_test YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1\n")
    return load_settings(
        {
            "WALDEN_DATA_DIR": str(folder),
            "WALDEN_DATABASE_DSN": make_conninfo(dsn),
            "WALDEN_SERVER_NAME": "test.example",
        },
        folder / "walden.toml",
    )


@contextlib.asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RoomServer]:
    """A room server that runs until the block ends; its failure fails the block."""
    server = RoomServer(settings, 0)
    task = asyncio.create_task(server.run())
    try:
        yield server
        if task.done():
            await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def receive(dsn: str, events: Iterable[Event]) -> int:
    """Puts events of other servers into the log, each in a transaction of its own; returns how many."""
    count = 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        for event in events:
            count += 1
            pdu = encode_canonical(event.pdu, strict=False).decode()
            kind = "m" if event.state_key is None else "s"
            with connection.transaction():
                row = connection.execute(
                    "insert into eventlog.event_keys (key, id) values (eventlog.event_key(%s), eventlog.next_id()) returning id",
                    [event.event_id],
                ).fetchone()
                assert row is not None
                connection.execute(
                    "insert into eventlog.events (id, kind, shard, local, event_id, room_id, type, state_key, sender, json)"
                    " values (%s, %s, %s, false, %s, %s, %s, %s, %s, %s)",
                    [
                        row[0],
                        kind,
                        shard_of(event.room_id, 1),
                        event.event_id,
                        event.room_id,
                        event.type,
                        event.state_key,
                        event.sender,
                        pdu,
                    ],
                )
    return count


async def judged(dsn: str, count: int, *, seconds: float = 60.0) -> dict[str, tuple[str, int, int, str | None]]:
    """Waits until `count` room events have a verdict: (verdict, line, position, reason) by event id."""
    deadline = time.monotonic() + seconds
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(
                "select e.event_id, o.verdict, o.line, o.position, o.reason"
                " from eventlog.outputs o join eventlog.events e on e.id = o.entry where e.event_id is not null"
            )
            rows = await cursor.fetchall()
            if len(rows) >= count:
                return {row[0]: (row[1], row[2], row[3], row[4]) for row in rows}
            assert time.monotonic() < deadline, f"{len(rows)} of {count} judged"
            await asyncio.sleep(0.05)

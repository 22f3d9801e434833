"""Events by the million, made by SQL: what a server would hold that has run for a year.

Invariant: what stands in the tables is what the room server would have left of rooms of one line in which everything was
accepted; nothing is random, so two runs make the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from psycopg import AsyncConnection, sql

from eventlog.queries import Queries

QUERIES = Queries("bin.benchmark", "generated.sql")
DAYS = 360
AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Generated:
    """What was made. Rooms are numbered from 1; the first has a fifth of all events, a slot's room `1 / slots` of them."""

    events: int
    setup: int
    began_ms: int
    step_us: int


async def generate(
    connection: AsyncConnection,
    events: int,
    *,
    slots: int = 1000,
    members: int = 50,
    progress: Callable[[str], None] = lambda _: None,
) -> Generated:
    """Fills a database that has the schema and nothing in it. Wants an autocommit connection of its owner."""

    async def run(name: str, **values: int) -> None:
        await connection.execute(QUERIES[name], values)

    await run("insert_installation")
    for name in ("make_schema", "make_event_id", "make_entry", "make_sender"):
        await run(name)
    for name in ("make_rooms", "make_slots"):
        await run(name, slots=slots, members=members)
    for name in ("make_setup", "make_places", "set_places"):
        await run(name)
    row = await (await connection.execute(QUERIES["count_setup"])).fetchone()
    assert row is not None
    setup = row[0]
    step = DAYS * 86_400_000_000 // (events + setup)
    began = int(time.time() * 1000) - DAYS * 86_400_000
    for name, parent, first, last in await (
        await connection.execute(QUERIES["make_month"], {"began": began})
    ).fetchall():
        await connection.execute(
            sql.SQL("create table {} partition of {} for values from ({}) to ({})").format(
                sql.Identifier("eventlog", name),
                sql.Identifier("eventlog", parent),
                sql.Literal(first),
                sql.Literal(last),
            )
        )
    clock = {"began": began, "step": step}
    await run("insert_rooms", **clock)
    await run("drop_ids_key")
    await run("insert_setup", **clock)
    shown = time.monotonic()
    for first in range(0, events, AT_ONCE):
        last = min(events, first + AT_ONCE)
        await run("insert_events", **clock, **{"from": first, "to": last}, slots=slots, setup=setup)
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            progress(f"events {last}/{events}")
    progress("indexes and state")
    await run("add_ids_key")
    for name in ("insert_state", "insert_memberships", "insert_heads"):
        await run(name)
    await run("insert_receipts", **clock, setup=setup, events=events)
    await run("insert_resolutions")
    await run("insert_position", setup=setup, events=events)
    counted = 0
    while row := await (await connection.execute(QUERIES["fold_activity"], {"most": AT_ONCE})).fetchone():
        counted += row[0]
        if not row[0]:
            break
        if time.monotonic() - shown > 5:
            shown = time.monotonic()
            progress(f"daily activity {counted}/{events + setup}")
    await connection.execute("vacuum analyze")
    return Generated(events, setup, began, step)

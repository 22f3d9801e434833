"""Pages of history in SQL, on a log that holds as many events as a server has after a year: made by SQL, in a cluster of its own.

The cluster has no slots, and so nothing decodes what is made in it. Each page is asked as a person would ask it, as the role
that may read the history, over one session; the first time in a new session is reported beside it.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, LiteralString

import psycopg

from bin.benchmark.cluster import Cluster
from bin.benchmark.generated import QUERIES, generate
from bin.benchmark.row import Figure, Row, Sample, Scale, median
from bin.benchmark.servers import Walden
from eventlog.migrations import migrate

MOST_MS: Final = 20.0
REPEATS: Final = 15


@dataclass(frozen=True, slots=True)
class Asked:
    """One page: what it is, the statement, and how many rows of anything its plan may touch."""

    title: str
    statement: LiteralString
    touches: int


ASKED: Final[Mapping[str, Asked]] = {
    "rooms": Asked("rooms", "select * from history.rooms order by room desc limit 100", 110),
    "messages": Asked(
        "messages of the largest room", "select * from history.messages_of(%(room)s) order by place desc limit 100", 200
    ),
    "messages-small": Asked(
        "messages of a small room", "select * from history.messages_of(%(small)s) order by place desc limit 100", 200
    ),
    "messages-since": Asked(
        "messages of the largest room since a moment",
        "select * from history.messages_of(%(room)s)"
        " where place > (select history.place_at(%(room)s, now() - interval '100 days')) order by place limit 100",
        200,
    ),
    "edits": Asked("edits", "select * from history.edits_of(%(room)s) order by place desc limit 100", 110),
    "reactions": Asked("reactions", "select * from history.reactions_of(%(room)s) order by place desc limit 100", 110),
    "threads": Asked("threads", "select * from history.threads_of(%(room)s) order by place desc limit 100", 2600),
    "thread": Asked("replies in a thread", "select * from history.replies_in(%(root)s) order by place limit 100", 110),
    "memberships": Asked(
        "memberships over time of the largest room",
        "select * from history.memberships_of(%(room)s) order by place desc limit 100",
        210,
    ),
    "memberships-user": Asked(
        "memberships over time of a user",
        "select * from history.memberships_of_user(%(user)s) order by place desc limit 100",
        1500,
    ),
    "state-changes": Asked(
        "state changes", "select * from history.state_changes_of(%(room)s) order by place desc limit 100", 110
    ),
    "power-levels": Asked(
        "changes of one type of state",
        "select * from history.state_changes_of(%(room)s) where type = 'm.room.power_levels' order by place desc limit 100",
        700,
    ),
    "state-at": Asked(
        "state of the largest room at a moment",
        "select * from history.state_at(%(room)s, now() - interval '100 days') limit 100",
        300,
    ),
    "state-at-key": Asked(
        "one piece of its state at a moment",
        "select * from history.state_at(%(room)s, now() - interval '100 days') where type = 'm.room.topic' and state_key = ''",
        1200,
    ),
    "state-between": Asked(
        "state between two moments",
        "select * from history.state_between(%(room)s, now() - interval '100 days', now() - interval '50 days')"
        " order by place limit 100",
        300,
    ),
    "who-could-see": Asked("who could see an event", "select * from history.who_could_see(%(event)s) limit 100", 110),
    "why-state": Asked(
        "why a state is what it is", "select * from history.why_state(%(room)s, 'm.room.power_levels', '')", 110
    ),
    "receipts": Asked("receipts", "select * from history.receipts_of(%(room)s) order by change desc limit 100", 110),
    "activity": Asked("daily activity of a room", "select * from history.activity_of(%(room)s, 100)", 110),
    "activity-user": Asked(
        "daily activity of a user",
        "select * from history.daily_activity_of_users where user_id = %(user)s order by day desc limit 100",
        110,
    ),
    "activity-server": Asked(
        "daily activity of the server", "select * from history.daily_totals order by day desc limit 100", 110
    ),
}
"""Every view and function of the history, a page of a hundred of each."""


def subjects(connection: psycopg.Connection[Any]) -> dict[str, str]:
    """What the pages are asked about: the largest room and a small one, a member, a message, a thread."""
    row = connection.execute(QUERIES["subjects"]).fetchone()
    assert row is not None
    return dict(zip(("room", "small", "event", "user", "root"), row, strict=True))


class History(Row):
    """A page of a hundred from each view and function of the history."""

    name = "history"
    by_default = False
    prepare_seconds = 7200.0
    measure_seconds = 900.0

    @classmethod
    def figures(cls, scale: Scale) -> tuple[Figure, ...]:
        millions = f"{scale.generated_events / 1e6:g} million events"
        return tuple(
            Figure(f"history-{name}", f"history, {millions}: {asked.title}", "ms", limit=MOST_MS)
            for name, asked in ASKED.items()
        )

    async def prepare(self) -> None:
        self.dsn = ""
        if not isinstance(self.server, Walden):
            return
        folder: Path = self.server.folder / "history"
        cluster = await asyncio.to_thread(Cluster, folder, self.server.binaries)
        self.server.others.append(cluster)
        await asyncio.to_thread(cluster.start)
        self.dsn = (await cluster.create_database()).dsn
        await migrate(self.dsn)
        async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            await connection.execute(QUERIES["commit_fast"])
            began = time.perf_counter()
            await generate(connection, self.scale.generated_events, progress=self.progress)
            self.progress(f"{self.scale.generated_events} events were made in {time.perf_counter() - began:.0f} s")

    async def measure(self, number: int) -> Sample:
        if not self.dsn:
            return Sample({figure.key: None for figure in self.figures(self.scale)})
        return await asyncio.to_thread(self._measure)

    def _measure(self) -> Sample:
        values: dict[str, float | None] = {}
        first: dict[str, float] = {}
        rows: dict[str, int] = {}
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            about = subjects(connection)
        for name, asked in ASKED.items():
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                connection.execute(QUERIES["become_history"])
                times = []
                for _ in range(1 + REPEATS):
                    start = time.perf_counter()
                    rows[name] = len(connection.execute(asked.statement, about).fetchall())
                    times.append(1000 * (time.perf_counter() - start))
            values[f"history-{name}"] = median(times[1:])
            first[name] = round(times[0], 2)
            self.progress(f"{asked.title}: {median(times[1:]):.1f} ms, {times[0]:.1f} ms at first, {rows[name]} rows")
        faults = [f"{ASKED[name].title}: no rows" for name, count in rows.items() if not count]
        return Sample(values, {"first_ms": first, "rows": rows}, faults)

"""Whether a database is the one it was: unchanged, failed over, moved elsewhere, or restored to an earlier time.

Invariant: whoever is to decide or to change anything asks here first. A crash and a failover never refuse: refused is only what a
person did (a recovery to a target, a copy, a dump, an old disk), because only a person can say whether it is meant.

What tells a failover from a restore, both on a new timeline of the same system: the reason that PostgreSQL writes into the
timeline's history file. A promoted standby has recovered as far as it could, a restore up to a target. (Recovered to the end of
the archive, a restore is a failover in every respect: nobody chose what is lost.)
"""

from __future__ import annotations

import asyncio
import enum
import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from eventlog.faults import Failure, Interrupted
from eventlog.queries import Queries
from eventlog.seen import Epochs, Seen

log = structlog.get_logger(__name__)
SQL: Final = Queries("eventlog", "history.sql")

NO_TARGET: Final = "no recovery target specified"
"""What PostgreSQL 15 to 18 write, untranslated, when recovery went on to the end of the WAL it had."""
RECOVERING_SECONDS: Final = 60.0
REMEDY: Final = "run `walden recover --dry-run` to see what has to be done, then `walden recover`"


class Standing(enum.Enum):
    """What a database is to the installation that opens it."""

    EMPTY = "it was never initialised"
    CURRENT = "it is the one it was"
    FAILOVER = "a standby was promoted"
    MOVED = "it was moved"
    RESTORED = "it was restored to an earlier time"
    UNFINISHED = "walden recover was broken off"


class Restored(Failure):
    """The database was restored or moved, and nobody has said that it is to go on from there."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"this database is not to be served as it is, {finding.why}", REMEDY)
        self.finding = finding


@dataclass(frozen=True, slots=True)
class Finding:
    """A standing with what shows it. `lost`: positions by shard that were seen and are gone; `abandoned`: epochs of that
    future which the database does not know, as `eventlog.begin_epoch_v2` takes them."""

    standing: Standing
    why: str
    system: str
    timeline: int
    database_oid: int
    epoch: str = ""
    epochs: Epochs = field(default_factory=dict)
    positions: tuple[int, ...] = ()
    lost: dict[int, int] = field(default_factory=dict)
    abandoned: tuple[tuple[str, str | None, tuple[int, ...]], ...] = ()

    @property
    def refused(self) -> bool:
        """Whether a person has to run `walden recover` first."""
        return self.standing in (Standing.MOVED, Standing.RESTORED, Standing.UNFINISHED)


@dataclass(frozen=True, slots=True)
class Switch:
    """A line of a timeline's history: the timeline left, where, and why."""

    timeline: int
    lsn: str
    reason: str


async def examine(connection: AsyncConnection, replication_dsns: Sequence[str], seen: Iterable[Seen]) -> Finding:
    """What the database is, held against its own epochs and what the data directory remembers. Changes nothing.

    `replication_dsns` are tried in turn, and only on a new timeline. Raises Interrupted while the server recovers.
    """
    row = await (await connection.execute(SQL["here"])).fetchone()
    assert row is not None
    system, timeline, oid, made = row
    if timeline == 0:
        raise Interrupted("the server is a standby, or still replays WAL", "wait, or point the DSN at the primary")
    rows = await (await connection.execute(SQL["epochs"])).fetchall() if made else []
    if not rows:
        return Finding(Standing.EMPTY, "it was never initialised", system, timeline, oid)
    epochs = [json.loads(text) for (text,) in rows]
    known: Epochs = {one["epoch"]: (one["parent"], tuple(one["forked_at"])) for one in epochs}
    present = epochs[0]
    positions = tuple([position for (position,) in await (await connection.execute(SQL["heads"])).fetchall()])
    seen = list(seen)
    if len(epochs) == 1 and not any(positions):
        # Nothing has happened yet: other epochs that the data directory remembers were those of another database.
        seen = [one for one in seen if one.epoch == present["epoch"]]
    lost, abandoned = _gone(seen, present["epoch"], known, positions)

    def found(standing: Standing, why: str) -> Finding:
        return Finding(standing, why, system, timeline, oid, present["epoch"], known, positions, lost, abandoned)

    if present.get("ready_at", "") is None:
        return found(Standing.UNFINISHED, "`walden recover` was broken off")
    if present["system_identifier"] != system:
        return found(
            Standing.MOVED,
            f"it comes from the PostgreSQL system {present['system_identifier']} and is now in {system} "
            "(a dump restored elsewhere, or pg_upgrade)",
        )
    if present.get("database_oid") not in (None, oid):
        return found(Standing.MOVED, f"it is a copy: it was database {present['database_oid']} and is now {oid}")
    if present["timeline"] != timeline:
        return found(*await _new_timeline(replication_dsns, present["timeline"], timeline))
    if lost or abandoned:
        return found(Standing.RESTORED, "it is behind what this installation has seen (an old disk or snapshot)")
    slots = await (await connection.execute(SQL["slots"], {"oid": oid})).fetchall()
    if not slots and any(positions) and not seen:
        return found(
            Standing.RESTORED,
            "all its replication slots are missing and the data directory has never seen it (a base backup)",
        )
    return found(Standing.CURRENT, "it is the one it was")


def _gone(
    seen: list[Seen], epoch: str, known: Epochs, positions: tuple[int, ...]
) -> tuple[dict[int, int], tuple[tuple[str, str | None, tuple[int, ...]], ...]]:
    """What was seen and is gone: how many positions by shard, and epochs that the database does not know."""
    lost: dict[int, int] = {}
    abandoned: dict[str, tuple[str, str | None, tuple[int, ...]]] = {}
    for one in seen:
        here = positions[one.shard] if one.shard < len(positions) else 0
        if one.epoch == epoch:
            if one.position > here:
                lost[one.shard] = one.position - here
        elif one.epoch not in known:
            lost[one.shard] = max(0, one.position - here)
            for link in reversed(one.chain or ((one.epoch, None, ()),)):
                if link[0] not in known:
                    parent = link[1] if link[1] in known or link[1] in abandoned else None
                    abandoned[link[0]] = (link[0], parent, link[2])
    return lost, tuple(abandoned.values())


async def _new_timeline(dsns: Sequence[str], before: int, now: int) -> tuple[Standing, str]:
    if now < before:
        return Standing.RESTORED, f"it was on timeline {before} and is now on timeline {now}"
    switches = await _read_switches(dsns, now)
    for switch in switches:
        if switch.timeline >= before and switch.reason != NO_TARGET:
            return (
                Standing.RESTORED,
                f"it was recovered to a target ({switch.reason}), which ended timeline {switch.timeline} at {switch.lsn}",
            )
    return Standing.FAILOVER, f"timeline {now} follows timeline {before}: a standby was promoted"


async def _read_switches(dsns: Sequence[str], timeline: int) -> list[Switch]:
    """The history of a timeline; empty if nobody can read it, for what cannot be told from a failover is one."""
    if timeline < 2:
        return []
    failure: Exception | None = None
    for dsn in dsns:
        try:
            async with await AsyncConnection.connect(
                dsn, autocommit=True, replication="database", connect_timeout=10
            ) as walsender:
                row = await (await walsender.execute(f"TIMELINE_HISTORY {int(timeline)}")).fetchone()
            return parse_history(_text(row[1])) if row is not None else []
        except (psycopg.Error, OSError) as error:
            failure = error
    log.warning("the timeline's history cannot be read: a failover is assumed", timeline=timeline, error=str(failure))
    return []


def _text(content: Any) -> str:
    return content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)


def parse_history(text: str) -> list[Switch]:
    """The lines of a history file: `timeline<TAB>lsn<TAB>reason`; comments and what is none are passed over."""
    found = []
    for line in text.splitlines():
        parts = line.strip().split("\t", 2)
        if len(parts) == 3 and parts[0].isdecimal():
            found.append(Switch(int(parts[0]), parts[1], parts[2]))
    return found


async def begin_epoch(connection: AsyncConnection, finding: Finding, why: str, *, at_once: bool = True) -> str:
    """Begins an epoch after the one that was found, in a transaction of the caller's or its own; the current epoch's id.

    Another one may have begun meanwhile; then that is the current one.
    """
    abandoned = [{"epoch": epoch, "parent": parent, "forked_at": fork} for epoch, parent, fork in finding.abandoned]
    cursor = await connection.execute(
        SQL["begin_epoch"],
        {
            "epoch": secrets.token_hex(4),
            "after": finding.epoch,
            "why": why,
            "system": finding.system,
            "timeline": finding.timeline,
            "database": finding.database_oid,
            "abandoned": json.dumps(abandoned),
            "at_once": at_once,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return str(row[0])


async def wait_until_recovered(connection: AsyncConnection, seconds: float = RECOVERING_SECONDS) -> None:
    """Waits while the server replays WAL. Raises Interrupted when it is paused at its target, or takes longer."""
    end = monotonic() + seconds
    while True:
        row = await (await connection.execute(SQL["paused"])).fetchone()
        assert row is not None
        recovering, paused = row
        if not recovering:
            return
        if paused:
            raise Interrupted(
                "the server has paused at its recovery target",
                "look at the data, then run `select pg_wal_replay_resume()` as a superuser to go on from there",
            )
        if monotonic() > end:
            raise Interrupted(
                f"the server still replays WAL after {seconds:.0f} s, or is a standby",
                "wait for its recovery to end, or point the DSN at the primary",
            )
        await asyncio.sleep(0.2)

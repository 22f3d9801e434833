"""`walden recover`: a database that was restored or moved goes on from where it is, as a new epoch.

Invariant: every step can be broken off and done again, and until the last one is done no server starts. With a dry run nothing is
changed. Dropped are slots of this database alone: others of the cluster may be production's.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection

from bin.initialise import (
    BLOCKED_SECONDS,
    bring_up_to_date,
    identity_of,
    read_facts,
    refuse,
    replication_dsns,
    stale_logins,
)

# Not from here: who asks for its name should not import the room server, and with it what counts before it is known where.
from bin.logins import wanted_logins, would_close
from bin.outcome import RecoveryError as RecoveryError
from bin.supervision import running_pid
from eventlog import history
from eventlog.configuration import Settings
from eventlog.history import Finding, Standing
from eventlog.key_file import read_key
from eventlog.migrations import applied, migration_names
from eventlog.pools import component_dsn
from eventlog.provision import check_identity, outputs_slot, provision, roomserver_slot
from eventlog.queries import Queries
from eventlog.seen import Seen, lineage, read_seen, write_seen
from eventlog.slots import SlotBlocked, drop_slot, slot_health
from readers.media.pruning import missing_files
from readers.projections import PROJECTIONS, follower
from roomserver.service import catch_up
from roomserver.store import SQL as ROOM_SERVER

QUERIES: Final = Queries("bin", "recovery.sql")
READER_SECONDS: Final = 600.0
"""How long readers are caught up before the rest is left to them: one that is new reads the whole log."""
REPLAY_SECONDS: Final = 3600.0
"""How long the server may replay WAL before recover gives up; it can be run again."""


@dataclass(slots=True)
class Recovery:
    """One run: what was found, and what the steps need."""

    settings: Settings
    connection: AsyncConnection
    facts: dict[str, Any]
    finding: Finding
    planned: bool
    say: Callable[[str], None]
    guard: AsyncConnection | None = None
    """Keeps room servers out."""

    @property
    def shards(self) -> range:
        """The shards of the log."""
        return range(self.settings.log.shards)

    async def rows(self, query: str, **values: Any) -> list[tuple[Any, ...]]:
        """The rows of one of this page's queries."""
        return await (await self.connection.execute(QUERIES[query], values)).fetchall()


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a recovery. `look` tells what it would do, a sentence each; `act` does it and says it through the run."""

    look: Callable[[Recovery], Awaitable[list[str]]]
    act: Callable[[Recovery], Awaitable[None]]
    planned: bool = True
    """Whether it is also taken when nothing was lost (`--planned`)."""


@dataclass(slots=True)
class Options:
    """What was asked for on the command line."""

    dry_run: bool = False
    planned: bool = False
    anyway: bool = False
    steps: tuple[Step, ...] = field(default_factory=lambda: STEPS)


def check_stopped(settings: Settings) -> None:
    """Raises RecoveryError while Walden runs on this data directory."""
    pid = running_pid(settings.server.data_dir)
    if pid is not None:
        raise RecoveryError(f"Walden runs on {settings.server.data_dir} (process {pid}): stop it first")


async def recover(settings: Settings, options: Options, say: Callable[[str], None]) -> None:
    """Takes every step, or shows them. Raises RecoveryError, WrongInstallation, Failure, psycopg.Error."""
    key = read_key(settings.server.signing_key)
    async with await _connect(settings) as connection:
        facts = await read_facts(connection)
        refuse(facts)
        await history.wait_until_recovered(connection, REPLAY_SECONDS)
        seen = read_seen(settings.server.data_dir)
        try:
            finding = await history.examine(connection, replication_dsns(settings), seen)
        except psycopg.errors.InsufficientPrivilege as error:
            raise RecoveryError(
                f"{error.diag.message_primary}: what is in the database {facts['database']} is not {facts['login']}'s. "
                f"Restore the dump with pg_restore --role={facts['login']}"
            ) from None
        if finding.standing is Standing.EMPTY:
            raise RecoveryError(f"there is no Walden in the database {facts['database']}: see that the DSN is right")
        await check_identity(connection, identity_of(settings, key))
        _describe(settings, facts, finding, seen, say)
        if not finding.refused and not options.anyway:
            say(_why_nothing(finding))
            return
        if options.planned and any(finding.lost.values()):
            raise RecoveryError(
                "this installation has seen more than the database holds, so tokens cannot be kept: "
                "run `walden recover` without --planned"
            )
        run = Recovery(settings, connection, facts, finding, options.planned, say)
        steps = [step for step in options.steps if step.planned or not options.planned]
        if options.dry_run:
            for step in steps:
                for sentence in await step.look(run):
                    say(f"would {sentence}")
            say("nothing was changed")
            return
        async with await _connect(settings) as guard:
            await _take_shards(run, guard)
            for step in steps:
                await step.act(run)
    say("recovered: start the server with `walden up`")


async def _connect(settings: Settings) -> AsyncConnection:
    return await AsyncConnection.connect(
        settings.dsn(direct=True),
        autocommit=True,
        connect_timeout=settings.database.connect_timeout,
        application_name="walden recover",
    )


async def _take_shards(run: Recovery, guard: AsyncConnection) -> None:
    """Room servers are kept out, and so is a second recover. Their turn comes by the beginning of the epoch."""
    for shard in run.shards:
        row = await (await guard.execute(ROOM_SERVER["lock"], {"shard": shard})).fetchone()
        if row is None or not row[0]:
            owners = await run.rows("owners", shard=shard)
            pid = owners[0][0] if owners else None
            raise RecoveryError(
                f"somebody has shard {shard} of the database: a room server"
                f"{f' (process {pid})' if pid else ''} or another `walden recover`. Stop it first"
            )
    run.guard = guard


def _describe(
    settings: Settings, facts: dict[str, Any], finding: Finding, seen: list[Seen], say: Callable[[str], None]
) -> None:
    version = facts["version"]
    say(
        f"database {facts['database']} of {settings.server.name}: PostgreSQL {version // 10_000}.{version % 10_000}, "
        f"system {finding.system}, timeline {finding.timeline}, epoch {finding.epoch}"
    )
    for shard, position in enumerate(finding.positions):
        known = next((one for one in seen if one.shard == shard), None)
        more = ""
        if known is not None:
            more = f"; this installation has seen {known.position} of epoch {known.epoch}"
        say(f"shard {shard} is at position {position}{more}")
    say(f"found: {finding.why}")


def _why_nothing(finding: Finding) -> str:
    if finding.standing is Standing.FAILOVER:
        return "nothing to recover: after a failover the server begins an epoch by itself, start it with `walden up`"
    return (
        "nothing to recover. If you know that this database was restored (a snapshot of the whole machine takes "
        "the data directory back as well), run `walden recover --anyway`"
    )


async def _look_at_schema(run: Recovery) -> list[str]:
    missing = sorted(set(migration_names()) - set(await applied(run.connection)))
    found = [f"apply migration {name}" for name in missing]
    found += [f"make or renew login {one.name}" for one in await stale_logins(run.settings, run.connection)]
    if await would_close(run.connection, wanted_logins(run.settings, run.facts["database_oid"])):
        found.append("close the database to all but its owner and the logins")
    return found


async def _renew_schema(run: Recovery) -> None:
    # A restored cluster has the passwords of its time, a new one has no logins at all.
    stale = await stale_logins(run.settings, run.connection)
    await bring_up_to_date(run.settings, run.connection, run.facts, run.say, stale)


async def _look_at_epoch(run: Recovery) -> list[str]:
    finding = run.finding
    if finding.standing is Standing.UNFINISHED:
        return []
    at = ", ".join(f"position {position} of shard {shard}" for shard, position in enumerate(finding.positions))
    found = [f"begin an epoch after {finding.epoch}, at {at}"]
    found += [f"give up {count} positions of shard {shard}" for shard, count in finding.lost.items() if count]
    return found + [f"note the lost epoch {epoch}" for epoch, _, _ in finding.abandoned]


async def _begin_epoch(run: Recovery) -> None:
    finding = run.finding
    if finding.standing is Standing.UNFINISHED:
        run.say(f"epoch {finding.epoch} has begun already")
        return
    for sentence in (await _look_at_epoch(run))[1:]:
        run.say(sentence)
    why = "planned" if run.planned else "recover"
    epoch = await history.begin_epoch(run.connection, finding, why, at_once=False)
    run.say(f"began epoch {epoch} after {finding.epoch}")


async def _our_slots(run: Recovery) -> list[str]:
    mark = f"walden_{run.facts['database_oid']}_"
    found = await slot_health(run.connection)
    return [one.slot_name for one in found if one.slot_name.startswith(mark) and not one.temporary]


async def _look_at_slots(run: Recovery) -> list[str]:
    oid = run.facts["database_oid"]
    found = [f"drop replication slot {name}" for name in await _our_slots(run)]
    wanted = [*(roomserver_slot(oid, shard) for shard in run.shards), outputs_slot(oid)]
    return found + [f"make replication slot {name}" for name in wanted]


async def _remake_slots(run: Recovery) -> None:
    names = await _our_slots(run)
    movers = run.settings.dsn("replication")
    async with await AsyncConnection.connect(movers, autocommit=True, connect_timeout=10) as mover:
        for name in names:
            try:
                await drop_slot(mover, name)
            except psycopg.errors.ObjectInUse as error:
                raise RecoveryError(f"{str(error).strip()}: stop who streams from it, then run this again") from error
            run.say(f"dropped replication slot {name}")
    identity = identity_of(run.settings, read_key(run.settings.server.signing_key))
    began = time.monotonic()
    while True:
        try:
            made = await provision(run.settings.dsn(direct=True), movers, identity)
        except SlotBlocked as error:
            if time.monotonic() - began > BLOCKED_SECONDS:
                raise
            run.say(f"waiting: {error}")
        else:
            break
    for sentence in made:
        run.say(sentence)


async def _look_at_entries(run: Recovery) -> list[str]:
    found = []
    for shard in run.shards:
        ((waiting,),) = await run.rows("unjudged", shard=shard)
        found.append(f"judge {waiting} entries of shard {shard} that have no verdict")
    return found


async def _judge_entries(run: Recovery) -> None:
    for shard in run.shards:
        ((waiting,),) = await run.rows("unjudged", shard=shard)
        # The room server takes the shard itself; any other one stops at the epoch that is not ready.
        assert run.guard is not None
        await run.guard.execute("select pg_advisory_unlock_all()")
        position = await catch_up(run.settings, shard)
        run.say(f"judged {waiting} entries of shard {shard}, which is at position {position}")


async def _look_at_readers(run: Recovery) -> list[str]:
    return [
        f"catch up reader {component} of shard {shard} from position {position}, {behind} behind"
        for component, shard, position, behind in await run.rows("consumers")
    ]


async def _catch_up_readers(run: Recovery) -> None:
    """Readers with projections of their own; the others keep nothing but caches."""
    dsn = component_dsn(run.settings, "reader", direct=True, name="recover")
    ours = follower(run.settings, PROJECTIONS, process="recover", share=1.0)
    end = time.monotonic() + READER_SECONDS
    async with await AsyncConnection.connect(dsn, autocommit=True, prepare_threshold=1) as connection:
        await ours.take(connection)
        while await ours.step(connection) and time.monotonic() < end:
            pass
    # A statement keeps this one; otherwise maintenance runs it.
    while (await run.rows("count_activity"))[0][0] and time.monotonic() < end:
        pass
    for component, shard, position, behind in await run.rows("consumers"):
        rest = f", {behind} behind: it goes on when the server starts" if behind else ""
        run.say(f"reader {component} of shard {shard} is at position {position}{rest}")


async def _look_at_media(run: Recovery) -> list[str]:
    return [f"look for the uploads that are files in {run.settings.media.directory}"]


async def _find_media(run: Recovery) -> None:
    """Those in the database came back with it; files have a backup of their own, and stay for a while after they were deleted."""
    count, missing = await missing_files(run.connection, run.settings.media.directory)
    if missing:
        run.say(
            f"{len(missing)} of {count} uploads that are files are not in {run.settings.media.directory}: put them back from its "
            "backup; `walden media files` names them"
        )
    elif count:
        run.say(f"all {count} uploads that are files are there")


async def _look_at_end(run: Recovery) -> list[str]:
    return [f"write the new epoch to {run.settings.server.data_dir / 'seen'}"]


async def _finish(run: Recovery) -> None:
    rows = await run.rows("present")
    epoch = rows[0][0]
    known = {**run.finding.epochs, epoch: (run.finding.epoch, run.finding.positions)}
    for _, shard, position in rows:
        seen = Seen(shard, epoch, position, lineage(epoch, known if epoch != run.finding.epoch else run.finding.epochs))
        await asyncio.to_thread(write_seen, run.settings.server.data_dir, seen)
    await run.connection.execute(QUERIES["ready"])


STEPS: Final[tuple[Step, ...]] = (
    Step(_look_at_schema, _renew_schema),
    Step(_look_at_epoch, _begin_epoch),
    Step(_look_at_slots, _remake_slots),
    Step(_look_at_entries, _judge_entries),
    Step(_look_at_readers, _catch_up_readers),
    Step(_look_at_media, _find_media),
    Step(_look_at_end, _finish),
)
"""In this order. A component that keeps something outside the log adds its step before the last: what it gave out in the time
that was lost and may not give out again (one-time keys) into `eventlog.begin_epoch_v2`, so that a failover does it too; what
takes longer, or lies outside the database (media), here."""

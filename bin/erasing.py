"""`walden purge`, `walden erase`, `walden retention`: what leaves the log, shown first and recorded.

Invariant: with `--dry-run` nothing changes; without it everything is in `eventlog.erasures`, with the login name of who asked.
"""

import getpass
import os
from datetime import UTC, datetime
from typing import Any

import click
from psycopg import AsyncConnection

from bin.database_session import Work, run_as
from bin.outcome import fail, settings
from eventlog.configuration import Settings

KINDS = {"s": "state events", "m": "messages", "u": "user entries"}

dry = click.option("--dry-run", is_flag=True, help="Say what would go, and change nothing.")
confirmed = click.option("--yes", is_flag=True, help="Do not ask.")


def asked_by() -> str:
    """Login name of the person at the terminal."""
    return os.environ.get("SUDO_USER") or getpass.getuser()


def moment(_context: click.Context, _parameter: click.Parameter, value: str) -> datetime:
    """A date or time as ISO 8601 has it; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value} is no date or time, as in 2026-01-31 or 2026-01-31T12:00:00+00:00") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def in_database(work: Work[Any]) -> Any:
    """Runs `work` with a connection of the maintenance login."""
    return run_as("maintenance", work)


def counted(counts: dict[str, int]) -> str:
    """Numbers of entries by kind as a phrase."""
    return ", ".join(f"{counts[kind]:,} {name}" for kind, name in KINDS.items() if counts.get(kind)) or "nothing"


def sure(question: str, yes: bool) -> None:
    """Asks, unless told not to."""
    if not yes and not click.confirm(question):
        fail("nothing was done")


@click.group()
def purge() -> None:
    """Remove a room, or a room's messages before a time, for good."""


@purge.command("history")
@click.argument("room_id")
@click.option(
    "--before", required=True, callback=moment, metavar="TIME", help="What arrived before it goes (ISO 8601)."
)
@dry
@confirmed
def history(room_id: str, before: datetime, dry_run: bool, yes: bool) -> None:
    """Remove the messages of ROOM_ID that arrived before a time.

    State stays, and so do the few messages that the room is built on. Their content cannot be had again.
    """
    from readers.retention.purging import purge_history
    from readers.retention.record import alone

    async def look(connection: AsyncConnection, _: Settings) -> tuple[int, int]:
        return await purge_history(connection, room_id, before, asked_by(), dry_run=True)

    async def work(connection: AsyncConnection, found: Settings) -> tuple[int, int]:
        async with alone(connection):
            done = await purge_history(connection, room_id, before, asked_by(), dry_run=False)
        await tell(found, room_id)
        return done

    gone, kept = in_database(look)
    click.echo(f"{gone:,} messages of {room_id} arrived before {before.isoformat()}; {kept:,} more have to stay")
    if dry_run or not gone:
        return
    sure("Remove them?", yes)
    gone, _ = in_database(work)
    click.echo(f"removed {gone:,} messages")


@purge.command("room")
@click.argument("room_id")
@click.option("--force", is_flag=True, help="Also while members of this server are in it.")
@dry
@confirmed
def room(room_id: str, force: bool, dry_run: bool, yes: bool) -> None:
    """Remove ROOM_ID with everything there is of it: messages, state, receipts, aliases.

    Refused while members of this server are in it or invited.
    """
    from readers.retention.purging import purge_room
    from readers.retention.record import alone

    async def look(connection: AsyncConnection, found: Settings) -> dict[str, int]:
        return await purge_room(connection, room_id, found.server.name, asked_by(), dry_run=True, force=force)

    async def work(connection: AsyncConnection, found: Settings) -> dict[str, int]:
        async with alone(connection):
            # First, so that the room server reads the room again should anything come for it.
            await tell(found, room_id)
            done = await purge_room(connection, room_id, found.server.name, asked_by(), dry_run=False, force=force)
        await tell(found, room_id)
        return done

    counts = in_database(look)
    click.echo(f"{room_id} has {counted(counts)}")
    if dry_run:
        return
    sure("Remove the room?", yes)
    in_database(work)
    click.echo(f"removed {room_id}")


@click.command()
@click.argument("name")
@dry
@confirmed
def erase(name: str, dry_run: bool, yes: bool) -> None:
    """Erase what the user NAME said, uploaded and was called here: for an account that was deactivated.

    Messages and memberships keep their place and lose their content; account data, receipts, the profile and uploads go.
    Other state that the user set stays, for rooms are made of it. Other servers keep what they were sent.
    """
    from bin.users import user_id_of
    from readers.media.pruning import remove_contents, remove_uploads_of
    from readers.retention.purging import erase_user
    from readers.retention.record import alone

    user_id = name if name.startswith("@") else user_id_of(name, settings())

    async def look(connection: AsyncConnection, _: Settings) -> dict[str, int]:
        return await erase_user(connection, user_id, asked_by(), dry_run=True)

    async def work(connection: AsyncConnection, found: Settings) -> dict[str, int]:
        async with alone(connection):
            done = await erase_user(connection, user_id, asked_by(), dry_run=False)
        await tell(found, None, user_id)
        uploads = await remove_uploads_of(connection, user_id)
        await remove_contents(connection, found.media.directory, 0)
        click.echo(f"deleted {uploads:,} uploads of {user_id}")
        return done

    counts = in_database(look)
    click.echo(f"the log has {counted(counts)} of {user_id}")
    if dry_run:
        return
    sure("Erase them?", yes)
    in_database(work)
    click.echo(f"erased {user_id}")


@click.command()
@dry
@click.option("--records", is_flag=True, help="Show the newest records of what has left the log instead.")
def retention(dry_run: bool, records: bool) -> None:
    """Let go now what the policies of [retention] let go: what `walden maintenance` does every hour."""
    from readers.retention.partitions import KINDS as PARTITIONED
    from readers.retention.record import SQL
    from readers.retention.rounds import go_round, look_ahead

    async def look(connection: AsyncConnection, found: Settings) -> None:
        seen = await look_ahead(connection, found.retention)
        for one, rows, size in seen.partitions:
            what = f"waits: {one.waits_for}" if one.waits_for else f"about {rows:,} rows, {size:,} bytes"
            click.echo(f"partition {one.label} of {PARTITIONED[one.kind]}: {what}")
        for room_id, days in seen.rooms:
            click.echo(f"{room_id} keeps messages for {days:g} days")
        click.echo(f"{seen.unscrubbed:,} redacted events still have their content")

    async def work(connection: AsyncConnection, found: Settings) -> None:
        done = await go_round(connection, found.retention, asked_by())
        for name, record in done.dropped.items():
            click.echo(f"dropped {record.events:,} {name}, kept {record.kept:,}, freed {record.bytes:,} bytes")
        click.echo(
            f"removed {done.by_policy:,} messages by rooms' own policies, scrubbed {done.scrubbed:,} redacted events"
        )

    async def show(connection: AsyncConnection, _: Settings) -> None:
        for row in await (await connection.execute(SQL["records"], {"most": 50})).fetchall():
            began, action, subject, by, events, kept, size, ended, detail = row
            state = "" if ended else " (unfinished)"
            counts = f"{events:,} entries, kept {kept:,}, {size:,} bytes{state}"
            click.echo(f"{began:%Y-%m-%d %H:%M} {action} {subject} by {by}: {counts} {detail}")

    in_database(show if records else look if dry_run else work)


async def tell(found: Settings, room_id: str | None, user_id: str | None = None) -> None:
    """Says in the log that something has left it: whoever remembers it reads it again (docs/log.md, `scrub`)."""
    import orjson

    from eventlog.append import Entry, append, append_statement
    from eventlog.shards import shard_of

    body = {"room_id": room_id} if room_id is not None else {"user_id": user_id}
    sender = user_id or f"@:{found.server.name}"
    entry = Entry(
        "u", shard_of(room_id or sender, found.log.shards), "scrub", sender, orjson.dumps(body), room_id=room_id
    )
    async with await AsyncConnection.connect(
        found.dsn("writer", direct=True), autocommit=True, connect_timeout=found.database.connect_timeout
    ) as connection:
        await append(append_statement(connection, prepare=False), [], [entry])

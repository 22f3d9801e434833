"""`walden quarantine`: what the room server could not judge: look at it, send it again, or leave it.

Invariant: the log is never edited. What is requeued is appended anew, as of the present, under a claim of its own, so that it is
made once however often it is asked for; the transaction id that its sender used then leads to what was made.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click
import orjson
from psycopg import AsyncConnection
from psycopg.rows import class_row

from bin.database_session import run_as
from bin.outcome import fail
from eventlog.configuration import Settings
from eventlog.queries import Queries
from eventlog.safe_text import unsafe

SQL = Queries("bin", "quarantine.sql")

MOST = 1000
PATH = "quarantine"
"""Of the claims: no request has such a path."""

_entries = click.argument("entries", nargs=-1, type=int, metavar="[ENTRY]...")
_all = click.option("--all", "everything", is_flag=True, help="All of them, a thousand at most.")


@dataclasses.dataclass(slots=True)
class Held:
    """An entry in quarantine, as it is in the log; kind and what follows are None where retention has removed it."""

    entry: int
    room_id: str | None
    event_id: str | None
    error: str
    attempts: int
    quarantined_at: Any
    position: int
    kind: str | None
    local: bool | None
    type: str | None
    sender: str | None
    device_id: str | None
    txn_id: str | None
    json: str | None

    def sentence(self) -> str:
        """The entry on one line."""
        where = f" in {self.room_id}" if self.room_id else ""
        return f"{self.entry} {self.type or 'gone'} of {self.sender or 'nobody'}{where}: {first_line(self.error)}"


def first_line(error: str) -> str:
    """What an error says, without where."""
    return error.partition("\n")[0]


@click.group()
def quarantine() -> None:
    """Look at entries that the room server could not judge; requeue or dismiss them.

    Such an entry failed three times. Its sender was told so (500), nobody else has seen it, and its room went on. Most often a
    fault of the program is behind it: the log of the room server has the whole error.
    """


@quarantine.command()
@_entries
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def show(entries: tuple[int, ...], as_json: bool) -> None:
    """List what is in quarantine, or show entries with what was sent and the whole error."""

    async def work(connection: AsyncConnection, _: Settings) -> list[Held]:
        return await _held(connection, entries)

    for one in run_as("owner", work):
        if as_json:
            row = {**dataclasses.asdict(one), "quarantined_at": one.quarantined_at.isoformat()}
            click.echo(json.dumps(row))
        elif entries:
            click.echo(
                f"{one.sentence()}\n  {one.attempts} attempts, quarantined {one.quarantined_at:%Y-%m-%d %H:%M:%S}"
            )
            click.echo(f"  error: {one.error}\n  sent: {one.json}")
        else:
            click.echo(one.sentence())


@quarantine.command()
@_entries
@_all
def requeue(entries: tuple[int, ...], everything: bool) -> None:
    """Send entries again, once what they failed by is mended; the room server and its database have to run.

    An event is built anew on its room as it is now, with the content it had, and comes after whatever has happened since: a
    topic or a membership that somebody has set meanwhile is replaced. Its sender, asking again with the same transaction id, is
    told of the new event. What the room does not allow any more is refused, and stays in quarantine.
    """

    async def work(connection: AsyncConnection, found: Settings) -> int:
        failures = 0
        async with _Sender(found) as sender:
            for one in await _held(connection, entries):
                # Held in a transaction, so that two people do not requeue it at once.
                async with connection.transaction():
                    if await (await connection.execute(SQL["hold"], {"entry": one.entry})).fetchone() is None:
                        continue
                    done, said = await sender.send(connection, one)
                    click.echo(f"{one.entry} {said}")
                    failures += not done
        return failures

    _wanted(entries, everything)
    if failures := run_as("owner", work):
        fail(f"{failures} could not be requeued")


@quarantine.command()
@_entries
@_all
def dismiss(entries: tuple[int, ...], everything: bool) -> None:
    """Leave entries as they are: nobody is told of them any more, and maintenance forgets them after thirty days."""

    async def work(connection: AsyncConnection, _: Settings) -> int:
        held = await _held(connection, entries)
        for one in held:
            await connection.execute(SQL["resolve"], {"entry": one.entry, "resolution": "dismissed"})
        return len(held)

    _wanted(entries, everything)
    click.echo(f"dismissed {run_as('owner', work)} entries")


class _Sender:
    """Appends entries again, as a writer does."""

    def __init__(self, found: Settings) -> None:
        from eventlog.head import Head
        from eventlog.key_file import read_key
        from eventlog.pools import component_dsn, make_pool
        from eventlog.typing_messages import message_key
        from writer.log_writer import LogWriter

        self._pool = make_pool(found, "writer", name="quarantine", pool_max=2)
        self._head = Head(component_dsn(found, "writer", direct=True, name="quarantine head"))
        self._log = LogWriter(
            self._pool,
            self._head,
            server_name=found.server.name,
            key=read_key(found.server.signing_key),
            typing_key=message_key(found.server.signing_key.read_bytes()),
            shards=found.log.shards,
            timeout=found.log.verdict_timeout,
        )

    async def __aenter__(self) -> _Sender:
        await self._pool.open()
        await self._head.__aenter__()
        await self._log.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._log.__aexit__()
        await self._head.__aexit__()
        await self._pool.close()

    async def send(self, connection: AsyncConnection, one: Held) -> tuple[bool, str]:
        """Whether an entry was sent again, or its place taken by another in quarantine; and what became of it."""
        from matrix.errors import MatrixError

        if one.json is None or one.sender is None:
            return False, "has left the log: dismiss it"
        if not one.local and one.kind != "u":
            return False, "is another server's, which sends it again: dismiss it"
        refusal = ""
        claim, sending = self._again(one)
        try:
            await sending
        except MatrixError as error:
            refusal = error.error
        row = await (await connection.execute(SQL["made_of"], {"claim": claim})).fetchone()
        made, verdict, reason = row or (None, None, None)
        if verdict not in ("a", "q") and not (one.kind == "u" and verdict == "s"):
            return False, f"was not accepted: {reason or refusal or 'no verdict in time'}"
        await connection.execute(SQL["hand_over"], {"entry": one.entry, "made": made})
        await connection.execute(SQL["resolve"], {"entry": one.entry, "resolution": "requeued"})
        if verdict == "q":
            return False, f"failed again, and is in quarantine as {made}"
        return True, f"was sent again as {made}"

    def _again(self, one: Held) -> tuple[str | None, Any]:
        from writer.drafts import Draft

        assert one.json is not None and one.sender is not None and one.type is not None
        body = orjson.loads(one.json)
        txn_id = str(one.entry) if one.txn_id is None else unsafe(one.txn_id)
        path = f"{PATH} {one.entry}"
        if one.kind == "u":
            sending = self._log.append_entry(
                type=one.type,
                user_id=one.sender,
                content=body,
                room_id=one.room_id,
                device_id=one.device_id,
                txn_id=txn_id,
                txn_path=path,
            )
            draft = Draft("", one.sender, "", {}, device_id=one.device_id, txn_id=txn_id, txn_path=path)
            return draft.claim(), sending
        assert one.room_id is not None
        draft = Draft(
            one.room_id,
            body["sender"],
            body["type"],
            body["content"],
            state_key=body.get("state_key"),
            redacts=body.get("redacts"),
            device_id=one.device_id,
            txn_id=txn_id,
            txn_path=path,
        )
        return draft.claim(), self._log.send([draft])


def _wanted(entries: tuple[int, ...], everything: bool) -> None:
    if bool(entries) == everything:
        fail("name entries, or say --all", 2)


async def _held(connection: AsyncConnection, entries: tuple[int, ...]) -> list[Held]:
    """Those entries, or all. Leaves when one is not in quarantine."""
    found: list[Held] = []
    async with connection.cursor(row_factory=class_row(Held)) as cursor:
        for entry in entries or (None,):
            await cursor.execute(SQL["entries"], {"entry": entry, "most": MOST})
            rows = await cursor.fetchall()
            if entry is not None and not rows:
                fail(f"{entry} is not in quarantine, or somebody has dealt with it")
            found += rows
    return found

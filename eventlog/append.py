"""Appending to the input log: the Python face of `eventlog.append_v1`.

Invariant: one call is one statement of one transaction, and what it answers `appended` is committed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.safe_text import safe
from eventlog.statement import Statement

CLOCK_SECONDS: Final = 60.0
"""How long what is known of the database's clock is good for."""

Status = Literal["appended", "duplicate", "moved", "late"]
_STATUS: Final[dict[bytes, Status]] = {
    b"appended": "appended",
    b"duplicate": "duplicate",
    b"moved": "moved",
    b"late": "late",
}


@dataclass(frozen=True, slots=True)
class RoomSeen:
    """A room as its writer saw it when it built; all but the id None for a room that does not exist yet.

    `tip` is the last event this server appended (None when it never did), `state_position` the position at which the current
    state last changed, `generation` counts the chain's breaks.
    """

    room_id: str
    tip: str | None
    state_position: int | None
    generation: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished log entry. Kind s: state and auth events, m: other room events, u: entries of a user.

    `json` is the PDU as canonical JSON, for kind u the entry's own object. `key` is `claim_key`'s or None.
    """

    kind: Literal["s", "m", "u"]
    shard: int
    type: str
    sender: str
    json: bytes
    event_id: str | None = None
    room_id: str | None = None
    state_key: str | None = None
    device_id: str | None = None
    txn_id: str | None = None
    key: str | None = None
    depth: int | None = None


class Appended(NamedTuple):
    """What became of one entry: `entry` and `event_id` are those of the earlier one when it was a duplicate."""

    status: Status
    entry: int | None
    event_id: str | None


def claim_key(user_id: str, device_id: str, path: str, txn_id: str) -> str:
    """Hexadecimal claim of a client transaction id: one use per user, device and path (specification, "Transaction ids")."""
    parts = "\0".join((user_id, device_id, path, txn_id))
    return sha256(parts.encode()).hexdigest()[:32]


def append_statement(connection: AsyncConnection, *, prepare: bool = True) -> Statement:
    """The statement that `append` runs, on a connection that is the caller's alone."""
    return Statement(
        connection, "select o, status, entry, event_id from eventlog.append_v1($1::jsonb)", prepare=prepare
    )


class DatabaseClock:
    """The clock of the database at the other end of one connection, as it was found within the last `CLOCK_SECONDS`."""

    def __init__(self, connection: AsyncConnection, *, prepare: bool = True) -> None:
        self._statement = Statement(connection, "select extract(epoch from clock_timestamp())", prepare=prepare)
        self._ahead = 0.0
        self._good_until = 0.0

    async def at(self, moment: float) -> float:
        """What it shows, in seconds since 1970, when the event loop's shows `moment`. A slow answer makes it show less."""
        loop = asyncio.get_running_loop()
        if loop.time() >= self._good_until:
            ((shown,),) = await self._statement.run()
            assert shown is not None
            self._ahead = float(shown) - loop.time()
            self._good_until = loop.time() + CLOCK_SECONDS
        return moment + self._ahead

    def forget(self) -> None:
        """It was not as it seemed: somebody set it, perhaps."""
        self._good_until = 0.0


async def append(
    statement: Statement, rooms: list[RoomSeen], entries: list[Entry], *, until: float | None = None
) -> list[Appended]:
    """Appends a batch in order and answers per entry. Entries of a room that moved on since `rooms` come back `moved`, and all
    come back `late` if the server's process got to it after `until`, seconds since 1970 by its own clock.

    Raises psycopg.Error, with nothing appended: UniqueViolation when an event id or, for kind u, a transaction id was taken in
    the same moment; the caller builds again.
    """
    batch: dict[str, Any] = {
        "until": until,
        "rooms": [
            {"room_id": r.room_id, "tip": r.tip, "state_position": r.state_position, "generation": r.generation}
            for r in rooms
        ],
        "entries": [
            {
                "o": o,
                "kind": e.kind,
                "shard": e.shard,
                "event_id": e.event_id,
                "room_id": e.room_id,
                "type": safe(e.type),
                "state_key": None if e.state_key is None else safe(e.state_key),
                "sender": e.sender,
                # Nobody asks which device sent an event that no transaction id would be shown for.
                "device_id": None if e.txn_id is None and e.kind != "u" else e.device_id,
                "txn_id": None if e.txn_id is None else safe(e.txn_id),
                "key": e.key,
                "depth": e.depth,
                "json": e.json.decode(),
            }
            for o, e in enumerate(entries)
        ],
    }
    answers: dict[int, Appended] = {}
    for o, status, entry, event_id in await statement.run(orjson.dumps(batch)):
        assert o is not None and status is not None
        answers[int(o)] = Appended(
            _STATUS[status], None if entry is None else int(entry), None if event_id is None else event_id.decode()
        )
    return [answers[o] for o in range(len(entries))]


async def release(connection: AsyncConnection, claims: list[tuple[str, int]]) -> None:
    """Frees the claims (key, entry) of entries that were judged and not accepted."""
    await connection.execute(
        "select eventlog.release_v1(%s::text[], %s::bigint[])", [[k for k, _ in claims], [e for _, e in claims]]
    )

"""Messages to one device: told once, and gone when the client has come back with the token that came after them.

Invariant: what is told lies between the token's place and the applied positions; what lies before the place has arrived. A
response holds `MOST_TOLD` messages, and its token then says up to where they were told.
Source: client-server API, "Send-to-Device messaging".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from operator import lt
from typing import Any, Final

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from readers.sync.reading import read
from readers.sync.users import User

SQL: Final = Queries("readers.sync", "devices.sql")
MOST_TOLD: Final = 100
"""Messages in one response."""
MOST_BYTES: Final = 4 << 20
"""Bytes of messages in one response, but for the first."""

Positions = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a response tells a device.

    `upto`: how far that went, when more is left. `arrived`: what the device has got already is still in the table.
    `first`: shard and position of the first that came from there.
    """

    events: Sequence[bytes] = ()
    upto: Positions | None = None
    arrived: bool = False
    first: tuple[int, int] | None = None


def forget_received(user: User, device_id: str, upto: Sequence[int]) -> None:
    """What a device has got, up to positions by shard, is not kept for it any longer."""
    if any(m.device_id == device_id and m.position <= upto[m.shard] for m in user.inbox):
        user.inbox = deque(m for m in user.inbox if m.device_id != device_id or m.position > upto[m.shard])


def has_arrived(user: User, device_id: str, since: Positions) -> bool:
    """Whether something is kept here for a device that it has got."""
    return any(m.device_id == device_id and m.position <= since[m.shard] for m in user.inbox)


async def delivery(pool: Pool, user: User, device_id: str, since: Positions | None, now: Positions) -> Delivery:
    """The messages to a device (its NUL-safe id) after positions, as of others; `since` None: all that there are."""
    if since is None or any(map(lt, since, user.inbox_since)):
        return await _from_table(pool, user.user_id, device_id, since, now)
    if not user.inbox:
        return Delivery()
    found = [m for m in user.inbox if m.device_id == device_id and since[m.shard] < m.position <= now[m.shard]]
    found.sort(key=lambda m: (m.shard, m.position))
    return _cut([(m.shard, m.position, m.event) for m in found], since, now)


async def _from_table(pool: Pool, user_id: str, device_id: str, since: Positions | None, now: Positions) -> Delivery:
    begin = since or (0,) * len(now)
    parameters = {
        "user_id": user_id,
        "device_id": device_id,
        "since": list(begin),
        "now": list(now),
        "most": MOST_TOLD + 1,
    }

    async def rows(connection: Any) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = await (await connection.execute(SQL["to_device"], parameters)).fetchall()
        return found

    found = await read(pool, rows)
    messages = [
        (
            shard,
            position,
            b'{"type":%b,"sender":%b,"content":%b}'
            % (orjson.dumps(unsafe(kind)), orjson.dumps(sender), content.encode()),
        )
        for shard, position, sender, kind, content, arrived in found
        if not arrived
    ]
    told = _cut(messages, begin, now)
    return Delivery(told.events, told.upto, any(row[5] for row in found), messages[0][:2] if messages else None)


def _cut(messages: list[tuple[int, int, bytes]], since: Positions, now: Positions) -> Delivery:
    """As many as one response holds, in order of shard and position."""
    size = 0
    for place, (_, _, event) in enumerate(messages):
        size += len(event)
        if place and (place >= MOST_TOLD or size > MOST_BYTES):
            last_shard, last = messages[place - 1][:2]
            upto = (*now[:last_shard], last, *since[last_shard + 1 :])
            return Delivery([m[2] for m in messages[:place]], upto)
    return Delivery([m[2] for m in messages])

"""How long messages stay: the server's policy, and what rooms say in m.room.retention.

Invariant: a room's word counts within the server's bounds; a room that says nothing, or nothing that can be read, has the server's
policy. MSC1763: `max_lifetime` is milliseconds after which an event should be purged; state events are exempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from psycopg import AsyncConnection

from eventlog.settings import Retention
from readers.retention.record import SQL

MILLISECONDS_A_DAY = 86_400_000


class Lifetime(NamedTuple):
    """How long the messages of a room stay, in days."""

    room: int
    room_id: str
    days: float


@dataclass(frozen=True, slots=True)
class Policies:
    """The server's days (0: for ever), and the lifetimes of rooms that have one of their own."""

    message_days: float
    rooms: tuple[Lifetime, ...]

    @property
    def longer(self) -> list[int]:
        """Rooms whose messages outlive partitions that the server's policy drops."""
        return [one.room for one in self.rooms if one.days > self.message_days]


async def read_policies(connection: AsyncConnection, settings: Retention) -> Policies:
    """The policies in force."""
    if not settings.room_policies:
        return Policies(settings.message_days, ())
    rows = await (await connection.execute(SQL["room_policies"])).fetchall()
    return Policies(
        settings.message_days,
        tuple(
            Lifetime(nid, room_id, bounded(int(asked) / MILLISECONDS_A_DAY, settings)) for nid, room_id, asked in rows
        ),
    )


def bounded(days: float, settings: Retention) -> float:
    """What a room asks for, within the server's bounds."""
    days = max(days, settings.room_minimum_days)
    return min(days, settings.room_maximum_days) if settings.room_maximum_days else days

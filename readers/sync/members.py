"""Member events of rooms at hand: for clients that load members lazily, and for the heroes of a room's summary.

Invariant: what is known stands as of the applied positions. A member event that may have changed is dropped when the output that
changed it is applied, and what was read while that happened is not kept. However many ask at once, the tables are asked once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from psycopg import AsyncConnection

from eventlog.pools import Pool
from readers.sync.events import Events
from readers.sync.feed import SQL
from readers.sync.outputs import Output
from readers.sync.reading import read

MOST_MEMBERS: Final = 1_000
"""Member events kept per room."""
HEROES: Final = 5
"""Heroes told; one more is kept, because nobody is their own hero."""
ATTEMPTS: Final = 3


class Hero(NamedTuple):
    """One of the first members of a room. `present`: joined or invited."""

    user_id: str
    present: bool


@dataclass(slots=True)
class Members:
    """A room's members as far as they are at hand."""

    known: dict[str, tuple[int, Output] | None] = field(default_factory=dict)
    """By user, the member event and since when it stands; None for a user who has none."""
    heroes: list[Hero] | None = None
    """The first members in the order in which their events came, those present first; None when that is not known."""
    heroes_moved: int = 0
    """Position at which the heroes last changed, as far as that was seen."""
    moved: int = 0
    """Position of the last change of any member."""
    loading: asyncio.Future[None] | None = None

    def change(self, position: int, members: Iterable[tuple[str, str, str | None]]) -> None:
        """Members changed at a position: (user, new, old or None), memberships as letters."""
        self.moved = position
        for user_id, new, _ in members:
            self.known.pop(user_id, None)
            if self.heroes is None:
                continue
            full = len(self.heroes) > HEROES and (new not in "ji" or self.heroes[-1].present)
            if not full or any(hero.user_id == user_id for hero in self.heroes):
                self.heroes, self.heroes_moved = None, position

    def forget(self, position: int) -> None:
        """Something changed that is not told in detail."""
        self.known.clear()
        self.heroes = None
        self.moved = self.heroes_moved = position


@dataclass(slots=True)
class Lacking:
    """What of a room's members is not at hand."""

    nid: int
    shard: int
    members: Members
    users: set[str] = field(default_factory=set)
    heroes: bool = False

    def __bool__(self) -> bool:
        return bool(self.users) or self.heroes


async def load(pool: Pool, events: Events, lacking: Lacking, position: int) -> None:
    """Brings members and heroes of a room at hand, as of a position that has been applied."""
    members = lacking.members
    for _ in range(ATTEMPTS):
        users = [user_id for user_id in lacking.users if user_id not in members.known]
        heroes = lacking.heroes and members.heroes is None
        if not users and not heroes:
            return
        if members.loading is not None:
            await asyncio.shield(members.loading)
            continue
        loading = members.loading = asyncio.get_running_loop().create_future()
        try:
            await read(pool, partial(_read, events, lacking, users, heroes, position))
        finally:
            members.loading = None
            loading.set_result(None)


async def _read(
    events: Events, lacking: Lacking, users: list[str], heroes: bool, position: int, connection: AsyncConnection
) -> None:
    members, nid = lacking.members, lacking.nid
    found: dict[str, tuple[int, Output] | None] = dict.fromkeys(users)
    if users:
        parameters = {"rooms": [nid] * len(users), "at": [position] * len(users), "users": users}
        rows = await (await connection.execute(SQL["members"], parameters)).fetchall()
        outputs = await events.fetch(connection, [row[4] for row in rows])
        for i, _, _, valid_from, entry in rows:
            if entry in outputs:
                found[users[i - 1]] = (valid_from, outputs[entry])
    first: list[Hero] = []
    if heroes:
        rows = await (
            await connection.execute(
                SQL["heroes"], {"rooms": [nid], "at": [position], "user_id": "", "most": HEROES + 1}
            )
        ).fetchall()
        first = [Hero(user_id, present) for _, user_id, present in rows]
    if members.moved > position:
        return
    if len(members.known) + len(found) > MOST_MEMBERS:
        members.known.clear()
    members.known.update(found)
    if heroes:
        # Who they were before is not known: whoever has not seen the last change is told.
        members.heroes, members.heroes_moved = first, members.moved


def heroes_of(first: Iterable[Hero], user_id: str) -> list[str]:
    """The heroes for a user, of a room's first members: those present, and only if nobody else is, those who are not."""
    others = [hero for hero in first if hero.user_id != user_id]
    return [hero.user_id for hero in others if hero.present == others[0].present][:HEROES]

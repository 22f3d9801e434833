"""Places in a room's timeline, from the tokens that clients bring.

Invariant: every token that this server gave out is a place, whichever endpoint gave it and whichever epoch it was given in; the
tables are the truth, so nothing waits for them to reach a token.
"""

from __future__ import annotations

from psycopg import AsyncConnection

from eventlog.head import Head
from eventlog.pools import Pool
from eventlog.seen import Epochs
from eventlog.shards import shard_of
from eventlog.tokens import SyncToken, TimelineToken
from matrix.errors import invalid_param
from readers.rooms.access import NOW
from readers.rooms.rows import SQL
from readers.sync.position import place_of

Token = SyncToken | TimelineToken


def parse_token(name: str, text: str) -> Token:
    """The token of a parameter; M_INVALID_PARAM for what this server cannot have given out."""
    try:
        return TimelineToken.parse(text) if text.startswith("t") else SyncToken.parse(text)
    except ValueError:
        raise invalid_param(f"{name} is not a token of this server.") from None


class Places:
    """Turns tokens into orders of timelines. Epochs are read when a token names another one than the present."""

    def __init__(self, pool: Pool, head: Head, shards: int) -> None:
        self._pool = pool
        self._head = head
        self._shards = shards

    def shard_of(self, room_id: str) -> int:
        """The shard whose positions a room's timeline is made of."""
        return shard_of(room_id, self._shards)

    def present(self) -> str:
        """A token of what is committed now: it goes on in every endpoint that takes one."""
        return str(SyncToken(self._head.epoch, tuple(self._head.positions)))

    async def order_of(self, name: str, text: str | None, shard: int, absent: int) -> int:
        """The order after which the token is, in a room of that shard; `absent` without a token."""
        if text is None:
            return absent
        token = parse_token(name, text)
        if isinstance(token, TimelineToken):
            return token.order
        if token.epoch != self._head.epoch:
            async with self._pool.connection() as connection:
                epochs = await _epochs(connection)
            # The head is no bound here: a process that is ahead of this one may have given the token out.
            place = place_of(token, self._head.epoch, (NOW,) * len(token.positions), epochs)
            if place.positions is None:
                # Of an epoch that was lost whole, with the data directory that knew it: its client is where the present is.
                return NOW
            token = SyncToken(self._head.epoch, place.positions)
        # Shards that were added since begin above every older position.
        return token.positions[shard] if shard < len(token.positions) else 0


async def _epochs(connection: AsyncConnection) -> Epochs:
    rows = await (await connection.execute(SQL["epochs"])).fetchall()
    return {epoch: (parent, tuple(forked_at)) for epoch, parent, forked_at in rows}

"""Claims: one process at a time reads and then writes what a name stands for.

Invariant: who holds a claim sees what the last holder had acknowledged, because an entry is acknowledged when its table of record
shows it. The lock is the database's, so that it ends with its session; few are held at once, so that a pool is never used up by
those who wait for each other. It assigns no transaction id, so that it cannot keep a replication slot from being made.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from hashlib import sha256

from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries

SQL = Queries("writer", "claims.sql")

# Tells our advisory locks from others in the database.
SPACE = 0x57414C44
AT_ONCE = 3


class Claims:
    """Hands out claims on names."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._at_once = asyncio.Semaphore(AT_ONCE)

    @contextlib.asynccontextmanager
    async def hold(self, *name: str) -> AsyncIterator[AsyncConnection]:
        """Holds a claim while the block runs; gives the connection to read with. Do not hold two at once."""
        digest = sha256("\0".join(name).encode()).digest()
        async with self._at_once, self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                SQL["claim"], {"space": SPACE, "name": int.from_bytes(digest[:4], "big", signed=True)}
            )
            yield connection

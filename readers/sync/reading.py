"""Reading from the pool, again where the connection was of no more use.

Invariant: what is read has no effects, so that a cut connection costs a repetition and not the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg_pool import PoolTimeout

from eventlog.faults import Policy, judge
from eventlog.pools import Pool
from matrix.errors import MatrixError

log = structlog.get_logger(__name__)

T = TypeVar("T")

WAITS: Final = (0.0, 0.1, 0.3, 0.6, 1.0, 2.0)
"""Seconds before each further attempt."""


async def read(pool: Pool, query: Callable[[AsyncConnection], Awaitable[T]]) -> T:
    """What `query` makes of a connection. Raises MatrixError 503 when the database cannot be reached for some seconds."""
    for wait in WAITS:
        try:
            async with pool.connection() as connection:
                return await query(connection)
        except (psycopg.Error, OSError) as error:
            if isinstance(error, PoolTimeout) or judge(error).policy is not Policy.RETRY:
                raise
            log.info("a read is repeated", error=str(error).strip(), again_in=wait)
        # Whatever cut one connection has probably cut them all.
        await pool.check()
        await asyncio.sleep(wait)
    raise MatrixError(503, "M_UNKNOWN", "The database cannot be reached. Try again later.")

"""`walden rebuild`: projections held against the log, and made again from it.

Invariant: with `--check` nothing is changed, and the server may run; without it no room server may, for its own. Readers'
projections are emptied and filled again while everything runs: by the process that keeps them, or by the command if none does.
"""

import asyncio
from collections.abc import Callable

from psycopg import AsyncConnection

from eventlog.configuration import Settings
from eventlog.pools import component_dsn
from readers.follower import progress, reset
from readers.projections import PROJECTIONS, follower
from roomserver.projections import Difference, differences, rebuild

MOST_SHOWN = 100
PROGRESS_SECONDS = 0.5


async def check(settings: Settings, names: list[str]) -> list[Difference]:
    """The first differences of each projection."""
    async with await _connect(settings) as connection:
        return [one for name in names for one in await differences(connection, projection=name, most=MOST_SHOWN)]


async def mend(settings: Settings, names: list[str]) -> dict[str, int]:
    """By projection: how many rows were wrong. Raises RoomServerRuns."""
    async with await _connect(settings) as connection:
        return {name: await rebuild(connection, name) for name in names}


async def refill(settings: Settings, name: str, say: Callable[[str], None]) -> int:
    """Make a reader's projection again from the first output, saying how far it is; the number of outputs."""
    ours = follower(settings, [name], process="rebuild", share=1.0)
    async with await AsyncConnection.connect(
        component_dsn(settings, "reader", direct=True, name="rebuild progress"), autocommit=True, connect_timeout=10
    ) as connection:
        await reset(connection, PROJECTIONS[name](settings))
        _, end = (await progress(connection, [name]))[name]
        # It stands by while another process keeps the projection, and that one does the work.
        following = asyncio.create_task(ours.run(), name="rebuild")
        try:
            while True:
                position, head = (await progress(connection, [name]))[name]
                say(f"{name}: {position:,} of {head:,} outputs ({100 * position // max(head, 1)} %)")
                if position >= end:
                    return position
                await asyncio.wait([following], timeout=PROGRESS_SECONDS)
                if following.done():
                    await following
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


async def _connect(settings: Settings) -> AsyncConnection:
    # The owner's: what components may do to these tables goes through functions.
    return await AsyncConnection.connect(
        settings.dsn(direct=True),
        autocommit=True,
        connect_timeout=settings.database.connect_timeout,
        application_name="walden rebuild",
    )

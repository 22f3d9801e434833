"""`walden rebuild`: projections held against the log, and made again from it.

Invariant: with `--check` nothing is changed, and the server may run; without it no room server may.
"""

from psycopg import AsyncConnection

from eventlog.configuration import Settings
from roomserver.projections import Difference, differences, rebuild

MOST_SHOWN = 100


async def check(settings: Settings, names: list[str]) -> list[Difference]:
    """The first differences of each projection."""
    async with await _connect(settings) as connection:
        return [one for name in names for one in await differences(connection, projection=name, most=MOST_SHOWN)]


async def mend(settings: Settings, names: list[str]) -> dict[str, int]:
    """By projection: how many rows were wrong. Raises RoomServerRuns."""
    async with await _connect(settings) as connection:
        return {name: await rebuild(connection, name) for name in names}


async def _connect(settings: Settings) -> AsyncConnection:
    # The owner's: what components may do to these tables goes through functions.
    return await AsyncConnection.connect(
        settings.dsn(direct=True),
        autocommit=True,
        connect_timeout=settings.database.connect_timeout,
        application_name="walden rebuild",
    )

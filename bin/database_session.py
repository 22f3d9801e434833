"""A command's session with the database: one connection of one login, for as long as its work takes.

Invariant: what an operator can do something about is a sentence and an exit code (`bin/outcome.py`), never a traceback.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from psycopg import AsyncConnection

from bin.outcome import settings, told
from eventlog.configuration import Settings
from eventlog.settings import Role

Result = TypeVar("Result")
Work = Callable[[AsyncConnection, Settings], Awaitable[Result]]


def run_as(role: Role, work: Work[Result]) -> Result:
    """Runs `work` with an autocommit connection of a role's login, past any pooler; what it returns."""
    found = settings()

    async def connected() -> Result:
        async with await AsyncConnection.connect(
            found.dsn(role, direct=True), autocommit=True, connect_timeout=found.database.connect_timeout
        ) as connection:
            return await work(connection, found)

    with told():
        return asyncio.run(connected())

"""The process that keeps the readers' projections: search, user directory, notifications.

Reads: outputs with their entries from the tables, tables of record. Writes: the schemas of the projections.
Shards by: nothing. Safe to run N of: one keeps a projection, others stand by. Dead for an hour: searches answer from what was there
before, sends and syncs go on; afterwards it takes in what came meanwhile.

Invariant: one process for all of them unless `readers.apart` names one: a process costs more memory than what it keeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

import psycopg
from psycopg import AsyncConnection

from eventlog.pools import component_dsn
from eventlog.queries import Queries
from eventlog.settings import Settings
from readers.follower import SHARE, Follower, Projection
from readers.notifications.projection import NotificationsProjection
from readers.search.projection import SearchProjection
from readers.userdirectory.projection import UserDirectoryProjection

SQL: Final = Queries("readers.notifications", "push.sql")
WANTED_SECONDS: Final = 5.0

PROJECTIONS: Final[dict[str, Callable[[Settings], Projection]]] = {
    "search": lambda settings: SearchProjection(settings.search.language),
    "userdirectory": lambda settings: UserDirectoryProjection(settings.server.name),
    "notifications": lambda settings: NotificationsProjection(settings.server.name),
}
"""What makes each projection, by the name of its schema."""


def follower(
    settings: Settings, names: Iterable[str], *, process: str = "projections", share: float = SHARE
) -> Follower:
    """A follower that keeps some projections."""
    dsn = component_dsn(settings, "reader", direct=True, name=process)
    return Follower(process, dsn, [PROJECTIONS[name](settings) for name in names], share=share)


async def run(settings: Settings) -> None:
    """Keeps every projection that has no process of its own, and tells push gateways what notifies."""
    names = [name for name in PROJECTIONS if name not in settings.readers.apart]
    await _keep(settings, names, "projections")


async def _keep(settings: Settings, names: list[str], process: str) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(follower(settings, names, process=process).run())
        if "notifications" in names:
            tasks.create_task(_push(settings))


async def _push(settings: Settings) -> None:
    """Tells push gateways what notifies, once anybody wants to be told: until then nothing of it is even loaded."""
    dsn = component_dsn(settings, "reader", direct=True, name="push")
    while not await _has_pushers(dsn):  # noqa: ASYNC110 - the database has no event to wait for
        await asyncio.sleep(WANTED_SECONDS)
    from eventlog.outgoing import Guard
    from readers.notifications.pushing import Pushing

    await Pushing(dsn, Guard(settings.push.allowed_networks)).run()


async def _has_pushers(dsn: str) -> bool:
    try:
        async with await AsyncConnection.connect(dsn, autocommit=True, connect_timeout=10) as connection:
            row = await (await connection.execute(SQL["has_pushers"])).fetchone()
    except psycopg.OperationalError:
        return False
    return row is not None and bool(row[0])


async def run_search(settings: Settings) -> None:
    """Keeps the search apart."""
    await follower(settings, ["search"], process="search").run()


async def run_userdirectory(settings: Settings) -> None:
    """Keeps the user directory apart."""
    await follower(settings, ["userdirectory"], process="userdirectory").run()


async def run_notifications(settings: Settings) -> None:
    """Keeps the notifications apart, and tells push gateways of them."""
    await _keep(settings, ["notifications"], "notifications")

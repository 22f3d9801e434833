"""The process that keeps the readers' projections: search, user directory, notifications.

Reads: outputs with their entries from the tables, tables of record. Writes: the schemas of the projections.
Shards by: nothing. Safe to run N of: one keeps a projection, others stand by. Dead for an hour: searches answer from what was there
before, sends and syncs go on; afterwards it takes in what came meanwhile.

Invariant: one process for all of them unless `readers.apart` names one: a process costs more memory than what it keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from eventlog.pools import component_dsn
from eventlog.settings import Settings
from readers.follower import SHARE, Follower, Projection
from readers.notifications.projection import NotificationsProjection
from readers.search.projection import SearchProjection
from readers.userdirectory.projection import UserDirectoryProjection

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
    """Keeps every projection that has no process of its own."""
    await follower(settings, [name for name in PROJECTIONS if name not in settings.readers.apart]).run()


async def run_search(settings: Settings) -> None:
    """Keeps the search apart."""
    await follower(settings, ["search"], process="search").run()


async def run_userdirectory(settings: Settings) -> None:
    """Keeps the user directory apart."""
    await follower(settings, ["userdirectory"], process="userdirectory").run()


async def run_notifications(settings: Settings) -> None:
    """Keeps the notifications apart."""
    await follower(settings, ["notifications"], process="notifications").run()

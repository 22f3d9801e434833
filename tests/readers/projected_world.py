"""A server in one process whose readers keep their projections, with clients of the endpoints that stand on them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection
from rooms_client import Client, Server, serving
from sync_world import World, settings_of, world

from eventlog.pools import component_dsn
from eventlog.settings import PROJECTIONS
from readers.follower import wait_until_current
from readers.projections import follower


@dataclass
class ProjectedWorld:
    """What a test acts through."""

    world: World
    server: Server
    dsn: str

    def client(self, user_id: str) -> Client:
        """A client of a user."""
        return self.server.client(user_id)

    async def settle(self) -> None:
        """Waits until every projection has taken in what is committed."""
        async with await AsyncConnection.connect(self.dsn, autocommit=True) as connection:
            for name in PROJECTIONS:
                assert await wait_until_current(connection, name, 20)

    async def profile(self, user_id: str, field: str, value: str | None) -> None:
        """Sets a field of a profile."""
        await self.world.writer.append_entry(type="profile", user_id=user_id, content={"field": field, "value": value})


@contextlib.asynccontextmanager
async def projected(dsn: str, folder: Path) -> AsyncIterator[ProjectedWorld]:
    """A world with a follower that keeps everything."""
    settings = settings_of(dsn, folder)
    async with world(settings) as made, serving(dsn) as server:
        following = asyncio.create_task(follower(settings, PROJECTIONS, share=1.0).run())
        try:
            yield ProjectedWorld(made, server, dsn)
            assert not following.done(), following.exception()
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def dsn_of(world: World) -> str:
    """The readers' DSN."""
    return component_dsn(world.settings, "reader", direct=True)


def room_events(term: str, **more: Any) -> dict[str, Any]:
    """The body of a search."""
    return {"search_categories": {"room_events": {"search_term": term, **more}}}

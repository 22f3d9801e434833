"""What follows a deactivation: rooms are left, and who asked for it is erased.

Invariant: a departure is a row that the deactivation itself has written, and goes when all is done: a process that dies in the
middle is followed by another, and `walden user deactivate` needs no server to be running. Doing it twice changes nothing more.
Source: client-server API, "Account deactivation".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable

import psycopg
import structlog

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from eventlog.standing import end, stand
from matrix.errors import MatrixError
from writer.drafts import Draft
from writer.log_writer import LogWriter
from writer.rooms_of_user import in_every_room, rooms_of_user

log = structlog.get_logger(__name__)
SQL = Queries("writer", "departures.sql")

LEASE_SECONDS = 300.0
"""How long a process may be at one departure before another takes it up."""
LOOK_SECONDS = 5.0
MOST_ATTEMPTS = 50
MOST_ERASED = 10_000
AT_ONCE = 16
KEYS_AT_ONCE = 500


class Departures:
    """Finishes the departures that are due; `async with` it."""

    def __init__(self, pool: Pool, writer: LogWriter) -> None:
        self._pool = pool
        self._log = writer
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Departures:
        self._task = stand(self._run, "departures")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)

    async def finish(self, user_id: str, erase: bool, attempts: int = 1) -> bool:
        """Leaves every room the user is in, invited to or knocking on; erases what they said and what is known of them.

        False if rooms remain, or the log does not answer: then it is tried again when the departure is due again.
        """
        try:
            if erase:
                await self._log.append_entry(type="erase", user_id=user_id, content={})
                await self._remove_what_is_known(user_id)
            await self._remove_keys(user_id)
            await self._leave_all_rooms(user_id)
            # Again: what was joined by a request that was under way when the session ended.
            remaining = await self._leave_all_rooms(user_id)
            if remaining and attempts < MOST_ATTEMPTS:
                log.warning("a deactivated user is still in rooms", user_id=user_id, rooms=len(remaining))
                return False
            async with self._pool.connection() as connection:
                await connection.execute(SQL["finish"], {"user_id": user_id})
        except (MatrixError, psycopg.Error, OSError, TimeoutError) as error:
            log.warning("a deactivated user has not left yet", user_id=user_id, error=str(error).strip())
            return False
        log.info("a deactivated user has left", user_id=user_id, erased=erase)
        return True

    async def _leave_all_rooms(self, user_id: str) -> list[str]:
        """Leaves what can be left; returns the rooms that remain."""

        async def leave(room_id: str) -> None:
            content = {"membership": "leave"}
            await self._log.send([Draft(room_id, user_id, "m.room.member", content, state_key=user_id)])

        rooms = await rooms_of_user(self._pool, user_id, "jik")
        if not rooms:
            return []
        await in_every_room(rooms, leave)
        return await rooms_of_user(self._pool, user_id, "jik")

    async def _remove_what_is_known(self, user_id: str) -> None:
        """ "The server should additionally erase any non-event data associated with the user." """
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["account_data_types"], {"user_id": user_id, "most": MOST_ERASED})
            kinds = await cursor.fetchall()
            cursor = await connection.execute(SQL["profile_fields"], {"user_id": user_id, "most": MOST_ERASED})
            fields = [unsafe(row[0]) for row in await cursor.fetchall()]
            status = await (await connection.execute(SQL["status"], {"user_id": user_id})).fetchone()
        emptied = (
            self._log.append_entry(
                type="account_data",
                user_id=user_id,
                content={"room_id": room_id, "type": unsafe(kind), "content": {}},
                room_id=room_id or None,
            )
            for room_id, kind in kinds
        )
        removed = (
            self._log.append_entry(type="profile", user_id=user_id, content={"field": field, "value": None})
            for field in fields
        )
        await _a_few_at_a_time([*removed, *emptied])
        if status is not None:
            gone = {"presence": "offline", "status_msg": None, "active_at": 0, "until": 0, "by": ""}
            await self._log.append_entry(type="presence", user_id=user_id, content=gone)

    async def _remove_keys(self, user_id: str) -> None:
        """Cross-signing keys, and what the user signed of others: devices have taken theirs along."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["own_keys"], {"user_id": user_id, "most": MOST_ERASED})
            keys = [{"usage": usage, "id": key_id, "key": None} for usage, key_id in await cursor.fetchall()]
        for begin in range(0, len(keys), KEYS_AT_ONCE):
            content = {"keys": keys[begin : begin + KEYS_AT_ONCE]}
            await self._log.append_entry(type="keys", user_id=user_id, content=content)

    async def _run(self) -> None:
        while True:
            try:
                while await self._next():
                    pass
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("departures cannot be read", error=str(error).strip())
            await asyncio.sleep(LOOK_SECONDS)

    async def _next(self) -> bool:
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["take"], {"lease_seconds": LEASE_SECONDS})).fetchone()
        if row is None:
            return False
        await self.finish(*row)
        return True


async def _a_few_at_a_time(work: Iterable[Awaitable[object]]) -> None:
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(awaitable: Awaitable[object]) -> None:
        async with slots:
            await awaitable

    await asyncio.gather(*(one(awaitable) for awaitable in work))

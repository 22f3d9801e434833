"""Telling push gateways what notifies their users.

Invariant: a push is told at least once within a day and, but for a kill between the gateway's answer and its note, once; of one
pusher one at a time, in order. A gateway that fails is left alone for a growing while, and one that does not answer keeps nobody
waiting but its own; connections go where the guard lets them.
Source: push gateway API; client-server API, "Push notifications".
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from typing import Any, Final

import aiohttp
import orjson
import structlog
from prometheus_client import Counter
from psycopg import AsyncConnection

from eventlog.metrics import Tallies
from eventlog.outgoing import Guard, GuardedClient, body_of
from eventlog.queries import Queries
from eventlog.safe_text import safe
from eventlog.standing import end, persist
from readers.notifications.payload import Push
from readers.notifications.rooms import SQL as COUNTS

SQL: Final = Queries("readers.notifications", "push.sql")
log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.3
AT_ONCE: Final = 40
"""Pushes on their way at once, and of those the ones to gateways of one host."""
AT_ONCE_TO_A_HOST: Final = 5
MOST_SECONDS: Final = 15.0
"""A gateway has so long to answer."""
MOST_ANSWER_BYTES: Final = 65_536
FIRST_PAUSE: Final = 2.0
MOST_PAUSE: Final = 3_600.0
SWEEP_SECONDS: Final = 600.0
MOST_WAITING: Final = 1_000
"""Pushes that wait for one pusher: a gateway that comes back is told of the latest."""

_PUSHES = Tallies(Counter("walden_pushes", "Requests to push gateways, by outcome.", ["outcome"]))


class Refused(Exception):
    """The gateway did not take it."""


class Gateways(GuardedClient):
    """Push gateways; an async context manager."""

    def __init__(self, guard: Guard) -> None:
        timeout = aiohttp.ClientTimeout(total=MOST_SECONDS)
        super().__init__(guard, agent="Walden", at_once=AT_ONCE, timeout=timeout, reuse=True)

    async def notify(self, url: str, body: dict[str, Any]) -> list[str]:
        """Tells a gateway; the push keys that it rejects. Raises Refused, aiohttp.ClientError, OSError, TimeoutError."""
        if not await self.is_private(url):
            raise Refused("plain HTTP is for the networks in push.allowed_networks")
        async with self.request("POST", url, json=body) as answer:
            if answer.status != 200:
                raise Refused(f"status {answer.status}")
            try:
                said = orjson.loads(await body_of(answer, MOST_ANSWER_BYTES))
            except ValueError:
                raise Refused("its answer is not JSON") from None
        rejected = said.get("rejected", []) if isinstance(said, dict) else []
        return [key for key in rejected if isinstance(key, str)] if isinstance(rejected, list) else []


class Pushing:
    """Sends what is due. One process does, others stand by; `dsn` is a reader's, past any pooler."""

    def __init__(self, dsn: str, guard: Guard) -> None:
        self._dsn = dsn
        self._guard = guard
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._asked: dict[str, int] = {}
        # By host, pushers for which it has to be done with others first.
        self._held: dict[str, set[int]] = {}
        self._done = asyncio.Event()

    async def run(self) -> None:
        """Works until cancelled. Raises what does not pass by itself, and what has not passed within its budget."""
        await persist(self._session, "pushing")

    async def _session(self) -> None:
        async with (
            await AsyncConnection.connect(
                self._dsn, autocommit=True, prepare_threshold=1, connect_timeout=10
            ) as connection,
            Gateways(self._guard) as gateways,
        ):
            try:
                await self._work(connection, gateways)
            finally:
                await end(*self._under_way.values())
                self._under_way.clear()

    async def _work(self, connection: AsyncConnection, gateways: Gateways) -> None:
        ours, swept = False, 0.0
        while True:
            if not ours:
                row = await (await connection.execute(SQL["lock"])).fetchone()
                ours = row is not None and bool(row[0])
                if not ours:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
            if time.monotonic() - swept > SWEEP_SECONDS:
                swept = time.monotonic()
                await connection.execute(SQL["sweep"], {"most": MOST_WAITING})
            self._done.clear()
            self._reap()
            if not await self._begin(connection, gateways):
                # Whoever enqueues tells nobody: what is pushed may be so late.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_SECONDS):
                        await self._done.wait()

    async def round(self, connection: AsyncConnection, gateways: Gateways) -> int:
        """Sends the first that is due of each pusher, and waits for all gateways; returns how many there were."""
        found = await self._begin(connection, gateways)
        await asyncio.gather(*self._under_way.values())
        self._reap()
        return found

    async def _begin(self, connection: AsyncConnection, gateways: Gateways) -> int:
        """Begins to send the first that is due of each pusher that is not being told already; returns how many were looked at."""
        most = AT_ONCE - len(self._under_way)
        if most <= 0:
            return 0
        busy = [*self._under_way, *(pusher for held in self._held.values() for pusher in held)]
        rows = await (await connection.execute(SQL["due"], {"most": most, "busy": busy})).fetchall()
        for push in (Push(*row) for row in rows):
            host = push.host
            if self._asked.get(host, 0) >= AT_ONCE_TO_A_HOST:
                self._held.setdefault(host, set()).add(push.pusher)
                continue
            self._asked[host] = self._asked.get(host, 0) + 1
            self._under_way[push.pusher] = asyncio.create_task(self._send(connection, gateways, push), name="push")
        return len(rows)

    def _reap(self) -> None:
        """Lets go of what is done; raises what a push has failed with otherwise than by its gateway."""
        for pusher, task in list(self._under_way.items()):
            if task.done():
                del self._under_way[pusher]
                task.result()

    async def _send(self, connection: AsyncConnection, gateways: Gateways, push: Push) -> None:
        """Tells one gateway, and notes what came of it."""
        place = {"pusher": push.pusher, "entry": push.entry}
        try:
            outcome = await self._tell(gateways, push, await _unread(connection, push.user_id))
            if isinstance(outcome, list):
                await connection.execute(SQL["sent"], place)
                if outcome:
                    _PUSHES.add("rejected")
                    rejected = {"app_id": push.app_id, "pushkeys": [safe(key) for key in outcome]}
                    await connection.execute(SQL["rejected"], rejected)
                return
            _PUSHES.add("failed")
            seconds = min(FIRST_PAUSE * 2.0**push.attempts, MOST_PAUSE) * random.uniform(0.7, 1.0)
            log.info("a push gateway did not take a push", pusher=push.pusher, why=outcome, again_in=round(seconds, 1))
            await connection.execute(SQL["failed"], {**place, "seconds": seconds})
        finally:
            left = self._asked.pop(push.host) - 1
            if left:
                self._asked[push.host] = left
            self._held.pop(push.host, None)
            self._done.set()

    async def _tell(self, gateways: Gateways, push: Push, unread: int) -> list[str] | str:
        """The push keys that the gateway rejects, or why it did not take the push."""
        if push.is_void:
            return []
        try:
            rejected = await gateways.notify(str(push.settings.get("url")), push.body(unread))
        except (Refused, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return str(error) or type(error).__name__
        _PUSHES.add("sent")
        # A gateway speaks for the push key it was asked about.
        return [key for key in rejected if safe(key) == push.pushkey]


async def _unread(connection: AsyncConnection, user_id: str) -> int:
    cursor = await connection.execute(COUNTS["counts"], {"user_id": user_id, "rooms": None})
    return sum(count for _, _, count, _ in await cursor.fetchall())

"""The sync service of one process: answers /sync, at once or when something happens.

Invariant: an answer is as of the applied positions, which its token names; the committed head covers them. Idle answers are
constant bytes: no query, nothing serialised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from operator import gt, lt
from time import monotonic
from typing import Any, Final

import orjson
import structlog
from psycopg import AsyncConnection

from eventlog.head import Head
from eventlog.pools import Pool, component_dsn
from eventlog.settings import Settings
from eventlog.tokens import SyncToken
from matrix.errors import MatrixError, not_found
from readers.sync import response
from readers.sync.account_data import render_account_data
from readers.sync.current import IGNORED_USERS, Current
from readers.sync.feed import SQL, Feed
from readers.sync.incremental import Plan, plan_incremental, plan_initial
from readers.sync.invites import render_invites
from readers.sync.outputs import Output
from readers.sync.position import Epochs, Place, parse_token, place_of
from readers.sync.reading import read
from readers.sync.request import Shape, Shapes, SyncRequest
from readers.sync.sections import Renderer
from readers.sync.sessions import Session, Sessions
from readers.sync.tables import RoomView, Tables
from readers.sync.unread import PUSH_RULES
from readers.sync.users import AccountData, Change, Stay, User

log = structlog.get_logger(__name__)

MOST_WAITERS: Final = 50_000
"""Long polls held at once; more are answered as if their time were up."""
CATCH_UP_SECONDS: Final = 10.0
"""How long a token that another process gave out may be ahead of this one."""
MOST_FILTERS: Final = 10_000

Disconnected = Callable[[Callable[[], None]], Callable[[], None]]
"""Registers a callback for the client's going away and returns what unregisters it."""

Positions = tuple[int, ...]


class SyncService:
    """Answers for one process; `async with` it. `head` must have been entered."""

    def __init__(self, settings: Settings, head: Head, pool: Pool) -> None:
        self._replication_dsn = component_dsn(settings, "replication", name="sync")
        self._head = head
        self._pool = pool
        self._stack = AsyncExitStack()
        self._shapes = Shapes()
        self._filters: dict[tuple[str, str], str] = {}
        self._sessions = Sessions()
        self._waiting = 0
        self._ends: set[Callable[[], None]] = set()
        self._stopping = False
        self._token = ""
        self._empty = b""
        self.epochs: Epochs = {}

    async def __aenter__(self) -> SyncService:
        await self._read_epochs()
        self.current = Current([])
        self.feed = Feed(self._replication_dsn, self._head, self._pool, self._apply)
        await self._stack.enter_async_context(self.feed)
        self.current = Current(self.feed.positions)
        self._moved()
        return self

    def stop(self) -> None:
        """Answers all who wait, and lets nobody wait from now on: the process is about to end."""
        self._stopping = True
        for end in tuple(self._ends):
            end()

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _apply(self, outputs: list[Output]) -> None:
        self._moved()
        self.current.apply(outputs)

    def _moved(self) -> None:
        self._token = str(SyncToken(self._head.epoch, tuple(self.feed.positions)))
        self._empty = response.empty(self._token)

    async def shape(self, user_id: str, chosen: str, state_after: bool) -> Shape:
        """The shape of a `filter` parameter: nothing, an id, or a definition in JSON."""
        if not chosen or chosen[0] == "{":
            return self._shapes.of(chosen, state_after)
        key = (user_id, chosen)
        definition = self._filters.get(key)
        if definition is None:
            rows = await self._rows("filter", user_id=user_id, filter_id=chosen)
            if not rows:
                raise not_found("No such filter.")
            if len(self._filters) >= MOST_FILTERS:
                self._filters.clear()
            definition = self._filters[key] = rows[0][0]
        return self._shapes.of(definition, state_after)

    async def sync(self, request: SyncRequest, gone: Disconnected | None = None) -> bytes:
        """The response body. Waits up to the request's timeout for something to say."""
        session = self._sessions.of(request.user_id, request.device_id)
        user = await self._active(request.user_id)
        deadline = monotonic() + request.timeout
        if request.since == self._token and not request.full_state:
            place = Place(tuple(self.feed.positions))
        else:
            place = await self._place(request)
        due = place.positions is None or place.anew or request.full_state
        checked, nudged_at = place.positions, session.answered_at
        session.begin(request.since)
        ended = False
        while True:
            if user is not self.current.users.get(request.user_id):
                user = await self._active(request.user_id)
            if due or checked is None or user.nudged_at > nudged_at or any(map(gt, user.last, checked)):
                nudged_at = monotonic()
                checked, body = await self._answer(user, session, request, place)
                if body is not None:
                    return body
                # What came while the tables were read has woken nobody: look again before waiting.
                due = False
                continue
            # Nothing concerns the user up to here, so that whoever is sent away now has missed nothing.
            checked = tuple(self.feed.positions)
            left = deadline - monotonic()
            if left <= 0 or ended or self._stopping or self._waiting >= MOST_WAITERS:
                session.answer(self._token)
                return self._empty
            ended = await self._wait(user, left, gone)

    async def _wait(self, user: User, seconds: float, gone: Disconnected | None) -> bool:
        """Waits until the user is concerned; True when the time is up or the client has gone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        ended = False

        def end() -> None:
            nonlocal ended
            ended = True
            if not future.done():
                future.set_result(None)

        timer = loop.call_later(seconds, end)
        unregister = None if gone is None else gone(end)
        user.waiters.add(future)
        self._waiting += 1
        self._ends.add(end)
        try:
            await future
        finally:
            self._waiting -= 1
            self._ends.discard(end)
            user.waiters.discard(future)
            timer.cancel()
            if unregister is not None:
                unregister()
        return ended

    async def _place(self, request: SyncRequest) -> Place:
        if not request.since:
            return Place(None)
        token = parse_token(request.since, len(self.feed.positions))
        here = tuple(self.feed.positions)
        if token.epoch == self._head.epoch and all(a <= b for a, b in zip(token.positions, here, strict=True)):
            return Place(token.positions)
        head = tuple([row[0] for row in await self._rows("heads")])
        if token.epoch != self._head.epoch:
            await self._read_epochs()
        place = place_of(token, self._head.epoch, head, self.epochs)
        if place.positions is not None and not await self.current.reach(place.positions, CATCH_UP_SECONDS):
            raise MatrixError(503, "M_UNKNOWN", "This server is catching up, try again.")
        return place

    async def _read_epochs(self) -> None:
        self.epochs = {row[0]: (row[1], tuple(row[2])) for row in await self._rows("epochs")}

    async def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        async def execute(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(SQL[query], parameters)).fetchall()

        return await read(self._pool, execute)

    async def _active(self, user_id: str) -> User:
        """The user, made active if need be."""
        users = self.current.users
        user = users.get(user_id)
        if user is not None and user.loaded is not None:
            if not user.loaded.done():
                await asyncio.shield(user.loaded)
            users.touch(user)
            return user
        user = users.begin(user_id, list(self.feed.positions))
        loaded = user.loaded = asyncio.get_running_loop().create_future()
        try:
            rows = await self._rows("rooms_of_user", user_id=user_id, now=list(self.feed.positions))
            told = await self._rows("global_account_data", user_id=user_id, types=[IGNORED_USERS, PUSH_RULES])
        except BaseException as error:
            users.forget(user)
            loaded.set_exception(error if isinstance(error, Exception) else RuntimeError("loading was cancelled"))
            loaded.exception()
            raise
        for nid, room_id, shard, version, membership, position, joined_at, forgotten in rows:
            self.current.events.learn_version(nid, version)
            users.place(user, nid, Stay(room_id, shard, membership, position, joined_at, forgotten))
        for kind, content in told:
            if not any(entry.type == kind for entry in user.account_data):
                self.current.learn(user, kind, orjson.loads(content))
        # What came meanwhile came after the positions that were read.
        for change in user.changes:
            self.current.place(user, change.nid, change.room_id, change.shard, change.position, change.new, change.old)
        users.shrink()
        loaded.set_result(None)
        return user

    async def _answer(
        self, user: User, session: Session, request: SyncRequest, place: Place
    ) -> tuple[Positions, bytes | None]:
        """The response if there is something to say, and as of which positions."""
        current, shape, since = self.current, request.shape, place.positions
        changes: list[Change] = []
        known = since is not None and not any(map(lt, since, user.floors))
        if since is not None:
            after = since
            if not known:
                after = tuple(self.feed.positions)
                changes = await self._read_changes(user, since, after)
            changes += [c for c in user.changes if c.position > after[c.shard]]
        now, token = tuple(self.feed.positions), self._token
        full = since is None or place.anew or request.full_state
        if full:
            plan = plan_initial(current, user, shape, now, since, changes, timelines_anew=place.anew)
        else:
            assert since is not None
            plan = plan_incremental(current, user, session, shape, now, since, changes)
        account_data = [a for a in user.account_data if since is not None and a.position > since[a.shard]]
        uncounted = self._uncounted(user, plan)
        views: list[RoomView] = []
        invites: tuple[list[bytes], list[bytes]] = ([], [])
        if not known or plan.asks or plan.invites or uncounted:
            views, account_data, invites = await self._read(
                user, session, shape, plan, since, known, account_data, uncounted
            )
        sections = Renderer(user, request.device_id, shape).render(plan, views, account_data, full)
        told = render_account_data(user.user_id, account_data, shape.filter.account_data, whole=since is None)
        if not full and not (sections.join or sections.leave or told or invites[0] or invites[1]):
            return now, None
        session.answer(token)
        return now, response.whole(
            token, join=sections.join, leave=sections.leave, invite=invites[0], knock=invites[1], account_data=told
        )

    def _uncounted(self, user: User, plan: Plan) -> dict[int, tuple[int, int]]:
        """The rooms of a plan whose unread counts take asking the tables, as `Unread.count` takes them."""
        found: dict[int, tuple[int, int]] = {}
        rooms = [recent.nid for recent in plan.recent] + [ask.nid for ask in plan.asks if not ask.left]
        for nid in rooms:
            stay = user.rooms[nid]
            if not self.current.unread.ready(user, nid, stay.shard, self.feed.positions[stay.shard]):
                found[nid] = (plan.now[stay.shard], stay.joined_at or 0)
        return found

    async def _read_changes(self, user: User, since: Positions, now: Positions) -> list[Change]:
        rows = await self._rows("membership_changes", user_id=user.user_id, since=list(since), now=list(now))
        return [Change(*row) for row in rows]

    async def _read(
        self,
        user: User,
        session: Session,
        shape: Shape,
        plan: Plan,
        since: Positions | None,
        known: bool,
        account_data: list[AccountData],
        uncounted: dict[int, tuple[int, int]],
    ) -> tuple[list[RoomView], list[AccountData], tuple[list[bytes], list[bytes]]]:
        async def from_tables(
            connection: AsyncConnection,
        ) -> tuple[list[RoomView], list[AccountData], tuple[list[bytes], list[bytes]]]:
            current = self.current
            tables = Tables(connection, current.rooms, current.events, user, session, shape)
            views = await tables.read(plan.asks)
            invites = await render_invites(connection, current.events, user, plan.invites, plan.now)
            await current.unread.count(connection, user, uncounted)
            whole = [ask.room_id for ask in plan.asks if ask.known is None]
            if known and not whole:
                return views, account_data, invites
            query = "account_data"
            parameters: dict[str, Any] = {"since": None if since is None else list(since)}
            if known:
                query, parameters = "account_data_of_rooms", {"room_ids": whole}
            cursor = await connection.execute(
                SQL[query], {"user_id": user.user_id, "now": list(plan.now), **parameters}
            )
            found = [
                AccountData(shard, position, room_id, kind, content.encode())
                for shard, position, room_id, kind, content in await cursor.fetchall()
            ]
            return views, [*account_data, *found] if known else found, invites

        return await read(self._pool, from_tables)

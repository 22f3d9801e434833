"""The sync service of one process: answers /sync, at once or when something happens.

Invariant: an answer is as of the applied positions, which its token names; the committed head covers them. Idle answers are
two constants put together: no query, nothing serialised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from operator import gt
from time import monotonic
from typing import Any, Final

import orjson
import structlog
from psycopg import AsyncConnection

from eventlog.head import Head
from eventlog.metrics import Level
from eventlog.pools import Pool, component_dsn
from eventlog.safe_text import safe
from eventlog.seen import Epochs
from eventlog.settings import Settings
from eventlog.tokens import SyncToken
from matrix.errors import MatrixError, not_found
from readers.sync import metrics, response
from readers.sync.answers import Answers
from readers.sync.current import LEARNT, Current, Heard
from readers.sync.device_lists import DeviceLists, Moves, changes_from_tables, everybody
from readers.sync.feed import SQL, Feed
from readers.sync.inbox import forget_received, has_arrived
from readers.sync.outputs import Output
from readers.sync.position import Place, parse_token, place_of
from readers.sync.reading import read
from readers.sync.request import Shape, Shapes, SyncRequest
from readers.sync.sessions import Session, Sessions
from readers.sync.users import Change, Stay, User

log = structlog.get_logger(__name__)

MOST_WAITERS: Final = 50_000
"""Long polls held at once; more are answered as if their time were up."""
CATCH_UP_SECONDS: Final = 10.0
"""How long a token that another process gave out may be ahead of this one."""
LAG_SECONDS: Final = 1.0
"""How long who does not want to wait waits for what is committed already."""
MOST_FILTERS: Final = 10_000
MOST_TYPING: Final = 1_000
"""Notices of typing from before this process began that it looks at, of each shard."""

Disconnected = Callable[[Callable[[], None]], Callable[[], None]]
"""Registers a callback for the client's going away and returns what unregisters it."""

PRESENT: Final = frozenset({"heads", "epochs", "filter"})
"""Queries that ask what there is now, of the primary: a standby may not have it yet."""

Positions = tuple[int, ...]
Received = Callable[[str, str, Positions], None]
"""Takes a user's id, a device's, NUL-safe, and up to where messages have arrived at it."""


class SyncService:
    """Answers for one process; `async with` it. `head` must have been entered."""

    def __init__(self, settings: Settings, head: Head, pool: Pool, *, primary: tuple[Head, Pool] | None = None) -> None:
        """`head` and `pool` may be of a standby; `primary` then has those of the primary, which knows what there is to wait for."""
        self._replication_dsn = component_dsn(settings, "replication", name="sync", standby=True)
        self._head = head
        self._pool = pool
        self._primary_head, self._primary_pool = primary or (head, pool)
        self._stack = AsyncExitStack()
        self._shapes = Shapes()
        self._filters: dict[tuple[str, str], str] = {}
        self._sessions = Sessions()
        self._waiting = 0
        self._ends: dict[str, set[Callable[[], None]]] = {}
        self._stopping = False
        self._level = Level(metrics.HELD, lambda: self._waiting)
        self._token = ""
        self.received: Received | None = None
        """Told of messages that have arrived at their device."""
        self.epochs: Epochs = {}
        self.presence_heard: Heard | None = None
        """Told of every presence that the log brings; to be set before this is entered."""
        self._with_presence = settings.presence.enabled

    async def __aenter__(self) -> SyncService:
        await self._read_epochs()
        self.current = Current([])
        self.feed = Feed(self._replication_dsn, self._head, self._pool, self._apply, self._begin)
        await self._stack.enter_async_context(self.feed)
        self._begin()
        await self._recall_typing()
        return self

    async def _recall_typing(self) -> None:
        """Finds out who types already."""
        now = list(self.feed.positions)
        current = self.current
        rows = await self.rows("typing", now=now, most=MOST_TYPING)
        found = [
            (shard, position, nid, orjson.loads(annotation)["typing"]) for shard, position, nid, annotation in rows
        ]
        if not found:
            return
        who = {"rooms": [nid for _, _, nid, _ in found], "users": [notice["user_id"] for *_, notice in found]}
        since = {(nid, user_id): joined_at for nid, user_id, joined_at in await self.rows("those_joined", **who)}
        # Who has left since types no more.
        notices = [one for one in found if since.get((one[2], one[3]["user_id"]), one[1]) < one[1]]
        current.recall_typing(notices, now)

    def _begin(self) -> None:
        """Begins with empty caches, as of the positions that are now the feed's."""
        former, self.current = self.current, Current(self.feed.positions, self.presence_heard)
        self.current.inherit_typing(former)
        self._answers = Answers(
            self.current, self._pool, self._primary_pool, lambda: self._token, with_presence=self._with_presence
        )
        self._moved()
        former.leave()

    def stop(self) -> None:
        """Answers all who wait, and lets nobody wait from now on: the process is about to end."""
        self._stopping = True
        for user_id in tuple(self._ends):
            self.end(user_id)

    def end(self, user_id: str) -> None:
        """Answers a user who waits as if their time were up: a session of theirs may have ended."""
        for end in tuple(self._ends.get(user_id, ())):
            end()

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    def _apply(self, outputs: list[Output]) -> None:
        self._moved()
        self.current.apply(outputs)

    def _moved(self) -> None:
        self._token = str(SyncToken(self._head.epoch, tuple(self.feed.positions)))

    async def shape(self, user_id: str, chosen: str, state_after: bool) -> Shape:
        """The shape of a `filter` parameter: nothing, an id, or a definition in JSON."""
        if not chosen or chosen[0] == "{":
            return self._shapes.of(chosen, state_after)
        key = (user_id, chosen)
        definition = self._filters.get(key)
        if definition is None:
            rows = await self.rows("filter", user_id=user_id, filter_id=safe(chosen))
            if not rows:
                raise not_found("No such filter.")
            if len(self._filters) >= MOST_FILTERS:
                self._filters.clear()
            definition = self._filters[key] = rows[0][0]
        return self._shapes.of(definition, state_after)

    async def sync(self, request: SyncRequest, gone: Disconnected | None = None) -> bytes:
        """The response body. Waits up to the request's timeout for something to say."""
        self.feed.check()
        session = self._sessions.of(request.user_id, request.device_id)
        session.begin(request.since)
        deadline, nudged_at = monotonic() + request.timeout, session.answered_at
        current: Current | None = None
        ended = False
        while True:
            if current is not self.current:
                # At first, and again if the database begins another epoch meanwhile.
                current = self.current
                user = await self._active(request.user_id)
                place = await self._place(request, session)
                due = place.positions is None or place.anew or request.full_state or place.inbox is not None
                checked = place.positions
                self._note_arrived(user, session, request.device_id, place)
                continue
            if user is not current.users.get(request.user_id):
                user = await self._active(request.user_id)
            elif due or checked is None or user.nudged_at > nudged_at or any(map(gt, user.last, checked)):
                nudged_at = monotonic()
                checked, body, arrived = await self._answers.answer(user, session, request, place)
                if arrived:
                    self._tell_received(user.user_id, safe(request.device_id), place)
                if body is not None:
                    (metrics.INCREMENTAL if request.since else metrics.INITIAL).count += 1
                    return body
                due = False
                # What came while the tables were read has woken nobody: look again before waiting.
            else:
                # Nothing concerns the user up to here, so that whoever is sent away now has missed nothing.
                checked = tuple(self.feed.positions)
                left = deadline - monotonic()
                if left <= 0 or ended or self._stopping or self._waiting >= MOST_WAITERS:
                    if user.stocks is None:
                        await self._answers.count_stocks(user)
                        continue
                    session.answer(self._token)
                    metrics.EMPTY.count += 1
                    stock = user.stocks.get(safe(request.device_id), response.NO_STOCK)
                    return response.empty(self._token, stock)
                ended = await self._wait(user.waiters, left, gone, request.user_id)

    def check_token(self, token: str) -> None:
        """M_INVALID_PARAM unless this server can have given out the token."""
        parse_token(token, len(self.feed.positions))

    async def key_changes(self, user_id: str, since: str) -> DeviceLists:
        """Whose devices changed after a token, and who shares no room with the user any more."""
        self.feed.check()
        place = await self._place(SyncRequest(user_id, "", self._shapes.of("", False), since), Session())
        if place.anew or place.positions is None:
            return await everybody(self._pool, user_id)
        now = tuple(self.feed.positions)
        rows = await self.rows("membership_changes", user_id=user_id, since=list(place.positions), now=list(now))
        moves = Moves.among(Change(*row) for row in rows)
        return await changes_from_tables(self._pool, user_id, place.positions, moves)

    def _note_arrived(self, user: User, session: Session, device_id: str, place: Place) -> None:
        """The client has come back with a token: the messages before it have arrived."""
        upto = place.inbox or place.positions
        if upto is None or not (user.inbox or session.first_message):
            return
        device, first = safe(device_id), session.first_message
        if first is not None and first[1] <= upto[first[0]]:
            session.first_message = None
        elif not has_arrived(user, device, upto):
            return
        forget_received(user, device, upto)
        self._tell_received(user.user_id, device, place)

    def _tell_received(self, user_id: str, device_id: str, place: Place) -> None:
        if self.received is not None and place.positions is not None:
            self.received(user_id, device_id, place.inbox or place.positions)

    async def stirred(self, nid: int, after: int, seconds: float, gone: Disconnected | None = None) -> bool:
        """Waits until something has happened in a room after a position; False when the time is up or the client has gone."""
        room = self.current.rooms.get(nid)
        if room is not None and room.last > after:
            return True
        if self._stopping or self._waiting >= MOST_WAITERS:
            return False
        peekers = self.current.peekers
        waiters = peekers.setdefault(nid, set())
        try:
            return not await self._wait(waiters, seconds, gone)
        finally:
            if not waiters and peekers.get(nid) is waiters:
                del peekers[nid]

    async def _wait(
        self, waiters: set[asyncio.Future[None]], seconds: float, gone: Disconnected | None, user_id: str = ""
    ) -> bool:
        """Waits among those who are woken together; True when the time is up, the client has gone, or the user is ended."""
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
        waiters.add(future)
        self._waiting += 1
        ends = self._ends.setdefault(user_id, set())
        ends.add(end)
        try:
            await future
        finally:
            self._waiting -= 1
            ends.discard(end)
            if not ends and self._ends.get(user_id) is ends:
                del self._ends[user_id]
            waiters.discard(future)
            timer.cancel()
            if unregister is not None:
                unregister()
        return ended

    async def _place(self, request: SyncRequest, session: Session) -> Place:
        # What was acknowledged here before the request is in the answer, wherever it is read; who waits is told when it is there.
        if not request.since:
            await self._reach(tuple(self._primary_head.positions))
            return Place(None)
        if request.timeout <= 0 and self.feed.positions != self._head.positions:
            await self.current.reach(tuple(self._head.positions), LAG_SECONDS)
        if request.since == self._token:
            return Place(tuple(self.feed.positions))
        token = parse_token(request.since, len(self.feed.positions))
        here = tuple(self.feed.positions)
        if token.epoch == self._head.epoch and all(a <= b for a, b in zip(token.positions, here, strict=True)):
            return Place(token.positions, inbox=token.inbox)
        head = tuple([row[0] for row in await self.rows("heads")])
        if token.epoch != self._head.epoch:
            await self._read_epochs()
            await self._reach_epoch()
        place = place_of(token, self._head.epoch, head, self.epochs)
        if place.anew:
            session.forget()
            if token.epoch == self._head.epoch:
                metrics.AHEAD.count += 1
                log.warning(
                    "a token is ahead of the database: if it was restored, stop Walden and run `walden recover --anyway`",
                    token=request.since,
                    positions=head,
                )
            else:
                metrics.ABANDONED.count += 1
        if place.positions is not None:
            await self._reach(place.positions)
            if token.inbox is not None:
                place = replace(place, inbox=tuple(map(min, token.inbox, place.positions)))
        return place

    async def _reach(self, positions: Positions) -> None:
        if not await self.current.reach(positions, CATCH_UP_SECONDS):
            raise MatrixError(503, "M_UNKNOWN", "This server is catching up, try again.")

    async def _reach_epoch(self) -> None:
        """Waits until this process has seen the epoch that the tables know."""
        end = monotonic() + CATCH_UP_SECONDS
        while next(iter(self.epochs), self._head.epoch) != self._head.epoch:
            if monotonic() > end:
                raise MatrixError(503, "M_UNKNOWN", "This server is catching up, try again.")
            await asyncio.sleep(0.02)

    async def _read_epochs(self) -> None:
        self.epochs = {row[0]: (row[1], tuple(row[2])) for row in await self.rows("epochs")}

    @property
    def token(self) -> str:
        """The token of the applied positions."""
        return self._token

    async def rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one of the sync reader's queries."""

        async def execute(connection: AsyncConnection) -> list[tuple[Any, ...]]:
            return await (await connection.execute(SQL[query], parameters)).fetchall()

        return await read(self._primary_pool if query in PRESENT else self._pool, execute)

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
            rows = await self.rows("rooms_of_user", user_id=user_id, now=list(self.feed.positions))
            told = await self.rows("global_account_data", user_id=user_id, types=list(LEARNT))
        except BaseException as error:
            users.forget(user)
            loaded.set_exception(error if isinstance(error, Exception) else RuntimeError("loading was cancelled"))
            loaded.exception()
            raise
        for nid, room_id, shard, version, *stay in rows:
            self.current.events.learn_version(nid, version)
            users.place(user, nid, Stay(room_id, shard, *stay))
        for kind, content in told:
            if not any(entry.type == kind for entry in user.account_data):
                self.current.learn(user, kind, orjson.loads(content))
        # What came meanwhile came after the positions that were read.
        for change in user.changes:
            self.current.place(user, change.nid, change.room_id, change.shard, change.position, change.new, change.old)
        # And what happened in the rooms meanwhile found nobody in them to concern: whoever asks looks once.
        user.last[:] = self.feed.positions
        users.shrink()
        # Only from here on is the user told by their rooms of who is present.
        user.heard_since[:] = self.feed.positions
        if any((room := self.current.rooms.get(nid)) is not None and room.typing for nid in user.rooms):
            # What has run out before this process began is news to clients of the one before.
            user.nudged_at = monotonic()
        loaded.set_result(None)
        return user

"""Building events and appending them: the hot path of everything that changes something.

Invariant: one append is in flight per process, so that requests that arrive meanwhile form the next group: one statement, one
commit, one wait for the verdicts. Within a group the local events of a room chain, each auth-checked against the state as the ones
before it leave it. A request is answered when its events are committed and judged.

    requests ──▶ queue ──▶ group: views ▶ build ▶ append ──▶ verdicts ──▶ answers
                   ▲                                 │ moved, stale
                   └─────────────────────────────────┘
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
import structlog

from eventlog.append import Appended, Entry, RoomSeen, append, release
from eventlog.head import Head, Verdict
from eventlog.pools import Pool
from eventlog.shards import shard_of
from eventlog.typing_messages import PREFIX, TypingMessage, encode
from matrix.auth_rules import AuthError, auth_event_keys, check_against_state, check_event_alone
from matrix.errors import MatrixError
from matrix.events import Event, build_event
from matrix.hashes import reference_hash
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import encode as encode_base64
from writer.drafts import Draft, Sent
from writer.views import RoomView, StateKey, Views, read_views

log = structlog.get_logger(__name__)

MAX_QUEUE = 5_000
MAX_GROUP = 100
MAX_TRIES = 200
# How soon a room with another process's unjudged state event is looked at again.
UNSETTLED_SECONDS = 0.002
CREATE: StateKey = ("m.room.create", "")

Rest = Callable[[str], Sequence[Draft]]


@dataclass(slots=True, eq=False)
class _Request:
    """Drafts of one room that are appended together, or one entry of a user."""

    drafts: list[Draft]
    future: asyncio.Future[list[tuple[str, int]]]
    room_id: str | None
    deadline: float
    entry: Entry | None = None
    version: RoomVersion | None = None
    rest: Rest | None = None
    tries: int = 0
    checked: bool = False
    keys: set[StateKey] = field(default_factory=set)


class LogWriter:
    """Appends for this process; `async with` it."""

    def __init__(
        self,
        pool: Pool,
        head: Head,
        *,
        server_name: str,
        key: SigningKey,
        typing_key: bytes,
        shards: int,
        timeout: float,
    ) -> None:
        self._pool = pool
        self._head = head
        self._server_name = server_name
        self._key = key
        self._typing_key = typing_key
        self._shards = shards
        self._timeout = timeout
        self._views = Views()
        self._queue: deque[_Request] = deque()
        self._parked: dict[str, deque[_Request]] = {}
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._last_create = 0

    async def __aenter__(self) -> LogWriter:
        self._task = asyncio.create_task(self._run(), name="log writer")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (self._task, *self._settling):
            if task is not None:
                task.cancel()
        await asyncio.gather(*(t for t in (self._task, *self._settling) if t is not None), return_exceptions=True)

    async def send(self, drafts: Sequence[Draft]) -> list[Sent]:
        """Appends events of one room together and answers when all are accepted.

        Raises MatrixError: 403 when auth refuses one, 404 for a room that is not known, 413 for one too large, 503 when the
        queue is full or no verdict came in time (the same transaction id then gets the same event).
        """
        return await self._submit(list(drafts), drafts[0].room_id)

    async def create_room(self, version: RoomVersion, create: Draft, rest: Rest) -> str:
        """Makes a room: its create event, and what `rest` makes of the room id, in one append; returns the room id."""
        room_id: list[str] = []

        def rest_of(made: str) -> Sequence[Draft]:
            room_id[:] = [made]
            return rest(made)

        await self._submit([create], None, version=version, rest=rest_of)
        return room_id[0]

    async def append_entry(
        self,
        *,
        type: str,
        user_id: str,
        content: dict[str, Any],
        room_id: str | None = None,
        device_id: str | None = None,
        txn_id: str | None = None,
        txn_path: str | None = None,
    ) -> Sent:
        """Appends an entry of a user (docs/log.md) and answers when it is judged. MatrixError 400 M_UNKNOWN if refused."""
        shard_key = room_id if type in ("m.receipt", "directory", "forget") and room_id else user_id
        if type == "alias":
            shard_key = content["alias"]
        draft = Draft(room_id or "", user_id, type, content, device_id=device_id, txn_id=txn_id, txn_path=txn_path)
        entry = Entry(
            kind="u",
            shard=shard_of(shard_key, self._shards),
            type=type,
            sender=user_id,
            json=orjson.dumps(content),
            room_id=room_id,
            device_id=device_id,
            txn_id=txn_id,
            key=draft.claim(),
        )
        return (await self._submit([draft], None, entry=entry))[0]

    async def view(self, room_id: str, keys: Sequence[StateKey]) -> RoomView:
        """The room as it now is, with the state keys asked for; MatrixError 404 M_NOT_FOUND when it is not known."""
        async with self._pool.connection() as connection:
            views = await read_views(connection, {room_id: keys})
        if room_id not in views:
            raise MatrixError(404, "M_NOT_FOUND", "Unknown room.")
        return views[room_id]

    async def typing(self, room_id: str, user_id: str, typing: bool, timeout_ms: int) -> None:
        """Says that a user types, or stopped."""
        message = TypingMessage(room_id, user_id, typing, timeout_ms, int(time.time() * 1000))
        async with self._pool.connection() as connection:
            # Transactional, for its commit flushes it: an unflushed message may take wal_writer_delay.
            await connection.execute(
                "select pg_logical_emit_message(true, %s, %s::bytea)", [PREFIX, encode(message, self._typing_key)]
            )

    async def _submit(
        self,
        drafts: list[Draft],
        room_id: str | None,
        *,
        entry: Entry | None = None,
        version: RoomVersion | None = None,
        rest: Rest | None = None,
    ) -> list[Sent]:
        if len(self._queue) >= MAX_QUEUE:
            raise MatrixError(503, "M_UNKNOWN", "The server is overloaded. Try again later.")
        loop = asyncio.get_running_loop()
        request = _Request(
            drafts, loop.create_future(), room_id, loop.time() + self._timeout, entry=entry, version=version, rest=rest
        )
        while True:
            self._queue.append(request)
            self._woken.set()
            try:
                placed = await asyncio.wait_for(request.future, max(0.1, request.deadline - loop.time()))
                verdicts = [
                    await self._head.verdict(entry_id, max(0.1, request.deadline - loop.time()))
                    for _, entry_id in placed
                ]
            except TimeoutError:
                raise MatrixError(
                    503, "M_UNKNOWN", "The server is busy. Try again with the same transaction."
                ) from None
            if all(v.verdict == "a" for v in verdicts):
                return [
                    Sent(event_id, entry_id, v.position)
                    for (event_id, entry_id), v in zip(placed, verdicts, strict=True)
                ]
            if request.entry is not None:
                return [self._user_verdict(verdicts[0])]
            if room_id is not None:
                self._views.drop(room_id)
            await self._refused(request, verdicts)
            request.future = loop.create_future()

    def _user_verdict(self, verdict: Verdict) -> Sent:
        # Soft-failed: it changed nothing, an older receipt for instance.
        if verdict.verdict == "s":
            return Sent("", verdict.entry, verdict.position)
        if verdict.verdict == "q":
            raise MatrixError(500, "M_UNKNOWN", "The server could not process this.")
        raise MatrixError(400, "M_UNKNOWN", verdict.reason or "Refused.")

    async def _refused(self, request: _Request, verdicts: list[Verdict]) -> None:
        """Raises for a final refusal; returns when the request is to be built again."""
        if any(v.verdict == "q" for v in verdicts):
            raise MatrixError(500, "M_UNKNOWN", "The server could not process this event.")
        final = next((v for v in verdicts if v.verdict in ("r", "s")), None)
        if final is not None:
            raise MatrixError(403, "M_FORBIDDEN", final.reason or "The event was refused.")
        request.tries += 1
        if request.tries > MAX_TRIES:
            raise MatrixError(503, "M_UNKNOWN", "The room is too busy. Try again.")
        claims = [
            (claim, v.entry)
            for draft, v in zip(request.drafts, verdicts, strict=False)
            if (claim := draft.claim()) is not None
        ]
        if claims:
            async with self._pool.connection() as connection:
                await release(connection, claims)

    async def _run(self) -> None:
        while True:
            if not self._queue:
                self._woken.clear()
                await self._woken.wait()
            group = self._take_group()
            if not group:
                continue
            try:
                async with self._pool.connection() as connection:
                    await _Group(self, connection, group).run()
            except psycopg.errors.UniqueViolation:
                # An event id or a claim was taken in the same moment: built again, they differ.
                self._again(group)
            except (psycopg.Error, OSError) as error:
                log.warning("an append failed", error=str(error).strip(), requests=len(group))
                self._lost(group)
                await asyncio.sleep(0.05)
            except Exception as error:
                log.exception("a group of appends failed", requests=len(group))
                for request in group:
                    if request.room_id is not None:
                        self._views.drop(request.room_id)
                    fail(request, MatrixError(500, "M_UNKNOWN", f"Internal error: {type(error).__name__}."))

    def _take_group(self) -> list[_Request]:
        group: list[_Request] = []
        claims: set[str] = set()
        while self._queue and len(group) < MAX_GROUP:
            request = self._queue.popleft()
            if request.future.done():
                continue
            if request.room_id is not None and request.room_id in self._parked:
                self._parked[request.room_id].append(request)
                continue
            claim = request.drafts[0].claim()
            if claim is not None:
                if claim in claims:
                    # The same transaction twice in one group: the second finds the first in the table.
                    self._queue.appendleft(request)
                    break
                claims.add(claim)
            group.append(request)
        return group

    def _again(self, group: Sequence[_Request]) -> None:
        for request in group:
            if request.room_id is not None:
                self._views.drop(request.room_id)
            request.tries += 1
            if request.tries > MAX_TRIES:
                fail(request, MatrixError(503, "M_UNKNOWN", "The room is too busy. Try again."))
        self._queue.extendleft(reversed([r for r in group if not r.future.done()]))
        self._woken.set()

    def later(self, request: _Request) -> None:
        """Puts a request into the queue again, to be built on the room as it then is; its deadline ends the waiting."""
        if request.room_id is not None:
            self._views.drop(request.room_id)
        self._queue.append(request)
        self._woken.set()

    def _lost(self, group: Sequence[_Request]) -> None:
        """The answer to an append was lost. Where a claim tells whether it was made, it is tried again."""
        for request in group:
            if request.drafts[0].txn_id is None and request.checked:
                fail(request, MatrixError(503, "M_UNKNOWN", "The database did not answer. Try again."))
        self._again([r for r in group if not r.future.done()])

    def park(self, room_id: str, entry: int) -> None:
        """Holds requests of a room back until the verdict on its last state event."""
        self._parked.setdefault(room_id, deque())
        task = asyncio.create_task(self._settle(room_id, entry), name=f"settle {room_id}")
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, room_id: str, entry: int) -> None:
        try:
            await self._head.verdict(entry, self._timeout)
        except TimeoutError:
            log.warning("no verdict on a state event", room_id=room_id, entry=entry)
        finally:
            self._views.drop(room_id)
            self._queue.extend(self._parked.pop(room_id, ()))
            self._woken.set()


def fail(request: _Request, error: MatrixError) -> None:
    """Answers a request with an error."""
    if not request.future.done():
        request.future.set_exception(error)


@dataclass(slots=True)
class _Built:
    """A request's events, built on the view as the requests before it left it."""

    request: _Request
    entries: list[Entry]
    event_ids: list[str]


class _Group:
    """One round: views, building, one append."""

    def __init__(self, writer: LogWriter, connection: psycopg.AsyncConnection, requests: list[_Request]) -> None:
        self.writer = writer
        self.connection = connection
        self.requests = requests
        # Rooms read in this round, and rooms whose state earlier requests of the round change.
        self.fresh: set[str] = set()
        self.changed: set[str] = set()
        self.seen: dict[str, RoomSeen] = {}
        self.views: dict[str, RoomView] = {}
        self.state_entry: dict[str, int] = {}

    async def run(self) -> None:
        await self._load_views()
        built = [b for request in self.requests if (b := self._build(request)) is not None]
        if not built:
            return
        entries = [entry for b in built for entry in b.entries]
        named = dict.fromkeys(e.room_id for e in entries if e.kind != "u" and e.room_id is not None)
        rooms = [self.seen[room_id] for room_id in named]
        answers = await append(self.connection, rooms, entries)
        at = 0
        for b in built:
            self._settle(b, answers[at : at + len(b.entries)])
            at += len(b.entries)
        for room_id, entry in self.state_entry.items():
            self.writer.park(room_id, entry)

    async def _load_views(self) -> None:
        views = self.writer._views
        asked: dict[str, set[StateKey]] = {}
        for request in self.requests:
            if request.room_id is None:
                continue
            view = views.get(request.room_id)
            if not request.keys:
                request.keys = _keys(request.drafts)
            if view is None or not request.keys <= view.state.keys() or request.room_id in asked:
                asked.setdefault(request.room_id, set()).update(request.keys)
        # A room that is read again is read with the keys of all its requests.
        for request in self.requests:
            if request.room_id in asked:
                asked[request.room_id] |= request.keys
        if asked:
            for room_id, view in (await read_views(self.connection, asked)).items():
                kept = views.get(room_id)
                if kept is not None and kept.same_as(view):
                    kept.state.update(view.state)
                else:
                    views.put(view)
                self.fresh.add(room_id)
        for request in self.requests:
            if request.room_id is not None and (found := views.get(request.room_id)) is not None:
                self.views[request.room_id] = found
                self.seen.setdefault(request.room_id, found.seen())

    def _build(self, request: _Request) -> _Built | None:
        if request.entry is not None:
            request.checked = True
            return _Built(request, [request.entry], [""])
        if request.version is not None:
            return self._build_room(request, request.version)
        assert request.room_id is not None
        view = self.views.get(request.room_id)
        if view is None:
            fail(request, MatrixError(404, "M_NOT_FOUND", "Unknown room."))
            return None
        if view.unsettled:
            # Another process appended a state event: its verdict first.
            asyncio.get_running_loop().call_later(UNSETTLED_SECONDS, self.writer.later, request)
            return None
        try:
            return self._chain(request, view, request.drafts)
        except AuthError as error:
            if request.room_id in self.fresh and request.room_id not in self.changed:
                fail(request, MatrixError(403, "M_FORBIDDEN", error.reason))
            else:
                # A no is checked against the database.
                self.writer._again([request])
            return None
        except MatrixError as error:
            fail(request, error)
            return None

    def _build_room(self, request: _Request, version: RoomVersion) -> _Built | None:
        writer = self.writer
        create = request.drafts[0]
        # Two rooms of one user may not be created by one event: their moments differ.
        writer._last_create = max(int(time.time() * 1000), writer._last_create + 1)
        try:
            room_id = None if version.room_id_is_create_event_id else create.room_id
            event, pdu = build_event(
                room_version=version,
                room_id=room_id,
                sender=create.sender,
                type=create.type,
                state_key="",
                content=create.content,
                prev_events=[],
                auth_events=[],
                depth=1,
                origin_server_ts=writer._last_create,
                server_name=writer._server_name,
                signing_key=writer._key,
            )
            check_event_alone(event, {})
            view = RoomView(event.room_id, 0, version, [event.event_id], 1, None, None, None, 0, 0, False, False)
            view.state[CREATE] = event
            if version.references_carry_hashes:
                view.hashes[event.event_id] = encode_base64(reference_hash(event.pdu, version))
            self.seen[event.room_id] = view.seen()
            first = self._entry(create, event, pdu)
            assert request.rest is not None
            rest = self._chain(request, view, list(request.rest(event.room_id)), absent=True)
            return _Built(request, [first, *rest.entries], [event.event_id, *rest.event_ids])
        except AuthError as error:
            fail(request, MatrixError(403, "M_FORBIDDEN", error.reason))
        except MatrixError as error:
            fail(request, error)
        return None

    def _chain(self, request: _Request, view: RoomView, drafts: Sequence[Draft], *, absent: bool = False) -> _Built:
        """Builds drafts one upon the other and moves the view on; leaves it as it was when one is refused."""
        entries: list[Entry] = []
        event_ids: list[str] = []
        previous, depth = view.previous, view.depth
        before: dict[StateKey, Event | None] = {}
        writer, version = self.writer, view.room_version
        now = int(time.time() * 1000)
        try:
            for draft in drafts:
                keys = auth_event_keys(draft.type, draft.sender, draft.state_key, draft.content, version)
                state = {key: found for key in keys if (found := view.state.get(key)) is not None}
                create = view.state.get(CREATE)
                if create is not None:
                    state[CREATE] = create
                auth = [
                    found.event_id
                    for key, found in state.items()
                    if key != CREATE or version.create_event_in_auth_events
                ]
                event, pdu = build_event(
                    room_version=version,
                    room_id=view.room_id,
                    sender=draft.sender,
                    type=draft.type,
                    state_key=draft.state_key,
                    content=draft.content,
                    prev_events=previous,
                    auth_events=auth,
                    depth=depth + 1,
                    origin_server_ts=now,
                    server_name=writer._server_name,
                    signing_key=writer._key,
                    redacts=draft.redacts,
                    reference_hashes=self._hashes(view, state, previous) if version.references_carry_hashes else None,
                )
                if draft.type == "m.room.member":
                    check_event_alone(event, {e.event_id: e for e in state.values()})
                check_against_state(event, state)
                entries.append(self._entry(draft, event, pdu))
                event_ids.append(event.event_id)
                previous, depth = [event.event_id], depth + 1
                if version.references_carry_hashes:
                    view.hashes[event.event_id] = encode_base64(reference_hash(event.pdu, version))
                if draft.state_key is not None:
                    key = (draft.type, draft.state_key)
                    before.setdefault(key, view.state.get(key))
                    view.state[key] = event
        except (AuthError, MatrixError):
            view.state.update(before)
            raise
        view.previous, view.depth = previous, depth
        if before:
            self.changed.add(view.room_id)
        return _Built(request, entries, event_ids)

    def _hashes(self, view: RoomView, state: dict[StateKey, Event], previous: list[str]) -> dict[str, str]:
        hashes = {e.event_id: encode_base64(reference_hash(e.pdu, view.room_version)) for e in state.values()}
        return hashes | {event_id: view.hashes[event_id] for event_id in previous}

    def _entry(self, draft: Draft, event: Event, pdu: bytes) -> Entry:
        return Entry(
            kind="m" if draft.state_key is None else "s",
            shard=shard_of(event.room_id, self.writer._shards),
            type=draft.type,
            sender=draft.sender,
            json=pdu,
            event_id=event.event_id,
            room_id=event.room_id,
            state_key=draft.state_key,
            device_id=draft.device_id,
            txn_id=draft.txn_id,
            key=draft.claim(),
            depth=event.depth,
        )

    def _settle(self, built: _Built, answers: list[Appended]) -> None:
        request = built.request
        room_id = built.entries[0].room_id if built.entries[0].kind != "u" else None
        if any(answer.status == "moved" for answer in answers):
            self.writer._again([request])
            return
        placed: list[tuple[str, int]] = []
        for entry, event_id, answer in zip(built.entries, built.event_ids, answers, strict=True):
            assert answer.entry is not None
            placed.append((answer.event_id or event_id, answer.entry))
            if answer.status == "duplicate" and room_id is not None:
                self.writer._views.drop(room_id)
            elif room_id is not None:
                if entry.state_key is not None:
                    self.state_entry[room_id] = answer.entry
                view = self.views.get(room_id)
                if view is not None:
                    view.tip = event_id
        if room_id is not None and (view := self.views.get(room_id)) is not None and view.forked:
            # Read again, so that the next event on a settled tip merges the extremities.
            self.writer._views.drop(room_id)
        if not request.future.done():
            request.future.set_result(placed)


def _keys(drafts: Sequence[Draft]) -> set[StateKey]:
    """The state that drafts are built and checked with. All versions' keys: a key too many costs nothing."""
    version = ROOM_VERSIONS["11"]
    keys = {CREATE}
    for draft in drafts:
        keys.update(auth_event_keys(draft.type, draft.sender, draft.state_key, draft.content, version))
        if draft.state_key is not None:
            keys.add((draft.type, draft.state_key))
    return keys

"""One group of appends: from waiting requests to finished, chained events, and what became of them.

Invariant: every event is auth-checked here against the state as the events before it leave it, and a refusal is final only on a
view read in this round that no earlier request of the round has changed. What cannot be placed is handed back: `again` to be built
anew, `later` to wait for another process's state event, `unbuilt` what the group had no room for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from eventlog.append import Appended, DatabaseClock, Entry, RoomSeen, append
from eventlog.pools import Pool
from eventlog.shards import shard_of
from eventlog.statement import Statement
from matrix.auth_rules import AuthError, auth_event_keys, check_against_state, check_event_alone
from matrix.errors import MatrixError
from matrix.events import Event, build_event
from matrix.hashes import reference_hash
from matrix.room_versions import ROOM_VERSIONS, RoomVersion
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import encode as encode_base64
from writer.drafts import Draft
from writer.views import RoomView, StateKey, Views, read_views

log = structlog.get_logger(__name__)

CREATE: StateKey = ("m.room.create", "")

# Nothing commits much more than a megabyte at once: a large transaction holds up delivery to every slot.
MAX_BYTES = 900_000

Rest = Callable[[str], Sequence[Draft]]


@dataclass(slots=True)
class Signer:
    """Who builds: the server's name, key and number of shards, and when it last made a room (ms since 1970)."""

    server_name: str
    key: SigningKey
    shards: int
    last_create: int = 0


@dataclass(slots=True, eq=False)
class Request:
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


def fail(request: Request, error: MatrixError) -> None:
    """Answers a request with an error."""
    if not request.future.done():
        request.future.set_exception(error)


@dataclass(slots=True)
class Built:
    """A request's events, built on the view as the requests before it left it."""

    request: Request
    entries: list[Entry]
    event_ids: list[str]


class Group:
    """One round: views, building, one append."""

    def __init__(
        self,
        signer: Signer,
        views: Views,
        pool: Pool,
        statement: Statement,
        clock: DatabaseClock,
        requests: list[Request],
    ) -> None:
        self.signer = signer
        self.cache = views
        self.again: list[Request] = []
        self.later: list[Request] = []
        self.unbuilt: list[Request] = []
        self.pool = pool
        self.statement = statement
        self.clock = clock
        self.requests = requests
        # Rooms read in this round, and rooms whose state earlier requests of the round change.
        self.fresh: set[str] = set()
        self.changed: set[str] = set()
        self.seen: dict[str, RoomSeen] = {}
        self.views: dict[str, RoomView] = {}
        self.state_entry: dict[str, int] = {}

    async def run(self) -> None:
        await self._load_views()
        built: list[Built] = []
        size = 0
        for request in self.requests:
            if size > MAX_BYTES:
                self.unbuilt.append(request)
            elif (b := self._build(request)) is not None:
                built.append(b)
                size += sum(len(entry.json) for entry in b.entries)
        if not built:
            return
        entries = [entry for b in built for entry in b.entries]
        named = dict.fromkeys(e.room_id for e in entries if e.kind != "u" and e.room_id is not None)
        rooms = [self.seen[room_id] for room_id in named]
        # What somebody was told had failed must not come after what they did next: no later than that is it appended.
        until = await self.clock.at(min(b.request.deadline for b in built))
        answers = await append(self.statement, rooms, entries, until=until)
        at = 0
        for b in built:
            self._settle(b, answers[at : at + len(b.entries)])
            at += len(b.entries)

    async def _load_views(self) -> None:
        views = self.cache
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
            async with self.pool.connection() as connection:
                read = await read_views(connection, asked)
            for room_id, view in read.items():
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

    def _build(self, request: Request) -> Built | None:
        if request.entry is not None:
            request.checked = True
            return Built(request, [request.entry], [""])
        if request.version is not None:
            return self._build_room(request, request.version)
        assert request.room_id is not None
        view = self.views.get(request.room_id)
        if view is None:
            fail(request, MatrixError(404, "M_NOT_FOUND", "Unknown room."))
            return None
        if view.unsettled:
            # Another process appended a state event: its verdict first.
            self.later.append(request)
            return None
        try:
            return self._chain(request, view, request.drafts)
        except AuthError as error:
            if request.room_id in self.fresh and request.room_id not in self.changed:
                fail(request, MatrixError(403, "M_FORBIDDEN", error.reason))
            else:
                # A no is checked against the database.
                self.again.append(request)
            return None
        except MatrixError as error:
            fail(request, error)
            return None
        except Exception:
            # One request that cannot be built may not take the others of its group along.
            log.exception("an event could not be built", room_id=request.room_id)
            fail(request, MatrixError(500, "M_UNKNOWN", "The server could not build this event."))
            return None

    def _build_room(self, request: Request, version: RoomVersion) -> Built | None:
        signer = self.signer
        create = request.drafts[0]
        # Two rooms of one user may not be created by one event: their moments differ.
        signer.last_create = max(int(time.time() * 1000), signer.last_create + 1)
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
                origin_server_ts=signer.last_create,
                server_name=signer.server_name,
                signing_key=signer.key,
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
            return Built(request, [first, *rest.entries], [event.event_id, *rest.event_ids])
        except AuthError as error:
            fail(request, MatrixError(403, "M_FORBIDDEN", error.reason))
        except MatrixError as error:
            fail(request, error)
        return None

    def _chain(self, request: Request, view: RoomView, drafts: Sequence[Draft], *, absent: bool = False) -> Built:
        """Builds drafts one upon the other and moves the view on; leaves it as it was when one is refused."""
        entries: list[Entry] = []
        event_ids: list[str] = []
        previous, depth = view.previous, view.depth
        before: dict[StateKey, Event | None] = {}
        signer, version = self.signer, view.room_version
        now = int(time.time() * 1000)
        try:
            for draft in drafts:
                if draft.type == CREATE[0]:
                    raise AuthError("The room has a create event.")
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
                    server_name=signer.server_name,
                    signing_key=signer.key,
                    redacts=draft.redacts,
                    reference_hashes=self._hashes(view, state, previous) if version.references_carry_hashes else None,
                )
                if draft.type == "m.room.member":
                    check_event_alone(event, {e.event_id: e for e in state.values()})
                check_against_state(event, state)
                entries.append(self._entry(draft, event, pdu))
                event_ids.append(event.event_id)
                previous, depth = [event.event_id], event.depth
                if version.references_carry_hashes:
                    view.hashes[event.event_id] = encode_base64(reference_hash(event.pdu, version))
                if draft.state_key is not None:
                    key = (draft.type, draft.state_key)
                    before.setdefault(key, view.state.get(key))
                    if not version.references_carry_hashes:
                        event.pdu = {}
                    view.state[key] = event
        except BaseException:
            view.state.update(before)
            raise
        view.previous, view.depth = previous, depth
        if before:
            self.changed.add(view.room_id)
        return Built(request, entries, event_ids)

    def _hashes(self, view: RoomView, state: dict[StateKey, Event], previous: list[str]) -> dict[str, str]:
        hashes = {e.event_id: encode_base64(reference_hash(e.pdu, view.room_version)) for e in state.values()}
        return hashes | {event_id: view.hashes[event_id] for event_id in previous}

    def _entry(self, draft: Draft, event: Event, pdu: bytes) -> Entry:
        return Entry(
            kind="m" if draft.state_key is None else "s",
            shard=shard_of(event.room_id, self.signer.shards),
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

    def _settle(self, built: Built, answers: list[Appended]) -> None:
        request = built.request
        room_id = built.entries[0].room_id if built.entries[0].kind != "u" else None
        if any(answer.status in ("moved", "late") for answer in answers):
            if answers[0].status == "late":
                self.clock.forget()
            self.again.append(request)
            return
        placed: list[tuple[str, int]] = []
        for entry, event_id, answer in zip(built.entries, built.event_ids, answers, strict=True):
            assert answer.entry is not None
            placed.append((answer.event_id or event_id, answer.entry))
            if answer.status == "duplicate" and room_id is not None:
                self.cache.drop(room_id)
            elif room_id is not None:
                if entry.state_key is not None:
                    self.state_entry[room_id] = answer.entry
                view = self.views.get(room_id)
                if view is not None:
                    view.tip = event_id
        if room_id is not None and (view := self.views.get(room_id)) is not None and view.forked:
            # Read again, so that the next event on a settled tip merges the extremities.
            self.cache.drop(room_id)
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

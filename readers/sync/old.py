"""The event stream from before /sync: GET /initialSync and GET /events, the latter of one room also for those who peek into it.

Invariant: what they tell is what /sync tells, in another form; their tokens are sync tokens, and go on in either. A peek tells what
the room's history visibility shows, by the rules of the room endpoints.
Source: client-server API, "GET /_matrix/client/v3/initialSync", "GET /_matrix/client/v3/events", "Room Previews".
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic
from typing import Any, Final, Protocol

import orjson
from falcon.asgi import Request, Response

from eventlog.tokens import TimelineToken
from matrix.errors import invalid_param
from readers.rooms.access import NOW
from readers.rooms.parameters import NO_FILTER, Parameters
from readers.rooms.places import Places, parse_token
from readers.rooms.responses import JSON, join, quoted
from readers.rooms.timeline import Stretch, Timelines
from readers.sync.event_bytes import client_event, members_of
from readers.sync.request import MOST_LIMIT, MOST_TIMEOUT, SyncRequest
from readers.sync.resources import watch
from readers.sync.service import SyncService

DEFAULT_MESSAGES: Final = 10
MOST_MESSAGES: Final = 100
PEEKED: Final = 100
"""Events of a room that one request is told."""

Json = dict[str, Any]
NOTHING: Final = {"not_types": ["*"]}
"""A filter that lets nothing through."""


class Routes(Protocol):
    """What resources are mounted on."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, service: SyncService, timelines: Timelines, places: Places) -> None:
    """Mounts the endpoints."""
    app.add_route("/_matrix/client/v3/initialSync", InitialSync(service))
    app.add_route("/_matrix/client/v3/events", Events(service, timelines, places))


class InitialSync:
    """GET /initialSync."""

    def __init__(self, service: SyncService) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: Response) -> None:
        """Everything at once: rooms with their state and latest messages, presence, account data."""
        parameters = Parameters(req)
        limit = parameters.limit(DEFAULT_MESSAGES, MOST_MESSAGES)
        archived = parameters.flag("archived") is True
        session, service = req.context.session, self._service
        chosen = {"room": {"timeline": {"limit": limit}, "include_leave": archived}}
        shape = await service.shape(session.user_id, orjson.dumps(chosen).decode(), True)
        told = orjson.loads(await service.sync(SyncRequest(session.user_id, session.device_id, shape)))
        sections = told.get("rooms", {})
        known = [*sections.get("join", {}), *sections.get("leave", {}), *sections.get("invite", {})]
        published = {room_id for (room_id,) in await service.rows("published", room_ids=known)}
        invites = await invitations(service, session.user_id, sections.get("invite", {}))
        rooms: list[Json] = [
            {"room_id": room_id, "membership": "invite", "invite": event} for room_id, event in invites.items()
        ]
        for section in ("join", "leave"):
            for room_id, room in sections.get(section, {}).items():
                rooms.append(_room(room_id, room, session.user_id, section, told["next_batch"]))
        for room in rooms:
            room["visibility"] = "public" if room["room_id"] in published else "private"
        resp.data = orjson.dumps(
            {
                "end": told["next_batch"],
                "rooms": rooms,
                "presence": told.get("presence", {}).get("events", []),
                "account_data": told.get("account_data", {}).get("events", []),
            }
        )
        resp.content_type = JSON


class Events:
    """GET /events."""

    def __init__(self, service: SyncService, timelines: Timelines, places: Places) -> None:
        self._service = service
        self._timelines = timelines
        self._places = places

    async def on_get(self, req: Request, resp: Response) -> None:
        """The events since a token, as soon as there are any; with `room_id` those of one room, which may be peeked into."""
        parameters = Parameters(req)
        start, room_id = parameters.text("from"), parameters.text("room_id")
        timeout = parameters.integer("timeout") or 0
        if timeout < 0:
            raise invalid_param("timeout is a number of milliseconds.")
        seconds = min(timeout / 1000, MOST_TIMEOUT)
        if room_id is not None:
            resp.data = await self._peek(req, room_id, start, seconds)
        else:
            resp.data = await self._stream(req, start, seconds)
        resp.content_type = JSON

    async def _stream(self, req: Request, start: str | None, seconds: float) -> bytes:
        session, service = req.context.session, self._service
        since = after = start or service.token
        chosen = {"room": {"timeline": {"limit": MOST_LIMIT}}, "presence": NOTHING, "account_data": NOTHING}
        shape = await service.shape(session.user_id, orjson.dumps(chosen).decode(), False)
        deadline = monotonic() + seconds
        while True:
            left = max(0.0, deadline - monotonic())
            request = SyncRequest(session.user_id, session.device_id, shape, after, left)
            told = orjson.loads(await service.sync(request, lambda end: watch(req, end)))
            after, sections = told["next_batch"], told.get("rooms", {})
            chunk = list((await invitations(service, session.user_id, sections.get("invite", {}))).values())
            for section in ("join", "leave"):
                for room_id, room in sections.get(section, {}).items():
                    chunk += _of_room(room["timeline"]["events"], room_id)
            # Somebody may only have read or typed something in a room.
            if chunk or not sections or left == 0.0:
                return orjson.dumps({"start": since, "end": after, "chunk": chunk})

    async def _peek(self, req: Request, room_id: str, start: str | None, seconds: float) -> bytes:
        session, timelines, places, service = req.context.session, self._timelines, self._places, self._service
        begun = start or places.present()
        parse_token("from", begun)
        after = await places.order_of("from", begun, places.shard_of(room_id), NOW)
        deadline = monotonic() + seconds
        while True:
            looked_to = await places.order_of("from", places.present(), places.shard_of(room_id), NOW)
            async with timelines.pool.connection() as connection:
                access = await timelines.access(connection, session.user_id, room_id)
                access.reads_at()
                page = await timelines.read(connection, access, Stretch(after, NOW, False), PEEKED, NO_FILTER)
                chunk = await timelines.render(connection, access, page.rows, session.device_id)
            after = page.rows[-1].timeline if page.rows else max(after, looked_to)
            left = deadline - monotonic()
            if chunk or left <= 0 or not await service.stirred(access.nid, after, left, lambda end: watch(req, end)):
                end = str(TimelineToken(after))
                return b'{"start":%b,"end":%b,"chunk":%b}' % (quoted(begun), quoted(end), join(chunk))


async def invitations(service: SyncService, user_id: str, rooms: Iterable[str]) -> dict[str, Json]:
    """The member events that invite a user to rooms, by room."""
    wanted = list(rooms)
    if not wanted:
        return {}
    rows = await service.rows("invite_events", user_id=user_id, room_ids=wanted)
    return {
        room_id: orjson.loads(client_event(members_of(pdu.encode(), event_id), room_id=room_id))
        for room_id, event_id, pdu in rows
    }


def _of_room(events: Iterable[Json], room_id: str) -> list[Json]:
    return [{**event, "room_id": room_id} for event in events]


def _room(room_id: str, room: Json, user_id: str, section: str, end: str) -> Json:
    messages = _of_room(room["timeline"]["events"], room_id)
    state = _of_room(room["state_after"]["events"], room_id)
    membership = section
    for event in (*state, *messages):
        if section == "leave" and event["type"] == "m.room.member" and event.get("state_key") == user_id:
            membership = event["content"].get("membership", section)
    return {
        "room_id": room_id,
        "membership": membership,
        "messages": {"chunk": messages, "start": room["timeline"]["prev_batch"], "end": end},
        "state": state,
        "account_data": room.get("account_data", {}).get("events", []),
    }

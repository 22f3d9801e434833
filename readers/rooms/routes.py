"""Where the reader's endpoints are mounted."""

from __future__ import annotations

from typing import Final, Protocol

from eventlog.head import Head
from eventlog.pools import Pool
from eventlog.settings import Settings
from readers.rooms.events import Context, SingleEvent
from readers.rooms.hierarchy import Hierarchy, RoomSummary
from readers.rooms.initial import EventAlone, RoomInitialSync
from readers.rooms.members import JoinedRooms, Members
from readers.rooms.messages import Messages
from readers.rooms.mutual import MutualRooms
from readers.rooms.places import Places
from readers.rooms.relations import Relations
from readers.rooms.rows import Forms
from readers.rooms.state import State
from readers.rooms.threads import Threads
from readers.rooms.timeline import Timelines
from readers.rooms.timestamps import TimestampToEvent

V1: Final = "/_matrix/client/v1"
V3: Final = "/_matrix/client/v3"


class Routes(Protocol):
    """What resources are mounted on: falcon's application, or what collects routes for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, pool: Pool, head: Head, settings: Settings) -> None:
    """Mounts the endpoints. `pool` is of the role reader, on the primary."""
    timelines = Timelines(pool, Forms())
    places = Places(pool, head, settings.log.shards)
    room, related = f"{V3}/rooms/{{room_id}}", f"{V1}/rooms/{{room_id}}/relations/{{event_id}}"
    state = State(timelines)
    members = Members(timelines, places)
    relations = Relations(timelines, places)
    app.add_route(f"{room}/messages", Messages(timelines, places))
    app.add_route(f"{room}/event/{{event_id}}", SingleEvent(timelines))
    app.add_route(f"{room}/context/{{event_id}}", Context(timelines))
    app.add_route(f"{room}/state", state)
    app.add_route(f"{room}/state/{{event_type}}", state, suffix="key")
    app.add_route(f"{room}/state/{{event_type}}/{{state_key}}", state, suffix="key")
    app.add_route(f"{room}/members", members)
    app.add_route(f"{room}/joined_members", members, suffix="joined")
    app.add_route(f"{V3}/joined_rooms", JoinedRooms(pool))
    app.add_route(related, relations)
    app.add_route(f"{related}/{{rel_type}}", relations)
    app.add_route(f"{related}/{{rel_type}}/{{event_type}}", relations)
    app.add_route(f"{room}/initialSync", RoomInitialSync(timelines, places))
    app.add_route(f"{V3}/events/{{event_id}}", EventAlone(timelines))
    app.add_route(f"{V1}/mutual_rooms", MutualRooms(pool))
    app.add_route(f"{V1}/rooms/{{room_id}}/hierarchy", Hierarchy(pool))
    app.add_route(f"{V1}/room_summary/{{room_id_or_alias}}", RoomSummary(pool))
    app.add_route(f"{V1}/rooms/{{room_id}}/threads", Threads(timelines, places))
    app.add_route(f"{V1}/rooms/{{room_id}}/timestamp_to_event", TimestampToEvent(timelines))

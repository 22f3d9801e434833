"""The room directory: which rooms are published, and the list of them.

Invariant: the order is by joined members, then room id, and a token is a place in it, so that paging needs no memory. A page looks
at `MOST_LOOKED_AT` rooms at most; one that finds too few says where to go on.
Source: client-server API, "Published room directory".
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import bad_json, forbidden, invalid_param, not_found
from matrix.identifiers import is_room_id
from matrix.redaction import redact_content
from matrix.room_description import DESCRIBING_TYPES, describe
from matrix.room_versions import ROOM_VERSIONS
from writer.federating import unknown_room
from writer.log_writer import LogWriter
from writer.permissions import POWER_KEYS, may_set_state, membership_of
from writer.requests import Body, boolean, check_room_id, integer, json_object, page_size, read_body, session_of, text

SQL = Queries("writer", "public_rooms.sql")

DEFAULT_PAGE = 50
MOST_PAGE = 500
MOST_LOOKED_AT = 5000
CHUNK = 200
_GREATEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the directory, and which way a token there leads."""

    joined: int
    room_id: str
    forward: bool = True

    def __str__(self) -> str:
        text = f"{'f' if self.forward else 'b'}{self.joined}_{self.room_id}"
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def parse(cls, token: str) -> Place:
        """Reads a token; M_INVALID_PARAM for anything but one of ours."""
        try:
            plain = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
        except (binascii.Error, ValueError):
            plain = ""
        joined, _, room_id = plain[1:].partition("_")
        if plain[:1] not in ("f", "b") or not joined.isdecimal() or len(joined) > 9 or not is_room_id(room_id):
            raise invalid_param("since is no token of this list.")
        return cls(int(joined), room_id, plain[0] == "f")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a room must have to be listed. `room_types` None: any; a None in it: rooms without a type."""

    term: str | None = None
    room_types: tuple[str | None, ...] | None = None

    def takes(self, room: dict[str, Any]) -> bool:
        """Whether the room's entry in the list matches."""
        if self.room_types is not None and room.get("room_type") not in self.room_types:
            return False
        if not self.term:
            return True
        term = self.term.casefold()
        return any(term in room.get(name, "").casefold() for name in ("name", "topic", "canonical_alias"))


class PublicRooms:
    """GET and POST /publicRooms, /directory/list/room/{room_id}."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, pool: Pool, log: LogWriter, server_name: str) -> None:
        self._pool = pool
        self._log = log
        self._server_name = server_name

    async def on_get(self, req: Request, resp: Response) -> None:
        """A page of the directory."""
        self._check_server(req)
        limit = page_size(req, DEFAULT_PAGE, MOST_PAGE)
        resp.media = await self._page(limit, req.get_param("since"), Wanted())

    async def on_post(self, req: Request, resp: Response) -> None:
        """A page of the directory, filtered."""
        self._check_server(req)
        body = await read_body(req, optional=True)
        limit = integer(body, "limit", DEFAULT_PAGE)
        if limit < 1:
            raise invalid_param("limit must be a positive number.")
        network, everything = text(body, "third_party_instance_id"), boolean(body, "include_all_networks")
        if network and everything:
            # "Can only be used if include_all_networks is false."
            raise invalid_param("third_party_instance_id goes with include_all_networks false alone.")
        if network:
            # Rooms come into such a network's list through an application service, and there is none here.
            resp.media = {"chunk": [], "total_room_count_estimate": 0}
            return
        resp.media = await self._page(min(limit, MOST_PAGE), text(body, "since"), _wanted(body))

    async def on_get_visibility(self, req: Request, resp: Response, room_id: str) -> None:
        """Whether a room is published."""
        resp.media = {"visibility": "public" if await self._is_published(room_id) else "private"}

    async def on_put_visibility(self, req: Request, resp: Response, room_id: str) -> None:
        """Publishes a room or takes it from the list: who may name its canonical alias may."""
        session, body = session_of(req), await read_body(req, optional=True)
        visibility = text(body, "visibility") or "public"
        if visibility not in ("public", "private"):
            raise invalid_param("visibility must be public or private.")
        published = await self._is_published(room_id)
        if not session.admin:
            view = await self._log.view(room_id, [*POWER_KEYS, ("m.room.member", session.user_id)])
            joined = membership_of(view.state.get(("m.room.member", session.user_id))) == "join"
            if not joined or not may_set_state(view, session.user_id, "m.room.canonical_alias"):
                raise forbidden("You may not publish this room, or take it from the list.")
        if published != (visibility == "public"):
            await self._log.append_entry(
                type="directory",
                user_id=session.user_id,
                content={"room_id": room_id, "published": not published},
                room_id=room_id,
            )
        resp.media = {}

    def _check_server(self, req: Request) -> None:
        server = req.get_param("server")
        if server and server != self._server_name:
            raise not_found("This server cannot ask others for their rooms.")

    async def _is_published(self, room_id: str) -> bool:
        check_room_id(room_id)
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["visibility"], {"room_id": room_id})).fetchone()
        if row is None:
            raise unknown_room(room_id, self._server_name)
        return bool(row[0])

    async def _page(self, limit: int, since: str | None, wanted: Wanted) -> dict[str, Any]:
        start = Place.parse(since) if since else None
        forward = start is None or start.forward
        place = start or Place(_GREATEST, "")
        query = SQL["published"] if forward else SQL["published_before"]
        found: list[tuple[Place, dict[str, Any]]] = []
        looked_at, more = 0, True
        async with self._pool.connection() as connection:
            total = await (await connection.execute(SQL["number"])).fetchone()
            while more and len(found) <= limit and looked_at < MOST_LOOKED_AT:
                # One more than asked for tells whether there is a next page.
                most = CHUNK if wanted != Wanted() else limit + 1
                cursor = await connection.execute(
                    query,
                    {"joined": place.joined, "room_id": place.room_id, "types": list(DESCRIBING_TYPES), "most": most},
                )
                rows = await cursor.fetchall()
                more = len(rows) == most
                looked_at += len(rows)
                for room_id, version, joined, state in rows:
                    place = Place(joined, room_id)
                    room = describe(room_id, joined, _contents(version, state))
                    if wanted.takes(room):
                        found.append((place, room))
        more = more or len(found) > limit
        last = found[limit - 1][0] if len(found) > limit else place
        found = found[:limit]
        if not forward:
            found.reverse()
        page: dict[str, Any] = {
            "chunk": [room for _, room in found],
            "total_room_count_estimate": total[0] if total else 0,
        }
        ends = (found[0][0], last) if forward and found else (last, found[-1][0] if found else place)
        if more or not forward:
            page["next_batch"] = str(Place(ends[1].joined, ends[1].room_id, True))
        if (start is not None) if forward else more:
            page["prev_batch"] = str(Place(ends[0].joined, ends[0].room_id, False))
        return page


def _wanted(body: Body) -> Wanted:
    chosen = json_object(body, "filter")
    if chosen is None:
        return Wanted()
    room_types = chosen.get("room_types")
    if room_types is not None and (
        not isinstance(room_types, list) or not all(one is None or isinstance(one, str) for one in room_types)
    ):
        raise bad_json("room_types must be a list of strings and null.")
    return Wanted(text(chosen, "generic_search_term"), None if room_types is None else tuple(room_types))


def _contents(version: str, state: str | None) -> dict[str, dict[str, Any]]:
    """Contents by type, as redactions leave them, of the JSON of [type, event, whether it is redacted] triples."""
    return {
        kind: redact_content(kind, event["content"], ROOM_VERSIONS[version]) if redacted else event["content"]
        for kind, event, redacted in (orjson.loads(state) if state else ())
    }

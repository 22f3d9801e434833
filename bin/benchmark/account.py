"""The client-server API as one user sees it; every call is one request, and any status but 200 is an exception.

Request heads are encoded once per account, because the generator's time is taken from the server it measures. Specification:
client-server API, sections "Account registration", "Rooms", "Syncing" and "Getting historical messages".
"""

import time
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from bin.benchmark.connection import Origin, Response

Json = dict[str, Any]

REQUEST_TIMEOUT = 120.0
"""Seconds; a stalled fsync on a shared disk has been seen to take 13."""

ROOM_VERSION = "12"


class Refused(Exception):
    """The server answered with another status than 200; `status` and `body` are what it said."""

    def __init__(self, call: str, response: Response) -> None:
        super().__init__(f"{call} → {response.status} {response.body[:300].decode(errors='replace')}")
        self.status = response.status
        self.body = response.body


def encode(method: str, path: str, head: bytes, body: bytes | None) -> bytes:
    """The bytes of a request; `head` holds the constant header lines, each ended by CRLF."""
    start = f"{method} {path} HTTP/1.1\r\n".encode()
    if body is None:
        return start + head + b"\r\n"
    return b"%s%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (start, head, len(body), body)


def parse(call: str, response: Response) -> Json:
    """The JSON object of a 200; raises Refused for another status."""
    if response.status != 200:
        raise Refused(call, response)
    parsed: Json = orjson.loads(response.body)
    return parsed


class Account:
    """A registered user with one device; room ids and tokens are the server's own strings."""

    def __init__(self, origin: Origin, user_id: str, token: str) -> None:
        self.origin = origin
        self.user_id = user_id
        self._head = f"Host: {origin.host}:{origin.port}\r\nAuthorization: Bearer {token}\r\n".encode()
        self._sent = 0
        self._session = f"{time.time_ns():x}"
        self._filters: dict[str, str] = {}

    @classmethod
    async def register(cls, origin: Origin, localpart: str) -> "Account":
        """POST /register, twice if the server first names the dummy stage's session (the specification's flow)."""
        head = f"Host: {origin.host}:{origin.port}\r\n".encode()
        body: Json = {
            "username": localpart,
            "password": f"correct horse {localpart}",
            "auth": {"type": "m.login.dummy"},
        }
        for _ in range(2):
            request = encode("POST", "/_matrix/client/v3/register", head, orjson.dumps(body))
            response = await origin.request(request, REQUEST_TIMEOUT)
            if response.status != 401:
                break
            body["auth"] = {"type": "m.login.dummy", "session": orjson.loads(response.body).get("session")}
        answer = parse("POST /register", response)
        return cls(origin, answer["user_id"], answer["access_token"])

    async def call(
        self, method: str, path: str, body: Json | None = None, timeout: float = REQUEST_TIMEOUT
    ) -> tuple[Json, Response]:
        """Any endpoint below /_matrix/client; the parsed object and the response it came in."""
        payload = None if body is None else orjson.dumps(body)
        request = encode(method, "/_matrix/client" + path, self._head, payload)
        response = await self.origin.request(request, timeout)
        return parse(f"{method} {path[:80]}", response), response

    async def create_room(self, **options: Any) -> str:
        answer, _ = await self.call("POST", "/v3/createRoom", {"room_version": ROOM_VERSION, **options})
        room_id: str = answer["room_id"]
        return room_id

    async def join(self, room_id: str) -> None:
        await self.call("POST", f"/v3/rooms/{quote(room_id, safe='')}/join", {})

    def message(self, room_id: str, body: str) -> bytes:
        """The bytes of a PUT of an m.room.message with a transaction id of its own."""
        self._sent += 1
        path = f"/_matrix/client/v3/rooms/{quote(room_id, safe='')}/send/m.room.message/{self._session}.{self._sent}"
        return encode("PUT", path, self._head, orjson.dumps({"msgtype": "m.text", "body": body}))

    async def put_message(self, request: bytes) -> tuple[str, Response]:
        """Sends what `message` made; the event id."""
        response = await self.origin.request(request, REQUEST_TIMEOUT)
        event_id: str = parse("PUT send", response)["event_id"]
        return event_id, response

    async def send(self, room_id: str, body: str) -> str:
        event_id, _ = await self.put_message(self.message(room_id, body))
        return event_id

    async def set_state(self, room_id: str, kind: str, state_key: str, content: Json) -> str:
        room, key = quote(room_id, safe=""), quote(state_key, safe="")
        answer, _ = await self.call("PUT", f"/v3/rooms/{room}/state/{kind}/{key}", content)
        event_id: str = answer["event_id"]
        return event_id

    async def filter(self, timeline_limit: int) -> str:
        """A stored filter with lazily loaded members, as a client has it; its id."""
        name = str(timeline_limit)
        if name not in self._filters:
            definition = {
                "room": {"timeline": {"limit": timeline_limit}, "state": {"lazy_load_members": True}},
                "presence": {"types": []},
            }
            user = quote(self.user_id, safe="")
            answer, _ = await self.call("POST", f"/v3/user/{user}/filter", definition)
            self._filters[name] = answer["filter_id"]
        return self._filters[name]

    async def poll(self, since: str | None, timeout: float, filter_id: str | None) -> Response:
        """GET /sync, waiting up to `timeout` seconds on the server; the response unread, whatever its status."""
        query: dict[str, str] = {"timeout": str(int(timeout * 1000))}
        if since is not None:
            query["since"] = since
        if filter_id is not None:
            query["filter"] = filter_id
        request = encode("GET", "/_matrix/client/v3/sync?" + urlencode(query), self._head, None)
        return await self.origin.request(request, timeout + REQUEST_TIMEOUT)

    async def sync(
        self, since: str | None = None, timeout: float = 0.0, filter_id: str | None = None
    ) -> tuple[Json, Response]:
        """What `poll` brought, parsed."""
        response = await self.poll(since, timeout, filter_id)
        return parse("GET /sync", response), response

    async def messages(
        self, room_id: str, start: str | None, end: str | None = None, limit: int = 100
    ) -> tuple[Json, Response]:
        """A page of /messages backwards from the token `start` (from the room's end if None), towards `end` if given."""
        query = {"dir": "b", "limit": str(limit)}
        if start is not None:
            query["from"] = start
        if end is not None:
            query["to"] = end
        return await self.call("GET", f"/v3/rooms/{quote(room_id, safe='')}/messages?{urlencode(query)}")

    async def joined_rooms(self) -> list[str]:
        answer, _ = await self.call("GET", "/v3/joined_rooms")
        rooms: list[str] = answer["joined_rooms"]
        return rooms

    async def joined_members(self, room_id: str) -> set[str]:
        answer, _ = await self.call("GET", f"/v3/rooms/{quote(room_id, safe='')}/joined_members")
        return set(answer["joined"])

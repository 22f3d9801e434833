"""People who use a server over HTTP: they send, try again, and note everything that /sync brings them, in order.

Invariant: what a server answers is never corrected: an event that comes twice is noted twice. A request is repeated only as
the specification lets clients repeat it: after a 5xx or a broken connection, with the same transaction id.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

V3 = "/_matrix/client/v3/"
PATIENCE = 90.0
"""Seconds that a repeated request is given, over crash recovery."""
PAGES = 2000
Json = dict[str, Any]

_numbers = itertools.count(1)
_run = f"{random.getrandbits(32):08x}"


class Refused(Exception):
    """An answer that trying again will not change."""

    def __init__(self, status: int, body: Any, request: str) -> None:
        super().__init__(f"{request}: {status} {body}")
        self.status = status
        self.errcode = body.get("errcode") if isinstance(body, dict) else None


def segment(text: str) -> str:
    """A path segment."""
    return quote(text, safe="")


class Person:
    """One device of one user. `timelines` holds, by room, the events that the sync loop has brought, oldest first."""

    def __init__(self, url: str, name: str | None = None, *, timeline_limit: int = 100) -> None:
        self.url = url
        self.patience = PATIENCE
        self.filter = json.dumps({"room": {"timeline": {"limit": timeline_limit}}})
        self.name = name or f"person{next(_numbers)}-{_run}"
        self.user_id = self.token = ""
        self.timelines: dict[str, list[Json]] = {}
        self.joined: dict[str, Json] = {}
        self.invites: dict[str, Json] = {}
        self.seen: dict[str, set[str]] = {}
        self.gaps = self.repeats = self.failures = 0
        self.last_failure = ""
        self.since: str | None = None
        self.ephemeral: dict[str, list[Json]] = {}
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        timeout = aiohttp.ClientTimeout(total=60, sock_connect=10)
        self._http = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.rest()
        finally:
            await self._http.close()

    async def once(self, method: str, path: str, body: Any = None, **parameters: str) -> tuple[int, Any]:
        """One request, not repeated: status and body. Paths are below /_matrix/client/v3/ unless they begin with a slash."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        url = self.url + (path if path.startswith("/") else V3 + path)
        address = URL(url, encoded=True)
        async with self._http.request(
            method, address.update_query(parameters) if parameters else address, json=body, headers=headers
        ) as answer:
            return answer.status, await answer.json()

    async def call(self, method: str, path: str, body: Any = None, **parameters: str) -> Any:
        """One request; the body of a 200. Raises Refused."""
        status, answer = await self.once(method, path, body, **parameters)
        if status != 200:
            raise Refused(status, answer, f"{method} {path}")
        return answer

    async def insist(
        self, method: str, path: str, body: Any = None, seconds: float | None = None, **parameters: str
    ) -> Any:
        """The same request again and again while the server fails; the body of a 200. Raises Refused, TimeoutError."""
        seconds = self.patience if seconds is None else seconds
        end, pause, last = time.monotonic() + seconds, 0.02, ""
        while True:
            try:
                status, answer = await self.once(method, path, body, **parameters)
                if status == 200:
                    return answer
                if status < 500:
                    raise Refused(status, answer, f"{method} {path}")
                last = f"{status} {answer}"
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                last = repr(error)
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path} after {seconds:.0f} s: {last}")
            self.repeats += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def register(self, password: str = "a fine password") -> Self:
        """Make the account and log in."""
        body = {"username": self.name, "password": password, "auth": {"type": "m.login.dummy"}}
        made = await self.call("POST", "register", body)
        self.user_id, self.token = made["user_id"], made["access_token"]
        return self

    async def create_room(self, **options: Any) -> str:
        """A room that anybody may join, unless the options say otherwise."""
        made = await self.call("POST", "createRoom", {"preset": "public_chat", **options})
        return str(made["room_id"])

    async def invite(self, room_id: str, user_id: str) -> None:
        await self.insist("POST", f"rooms/{segment(room_id)}/invite", {"user_id": user_id})

    async def join(self, room_id: str) -> None:
        await self.insist("POST", f"rooms/{segment(room_id)}/join", {})

    async def leave(self, room_id: str) -> None:
        await self.insist("POST", f"rooms/{segment(room_id)}/leave", {})

    async def send(self, room_id: str, text: str, txn: str | None = None, seconds: float | None = None) -> str:
        """Send a message until it is acknowledged, always under one transaction id; its event id."""
        path = f"rooms/{segment(room_id)}/send/m.room.message/{txn or f'{_run}.{next(_numbers)}'}"
        answer = await self.insist("PUT", path, {"msgtype": "m.text", "body": text}, seconds)
        return str(answer["event_id"])

    async def set_state(self, room_id: str, kind: str, content: Json, state_key: str = "") -> str:
        """Set a state event; its event id."""
        path = f"rooms/{segment(room_id)}/state/{kind}/{segment(state_key)}"
        return str((await self.insist("PUT", path, content))["event_id"])

    def listen(self, poll: float = 10.0) -> None:
        """Begin to sync, for ever."""
        self._task = asyncio.create_task(self._listen(poll))
        # Who waits for an event must hear that none will come.
        self._task.add_done_callback(lambda _: self._news.set())

    async def rest(self) -> None:
        """Stop syncing. Raises what ended the loop, if anything did."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def _listen(self, poll: float) -> None:
        pause = 0.02
        while True:
            try:
                await self.sync(poll)
                pause = 0.02
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.last_failure = repr(error)
            except Refused as refusal:
                if refusal.status < 500:
                    raise
                self.last_failure = str(refusal)
            else:
                continue
            self.failures += 1
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def sync(self, poll: float = 0.0) -> Json:
        """One /sync from where the last one ended, noted; its body."""
        since = self.since
        parameters = {"timeout": str(int(poll * 1000)), "filter": self.filter} | ({"since": since} if since else {})
        answer: Json = await self.call("GET", "sync", **parameters)
        noted: dict[str, list[Json]] = {}
        rooms = answer.get("rooms", {})
        for part in ("join", "leave"):
            for room_id, room in rooms.get(part, {}).items():
                timeline = room.get("timeline", {})
                events = timeline.get("events", [])
                if timeline.get("limited") and timeline.get("prev_batch"):
                    events = await self._before(room_id, timeline["prev_batch"]) + events
                noted[room_id] = events
        # Only now, whole: whatever fails above is asked for again from the same token.
        for room_id, events in noted.items():
            self.timelines.setdefault(room_id, []).extend(events)
            self.seen.setdefault(room_id, set()).update(event["event_id"] for event in events)
            ephemeral = rooms.get("join", {}).get(room_id, {}).get("ephemeral", {}).get("events", [])
            self.ephemeral.setdefault(room_id, []).extend(ephemeral)
        self.joined.update(rooms.get("join", {}))
        self.invites.update(rooms.get("invite", {}))
        self.since = answer["next_batch"]
        self._news.set()
        self._news = asyncio.Event()
        return answer

    async def _before(self, room_id: str, token: str) -> list[Json]:
        """What came between the last event that is noted and a limited timeline."""
        self.gaps += 1
        known = self.seen.get(room_id, ())
        found: list[Json] = []
        path = f"rooms/{segment(room_id)}/messages"
        for _ in range(PAGES):
            page = await self.call("GET", path, **{"dir": "b", "from": token, "limit": "200"})
            for event in page["chunk"]:
                if event["event_id"] in known:
                    return found[::-1]
                found.append(event)
            if not page.get("end"):
                return found[::-1]
            token = page["end"]
        raise AssertionError(f"more than {PAGES} pages in {room_id}")

    def event_ids(self, room_id: str) -> list[str]:
        """The event ids noted in a room, in order."""
        return [event["event_id"] for event in self.timelines.get(room_id, ())]

    async def until_seen(self, room_id: str, event_id: str, seconds: float = PATIENCE) -> None:
        """Wait until the sync loop has brought an event."""
        await self.until(room_id, lambda _: event_id in self.seen.get(room_id, ()), seconds)

    async def until(self, room_id: str, wanted: Callable[[list[Json]], bool], seconds: float = PATIENCE) -> None:
        """Wait until what the sync loop has noted of a room is as wanted."""
        async with asyncio.timeout(seconds):
            while not wanted(self.timelines.get(room_id, [])):
                if self._task is not None and self._task.done():
                    self._task.result()
                await self._news.wait()

"""The HTTP face of the sync reader.

Source: client-server API, "GET /_matrix/client/v3/sync".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from falcon.asgi import App, Request, Response

from matrix.errors import invalid_param, missing_param
from readers.sync.request import MOST_TIMEOUT, SyncRequest
from readers.sync.service import SyncService

JSON: Final = "application/json"
PRESENCES: Final = ("online", "offline", "unavailable")


class SyncResource:
    """GET /sync. Authentication has put the session into the request's context before."""

    def __init__(self, service: SyncService, polls: Polls | None = None) -> None:
        self._service = service
        self._polls = polls

    async def on_get(self, req: Request, resp: Response) -> None:
        """Answers when there is something to say, or the timeout has passed."""
        session = req.context.session
        parameters = req.params
        service = self._service
        shape = await service.shape(session.user_id, _one(parameters, "filter"), _flag(parameters, "use_state_after"))
        if (presence := _one(parameters, "set_presence")) and presence not in PRESENCES:
            raise invalid_param("set_presence is online, offline or unavailable.")
        request = SyncRequest(
            session.user_id,
            session.device_id,
            shape,
            _one(parameters, "since"),
            _timeout(parameters),
            _flag(parameters, "full_state"),
        )
        if self._polls is None:
            resp.data = await service.sync(request, lambda end: watch(req, end))
        else:
            self._polls.polled(session.user_id, session.device_id, presence or "online", request.timeout)
            try:
                resp.data = await service.sync(request, lambda end: watch(req, end))
            finally:
                self._polls.answered(session.user_id, session.device_id)
        resp.content_type = JSON


class KeyChangesResource:
    """GET /keys/changes."""

    def __init__(self, service: SyncService) -> None:
        self._service = service

    async def on_get(self, req: Request, resp: Response) -> None:
        """Whose devices changed since a token, and who shares no room any more. `to` is a hint that is not needed here."""
        since = _one(req.params, "from")
        if not since:
            raise missing_param("from is missing.")
        if to := _one(req.params, "to"):
            self._service.check_token(to)
        lists = await self._service.key_changes(req.context.session.user_id, since)
        resp.media = {"changed": lists.changed, "left": lists.left}


class Polls(Protocol):
    """Who wants to know of polls, for they show who is present."""

    def polled(self, user_id: str, device_id: str, presence: str, seconds: float) -> None:
        """A client polls, for as many seconds at most, and wants its user to be seen so."""

    def answered(self, user_id: str, device_id: str) -> None:
        """The poll has ended."""


def add_routes(app: App[Any, Any], service: SyncService, polls: Polls | None = None) -> None:
    """Mounts the reader's endpoints."""
    app.add_route("/_matrix/client/v3/sync", SyncResource(service, polls))
    app.add_route("/_matrix/client/v3/keys/changes", KeyChangesResource(service))


def watch(req: Request, end: Callable[[], None]) -> Callable[[], None]:
    """Calls `end` when the client goes away; returns what stops watching.

    Falcon tells nobody who is not streaming. The request's body has been read, so the next ASGI message is the disconnect.
    """

    async def wait() -> None:
        while (await req._receive())["type"] != "http.disconnect":
            pass
        end()

    task = asyncio.get_running_loop().create_task(wait())

    def stop() -> None:
        task.cancel()

    return stop


def _one(parameters: Mapping[str, str | list[str]], name: str) -> str:
    value = parameters.get(name, "")
    return value[-1] if isinstance(value, list) else value


def _flag(parameters: Mapping[str, str | list[str]], name: str) -> bool:
    value = _one(parameters, name)
    if value not in ("", "true", "false"):
        raise invalid_param(f"{name} is true or false.")
    return value == "true"


def _timeout(parameters: Mapping[str, str | list[str]]) -> float:
    value = _one(parameters, "timeout")
    if not value:
        return 0.0
    if not value.isascii() or not value.isdecimal() or len(value) > 18:
        raise invalid_param("timeout is a number of milliseconds.")
    return min(int(value) / 1000, MOST_TIMEOUT)

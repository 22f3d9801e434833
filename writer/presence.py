"""Presence: who is online, idle or away, as their clients' polls and what they do show it.

Invariant: the log gets an entry when what others see changes, and one now and then that renews it; a poll costs a look in a
dictionary. Presence holds until a time that its entry names, so that a process that dies leaves nobody online for long; a process
says that somebody is gone only of whom it answered for last (`expected`). Source: client-server API, "Presence".
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import psycopg
import structlog
from falcon.asgi import Request, Response

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import unsafe
from eventlog.standing import end, stand
from matrix.errors import MatrixError, bad_json, forbidden, invalid_param, missing_param
from matrix.identifiers import is_user_id
from writer.log_writer import LogWriter
from writer.requests import check_own, read_body, session_of

SQL = Queries("writer", "presence.sql")
log = structlog.get_logger(__name__)

OFFLINE_SECONDS: Final = 30.0
"""Without a poll, after which a client counts as gone."""
IDLE_MS: Final = 5 * 60_000
"""Without anything done, after which who is online counts as unavailable."""
LEASE_MS: Final = 10 * 60_000
"""How long presence holds unless it is renewed; it is when half of that is left."""
TAKE_OVER_SECONDS: Final = 20.0
"""A process whose users another one answers for takes over so often at most; less than OFFLINE_SECONDS, so that nobody flickers."""
SWEEP_SECONDS: Final = 5.0
LAPSE_SECONDS: Final = 60.0
AT_ONCE: Final = 200
"""Entries on their way at once."""
MOST_DEVICES: Final = 100
MOST_STATUS: Final = 1_000
"""Characters of a status message."""
PRESENCES: Final = ("online", "offline", "unavailable")


@dataclass(slots=True)
class Known:
    """What the log says."""

    presence: str = "offline"
    active_at: int = 0
    until: int = 0
    by: str = ""
    position: int = 0


@dataclass(slots=True)
class Local:
    """A user whose clients poll here. `devices` says how each wants to be seen, and when (monotonic) its last poll ends."""

    devices: dict[str, tuple[str, float]] = field(default_factory=dict)
    active_at: int = 0
    known: Known | None = None
    asserted_at: float = 0.0

    def wanted(self, now: float, now_ms: int) -> str:
        """How the user is, going by their clients."""
        live = {presence for presence, until in self.devices.values() if until + OFFLINE_SECONDS > now}
        if "online" in live:
            return "online" if now_ms - self.active_at < IDLE_MS else "unavailable"
        return "unavailable" if live else "offline"


class Presences:
    """The presence of users as this process sees it; `async with` it. Does nothing unless `enabled`."""

    def __init__(self, pool: Pool, log_writer: LogWriter, *, enabled: bool) -> None:
        self.enabled = enabled
        self.name = secrets.token_hex(4)
        self._pool = pool
        self._log = log_writer
        self._locals: dict[str, Local] = {}
        self._dirty: set[str] = set()
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Presences:
        if self.enabled:
            self._log.acted = self.active
            self._task = stand(self._run, "presence")
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(self._task)

    def polled(self, user_id: str, device_id: str, presence: str, seconds: float) -> None:
        """A client polls, for as many seconds at most, and wants its user to be seen so."""
        if not self.enabled:
            return
        local = self._locals.get(user_id)
        if presence == "offline":
            # "If it is offline, the client is not marked as being online when it uses this API."
            if local is not None and local.devices.pop(device_id, None) is not None:
                self._stir(user_id)
            return
        if local is None:
            local = self._locals[user_id] = Local()
        before = local.devices.get(device_id)
        local.devices[device_id] = (presence, monotonic() + seconds)
        if len(local.devices) > MOST_DEVICES:
            del local.devices[next(iter(local.devices))]
        if before is None or before[0] != presence:
            if presence == "online":
                local.active_at = _now()
            self._stir(user_id)
        elif local.known is None or (
            local.known.by != self.name and monotonic() - local.asserted_at > TAKE_OVER_SECONDS
        ):
            self._stir(user_id)

    def answered(self, user_id: str, device_id: str) -> None:
        """A client's poll has ended."""
        local = self._locals.get(user_id)
        if local is not None and (before := local.devices.get(device_id)) is not None:
            local.devices[device_id] = (before[0], monotonic())

    def active(self, user_id: str) -> None:
        """A user has done something."""
        local = self._locals.get(user_id)
        if local is not None:
            local.active_at = _now()
            if local.known is not None and local.known.presence == "unavailable":
                self._stir(user_id)

    def heard(self, user_id: str, position: int, body: dict[str, Any]) -> None:
        """The log has said something of a user's presence, from whichever process."""
        local = self._locals.get(user_id)
        if local is None or (local.known is not None and local.known.position >= position):
            return
        local.known = Known(body["presence"], body["active_at"], body["until"], body["by"], position)
        if body["by"] != self.name and body["presence"] != local.wanted(monotonic(), _now()):
            self._stir(user_id)

    async def put(self, user_id: str, device_id: str, presence: str, body: dict[str, Any]) -> None:
        """A user says how they want to be seen; answers when it is judged."""
        now = _now()
        local = self._locals.setdefault(user_id, Local())
        local.active_at = now
        local.devices[device_id] = (presence, monotonic())
        if presence == "offline":
            del local.devices[device_id]
        await self._append(user_id, local, presence, body)

    def _stir(self, user_id: str) -> None:
        self._dirty.add(user_id)
        self._woken.set()

    async def _run(self) -> None:
        lapsed_at = monotonic()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._woken.wait()
            stirred, self._dirty = self._dirty, set()
            swept = not self._woken.is_set()
            self._woken.clear()
            try:
                await self._settle(list(self._locals) if swept else list(stirred))
                if monotonic() - lapsed_at > LAPSE_SECONDS:
                    lapsed_at = monotonic()
                    await self._end_lapsed()
            except (psycopg.Error, MatrixError, OSError) as error:
                # What is so now will be so at the next sweep.
                log.warning("presence could not be noted", error=str(error).strip())
                await asyncio.sleep(1.0)

    async def _settle(self, users: Iterable[str]) -> None:
        """Notes what has changed of some users, or has to be renewed."""
        now, now_ms = monotonic(), _now()
        due = [(user_id, local) for user_id in users if (local := self._locals.get(user_id)) is not None]
        unknown = [user_id for user_id, local in due if local.known is None]
        if unknown:
            await self._learn(unknown)
        changes = []
        for user_id, local in due:
            wanted, known = local.wanted(now, now_ms), local.known or Known()
            if wanted == "offline":
                if known.presence != "offline" and known.by == self.name:
                    changes.append(self._append(user_id, local, wanted, {"expected": known.position}))
                self._locals.pop(user_id, None)
                continue
            foreign = known.by != self.name and now - local.asserted_at > TAKE_OVER_SECONDS
            if wanted != known.presence or known.until - now_ms < LEASE_MS // 2 or foreign:
                local.asserted_at = now
                changes.append(self._append(user_id, local, wanted, {}))
        for start in range(0, len(changes), AT_ONCE):
            for failed in await asyncio.gather(*changes[start : start + AT_ONCE], return_exceptions=True):
                if isinstance(failed, Exception):
                    log.warning("presence could not be noted", error=str(failed).strip())

    async def _learn(self, users: list[str]) -> None:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(SQL["known"], {"users": users})).fetchall()
        found = {user_id: Known(*rest) for user_id, *rest in rows}
        for user_id in users:
            local = self._locals.get(user_id)
            if local is not None and local.known is None:
                local.known = found.get(user_id, Known())
                local.active_at = max(local.active_at, local.known.active_at)

    async def _append(self, user_id: str, local: Local, presence: str, more: dict[str, Any]) -> None:
        now = _now()
        content = {
            "presence": presence,
            "active_at": local.active_at or now,
            "until": 0 if presence == "offline" else now + LEASE_MS,
            "by": self.name,
            **more,
        }
        sent = await self._log.append_entry(type="presence", user_id=user_id, content=content)
        if "expected" not in more:
            self.heard(user_id, sent.position, content)

    async def _end_lapsed(self) -> None:
        """Says of whom nobody answers for any more that they are gone."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["lapsed"], {"now": _now(), "most": AT_ONCE})
            rows = await cursor.fetchall()
        for user_id, position in rows:
            if user_id not in self._locals:
                await self._append(user_id, Local(), "offline", {"expected": position})


def _now() -> int:
    return int(time.time() * 1000)


class PresenceResource:
    """/presence/{user_id}/status."""

    def __init__(self, pool: Pool, presences: Presences) -> None:
        self._pool = pool
        self._presences = presences

    async def on_put(self, req: Request, resp: Response, user_id: str) -> None:
        """Says how the requester wants to be seen."""
        session, body = session_of(req), await read_body(req)
        check_own(session, user_id)
        presence, status = body.get("presence"), body.get("status_msg")
        if presence is None:
            raise missing_param("presence is missing.")
        if presence not in PRESENCES:
            raise invalid_param(f"presence is one of: {', '.join(PRESENCES)}.")
        if status is not None and not isinstance(status, str):
            raise bad_json("status_msg must be a string.")
        if status is not None and len(status) > MOST_STATUS:
            raise invalid_param(f"status_msg may have {MOST_STATUS} characters.")
        self._check_enabled()
        await self._presences.put(user_id, session.device_id or "", presence, {"status_msg": status})
        resp.media = {}

    async def on_get(self, req: Request, resp: Response, user_id: str) -> None:
        """How a user is present; M_FORBIDDEN unless the requester shares a room with them."""
        session = session_of(req)
        if not is_user_id(user_id):
            raise invalid_param("Not a user ID.")
        self._check_enabled()
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["seen_by"], {"asker": session.user_id, "user_id": user_id})
            row = await cursor.fetchone()
        if row is None or not row[4]:
            raise forbidden("You are not allowed to see their presence.")
        presence, status, active_at, until, _ = row
        if presence is None or (presence != "offline" and until < _now()):
            presence = "offline"
        answer: dict[str, Any] = {"presence": presence}
        if active_at is not None:
            answer["last_active_ago"] = max(0, _now() - active_at)
        if presence == "online":
            answer["currently_active"] = True
        if status is not None:
            answer["status_msg"] = unsafe(status)
        resp.media = answer

    def _check_enabled(self) -> None:
        if not self._presences.enabled:
            raise forbidden("Presence is switched off on this server.")

"""Access tokens and the sessions they stand for.

Invariant: the cache only ever says yes. A token it does not know is looked up; what it knows is at most `TTL_SECONDS` old and was
not ended since, because every change is announced (NOTIFY walden_sessions, payload a user id); and while nobody listens, nothing
is taken from it. Tokens are 32 random bytes in URL-safe base64, of which only the sha256 is ever stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from time import monotonic, time
from typing import Any

import orjson
import psycopg
import structlog
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.standing import end, stand
from matrix.errors import unknown_token

log = structlog.get_logger(__name__)
SQL = Queries("eventlog", "sessions.sql")

TTL_SECONDS = 30.0
MOST_SESSIONS = 50_000
# How often the listening connection is asked whether it still lives.
PROBE_SECONDS = 10.0
# Between attempts to reach a database that is away.
MOST_PAUSE = 0.5
# "Last seen" is kept to the minute.
SEEN_SECONDS = 60.0
MOST_SEEN = 10_000
MOST_USER_AGENT_BYTES = 255


@dataclass(slots=True)
class Session:
    """Who makes a request, with which device. `expires_at` is in seconds since 1970, None for never.

    `locked` and `suspended` are the account's; `user_agent` is what the client last said it is. `watched`: were it ended or
    changed, this value would be told so by being no longer watched.
    """

    user_id: str
    device_id: str
    token_hash: bytes
    admin: bool = False
    guest: bool = False
    expires_at: float | None = None
    loaded_at: float = 0.0
    seen_at: float = 0.0
    locked: bool = False
    suspended: bool = False
    watched: bool = False
    user_agent: str | None = None


def new_token() -> str:
    """A fresh access or refresh token."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> bytes:
    """What is stored of a token."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


class SessionCache:
    """Finds the session of an access token; `async with` it. The pool is of a role that may write `writer.sessions`."""

    def __init__(self, pool: Pool, direct_dsn: str, *, most: int = MOST_SESSIONS, ttl: float = TTL_SECONDS) -> None:
        self._pool = pool
        self._dsn = direct_dsn
        self._most = most
        self._ttl = ttl
        self._sessions: dict[bytes, Session] = {}
        self._of_user: dict[str, set[bytes]] = {}
        self._under_way: list[set[str]] = []
        self._loads: dict[bytes, asyncio.Event] = {}
        self._seen: dict[tuple[str, str], tuple[float, str | None, str | None]] = {}
        self._told: list[Callable[[str], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._tried = asyncio.Event()
        self.listening = False

    async def __aenter__(self) -> SessionCache:
        self._tasks = [
            stand(self._listen, "sessions listen"),
            stand(self._write_seen, "sessions seen"),
        ]
        # Until it is listened, or clear that it cannot be for now: what is asked meanwhile is looked up.
        await self._tried.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        await end(*self._tasks)
        self.listening = False
        self._clear()
        with contextlib.suppress(psycopg.Error, TimeoutError):
            await self._flush_seen()

    def cached(self, token: str) -> Session | None:
        """The session if it is known to be valid now; None says nothing."""
        session = self._sessions.get(token_hash(token))
        if session is None or not self.listening or monotonic() - session.loaded_at > self._ttl:
            return None
        if session.expires_at is not None and session.expires_at <= time():
            return None
        return session

    async def session(self, token: str) -> Session:
        """The session of a token; M_UNKNOWN_TOKEN, with `soft_logout` when the token has only expired."""
        known = self.cached(token)
        if known is None and (under_way := self._loads.get(token_hash(token))) is not None:
            await under_way.wait()
            known = self.cached(token)
        return known if known is not None else await self._load(token_hash(token))

    def forget(self, user_id: str) -> None:
        """Forgets what is known of a user's sessions, as the notification will do in every process."""
        for key in self._of_user.pop(user_id, ()):
            session = self._sessions.pop(key, None)
            if session is not None:
                session.watched = False
        for ended in self._under_way:
            ended.add(user_id)
        for tell in self._told:
            tell(user_id)

    def tell(self, whom: Callable[[str], None]) -> None:
        """Calls `whom` with every user whose sessions are forgotten from now on: some may have been ended or locked."""
        self._told.append(whom)

    def see(self, session: Session, address: str | None) -> None:
        """Notes that a device is in use; written in bulk, once a minute."""
        now = monotonic()
        if now - session.seen_at > SEEN_SECONDS and len(self._seen) < MOST_SEEN:
            session.seen_at = now
            user_agent = session.user_agent
            if user_agent is not None:
                user_agent = user_agent.encode("utf-8", "replace")[:MOST_USER_AGENT_BYTES].decode("utf-8", "ignore")
            self._seen[session.user_id, session.device_id] = (time(), address, user_agent)

    async def _load(self, key: bytes) -> Session:
        with self._watching() as ended, self._loading(key):
            async with self._pool.connection() as connection:
                cursor = await connection.execute(SQL["session"], {"token_hash": key})
                row = await cursor.fetchone()
                if row is None:
                    raise unknown_token()
                user_id, device_id, admin, guest, expires_at, has_older, locked, suspended = row
                if expires_at is not None and expires_at <= time():
                    raise unknown_token("The access token has expired.", soft_logout=True)
                if has_older:
                    # "The old refresh token and access token may be used until the new ones have been" (client-server
                    # API, "Refreshing access tokens"): this is that first use.
                    await connection.execute(SQL["end_older"], {"token_hash": key})
            old = self._sessions.pop(key, None)
            session = Session(user_id, unsafe(device_id), key, admin, guest, expires_at, monotonic())
            session.locked, session.suspended = locked, suspended
            if old is not None:
                old.watched, session.seen_at = False, old.seen_at
            if user_id not in ended and self.listening:
                self._remember(session)
            return session

    @contextlib.contextmanager
    def _watching(self) -> Iterator[set[str]]:
        """Collects the users whose sessions changed while something was looked up."""
        ended: set[str] = set()
        self._under_way.append(ended)
        try:
            yield ended
        finally:
            # By identity: equal sets are not the same one.
            self._under_way[:] = [other for other in self._under_way if other is not ended]

    @contextlib.contextmanager
    def _loading(self, key: bytes) -> Iterator[None]:
        """Lets those who come with the same token meanwhile wait for the end of it: once, then they look for themselves."""
        done = self._loads.setdefault(key, asyncio.Event())
        try:
            yield
        finally:
            if self._loads.get(key) is done:
                del self._loads[key]
            done.set()

    def _remember(self, session: Session) -> None:
        if len(self._sessions) >= self._most:
            oldest = self._sessions.pop(next(iter(self._sessions)))
            oldest.watched = False
            of_user = self._of_user.get(oldest.user_id)
            if of_user is not None:
                of_user.discard(oldest.token_hash)
                if not of_user:
                    del self._of_user[oldest.user_id]
        session.watched = True
        self._sessions[session.token_hash] = session
        self._of_user.setdefault(session.user_id, set()).add(session.token_hash)

    def _clear(self) -> None:
        for session in self._sessions.values():
            session.watched = False
        self._sessions.clear()
        self._of_user.clear()

    async def _listen(self) -> None:
        delay = 0.1
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True, connect_timeout=10) as connection:
                    await connection.execute("listen walden_sessions")
                    # Whatever was ended while nobody listened is not known to have been.
                    self._clear()
                    self.listening = True
                    self._tried.set()
                    delay = 0.1
                    while True:
                        async for notification in connection.notifies(timeout=PROBE_SECONDS):
                            self.forget(notification.payload)
                        async with asyncio.timeout(PROBE_SECONDS):
                            await connection.execute("select")
            except (psycopg.Error, OSError, TimeoutError) as error:
                log.warning("sessions lost their connection", error=str(error).strip(), again_in=delay)
                self._tried.set()
            finally:
                self.listening = False
            await asyncio.sleep(delay)
            delay = min(delay * 2, MOST_PAUSE)

    async def _write_seen(self) -> None:
        while True:
            await asyncio.sleep(SEEN_SECONDS / 2)
            try:
                await self._flush_seen()
            except (psycopg.Error, TimeoutError) as error:
                log.warning("devices' last use not written", error=str(error).strip())

    async def _flush_seen(self) -> None:
        if not self._seen:
            return
        seen, self._seen = self._seen, {}
        rows: list[dict[str, Any]] = [
            {
                "user_id": user_id,
                "device_id": safe(device_id),
                "at": at,
                "ip": address,
                "user_agent": None if user_agent is None else safe(user_agent),
            }
            for (user_id, device_id), (at, address, user_agent) in sorted(seen.items(), key=lambda item: item[0])
        ]
        async with self._pool.connection() as connection:
            await connection.execute(SQL["mark_seen"], {"seen": orjson.dumps(rows).decode()})

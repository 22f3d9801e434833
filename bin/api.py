"""The API application: which services a process opens, and which endpoints answer.

Invariant: everything is opened before the first request and closed after the last, in the opposite order. Writers and readers know
nothing of each other; here is where they meet. Adding a reader with endpoints is one line in `READERS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial

import psycopg
import structlog
from psycopg_pool import PoolTimeout

from bin.connections import MEDIA_CONNECTIONS
from bin.logs import configure_logs
from bin.web import Gate, Routes, build_app
from eventlog.faults import Retries
from eventlog.head import Head
from eventlog.image_decoding import Decoders
from eventlog.key_file import read_key
from eventlog.metrics import handed_over
from eventlog.outgoing import Guard
from eventlog.pools import Pool, component_dsn, make_pool
from eventlog.presence import show
from eventlog.provision import Identity, check_identity
from eventlog.sessions import SessionCache
from eventlog.settings import ConfigurationError, Settings
from eventlog.standing import end, stand
from eventlog.typing_messages import message_key
from readers.media.routes import add_routes as add_media_routes
from readers.notifications.resources import add_routes as add_notification_routes
from readers.rooms.places import Places
from readers.rooms.routes import add_routes as add_room_routes
from readers.rooms.rows import Forms
from readers.rooms.timeline import Timelines
from readers.search.routes import add_routes as add_search_routes
from readers.sync.old import add_routes as add_old_sync_routes
from readers.sync.resources import add_routes as add_sync_routes
from readers.sync.service import SyncService
from readers.userdirectory.resources import add_routes as add_user_directory_routes
from writer.departures import Departures
from writer.guests import Guests
from writer.identity_servers import IdentityServers
from writer.log_writer import LogWriter
from writer.media.pages import Pages
from writer.passwords import Passwords
from writer.presence import Presences
from writer.rate_limits import RateLimits
from writer.routes import add_routes as add_writer_routes
from writer.services import Services
from writer.to_device import Arrivals

log = structlog.get_logger(__name__)

OLD_SYNC_BYTES = 1 << 20
"""Rendered events kept for those who peek: few do."""


class Process:
    """What one API process has open. Made in the worker, opened on its event loop."""

    def __init__(self, settings: Settings, passwords: Passwords) -> None:
        self.settings = settings
        self.routes = Routes()
        self.pool: Pool = make_pool(settings, "writer", name="api")
        self.reader_pool: Pool = make_pool(settings, "reader", name="api readers")
        # Of their own: whoever waits for bytes holds up nobody else.
        self.uploads = make_pool(settings, "writer", name="api uploads", pool_max=MEDIA_CONNECTIONS)
        self.downloads = make_pool(settings, "reader", name="api downloads", pool_max=MEDIA_CONNECTIONS)
        self.decoders = Decoders(settings.media)
        self.pages = Pages(Guard(settings.media.preview_allowed_networks))
        self.identity_servers = IdentityServers(settings.identity)
        self.key = read_key(settings.server.signing_key)
        direct = component_dsn(settings, "writer", direct=True, name="api head")
        self.appends = make_pool(settings, "writer", name="appends", pool_max=1)
        self.head = Head(direct)
        self.sessions = SessionCache(self.pool, component_dsn(settings, "writer", direct=True, name="api sessions"))
        self.log = LogWriter(
            self.pool,
            self.head,
            server_name=settings.server.name,
            key=self.key,
            typing_key=message_key(settings.server.signing_key.read_bytes()),
            shards=settings.log.shards,
            timeout=settings.log.verdict_timeout,
            appends=self.appends,
        )
        self.passwords = passwords
        self.departures = Departures(self.pool, self.log)
        self.guests = Guests(self.pool, self.log)
        self.presences = Presences(self.pool, self.log, enabled=settings.presence.enabled)
        self.arrivals = Arrivals(self.log)
        # On a standby, if one is set, sync has a pool and a head of its own.
        self.standby: tuple[Head, Pool] | None = None
        if settings.database.standby_dsn:
            dsn = component_dsn(settings, "reader", standby=True, name="api standby")
            self.standby = (
                Head(dsn, want_verdicts=False, polls=True),
                make_pool(settings, "reader", name="api standby", standby=True),
            )
        here = self.head, self.reader_pool
        self.sync = SyncService(settings, *(self.standby or here), primary=here)
        self.sessions.tell(self.sync.end)
        self._stack = AsyncExitStack()
        self._presence: asyncio.Task[None] | None = None
        self._weeding: asyncio.Task[None] | None = None
        self.head.watch_returns(self._weed)
        if self.standby is not None:
            self.standby[0].watch_returns(self._weed)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.limits = RateLimits(settings.rate_limits)
        services = Services(
            settings=settings,
            pool=self.pool,
            sessions=self.sessions,
            log=self.log,
            passwords=self.passwords,
            limits=self.limits,
            departures=self.departures,
            guests=self.guests,
            routes=self.routes.methods,
            presences=self.presences,
            media_pool=self.uploads,
            pages=self.pages,
            identity_servers=self.identity_servers,
            decoders=self.decoders,
        )
        add_writer_routes(self.routes, services)
        for add in READERS:
            add(self)

    async def open(self) -> None:
        """Opens pools and followers; the first request comes afterwards. Raises WrongInstallation."""
        stack = self._stack
        stack.callback(self.passwords.close)
        await stack.enter_async_context(handed_over("api"))
        await stack.enter_async_context(self.pool)
        await stack.enter_async_context(self.appends)
        await stack.enter_async_context(self.reader_pool)
        await stack.enter_async_context(self.uploads)
        await stack.enter_async_context(self.downloads)
        await stack.enter_async_context(self.pages)
        await stack.enter_async_context(self.identity_servers)
        await stack.enter_async_context(self.head)
        await self._check_identity()
        await stack.enter_async_context(self.sessions)
        await stack.enter_async_context(self.log)
        await stack.enter_async_context(self.departures)
        await stack.enter_async_context(self.guests)
        await stack.enter_async_context(self.arrivals)
        self.sync.presence_heard = self.presences.heard
        self.sync.received = self.arrivals.received
        if self.standby is not None:
            for part in self.standby:
                await stack.enter_async_context(part)
        await stack.enter_async_context(self.sync)
        await stack.enter_async_context(self.presences)
        dsn = component_dsn(self.settings, "reader", direct=True, name="api")
        self._loop = asyncio.get_running_loop()
        self._presence = stand(partial(show, dsn, "api", lambda: self.sync.feed.positions), "presence")
        log.info("the API is open", routes=sum(1 for _ in self.routes.methods()))

    async def _check_identity(self) -> None:
        """Raises WrongInstallation: who signs with another key than the database's is another server."""
        key, settings = self.key, self.settings
        identity = Identity(settings.server.name, key.key_id, key.verify_key_base64, settings.log.shards)
        for delay in Retries(budget=60.0).delays():
            try:
                async with self.pool.connection() as connection:
                    return await check_identity(connection, identity)
            except (psycopg.OperationalError, PoolTimeout):
                # The database is being restarted: it is waited for, as the head did.
                await asyncio.sleep(delay)
        raise ConfigurationError("the database was not there for a minute: see that it runs")

    def _weed(self) -> None:
        """Takes connections that ended with the database out of the pools: each would cost a request its answer, hours later."""
        if self._weeding is None or self._weeding.done():
            self._weeding = asyncio.create_task(self._look_through_pools(), name="weed")

    async def _look_through_pools(self) -> None:
        pools = [self.pool, self.reader_pool, *([self.standby[1]] if self.standby is not None else [])]
        found = await asyncio.gather(*(pool.check() for pool in pools), return_exceptions=True)
        errors = [str(error) for error in found if error is not None]
        log.info("the database is back: idle connections were looked through", errors=errors or None)

    def stop(self) -> None:
        """Answers the long polls: the process has been told to end. Safe to call from a signal handler."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.sync.stop)

    async def close(self) -> None:
        """Closes everything in the opposite order."""
        await end(self._presence, self._weeding)
        await self._stack.aclose()


def _sync(process: Process) -> None:
    add_sync_routes(process.routes, process.sync, process.presences)  # type: ignore[arg-type]  # it asks for add_route alone


def _rooms(process: Process) -> None:
    add_room_routes(process.routes, process.reader_pool, process.head, process.settings)


def _old_sync(process: Process) -> None:
    pool, shards = process.reader_pool, process.settings.log.shards
    timelines = Timelines(pool, Forms(OLD_SYNC_BYTES))
    add_old_sync_routes(process.routes, process.sync, timelines, Places(pool, process.head, shards))


def _projections(process: Process) -> None:
    add_search_routes(process.routes, process.reader_pool, process.settings)
    add_user_directory_routes(process.routes, process.reader_pool)
    add_notification_routes(process.routes, process.reader_pool)


def _media(process: Process) -> None:
    add_media_routes(process.routes, process.downloads, process.decoders, process.settings)


READERS: tuple[Callable[[Process], None], ...] = (_sync, _old_sync, _rooms, _projections, _media)
"""What adds the endpoints of the readers that answer in this process."""


def compose(settings: Settings, passwords: Passwords | None = None) -> tuple[Process, Gate]:
    """A process's services and the ASGI application that answers with them. Raises ConfigurationError."""
    process = Process(settings, passwords or Passwords())
    gate = build_app(
        process.routes,
        process.sessions,
        process,
        max_body_bytes=settings.client.max_body_bytes,
        trusted_proxies=settings.client.trusted_proxies,
        take=partial(process.limits.take, "request") if settings.rate_limits.enabled else None,
    )
    return process, gate


def create_app(settings: Settings) -> Gate:
    """The ASGI application of a worker process; opens nothing before its lifespan begins. Raises ConfigurationError."""
    configure_logs(settings, "api")
    return compose(settings)[1]

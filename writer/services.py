"""What the endpoints of writers are made of: one value per process, handed to `writer.routes.add_routes`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from eventlog.image_decoding import Decoders
from eventlog.pools import Pool
from eventlog.sessions import SessionCache
from eventlog.settings import Settings
from writer.departures import Departures
from writer.guests import Guests
from writer.identity_servers import IdentityServers
from writer.log_writer import LogWriter
from writer.media.pages import Pages
from writer.passwords import Passwords
from writer.presence import Presences
from writer.rate_limits import RateLimits


@dataclass(frozen=True, slots=True)
class Services:
    """Open when requests come. The pools are of the role walden_writer; `routes` are (method, template) of what is mounted."""

    settings: Settings
    pool: Pool
    sessions: SessionCache
    log: LogWriter
    passwords: Passwords
    limits: RateLimits
    departures: Departures
    guests: Guests
    identity_servers: IdentityServers
    routes: Callable[[], Iterable[tuple[str, str]]]
    presences: Presences
    media_pool: Pool
    pages: Pages
    decoders: Decoders

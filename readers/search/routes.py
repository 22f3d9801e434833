"""Where the search is mounted."""

from __future__ import annotations

from typing import Final, Protocol

from eventlog.pools import Pool
from eventlog.settings import Settings
from readers.rooms.rows import Forms
from readers.rooms.timeline import Timelines
from readers.search.resources import Search

V3: Final = "/_matrix/client/v3"
MOST_FORM_BYTES: Final = 2 << 20


class Routes(Protocol):
    """What resources are mounted on: falcon's application, or what collects routes for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, pool: Pool, settings: Settings) -> None:
    """Mounts the endpoint. `pool` is of the role reader, on the primary."""
    app.add_route(f"{V3}/search", Search(Timelines(pool, Forms(MOST_FORM_BYTES)), settings.search.language))

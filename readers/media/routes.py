"""Where the reader's endpoints are mounted."""

from __future__ import annotations

from typing import Final, Protocol

from eventlog.image_decoding import Decoders
from eventlog.pools import Pool
from eventlog.settings import Settings
from readers.media.finding import Library
from readers.media.resources import Config, Download, LegacyDownload, Sending
from readers.media.thumbnails import LegacyThumbnail, Thumbnail, Thumbnails

V1: Final = "/_matrix/client/v1/media"
LEGACY: Final = "/_matrix/media/v3"
"""`bin.web` leads r0 and v1 of it here."""
ONE: Final = "{server_name}/{media_id}"


class Routes(Protocol):
    """What resources are mounted on: falcon's application, or what collects routes for it."""

    def add_route(self, template: str, resource: object, *, suffix: str | None = None) -> None:
        """Mounts the responders with that suffix."""


def add_routes(app: Routes, pool: Pool, decoders: Decoders, settings: Settings) -> None:
    """Mounts the endpoints. `pool` is of the role reader, on the primary."""
    library = Library(pool, settings.media, settings.server.name)
    sending = Sending()
    thumbnails = Thumbnails(library, decoders, settings.media)
    config = Config(settings)
    for base, download, thumbnail in (
        (V1, Download(library, sending), Thumbnail(library, thumbnails, sending)),
        (LEGACY, LegacyDownload(library, sending), LegacyThumbnail(library, thumbnails, sending)),
    ):
        app.add_route(f"{base}/download/{ONE}", download)
        app.add_route(f"{base}/download/{ONE}/{{file_name}}", download, suffix="named")
        app.add_route(f"{base}/thumbnail/{ONE}", thumbnail)
        app.add_route(f"{base}/config", config)

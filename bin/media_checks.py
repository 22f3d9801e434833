"""What `walden doctor` asks about media: can images be decoded, and is every file there?

Invariant: changes nothing, and starts one process that ends by itself.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import psycopg
from psycopg import AsyncConnection

from bin.findings import Finding, error, fine, warning
from eventlog.configuration import Settings
from eventlog.image_decoding import Decoders
from readers.media.pruning import missing_files

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
"""A PNG of one pixel."""


async def check_media(settings: Settings, connection: AsyncConnection) -> list[Finding]:
    """The findings about media."""
    found = []
    if settings.media.unauthenticated:
        remedy = "set media.unauthenticated = false unless your users' clients are older than 2024"
        found.append(warning("media", "anybody may download, without an account (media.unauthenticated)", remedy))
    decoded = await Decoders(settings.media).run("measure", _dot())
    if decoded.error:
        text = "no image can be decoded, so there are no thumbnails"
        remedy = "raise media.decoder_memory_bytes and media.decoder_seconds, and see that `pip check` is content with Pillow"
        found.append(error("media", text, remedy))
    else:
        found.append(fine("media", "images can be decoded"))
    try:
        count, missing = await missing_files(connection, settings.media.directory)
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
        # The schema is older than that; another finding says so.
        return found
    if missing:
        text = f"{len(missing)} of {count} uploads that are files are not in {settings.media.directory}"
        found.append(error("media", text, "put them back from its backup; `walden media files` names them"))
    elif count:
        found.append(fine("media", f"all {count} uploads that are files are in {settings.media.directory}"))
    return found


async def _dot() -> AsyncIterator[bytes]:
    yield DOT

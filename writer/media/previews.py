"""GET …/media/preview_url: what a page says of itself, and its picture as media of this server.

Invariant: a page is fetched once for all who ask within its time, by the server and not by the asker, and never from where only the
server can reach. Nothing of it is read in this process. Source: client-server API, "Get information about a URL for a client"; The
Open Graph protocol.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final
from urllib.parse import urldefrag, urljoin

import orjson
import structlog
from falcon.asgi import Request
from falcon.asgi import Response as Answer
from prometheus_client import Counter

from eventlog.image_decoding import Decoders
from eventlog.metrics import Tallies
from eventlog.outgoing import Forbidden
from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.settings import Media
from matrix.errors import MatrixError, forbidden, invalid_param, limit_exceeded, missing_param, unknown
from writer.media.pages import Pages, Response, Unreachable, is_fetchable
from writer.media.uploads import Described, Stored, Uploads
from writer.rate_limits import RateLimits
from writer.requests import session_of

SQL = Queries("writer.media", "previews.sql")
log = structlog.get_logger(__name__)

MOST_PAGE_BYTES: Final = 1 << 20
MOST_PICTURE_BYTES: Final = 10 << 20
MOST_MAKING: Final = 32
"""Previews that a process makes at once."""
_PAGES: Final = frozenset(("text/html", "application/xhtml+xml"))
_PREVIEWS = Tallies(Counter("walden_media_previews", "Previews of URLs asked for, by what became of it.", ["outcome"]))


class Previews:
    """Previews as they were made, or made now. The pool is of the role writer."""

    def __init__(
        self, pool: Pool, uploads: Uploads, pages: Pages, decoders: Decoders, settings: Media, name: str
    ) -> None:
        self._pool = pool
        self._uploads = uploads
        self._pages = pages
        self._decoders = decoders
        self._settings = settings
        self._server_name = name
        self._making: dict[bytes, asyncio.Task[bytes]] = {}

    async def kept(self, url: str) -> bytes | None:
        """The preview that there is, as JSON."""
        values = {"url_hash": _key(url), "seconds": self._settings.preview_days * 86_400}
        async with self._pool.connection() as connection:
            row = await (await connection.execute(SQL["kept"], values)).fetchone()
        if row is None:
            return None
        _PREVIEWS.add("kept")
        return str(row[0]).encode()

    async def make(self, url: str) -> bytes:
        """A new preview, as JSON. M_FORBIDDEN for what may not be fetched, 502 for what cannot, M_LIMIT_EXCEEDED."""
        key = _key(url)
        task = self._making.get(key)
        if task is None:
            if len(self._making) >= MOST_MAKING:
                raise limit_exceeded(5_000)
            task = asyncio.create_task(self._make(url, key), name="preview")
            self._making[key] = task
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(task)

    async def _make(self, url: str, key: bytes) -> bytes:
        try:
            said, picture = await self._look(url)
        except Forbidden:
            _PREVIEWS.add("forbidden")
            raise forbidden("That URL leads to where previews are not made of.") from None
        except Unreachable as error:
            _PREVIEWS.add("unreachable")
            log.info("no preview", error=str(error))
            raise unknown(502, "There is nothing to be had behind that URL.") from None
        _PREVIEWS.add("made")
        body = orjson.dumps(said)
        values = {"url_hash": key, "body": body.decode(), "media_id": None if picture is None else picture.media_id}
        async with self._pool.connection() as connection:
            await connection.execute(SQL["keep"], values)
        return body

    async def _look(self, url: str) -> tuple[dict[str, Any], Stored | None]:
        """What is said of a URL, and the picture that was stored with it. Raises Forbidden, Unreachable."""
        async with self._pages.fetch(url, max(MOST_PAGE_BYTES, MOST_PICTURE_BYTES + 1)) as found:
            if found.content_type.startswith("image/"):
                return await self._picture(found)
            if found.content_type not in _PAGES:
                return {}, None
            decoded = await self._decoders.run("page", _first(found, MOST_PAGE_BYTES), charset=found.charset)
            where = found.url
        said: dict[str, Any] = decoded.answer.get("properties", {})
        address = said.get("og:image")
        # What the page says of its picture holds for the page's, not for what is ours.
        said = {name: value for name, value in said.items() if not name.startswith("og:image")}
        if not address:
            return said, None
        try:
            where = urljoin(where, decoded.answer.get("base", ""))
            async with self._pages.fetch(urljoin(where, address), MOST_PICTURE_BYTES + 1) as found:
                if not found.content_type.startswith("image/"):
                    return said, None
                about, stored = await self._picture(found)
                return {**said, **about}, stored
        except (Forbidden, Unreachable, ValueError):
            return said, None

    async def _picture(self, found: Response) -> tuple[dict[str, Any], Stored | None]:
        # A part of a picture is none: one that is too long is not stored.
        try:
            stored = await self._uploads.store(None, _no_more(found, MOST_PICTURE_BYTES), Described.checked(None, None))
        except _TooLong:
            return {}, None
        measured = await self._decoders.run("measure", self._uploads.read(stored.content))
        if measured.error:
            return {}, stored
        await self._uploads.name(stored.media_id, measured.answer["content_type"])
        return {
            "og:image": f"mxc://{self._server_name}/{stored.media_id}",
            "og:image:type": measured.answer["content_type"],
            "og:image:width": measured.answer["width"],
            "og:image:height": measured.answer["height"],
            "matrix:image:size": stored.content.bytes,
        }, stored


class _TooLong(Exception):
    """A picture has more bytes than are kept of one."""


async def _no_more(found: Response, most: int) -> Any:
    count = 0
    async for part in found.body:
        count += len(part)
        if count > most:
            raise _TooLong
        yield part


async def _first(found: Response, most: int) -> Any:
    async for part in found.body:
        yield part[:most]
        most -= len(part)
        if most <= 0:
            return


def _key(url: str) -> bytes:
    return hashlib.sha256(url.encode("utf-8", "surrogatepass")).digest()


class PreviewUrl:
    """GET …/preview_url?url=…"""

    def __init__(self, previews: Previews, limits: RateLimits) -> None:
        self._previews = previews
        self._limits = limits

    async def on_get(self, req: Request, resp: Answer) -> None:
        """What is behind a URL, as OpenGraph properties."""
        url, at = req.get_param("url"), req.get_param("ts")
        if url is None:
            raise missing_param("url is missing.")
        if at is not None and not at.removeprefix("-").isdecimal():
            raise invalid_param("ts is a number of milliseconds.")
        url = urldefrag(url).url if "#" in url else url
        if not is_fetchable(url):
            raise MatrixError(400, "M_UNKNOWN", "That is no URL of http or https.")
        found = await self._previews.kept(url)
        if found is None:
            self._limits.take("preview", session_of(req).user_id)
            found = await self._previews.make(url)
        resp.data = found
        resp.content_type = "application/json"

"""GET …/media/thumbnail: images made smaller, when somebody asks, once.

Invariant: no image is decoded in this process, none twice for one size, and none that failed again. Source: client-server API,
"Thumbnails".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar, Final, NamedTuple

import falcon
from falcon.asgi import Request, Response
from prometheus_client import Counter

from eventlog.blobs import BlobLost
from eventlog.image_decoding import Decoders
from eventlog.metrics import Tallies
from eventlog.settings import Media
from matrix.errors import MatrixError, invalid_param, missing_param, too_large
from readers.media.finding import SQL, Found, Library
from readers.media.headers import disposition
from readers.media.resources import DEFAULT_WAIT_MS, Sending, headers_of, milliseconds
from readers.media.sizes import MOST_CROPS, Method, Size, chosen

PART_BYTES: Final = 131_072
MOST_SIDE: Final = 100_000
_SIGNATURES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM", b"II*\0", b"MM\0*", b"\0\0\1\0")
"""What the images begin with that are decoded. AVIF has its own at the fifth byte."""
_THUMBNAILS = Tallies(Counter("walden_media_thumbnails", "Thumbnails asked for, by what became of it.", ["outcome"]))


class Made(NamedTuple):
    """A thumbnail. Without data it is the content itself; `failure` says why there is none."""

    content_type: str
    data: bytes | None
    failure: str | None = None


class Thumbnails:
    """Thumbnails as they were made, or made now."""

    def __init__(self, library: Library, decoders: Decoders, settings: Media) -> None:
        self._library = library
        self._decoders = decoders
        self._most_bytes = settings.max_image_bytes
        self._making: dict[tuple[int, Size], asyncio.Task[Made]] = {}

    async def find(self, found: Found, size: Size) -> Made:
        """A thumbnail of a content. M_LIMIT_EXCEEDED when too many are being made."""
        made, count = await self._kept(found, size)
        if made is None and size.method == "crop" and count >= MOST_CROPS:
            size = chosen(size.width, size.height, "scale", size.animated) or size
            made, _ = await self._kept(found, size)
        if made is not None:
            _THUMBNAILS.add("kept")
            return made
        key = found.blob.blob, size
        task = self._making.get(key)
        if task is None:
            # Whoever asked first may go away: the others still want it.
            task = asyncio.create_task(self._make(found, size), name="thumbnail")
            self._making[key] = task
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(task)

    async def _kept(self, found: Found, size: Size) -> tuple[Made | None, int]:
        async with self._library.pool.connection() as connection, connection.cursor(binary=True) as cursor:
            await cursor.execute(SQL["thumbnail"], _values(found, size))
            row = await cursor.fetchone()
        assert row is not None
        content_type, data, failure, count = row
        kept = None if content_type is None and failure is None else Made(content_type or "", data, failure)
        return kept, count

    async def _make(self, found: Found, size: Size) -> Made:
        made = await self._decode(found, size)
        _THUMBNAILS.add(made.failure or "made")
        values = {"content_type": made.content_type or None, "data": made.data, "failure": made.failure}
        async with self._library.pool.connection() as connection:
            await connection.execute(SQL["keep_thumbnail"], {**_values(found, size), **values})
        return made

    async def _decode(self, found: Found, size: Size) -> Made:
        if not await self._looks_like_an_image(found):
            return Made("", None, "undecodable")
        if found.blob.bytes > self._most_bytes:
            return Made("", None, "too_large")
        wanted = {"width": size.width, "height": size.height, "method": size.method, "animated": size.animated}
        try:
            decoded = await self._decoders.run("thumbnail", self._library.read(found), **wanted)
        except BlobLost as error:
            raise self._library.lost(found, error) from error
        if decoded.error:
            return Made("", None, decoded.error)
        return Made(decoded.answer["content_type"], None if decoded.answer.get("original") else decoded.data)

    async def _looks_like_an_image(self, found: Found) -> bool:
        """What is encrypted, and most else, needs no process to be told from an image."""
        first = b"".join([part async for part in await self._library.open(found, 0, 12)])
        return first.startswith(_SIGNATURES) or first[4:8] == b"ftyp"


def _values(found: Found, size: Size) -> dict[str, object]:
    return {**size._asdict(), "method": size.method[0], "blob": found.blob.blob}


class Thumbnail:
    """GET …/thumbnail/{server_name}/{media_id}."""

    def __init__(self, library: Library, thumbnails: Thumbnails, sending: Sending) -> None:
        self._library = library
        self._thumbnails = thumbnails
        self._sending = sending

    async def on_get(self, req: Request, resp: Response, server_name: str, media_id: str) -> None:
        """Sends a thumbnail, or the content where that is no larger than what is asked for."""
        width, height = _side(req, "width"), _side(req, "height")
        size = chosen(width, height, _method(req), _flag(req, "animated"))
        wait = milliseconds(req, "timeout_ms", DEFAULT_WAIT_MS)
        found = await self._library.find(server_name, media_id, wait, anybody=req.context.session is None)
        # Larger than any thumbnail: the content itself, if browsers show it.
        size = size or Size(MOST_SIDE, MOST_SIDE, "scale", _flag(req, "animated"))
        tag = f'"{found.sha256.hex()}-{size.width}x{size.height}-{size.method}{"-animated" if size.animated else ""}"'
        if tag in (req.get_header("if-none-match") or ""):
            resp.set_headers(headers_of(req, tag))
            resp.status = falcon.HTTP_304
            return
        made = await self._thumbnails.find(found, size)
        if made.failure == "too_large":
            raise too_large("The image is too large for a thumbnail.")
        if made.failure is not None:
            raise MatrixError(400, "M_UNKNOWN", "There is no thumbnail of that.")
        self._sending.check(req)
        content = await self._library.open(found) if made.data is None else _parts(made.data)
        resp.set_headers(headers_of(req, tag))
        resp.content_type = made.content_type
        ending = made.content_type.rpartition("/")[2].replace("jpeg", "jpg")
        resp.set_header("content-disposition", disposition(made.content_type, f"thumbnail.{ending}"))
        resp.set_header("content-length", str(found.blob.bytes if made.data is None else len(made.data)))
        resp.stream = self._sending.parts(req, content)


class LegacyThumbnail(Thumbnail):
    """By the paths of old, which take no token."""

    public_methods: ClassVar = frozenset({"GET"})


async def _parts(data: bytes) -> AsyncIterator[bytes]:
    for place in range(0, len(data), PART_BYTES):
        yield data[place : place + PART_BYTES]


def _side(req: Request, name: str) -> int:
    value = req.get_param(name)
    if value is None:
        raise missing_param(f"{name} is missing.")
    if not value.isascii() or not value.isdecimal() or len(value) > 18 or int(value) < 1:
        raise invalid_param(f"{name} is a number of pixels above 0.")
    return min(int(value), MOST_SIDE)


def _method(req: Request) -> Method:
    match req.get_param("method"):
        case None | "scale":
            return "scale"
        case "crop":
            return "crop"
    raise invalid_param("method is crop or scale.")


def _flag(req: Request, name: str) -> bool:
    value = req.get_param(name)
    if value not in (None, "true", "false"):
        raise invalid_param(f"{name} is true or false.")
    return value == "true"

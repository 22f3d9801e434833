"""GET …/media/download, …/media/config: what was uploaded, for users and, by the paths of old, for anybody where that is allowed.

Invariant: a download holds one part of its content in memory and no connection while its client takes the part; it ends when its
client goes away, and when the client takes nothing for a minute. Source: client-server API, "Content repository".
"""

from __future__ import annotations

import asyncio
from collections import Counter as Counts
from collections.abc import AsyncIterator
from typing import ClassVar, Final

import falcon
import structlog
from falcon.asgi import Request, Response
from prometheus_client import Counter

from eventlog.metrics import Tally
from eventlog.sessions import Session
from eventlog.settings import Settings
from matrix.errors import MatrixError, invalid_param, limit_exceeded
from readers.media.finding import Found, Library
from readers.media.headers import SAFETY, NoSuchRange, byte_range, disposition

log = structlog.get_logger(__name__)

AT_ONCE: Final = 200
"""Downloads of a process at the same time."""
EACH: Final = 64
"""Those of one user, or of one address where nobody is logged in: so that no one takes the place of all."""
STALLED_SECONDS: Final = 60.0
"""How long a client may take nothing."""
DEFAULT_WAIT_MS: Final = 20_000
"""How long content that comes later is waited for unless the client says otherwise (parameter `timeout_ms`)."""
_BYTES = Tally(Counter("walden_media_downloaded_bytes", "Bytes of uploads that were sent to clients."))
_CUT = Tally(Counter("walden_media_stalled_downloads", "Downloads that were ended because their client took nothing."))


class Sending:
    """Downloads of a process that run."""

    def __init__(self) -> None:
        self._running: Counts[str] = Counts()

    def check(self, req: Request) -> None:
        """M_LIMIT_EXCEEDED when there are too many."""
        if self._running.total() >= AT_ONCE or self._running[_who(req)] >= EACH:
            raise limit_exceeded(2_000)

    async def parts(self, req: Request, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The parts of a content, for as long as the client is there and takes them."""
        who = _who(req)
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        gone = loop.create_task(_gone(req))
        self._running[who] += 1
        try:
            async for part in content:
                if gone.done():
                    return
                _BYTES.count += len(part)
                # Whoever sends is stopped in the midst of it: nobody else could.
                cut = loop.call_later(STALLED_SECONDS, _cut, task)
                try:
                    yield part
                finally:
                    cut.cancel()
        finally:
            self._running[who] -= 1
            if not self._running[who]:
                del self._running[who]
            gone.cancel()


def _who(req: Request) -> str:
    session: Session | None = req.context.session
    if session is not None:
        return session.user_id
    client = req.scope.get("client")
    return client[0] if client else ""


def _cut(task: asyncio.Task[object]) -> None:
    _CUT.count += 1
    task.cancel()


async def _gone(req: Request) -> None:
    """Returns when the client has gone away. The request's body has been read, or is of no interest."""
    while (await req._receive())["type"] != "http.disconnect":
        pass


class Download:
    """GET …/download/{server_name}/{media_id}, and with a file name."""

    def __init__(self, library: Library, sending: Sending) -> None:
        self._library = library
        self._sending = sending

    async def on_get(self, req: Request, resp: Response, server_name: str, media_id: str) -> None:
        """Sends the content under the name it was uploaded with."""
        found = await self._find(req, server_name, media_id)
        await self._send(req, resp, found, found.file_name)

    async def on_get_named(self, req: Request, resp: Response, server_name: str, media_id: str, file_name: str) -> None:
        """Sends the content under the name that the client wants."""
        if len(file_name.encode("utf-8", "replace")) > 1024:
            raise invalid_param("The file name is longer than 1,024 bytes.")
        await self._send(req, resp, await self._find(req, server_name, media_id), file_name)

    async def _find(self, req: Request, server_name: str, media_id: str) -> Found:
        wait = milliseconds(req, "timeout_ms", DEFAULT_WAIT_MS)
        return await self._library.find(server_name, media_id, wait, anybody=req.context.session is None)

    async def _send(self, req: Request, resp: Response, found: Found, file_name: str | None) -> None:
        tag = f'"{found.sha256.hex()}"'
        if tag in (req.get_header("if-none-match") or ""):
            resp.set_headers(headers_of(req, tag))
            resp.status = falcon.HTTP_304
            return
        first, end = 0, found.blob.bytes
        wanted = None
        # "If-Range": what the client has a part of may have become something else. It never does.
        if req.get_header("if-range") in (None, tag):
            try:
                wanted = byte_range(req.get_header("range"), found.blob.bytes)
            except NoSuchRange:
                resp.set_header("content-range", f"bytes */{found.blob.bytes}")
                raise MatrixError(416, "M_UNKNOWN", f"The content has {found.blob.bytes} bytes.") from None
        self._sending.check(req)
        first, end = wanted or (first, end)
        content = await self._library.open(found, first, end)
        # From here on nothing is refused: what is said of the content is not said of an error.
        resp.set_headers(headers_of(req, tag))
        resp.content_type = found.content_type
        resp.set_header("content-disposition", disposition(found.content_type, file_name))
        resp.set_header("accept-ranges", "bytes")
        if wanted is not None:
            resp.status = falcon.HTTP_206
            resp.set_header("content-range", f"bytes {first}-{end - 1}/{found.blob.bytes}")
        resp.set_header("content-length", str(end - first))
        resp.stream = self._sending.parts(req, content)


class LegacyDownload(Download):
    """By the paths of old, which take no token."""

    public_methods: ClassVar = frozenset({"GET"})


class Config:
    """GET …/config."""

    def __init__(self, settings: Settings) -> None:
        self._answer = {"m.upload.size": settings.media.max_upload_bytes}

    async def on_get(self, req: Request, resp: Response) -> None:
        """How long an upload may be."""
        resp.media = self._answer


def headers_of(req: Request, tag: str) -> dict[str, str]:
    """What every answer with a content has. `tag` is its ETag, in quotation marks."""
    who = "public" if req.context.session is None else "private"
    return {**SAFETY, "etag": tag, "cache-control": f"{who}, max-age=86400, immutable"}


def milliseconds(req: Request, name: str, default: int) -> float:
    """A parameter in milliseconds, as seconds. M_INVALID_PARAM for what is no number."""
    value = req.get_param(name)
    if value is None:
        return default / 1000
    if not value.isascii() or not value.isdecimal() or len(value) > 18:
        raise invalid_param(f"{name} is a number of milliseconds.")
    return int(value) / 1000

"""POST /_matrix/media/v3/upload, PUT /_matrix/media/v3/upload/{server_name}/{media_id}, POST /_matrix/media/v1/create.

Source: client-server API, "Content repository".
"""

from __future__ import annotations

from falcon.asgi import Request, Response
from prometheus_client import Counter

from eventlog.metrics import Tally
from eventlog.settings import Settings
from matrix.errors import not_found
from writer.media.bodies import body_parts
from writer.media.uploads import Described, Uploads
from writer.rate_limits import RateLimits
from writer.requests import session_of

_BYTES = Tally(Counter("walden_media_uploaded_bytes", "Bytes that were uploaded and stored."))
_FILES = Tally(Counter("walden_media_uploads", "Uploads that were stored."))


class Upload:
    """Uploads, at once or to a URI that was asked for."""

    def __init__(self, uploads: Uploads, limits: RateLimits, settings: Settings) -> None:
        self._uploads = uploads
        self._limits = limits
        self._most = settings.media.max_upload_bytes
        self._server_name = settings.server.name

    async def on_post(self, req: Request, resp: Response) -> None:
        """Stores the body and gives it a URI."""
        media_id = await self._store(req)
        resp.media = {"content_uri": f"mxc://{self._server_name}/{media_id}"}

    async def on_put_to(self, req: Request, resp: Response, server_name: str, media_id: str) -> None:
        """Stores the body as the content of a URI that its user has asked for."""
        if server_name != self._server_name:
            raise not_found("That is not a URI of this server.")
        await self._uploads.check_awaited(session_of(req).user_id, media_id)
        await self._store(req, media_id)
        resp.media = {}

    async def on_post_create(self, req: Request, resp: Response) -> None:
        """A URI whose content comes later."""
        user_id = session_of(req).user_id
        self._limits.take("upload", user_id)
        made = await self._uploads.expect(user_id)
        resp.media = {
            "content_uri": f"mxc://{self._server_name}/{made.media_id}",
            "unused_expires_at": made.expires_at,
        }

    async def _store(self, req: Request, media_id: str = "") -> str:
        session = session_of(req)
        if not media_id:
            self._limits.take("upload", session.user_id)
        said = Described.checked(req.get_header("content-type"), req.get_param("filename"))
        length = req.get_header("content-length") or "0"
        stored = await self._uploads.store(
            session.user_id,
            body_parts(req, self._most),
            said,
            length=min(int(length), 2**62) if length.isdecimal() else 0,
            media_id=media_id,
        )
        _BYTES.count += stored.content.bytes
        _FILES.count += 1
        return stored.media_id

"""Credentials for the TURN server of calls.

Invariant: what is made of the shared secret names its user and its end, so that the TURN server can check both by itself
(draft-uberti-behave-turn-rest). Source: client-server API, "Voice over IP".
"""

from __future__ import annotations

import base64
import hmac
import time

from falcon.asgi import Request, Response

from eventlog.settings import Voip
from matrix.errors import not_found
from writer.requests import session_of


class TurnServer:
    """GET /voip/turnServer."""

    def __init__(self, settings: Voip) -> None:
        self._settings = settings

    async def on_get(self, req: Request, resp: Response) -> None:
        """Credentials; M_NOT_FOUND where none can be made."""
        settings = self._settings
        if not settings.turn_uris or not (settings.turn_shared_secret or settings.turn_username):
            raise not_found("This server has no TURN server, or no credentials for it.")
        username, password = settings.turn_username, settings.turn_password
        if settings.turn_shared_secret:
            username = f"{int(time.time()) + settings.turn_ttl_seconds}:{session_of(req).user_id}"
            mac = hmac.new(settings.turn_shared_secret.encode(), username.encode(), "sha1")
            password = base64.b64encode(mac.digest()).decode()
        resp.media = {
            "username": username,
            "password": password,
            "uris": list(settings.turn_uris),
            "ttl": settings.turn_ttl_seconds,
        }

"""What the server says of itself: versions, capabilities, where clients find it.

Source: client-server API, "Server discovery", "Capabilities negotiation".
"""

from __future__ import annotations

from typing import ClassVar

import orjson
from falcon.asgi import Request, Response

from eventlog.settings import Settings
from matrix.errors import not_found
from matrix.room_versions import ROOM_VERSIONS

VERSIONS = ["r0.6.1", *(f"v1.{minor}" for minor in range(1, 20))]
"""The versions of the client-server API whose requests this server understands."""


class Discovery:
    """/_matrix/client/versions, /.well-known/matrix/client, /.well-known/matrix/support."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, settings: Settings) -> None:
        self._versions = orjson.dumps({"versions": VERSIONS, "unstable_features": {}})
        self._client = orjson.dumps({"m.homeserver": {"base_url": settings.base_url}})

    async def on_get(self, req: Request, resp: Response) -> None:
        """The supported versions."""
        resp.data = self._versions

    async def on_get_client(self, req: Request, resp: Response) -> None:
        """The base URL for clients."""
        resp.data = self._client

    async def on_get_support(self, req: Request, resp: Response) -> None:
        """Whom to ask for help: nobody is configured."""
        raise not_found("This server names no contacts.")


class Capabilities:
    """/capabilities."""

    def __init__(self, settings: Settings) -> None:
        capabilities = {
            "m.change_password": {"enabled": True},
            "m.room_versions": {
                "default": settings.server.default_room_version,
                "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
            },
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.profile_fields": {"enabled": True},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": False},
            "m.forget_forced_upon_leave": {"enabled": False},
        }
        self._capabilities = orjson.dumps({"capabilities": capabilities})

    async def on_get(self, req: Request, resp: Response) -> None:
        """What clients may do here."""
        resp.data = self._capabilities

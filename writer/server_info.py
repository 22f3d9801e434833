"""What the server says of itself: capabilities, where clients find it, whom to ask for help.

Source: client-server API, "Capabilities negotiation", "Well-known URIs", "Account moderation".
"""

from __future__ import annotations

from typing import Any, ClassVar

import orjson
from falcon.asgi import Request, Response

from eventlog.settings import Settings, Support
from matrix.errors import not_found
from matrix.room_versions import ROOM_VERSIONS
from writer.requests import session_of


class WellKnown:
    """/.well-known/matrix/client, /.well-known/matrix/support, /.well-known/matrix/policy_server."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, settings: Settings) -> None:
        self._client = orjson.dumps({"m.homeserver": {"base_url": settings.base_url}})
        support = _support(settings.support)
        self._support = orjson.dumps(support) if support else None

    async def on_get_client(self, req: Request, resp: Response) -> None:
        """The base URL for clients."""
        resp.data = self._client

    async def on_get_support(self, req: Request, resp: Response) -> None:
        """Whom to ask for help."""
        if self._support is None:
            raise not_found("This server names no contacts.")
        resp.data = self._support

    async def on_get_policy_server(self, req: Request, resp: Response) -> None:
        """The keys of a policy server: this is none."""
        raise not_found("This is no policy server.")


def _support(settings: Support) -> dict[str, Any]:
    """The members of the support document; "at least one of contacts or support_page is required", otherwise none."""
    contacts = []
    for role, user_id, address in (
        ("m.role.admin", settings.admin_user, settings.admin_email),
        ("m.role.security", settings.security_user, settings.security_email),
    ):
        ways = {"matrix_id": user_id, "email_address": address}
        if any(ways.values()):
            contacts.append({"role": role, **{name: value for name, value in ways.items() if value}})
    return {
        **({"contacts": contacts} if contacts else {}),
        **({"support_page": settings.page} if settings.page else {}),
    }


class Capabilities:
    """/capabilities."""

    def __init__(self, settings: Settings, *, email: bool, login_tokens: bool) -> None:
        """`email`: whether addresses can be validated; `login_tokens`: whether there are any."""
        capabilities: dict[str, Any] = {
            "m.change_password": {"enabled": True},
            "m.room_versions": {
                "default": settings.server.default_room_version,
                "available": dict.fromkeys(ROOM_VERSIONS, "stable"),
            },
            "m.set_displayname": {"enabled": True},
            "m.set_avatar_url": {"enabled": True},
            "m.profile_fields": {"enabled": True},
            "m.3pid_changes": {"enabled": email},
            "m.get_login_token": {"enabled": login_tokens},
            "m.forget_forced_upon_leave": {"enabled": False},
        }
        moderation = {"m.account_moderation": {"suspend": True, "lock": True}}
        guests = {
            "m.change_password": {"enabled": False},
            "m.set_avatar_url": {"enabled": False},
            "m.profile_fields": {"enabled": True, "allowed": ["displayname"]},
            "m.3pid_changes": {"enabled": False},
            "m.get_login_token": {"enabled": False},
        }
        self._of_users = orjson.dumps({"capabilities": capabilities})
        self._of_administrators = orjson.dumps({"capabilities": {**capabilities, **moderation}})
        self._of_guests = orjson.dumps({"capabilities": {**capabilities, **guests}})

    async def on_get(self, req: Request, resp: Response) -> None:
        """What the requester may do here."""
        session = session_of(req)
        resp.data = self._of_guests if session.guest else self._of_administrators if session.admin else self._of_users

"""Which versions of the specification and which features this server has.

Invariant: what is claimed is mounted. A version is claimed when what it added is there, a feature when its endpoint is; both come
from the application's routes, so that neither can be promised before it is kept or forgotten afterwards. What the specification
lets a server do without (single sign-on, OAuth, application services) is no part of a claim: clients ask for it by itself.
Source: client-server API, "API Versions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Final

import orjson
from falcon.asgi import Request, Response

Route = tuple[str, str]
"""Method and URI template."""

_V1: Final = "/_matrix/client/v1"
_V3: Final = "/_matrix/client/v3"
_MEDIA: Final = "/_matrix/media"
_UNSTABLE: Final = "/_matrix/client/unstable"
_ROOM: Final = _V3 + "/rooms/{room_id}"

ADDED: Final[dict[str, tuple[Route, ...]]] = {
    "r0.6.1": (
        ("GET", _V3 + "/sync"),
        ("POST", _V3 + "/keys/upload"),
        ("PUT", _V3 + "/sendToDevice/{event_type}/{txn_id}"),
        ("POST", _MEDIA + "/v3/upload"),
    ),
    "v1.1": (
        ("POST", _V3 + "/knock/{room_id_or_alias}"),
        ("POST", _V3 + "/keys/device_signing/upload"),
        ("PUT", _V3 + "/room_keys/keys"),
    ),
    "v1.2": (
        ("GET", _V1 + "/rooms/{room_id}/hierarchy"),
        ("GET", _V1 + "/register/m.login.registration_token/validity"),
    ),
    "v1.3": (("POST", _V3 + "/refresh"), ("GET", _V1 + "/rooms/{room_id}/relations/{event_id}")),
    "v1.4": (("GET", _V1 + "/rooms/{room_id}/threads"),),
    "v1.5": (),
    "v1.6": (("GET", _V1 + "/rooms/{room_id}/timestamp_to_event"),),
    "v1.7": (("POST", _V1 + "/login/get_token"), ("POST", _MEDIA + "/v1/create")),
    "v1.8": (),
    "v1.9": (),
    "v1.10": (("GET", "/.well-known/matrix/support"),),
    "v1.11": (("GET", _V1 + "/media/download/{server_name}/{media_id}"),),
    "v1.12": (),
    "v1.13": (("POST", _ROOM + "/report"),),
    "v1.14": (("POST", _V3 + "/users/{user_id}/report"),),
    "v1.15": (("GET", _V1 + "/room_summary/{room_id_or_alias}"),),
    "v1.16": (("DELETE", _V3 + "/profile/{user_id}/{field}"),),
    "v1.17": (),
    "v1.18": (("PUT", _V1 + "/admin/suspend/{user_id}"), ("PUT", _V1 + "/admin/lock/{user_id}")),
    "v1.19": (("GET", _V1 + "/mutual_rooms"),),
}
"""What each version added for rooms, people, accounts, encryption and media."""

FEATURES: Final[dict[str, Route]] = {
    # In the specification by now, under the names that these flags promise; clients that do not look at versions look for them.
    "org.matrix.e2e_cross_signing": ("POST", _V3 + "/keys/device_signing/upload"),
    "org.matrix.msc2285.stable": ("POST", _ROOM + "/receipt/{receipt_type}/{event_id}"),
    "org.matrix.msc3771": ("POST", _ROOM + "/receipt/{receipt_type}/{event_id}"),
    "org.matrix.msc3440.stable": ("GET", _V1 + "/rooms/{room_id}/threads"),
    "org.matrix.msc3827.stable": ("POST", _V3 + "/publicRooms"),
    "org.matrix.msc3916.stable": ("GET", _V1 + "/media/config"),
    "uk.half-shot.msc2666.query_mutual_rooms.stable": ("GET", _V1 + "/mutual_rooms"),
    "uk.tcpip.msc4133.stable": ("PUT", _V3 + "/profile/{user_id}/{field}"),
    # Not in the specification yet.
    "org.matrix.msc4155": ("PUT", _V3 + "/user/{user_id}/account_data/{data_type}"),
    "org.matrix.msc3814": ("PUT", _UNSTABLE + "/org.matrix.msc3814.v1/dehydrated_device"),
    "org.matrix.simplified_msc3575": ("POST", _UNSTABLE + "/org.matrix.simplified_msc3575/sync"),
    "org.matrix.msc4140": ("POST", _UNSTABLE + "/org.matrix.msc4140/delayed_events/{delay_id}"),
}
"""The endpoint that makes each feature."""


class Versions:
    """GET /_matrix/client/versions."""

    public_methods: ClassVar = frozenset({"GET"})

    def __init__(self, routes: Callable[[], Iterable[Route]]) -> None:
        """`routes`: what is mounted, once everything is."""
        self._routes = routes
        self._body = b""

    async def on_get(self, req: Request, resp: Response) -> None:
        """The versions and features."""
        if not self._body:
            self._body = orjson.dumps(claims(self._routes()))
        resp.data = self._body


def claims(routes: Iterable[Route]) -> dict[str, object]:
    """The response's members for a set of routes."""
    mounted = frozenset(routes)
    versions = [version for version, added in ADDED.items() if mounted.issuperset(added)]
    return {"versions": versions, "unstable_features": {name: True for name, one in FEATURES.items() if one in mounted}}

"""What accounts with less than all rights may do: guests, suspended accounts, locked accounts.

Invariant: an endpoint that is not named here is closed to guests, and to suspended accounts unless it is a GET, so that a new one
is closed until somebody opens it. Finer rules (a guest may set a name but no avatar) are the endpoints' own.
Source: client-server API, "Guest access", "Account suspension", "Account locking".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_V1: Final = "/_matrix/client/v1"
_V3: Final = "/_matrix/client/v3"
_ROOM: Final = _V3 + "/rooms/{room_id}"


def _named(text: str) -> frozenset[tuple[str, str]]:
    short = {"v1": _V1, "v3": _V3, "room": _ROOM, "media": "/_matrix/media"}
    found = set()
    for line in text.split("\n"):
        if line.strip():
            method, path = line.split()
            base, _, rest = path.partition("/")
            found.add((method, f"{short[base]}/{rest}"))
    return frozenset(found)


GUESTS: Final = _named("""
GET room/state
GET room/context/{event_id}
GET room/event/{event_id}
GET room/state/{event_type}
GET room/state/{event_type}/{state_key}
GET room/messages
GET room/members
GET room/initialSync
GET v3/sync
GET v3/events
GET v1/media/download/{server_name}/{media_id}
GET v1/media/download/{server_name}/{media_id}/{file_name}
GET v1/media/thumbnail/{server_name}/{media_id}
POST room/join
POST v3/join/{room_id_or_alias}
POST room/leave
PUT room/send/{event_type}/{txn_id}
PUT room/state/{event_type}
PUT room/state/{event_type}/{state_key}
PUT v3/sendToDevice/{event_type}/{txn_id}
PUT v3/profile/{user_id}/{field}
DELETE v3/profile/{user_id}/{field}
GET v3/devices
GET v3/devices/{device_id}
PUT v3/devices/{device_id}
GET v3/account/whoami
GET v3/capabilities
POST v3/keys/upload
POST v3/keys/query
POST v3/keys/claim
POST v3/logout
POST v3/logout/all
""")
"""What the specification opens to guests, and with it joining by alias, capabilities and logging out."""

SUSPENDED: Final = _named("""
POST v3/account/deactivate
POST v3/account/password
POST v3/account/3pid
POST v3/account/3pid/add
POST v3/delete_devices
PUT v3/devices/{device_id}
DELETE v3/devices/{device_id}
POST v3/logout
POST v3/logout/all
POST v1/login/get_token
POST room/leave
POST room/forget
PUT room/redact/{event_id}/{txn_id}
PUT room/send/{event_type}/{txn_id}
POST room/receipt/{receipt_type}/{event_id}
POST room/read_markers
PUT v3/user/{user_id}/account_data/{data_type}
PUT v3/user/{user_id}/rooms/{room_id}/account_data/{data_type}
PUT v3/user/{user_id}/rooms/{room_id}/tags/{tag}
DELETE v3/user/{user_id}/rooms/{room_id}/tags/{tag}
POST v3/user/{user_id}/filter
PUT v3/pushrules/global/{kind}/{rule_id}
DELETE v3/pushrules/global/{kind}/{rule_id}
PUT v3/pushrules/global/{kind}/{rule_id}/enabled
PUT v3/pushrules/global/{kind}/{rule_id}/actions
POST v3/pushers/set
POST v3/search
POST v3/publicRooms
POST v3/user_directory/search
PUT v3/sendToDevice/{event_type}/{txn_id}
POST v3/keys/upload
POST v3/keys/query
POST v3/keys/claim
POST v3/keys/device_signing/upload
POST v3/keys/signatures/upload
POST v3/room_keys/version
PUT v3/room_keys/version/{version}
DELETE v3/room_keys/version/{version}
PUT v3/room_keys/keys
PUT v3/room_keys/keys/{room_id}
PUT v3/room_keys/keys/{room_id}/{session_id}
DELETE v3/room_keys/keys
DELETE v3/room_keys/keys/{room_id}
DELETE v3/room_keys/keys/{room_id}/{session_id}
""")
"""What a suspended account may change: its own devices, keys, read state and settings, and what takes it away.

Of what is sent (`room/send`) that is redactions of its own events; `writer/sending.py` refuses the rest.
"""

LOCKED: Final = _named("""
POST v3/logout
POST v3/logout/all
""")
"""All that a locked account may do."""


def open_to_guests(template: str, methods: Iterable[str]) -> frozenset[str]:
    """Which of the methods of a path guests may use."""
    return frozenset(method for method in methods if (method, template) in GUESTS)


def open_to_suspended(template: str, methods: Iterable[str]) -> frozenset[str]:
    """Which of the methods of a path suspended accounts may use."""
    return frozenset(method for method in methods if method == "GET" or (method, template) in SUSPENDED)


def open_to_locked(template: str, methods: Iterable[str]) -> frozenset[str]:
    """Which of the methods of a path locked accounts may use."""
    return frozenset(method for method in methods if (method, template) in LOCKED)

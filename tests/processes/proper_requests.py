"""One proper request for every endpoint: what a fuzzer begins with, for nonsense alone gets no further than the first check.

Invariant: every path parameter of a mounted endpoint has a value here; whatever has no body of its own is sent `{}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

V1 = "/_matrix/client/v1"
V3 = "/_matrix/client/v3"
DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
ROOM = V3 + "/rooms/{room_id}"
USER = V3 + "/user/{user_id}"
MESSAGE = {"msgtype": "m.text", "body": "hello", "m.mentions": {"user_ids": ["@a:b.example"], "room": False}}
BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "x", "signatures": {}}}
KEY = {"first_message_index": 1, "forwarded_count": 0, "is_verified": True, "session_data": {"ciphertext": "x"}}
CLOSING = ("/logout", "/logout/all")
"""What ends the session that asks; asked by somebody who can spare it."""
SPARE = "SPARE"
"""A device that whoever asks has besides."""
ENCRYPTION_AND_MEDIA = re.compile(r"/(devices|delete_devices|keys|sendToDevice|room_keys|media|dehydrated_device)\b")
"""Endpoints whose proper requests get as far as a success, so that what is changed in them does not fail at the first check."""


@dataclass(frozen=True)
class Request:
    """A request as it is sent: `path` with its parameters filled in, query, JSON body or None."""

    method: str
    template: str
    path: str
    query: dict[str, str]
    body: Any


@dataclass(frozen=True)
class Scene:
    """What there is to speak of."""

    user_id: str
    device_id: str
    room_id: str
    event_id: str
    other_id: str
    server_name: str
    media_id: str = "none"
    backup: str = ""
    """The version of a key backup."""
    awaited_id: str = "none"
    """Media that has been asked for and not uploaded."""
    page: str = "http://127.0.0.1:1/page"
    """Something that previews may be made of."""
    password: str = ""

    def parameters(self, template: str) -> dict[str, str]:
        """Values of the path parameters."""
        values = {
            "room_id": self.room_id,
            "room_id_or_alias": self.room_id,
            "event_id": self.event_id,
            "user_id": self.user_id,
            "device_id": self.device_id,
            "room_alias": f"#an-alias:{self.server_name}",
            "event_type": "m.room.message",
            "state_key": "",
            "txn_id": "a-transaction",
            "receipt_type": "m.read",
            "rel_type": "m.annotation",
            "field": "displayname",
            "data_type": "org.example.data",
            "filter_id": "0",
            "kind": "override",
            "rule_id": "org.example.rule",
            "tag": "u.work",
            "server_name": self.server_name,
            "media_id": self.media_id,
            "version": self.backup,
            "session_id": "a-session",
        }
        if "/dehydrated_device/" in template:
            values["device_id"] = "DRY"
        if template == V3 + "/devices/{device_id}":
            # One that is not needed any more.
            values["device_id"] = SPARE
        if "/upload/" in template:
            values["media_id"] = self.awaited_id
        if "/state/" in template:
            values["event_type"] = "org.example.state"
        found = {name: values.get(name, "x") for name in re.findall(r"\{(\w+)\}", template)}
        if template.endswith("/state/{event_type}/{state_key}"):
            found["state_key"] = "a key"
        return found

    def body(self, method: str, template: str) -> Any:
        """A body that the endpoint takes."""
        if method == "GET":
            return None
        return self._bodies().get((method, template), {})

    def request(self, method: str, template: str) -> Request:
        """The request."""
        query = QUERIES.get(template, {}) if method == "GET" else {}
        if template.startswith(V3 + "/room_keys/keys"):
            query = {"version": self.backup}
        if template.endswith("/preview_url"):
            query = {"url": self.page, "ts": "1"}
        path = fill(template, self.parameters(template))
        return Request(method, template, path, query, self.body(method, template))

    def _bodies(self) -> dict[tuple[str, str], Any]:
        dummy = {"type": "m.login.dummy"}
        password = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id},
            "password": self.password,
        }
        member = {"user_id": self.other_id, "reason": "because"}
        creds = {"client_secret": "s", "sid": "1", "id_server": "id.example", "id_access_token": "t"}
        email = {"client_secret": "s", "email": "a@b.example", "send_attempt": 1, "next_link": "https://x.example/"}
        phone = {"client_secret": "s", "country": "GB", "phone_number": "07700900001", "send_attempt": 1}
        stated = {"user_id": self.user_id, "device_id": self.device_id, "algorithms": ["m.megolm.v1.aes-sha2"]}
        device = {
            **stated,
            "keys": {f"ed25519:{self.device_id}": "a"},
            "signatures": {self.user_id: {f"ed25519:{self.device_id}": "b"}},
        }
        master = {"user_id": self.user_id, "usage": ["master"], "keys": {f"ed25519:{'A' * 43}": "A" * 43}}
        one_time = {"signed_curve25519:AAAAAQ": {"key": "a", "signatures": {}}}
        return {
            ("POST", V3 + "/keys/upload"): {
                "device_keys": device,
                "one_time_keys": one_time,
                "fallback_keys": {"signed_curve25519:F": {"key": "a", "fallback": True, "signatures": {}}},
            },
            ("PUT", DEHYDRATED): {
                "device_id": "DRY",
                "device_data": {"algorithm": "org.example", "pickle": "x"},
                "initial_device_display_name": "dry",
                "device_keys": {
                    **device,
                    "device_id": "DRY",
                    "dehydrated": True,
                },
                "one_time_keys": one_time,
                "fallback_keys": {},
            },
            ("POST", DEHYDRATED + "/{device_id}/events"): {"next_batch": "d0"},
            ("POST", V3 + "/keys/query"): {"device_keys": {self.user_id: [], self.other_id: ["D"]}, "timeout": 1000},
            ("POST", V3 + "/keys/claim"): {"one_time_keys": {self.user_id: {self.device_id: "signed_curve25519"}}},
            ("POST", V3 + "/keys/device_signing/upload"): {"master_key": master, "auth": password},
            ("POST", V3 + "/keys/signatures/upload"): {self.user_id: {self.device_id: device}},
            ("PUT", V3 + "/sendToDevice/{event_type}/{txn_id}"): {
                "messages": {self.user_id: {self.device_id: {"a": 1}, "*": {}}, self.other_id: {"*": {"b": [1]}}}
            },
            ("POST", V3 + "/register"): {
                "username": "somebody",
                "password": "a fine password",
                "device_id": "D1",
                "initial_device_display_name": "phone",
                "inhibit_login": False,
                "refresh_token": False,
                "auth": dummy,
            },
            ("POST", V3 + "/login"): {
                "type": "m.login.password",
                "identifier": {"type": "m.id.user", "user": self.user_id},
                "password": "not this one",
                "device_id": "D2",
                "initial_device_display_name": "phone",
                "refresh_token": True,
            },
            ("POST", V3 + "/refresh"): {"refresh_token": "unknown"},
            ("POST", V3 + "/account/password"): {"new_password": "another", "logout_devices": False, "auth": dummy},
            ("POST", V3 + "/account/deactivate"): {"auth": dummy, "erase": False, "id_server": "x.example"},
            ("POST", V3 + "/account/3pid"): {"three_pid_creds": creds},
            ("POST", V3 + "/account/3pid/add"): {"client_secret": "s", "sid": "1", "auth": dummy},
            ("POST", V3 + "/account/3pid/bind"): creds,
            ("POST", V3 + "/account/3pid/delete"): {"medium": "email", "address": "a@b.example"},
            ("POST", V3 + "/account/3pid/unbind"): {"medium": "email", "address": "a@b.example", "id_server": "x"},
            ("POST", V3 + "/register/email/requestToken"): email,
            ("POST", V3 + "/account/password/email/requestToken"): email,
            ("POST", V3 + "/account/3pid/email/requestToken"): email,
            ("POST", V3 + "/register/msisdn/requestToken"): phone,
            ("POST", V3 + "/account/password/msisdn/requestToken"): phone,
            ("POST", V3 + "/account/3pid/msisdn/requestToken"): phone,
            ("POST", "/_walden/client/email/submit_token"): {"sid": "1", "client_secret": "s", "token": "t"},
            ("POST", "/_matrix/client/v1/login/get_token"): {"auth": dummy},
            ("PUT", "/_matrix/client/v1/admin/suspend/{user_id}"): {"suspended": True},
            ("PUT", "/_matrix/client/v1/admin/lock/{user_id}"): {"locked": True},
            ("POST", V3 + "/delete_devices"): {"devices": ["NONE"], "auth": password},
            ("PUT", V3 + "/devices/{device_id}"): {"display_name": "renamed"},
            ("DELETE", V3 + "/devices/{device_id}"): {"auth": password},
            ("POST", V3 + "/createRoom"): {
                "visibility": "private",
                "preset": "public_chat",
                "name": "a room",
                "topic": "this and that",
                "invite": [self.other_id],
                "invite_3pid": [],
                "room_version": "11",
                "creation_content": {"m.federate": False, "type": "m.space"},
                "initial_state": [
                    {"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "public"}},
                    {"type": "org.example.state", "state_key": "k", "content": {"a": [1]}},
                ],
                "is_direct": True,
                "power_level_content_override": {
                    "users": {self.user_id: 100},
                    "users_default": 0,
                    "events": {"m.room.name": 50},
                    "events_default": 0,
                    "state_default": 50,
                    "ban": 50,
                    "notifications": {"room": 50},
                },
            },
            ("PUT", ROOM + "/send/{event_type}/{txn_id}"): {
                **MESSAGE,
                "m.relates_to": {"rel_type": "m.replace", "event_id": self.event_id},
                "m.new_content": MESSAGE,
            },
            ("PUT", ROOM + "/state/{event_type}"): {"a": {"b": ["c"]}},
            ("PUT", ROOM + "/state/{event_type}/{state_key}"): {"a": {"b": ["c"]}},
            ("PUT", ROOM + "/redact/{event_id}/{txn_id}"): {"reason": "because"},
            ("POST", ROOM + "/join"): {
                "reason": "because",
                "third_party_signed": {
                    "sender": self.user_id,
                    "mxid": self.user_id,
                    "token": "t",
                    "signatures": {"id.example": {"ed25519:0": "x"}},
                },
            },
            ("POST", V3 + "/join/{room_id_or_alias}"): {"reason": "because"},
            ("POST", V3 + "/knock/{room_id_or_alias}"): {"reason": "because"},
            ("POST", ROOM + "/invite"): member,
            ("POST", ROOM + "/kick"): member,
            ("POST", ROOM + "/ban"): member,
            ("POST", ROOM + "/unban"): member,
            ("POST", ROOM + "/upgrade"): {"new_version": "11", "additional_creators": [self.other_id]},
            ("POST", ROOM + "/report"): {"reason": "this makes me sad"},
            ("POST", ROOM + "/report/{event_id}"): {"reason": "this makes me sad", "score": -100},
            ("POST", V3 + "/users/{user_id}/report"): {"reason": "this makes me sad"},
            ("POST", ROOM + "/leave"): {"reason": "because"},
            ("POST", ROOM + "/receipt/{receipt_type}/{event_id}"): {"thread_id": "main"},
            ("POST", ROOM + "/read_markers"): {
                "m.fully_read": self.event_id,
                "m.read": self.event_id,
                "m.read.private": self.event_id,
            },
            ("PUT", ROOM + "/typing/{user_id}"): {"typing": True, "timeout": 3000},
            ("PUT", V3 + "/directory/room/{room_alias}"): {"room_id": self.room_id},
            ("PUT", V3 + "/directory/list/room/{room_id}"): {"visibility": "public"},
            ("POST", V3 + "/publicRooms"): {
                "limit": 10,
                "filter": {"generic_search_term": "room", "room_types": [None, "m.space"]},
                "include_all_networks": False,
            },
            ("PUT", V3 + "/profile/{user_id}/{field}"): {"displayname": "A Name"},
            ("PUT", V3 + "/presence/{user_id}/status"): {"presence": "online", "status_msg": "here"},
            ("POST", V3 + "/pushers/set"): {
                "kind": "http",
                "app_id": "org.example",
                "pushkey": "key",
                "app_display_name": "App",
                "device_display_name": "Phone",
                "lang": "en",
                "profile_tag": "x",
                "append": True,
                "data": {"url": "https://gateway.invalid/_matrix/push/v1/notify", "format": "event_id_only"},
            },
            ("POST", V3 + "/user_directory/search"): {"search_term": "some", "limit": 3},
            ("POST", V3 + "/search"): {
                "search_categories": {
                    "room_events": {
                        "search_term": "hello",
                        "keys": ["content.body"],
                        "order_by": "recent",
                        "filter": {"limit": 3, "types": ["m.room.*"], "rooms": [self.room_id]},
                        "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
                        "include_state": True,
                        "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}]},
                    }
                }
            },
            ("POST", V3 + "/room_keys/version"): BACKUP,
            ("PUT", V3 + "/room_keys/version/{version}"): {**BACKUP, "version": self.backup},
            ("PUT", V3 + "/room_keys/keys"): {"rooms": {self.room_id: {"sessions": {"a-session": KEY}}}},
            ("PUT", V3 + "/room_keys/keys/{room_id}"): {"sessions": {"a-session": KEY}},
            ("PUT", V3 + "/room_keys/keys/{room_id}/{session_id}"): KEY,
            ("PUT", USER + "/account_data/{data_type}"): {"a": {"b": ["c", 1.5]}},
            ("PUT", USER + "/rooms/{room_id}/account_data/{data_type}"): {"a": {"b": ["c", 1.5]}},
            ("PUT", USER + "/rooms/{room_id}/tags/{tag}"): {"order": 0.5},
            ("POST", USER + "/filter"): {
                "event_fields": ["content.body"],
                "event_format": "client",
                "presence": {"types": ["m.*"], "limit": 3, "not_senders": ["@a:b.example"]},
                "account_data": {"types": ["*"]},
                "room": {
                    "rooms": [self.room_id],
                    "not_rooms": [],
                    "include_leave": True,
                    "timeline": {"limit": 5, "lazy_load_members": True, "contains_url": False, "types": ["m.room.*"]},
                    "state": {"unread_thread_notifications": True, "include_redundant_members": True},
                    "ephemeral": {"not_types": ["m.typing"]},
                },
            },
            ("PUT", V3 + "/pushrules/global/{kind}/{rule_id}"): {
                "actions": ["notify", {"set_tweak": "sound", "value": "default"}],
                "conditions": [{"kind": "event_match", "key": "content.body", "pattern": "x*"}],
            },
            ("PUT", V3 + "/pushrules/global/{kind}/{rule_id}/enabled"): {"enabled": True},
            ("PUT", V3 + "/pushrules/global/{kind}/{rule_id}/actions"): {"actions": ["notify"]},
            ("POST", "/_synapse/admin/v1/send_server_notice"): {"user_id": self.other_id, "content": MESSAGE},
            ("PUT", "/_synapse/admin/v1/send_server_notice/{txn_id}"): {"user_id": self.other_id, "content": MESSAGE},
            ("POST", "/_synapse/admin/v1/register"): {
                "nonce": "x",
                "username": "x",
                "password": "y",
                "admin": False,
                "mac": "00",
            },
        }


QUERIES: dict[str, dict[str, str]] = {
    V3 + "/sync": {"timeout": "0", "filter": '{"room":{"timeline":{"limit":1}}}', "full_state": "false"},
    V3 + "/keys/changes": {"from": "w1_x_0", "to": "w1_x_0"},
    ROOM + "/messages": {"dir": "b", "limit": "10", "filter": '{"types":["m.room.message"]}'},
    ROOM + "/context/{event_id}": {"limit": "4", "filter": "{}"},
    ROOM + "/members": {"membership": "join", "not_membership": "ban"},
    V3 + "/publicRooms": {"limit": "3"},
    V1 + "/media/download/{server_name}/{media_id}": {"timeout_ms": "0"},
    V1 + "/media/thumbnail/{server_name}/{media_id}": {
        "width": "32",
        "height": "32",
        "method": "crop",
        "animated": "true",
        "timeout_ms": "0",
    },
    "/_matrix/media/v3/thumbnail/{server_name}/{media_id}": {"width": "32", "height": "32", "timeout_ms": "0"},
    V3 + "/notifications": {"limit": "3", "only": "highlight", "from": "n1"},
    V3 + "/register/available": {"username": "somebody.else"},
    "/_matrix/client/v1/register/m.login.registration_token/validity": {"token": "x"},
    "/_matrix/client/v1/rooms/{room_id}/timestamp_to_event": {"ts": "1", "dir": "f"},
    "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}": {
        "dir": "b",
        "limit": "3",
        "recurse": "true",
        "from": "",
    },
    V1 + "/rooms/{room_id}/threads": {"include": "participated", "limit": "3"},
    V1 + "/rooms/{room_id}/hierarchy": {"limit": "3", "max_depth": "2", "suggested_only": "true"},
    V1 + "/room_summary/{room_id_or_alias}": {"via": "b.example"},
    V1 + "/mutual_rooms": {"user_id": "@other:b.example"},
    V3 + "/events": {"timeout": "0", "from": "t0"},
    V3 + "/initialSync": {"limit": "3", "archived": "true"},
}
"""Queries that say what the endpoints can be asked."""
NO_BODY = frozenset(
    (
        ("POST", V3 + "/logout"),
        ("POST", V3 + "/logout/all"),
        ("POST", ROOM + "/forget"),
        ("POST", USER + "/openid/request_token"),
        # Bytes of any kind, or none.
        ("POST", "/_matrix/media/v3/upload"),
        ("PUT", "/_matrix/media/v3/upload/{server_name}/{media_id}"),
        ("POST", "/_matrix/media/v1/create"),
        # A form, of a page that people look at.
        ("POST", V3 + "/auth/{stage}/fallback/web"),
    )
)
"""The endpoints that take no body, or none of JSON."""


def fill(template: str, values: dict[str, str]) -> str:
    """The path of a template, its parameters percent-encoded."""
    return re.sub(r"\{(\w+)\}", lambda found: quote(values[found[1]], safe=""), template)

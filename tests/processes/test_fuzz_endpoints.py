"""Whatever is sent to whichever endpoint, over a socket: the specification's error, never a 500, and the server goes on.

What the writers make of it is tested in tests/writer, inside one process; here everything stands behind everything else: what
one request puts into the log, the room server judges and the next reader shows.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from people import Person, segment
from proper_requests import BACKUP, CLOSING, DEHYDRATED, ENCRYPTION_AND_MEDIA, SPARE, V3, Request, Scene, fill
from whole_server import SERVER_NAME, WholeServer

from bin.api import compose

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(400)]

ROOM_VERSIONS = os.environ.get("WALDEN_FUZZ_ROOM_VERSIONS", "6 12").split()
PASSWORD = "a fine password"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PUBLIC = {
    ("GET", "/_matrix/client/versions"),
    ("GET", "/.well-known/matrix/client"),
    ("GET", "/.well-known/matrix/support"),
    ("GET", "/.well-known/matrix/policy_server"),
    ("GET", "/_matrix/static/client/login/"),
    ("GET", V3 + "/auth/{stage}/fallback/web"),
    ("POST", V3 + "/auth/{stage}/fallback/web"),
    ("GET", "/_walden/client/email/submit_token"),
    ("POST", "/_walden/client/email/submit_token"),
    ("GET", "/_matrix/federation/v1/openid/userinfo"),
    *(
        ("POST", f"{V3}/{path}/{medium}/requestToken")
        for path in ("register", "account/password", "account/3pid")
        for medium in ("email", "msisdn")
    ),
    ("GET", V3 + "/login"),
    ("POST", V3 + "/login"),
    ("POST", V3 + "/refresh"),
    ("POST", V3 + "/register"),
    ("GET", V3 + "/register/available"),
    ("GET", "/_matrix/client/v1/register/m.login.registration_token/validity"),
    ("GET", V3 + "/profile/{user_id}"),
    ("GET", V3 + "/profile/{user_id}/{field}"),
    ("GET", V3 + "/publicRooms"),
    ("GET", V3 + "/directory/room/{room_alias}"),
    ("GET", V3 + "/directory/list/room/{room_id}"),
    ("GET", "/_matrix/media/v3/download/{server_name}/{media_id}"),
    ("GET", "/_matrix/media/v3/download/{server_name}/{media_id}/{file_name}"),
    ("GET", "/_matrix/media/v3/thumbnail/{server_name}/{media_id}"),
    ("GET", "/_synapse/admin/v1/register"),
    ("POST", "/_synapse/admin/v1/register"),
}
"""What asks for no access token."""
NO_JSON = {
    # An administrator's alone, which the asker is not; and a form.
    ("POST", "/_synapse/admin/v1/send_server_notice"),
    ("PUT", "/_synapse/admin/v1/send_server_notice/{txn_id}"),
    ("POST", "/_walden/client/email/submit_token"),
}
"""What is refused before its body is looked at, or wants another."""
MAY_BE_EMPTY = {
    ("POST", "/_matrix/client/v1/login/get_token"),
    ("POST", DEHYDRATED + "/{device_id}/events"),
    ("DELETE", V3 + "/devices/{device_id}"),
    ("POST", V3 + "/account/deactivate"),
    ("POST", V3 + "/join/{room_id_or_alias}"),
    ("POST", V3 + "/knock/{room_id_or_alias}"),
    ("POST", V3 + "/publicRooms"),
    ("POST", V3 + "/rooms/{room_id}/join"),
    ("POST", V3 + "/rooms/{room_id}/leave"),
    ("POST", V3 + "/rooms/{room_id}/read_markers"),
    ("POST", V3 + "/rooms/{room_id}/receipt/{receipt_type}/{event_id}"),
    ("PUT", V3 + "/directory/list/room/{room_id}"),
    ("PUT", V3 + "/rooms/{room_id}/redact/{event_id}/{txn_id}"),
}
"""What takes no body for one without fields, as clients send it."""
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "GET, POST, PUT, DELETE, OPTIONS",
    "access-control-allow-headers": "X-Requested-With, Content-Type, Authorization",
}
"""What the specification recommends to have in all answers."""
WRONG: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    2**53,
    "",
    "x",
    "\0",
    "🐘" * 100,
    [],
    [None],
    ["\0"],
    {},
    {"\0": 1},
    [[{}]],
)
RAW = {
    "nothing": b"",
    "white space": b" \n",
    "no JSON": b"{'a': 1}",
    "cut off": b'{"a": [1, 2',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a key twice": b'{"a": 1, "a": 2}',
    "a key twice inside": b'{"b": [{"a": 1, "\\u0061": 2}]}',
    "deep lists": b'{"a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep objects": b'{"a": ' * 20_000 + b"1" + b"}" * 20_000,
    "not a number": b'{"a": NaN}',
    "infinity": b'{"a": 1e999}',
    "minus infinity": b'{"a": -Infinity}',
    "a control character": b'{"a": "\x01"}',
    "a list": b"[1, 2]",
    "a string": b'"a"',
    "null": b"null",
    "trailing words": b'{"a": 1} {"b": 2}',
}
NO_EVENT = {
    "a float": b'{"a": 1.0}',
    "an exponent": b'{"a": 1e3}',
    "minus zero as a float": b'{"a": -0.0}',
    "beyond the range": b'{"a": 9007199254740992}',
    "far beyond the range": b'{"a": 123456789012345678901234567890}',
    "below the range": b'{"a": [{"b": -9007199254740992}]}',
}
ME = f"@me:{SERVER_NAME}"
STATE: dict[str, Any] = {
    "m.room.power_levels": {
        "users": {ME: 100},
        "users_default": 0,
        "events": {"m.room.name": 50},
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "invite": 0,
        "redact": 50,
        "notifications": {"room": 50},
    },
    "m.room.join_rules": {
        "join_rule": "restricted",
        "allow": [{"type": "m.room_membership", "room_id": "!a:b.example"}],
    },
    "m.room.history_visibility": {"history_visibility": "joined"},
    "m.room.guest_access": {"guest_access": "can_join"},
    "m.room.member": {"membership": "invite", "displayname": "x", "avatar_url": "mxc://a/b", "reason": "y"},
    "m.room.name": {"name": "a name"},
    "m.room.topic": {"topic": "a topic", "m.topic": {"m.text": [{"body": "a", "mimetype": "text/plain"}]}},
    "m.room.avatar": {"url": "mxc://a.example/b", "info": {"h": 1}},
    "m.room.canonical_alias": {"alias": "#none:b.example", "alt_aliases": ["#none:c.example"]},
    "m.room.server_acl": {"allow": ["*"], "deny": ["evil.example"], "allow_ip_literals": False},
    "m.room.encryption": {"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 1},
    "m.room.pinned_events": {"pinned": ["$a"]},
    "m.room.tombstone": {"body": "gone", "replacement_room": "!a:b.example"},
    "m.room.third_party_invite": {"display_name": "x", "public_key": "y", "public_keys": [{"public_key": "z"}]},
    "m.room.create": {"room_version": "11", "creator": ME, "predecessor": {"room_id": "!a:b.example"}},
    "m.room.aliases": {"aliases": ["#none:b.example"]},
    "m.space.child": {"via": ["b.example"], "order": "a", "suggested": True},
    "org.example.state": {"m.relates_to": {"rel_type": "m.reference", "event_id": "$a"}},
}
"""Every state event the specification knows of, as it should be."""
QUERY_VALUES = (
    *("", "x", "-1", "0", "1.5", "99999999999999999999", "true", "\0", "ü", "{", "[]", "t0", "t999999999"),
    *(
        "w1_00000000_5",
        "w1__",
        '{"limit":-1}',
        '{"types":[1]}',
        '{"room":{"timeline":{"limit":1e99}}}',
        '{"senders":{}}',
    ),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@dataclass
class World:
    """The server, somebody who asks, and what there is to ask about."""

    server: WholeServer
    http: httpx.Client
    token: str
    scene: Scene
    endpoints: list[tuple[str, str]]

    def raw(self, request: Request, body: bytes | None, token: bytes | None = b"") -> httpx.Response:
        """Send it, with these bytes for a body. No token for None, the asker's own for the empty one."""
        headers = {} if token is None else {b"authorization": b"Bearer " + (token or self.token.encode())}
        return self.http.request(
            request.method, request.path, params=request.query or None, content=body, headers=headers
        )

    def send(self, request: Request) -> httpx.Response:
        """Send it. Whoever leaves comes back, so that the next request is one of a member's."""
        answer = self.raw(request, None if request.body is None else json.dumps(request.body).encode())
        if request.template.endswith("/leave") and answer.status_code == 200:
            back = self.scene.request("POST", V3 + "/rooms/{room_id}/join")
            assert self.raw(back, b"{}").status_code == 200
        return answer

    def register(self, name: str) -> dict[str, Any]:
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        made: dict[str, Any] = self.http.post(V3 + "/register", json=body).raise_for_status().json()
        return made

    def appear(self, name: str, other_name: str) -> None:
        """Somebody new asks, with a room, a message, an upload and a key backup; and somebody else is there."""
        me, other = self.register(name), self.register(other_name)
        self.token = me["access_token"]
        ask = {"Authorization": f"Bearer {self.token}"}

        def asked(path: str, body: Any, method: str = "POST", **options: Any) -> Any:
            content = {"content": body} if isinstance(body, bytes) else {"json": body}
            headers = {**ask, **options}
            return self.http.request(method, path, headers=headers, **content).raise_for_status().json()  # type: ignore[arg-type]

        room_id = asked(V3 + "/createRoom", {"preset": "public_chat"})["room_id"]
        path = f"{V3}/rooms/{segment(room_id)}/send/m.room.message/first"
        login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": name}, "password": PASSWORD}
        asked(V3 + "/login", {**login, "device_id": SPARE})
        sent = asked(path, {"msgtype": "m.text", "body": "first"}, "PUT")
        uploaded = asked("/_matrix/media/v3/upload", PNG, **{"content-type": "image/png"})
        self.scene = Scene(
            me["user_id"],
            me["device_id"],
            room_id,
            sent["event_id"],
            other["user_id"],
            SERVER_NAME,
            uploaded["content_uri"].rpartition("/")[2],
            asked(V3 + "/room_keys/version", BACKUP)["version"],
            asked("/_matrix/media/v1/create", {})["content_uri"].rpartition("/")[2],
            f"{self.server.url}/_matrix/client/versions",
            PASSWORD,
        )

    def requests(self) -> Iterator[Request]:
        """A proper one for each endpoint, but for those that end the session."""
        for method, template in self.endpoints:
            if not template.endswith(CLOSING):
                yield self.scene.request(method, template)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        WholeServer(
            tmp_path_factory.mktemp("whole") / "d",
            # So that these requests get further than to a refusal.
            WALDEN_MEDIA_UNAUTHENTICATED="true",
            WALDEN_MEDIA_PREVIEW_ALLOWED_NETWORKS="127.0.0.0/8",
        ) as server,
        httpx.Client(base_url=server.url, timeout=60) as http,
    ):
        process, _ = compose(server.settings)
        # What is looked at or removed is made before.
        order = ("PUT", "POST", "GET", "DELETE")
        endpoints = sorted(process.routes.methods(), key=lambda found: (order.index(found[0]), found[1]))
        process.passwords.close()
        one = World(server, http, "", Scene("", "", "", "", "", SERVER_NAME), endpoints)
        one.appear("me", "other")
        yield one
        # Whatever the tests have sent, everything is judged, and somebody new can hold a conversation.
        server.rest()
        asyncio.run(_converse(server))
        logs = server.data_dir / "logs"
        for component in ("api", "roomserver-0"):
            text = (logs / f"{component}.log").read_text(encoding="utf-8", errors="replace")
            assert "Traceback" not in text, f"{component}: {text[text.index('Traceback') :][:3000]}"
            assert "unexpected error" not in text, f"{component}: {text[text.index('unexpected error') - 200 :][:3000]}"


async def _converse(server: WholeServer) -> None:
    async with Person(server.url) as one, Person(server.url) as other:
        await one.register()
        await other.register()
        room_id = await one.create_room()
        other.listen()
        await other.join(room_id)
        await other.until_seen(room_id, await one.send(room_id, "still there?"))


def check(answer: httpx.Response, asked: Any) -> None:
    """Success, or an error of the specification's form."""
    assert answer.status_code < 500, (answer.status_code, answer.text, asked)
    assert answer.headers["access-control-allow-origin"] == "*", asked
    if answer.status_code == 200 and "content-disposition" in answer.headers:
        # What somebody uploaded.
        return
    assert answer.headers["content-type"] == "application/json", asked
    body = answer.json()
    if answer.status_code == 401 and isinstance(body, dict) and "flows" in body:
        return
    if answer.status_code >= 400:
        assert isinstance(body["errcode"], str), (asked, body)
        assert body["errcode"].startswith("M_"), (asked, body)
        assert isinstance(body["error"], str), (asked, body)
    else:
        assert answer.status_code == 200, (answer.status_code, asked)


def check_all(requests: Iterable[Request], send: Callable[[Request], httpx.Response]) -> None:
    """Check the answers to all of them; a few are under way at a time, for most of the wait is for the disk."""
    rest = iter(requests)
    with ThreadPoolExecutor(8) as pool:
        # In slices, so that a failure ends it and no queue grows.
        while some := list(itertools.islice(rest, 200)):
            for request, answer in zip(some, pool.map(send, some), strict=True):
                check(answer, request)


def test_every_proper_request_is_understood(world: World) -> None:
    for request in world.requests():
        answer = world.send(request)
        check(answer, request)
        if answer.status_code in (404, 405):
            assert answer.json()["errcode"] != "M_UNRECOGNIZED", request
        if answer.status_code == 400:
            # It would be tested for nothing if the proper request were refused for its form.
            assert answer.json()["errcode"] not in ("M_BAD_JSON", "M_NOT_JSON"), (request, answer.text)


def test_proper_requests_about_encryption_and_media_succeed(world: World) -> None:
    """Or what is changed in them tests the first check alone."""
    somebody = replace(world)
    somebody.appear("somebody.new", "somebody.else")
    asked = 0
    for request in somebody.requests():
        if ENCRYPTION_AND_MEDIA.search(request.template):
            answer = somebody.send(request)
            assert answer.status_code == 200, (request, answer.status_code, answer.text)
            asked += 1
    assert asked > 40


def test_who_logs_out_may_send_anything(world: World) -> None:
    for template in (V3 + "/logout", V3 + "/logout/all"):
        request = world.scene.request("POST", template)
        for name, raw in RAW.items():
            login = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "leaving"}}
            answer = world.http.post(V3 + "/login", json={**login, "password": PASSWORD})
            made = answer.json() if answer.status_code == 200 else world.register("leaving")
            check(world.raw(request, raw, made["access_token"].encode()), (request, name))


def variations(value: Any) -> Iterator[Any]:
    """The value with every part of it once left out, and once replaced by each wrong one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield {name: kept for name, kept in value.items() if name != key}
            for other in itertools.chain(WRONG, variations(inner)):
                yield {**value, key: other}
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            for other in itertools.chain(WRONG, variations(inner)):
                yield [*value[:place], other, *value[place + 1 :]]


def test_a_field_that_is_absent_or_of_another_type_is_no_reason_to_fail(world: World) -> None:
    numbers = itertools.count()

    def varied() -> Iterator[Request]:
        for request in world.requests():
            if not request.body:
                continue
            parameters = world.scene.parameters(request.template)
            for body in itertools.chain(variations(request.body), WRONG):
                if "txn_id" in parameters:
                    parameters["txn_id"] = f"field{next(numbers)}"
                yield replace(request, path=fill(request.template, parameters), body=body)

    check_all(varied(), world.send)


def test_bytes_that_are_no_proper_json_are_refused_wherever_a_body_is_read(world: World) -> None:
    numbers = itertools.count()
    for request in world.requests():
        if request.method == "GET":
            continue
        parameters = world.scene.parameters(request.template)
        for name, raw in RAW.items():
            if "txn_id" in parameters:
                parameters["txn_id"] = f"raw{next(numbers)}"
            sent = replace(request, path=fill(request.template, parameters))
            answer = world.raw(sent, raw)
            check(answer, (sent, name))
            endpoint = request.method, request.template
            if request.body and endpoint not in NO_JSON and (raw or endpoint not in MAY_BE_EMPTY):
                assert answer.status_code == 400, (sent, name, answer.text)
                assert answer.json()["errcode"] in ("M_NOT_JSON", "M_BAD_JSON"), (sent, name, answer.text)


def test_numbers_that_no_event_may_hold_are_refused(world: World) -> None:
    kinds = ("/send/{event_type}/{txn_id}", "/state/{event_type}", "/state/{event_type}/{state_key}")
    for ending in kinds:
        request = world.scene.request("PUT", V3 + "/rooms/{room_id}" + ending)
        for name, raw in NO_EVENT.items():
            answer = world.raw(request, raw)
            assert (answer.status_code, answer.json()["errcode"]) == (400, "M_BAD_JSON"), (ending, name)


def test_every_endpoint_says_when_the_token_is_missing_or_unknown(world: World) -> None:
    for method, template in world.endpoints:
        request = world.scene.request(method, template)
        answer = world.raw(request, b"{}", None)
        check(answer, request)
        if (method, template) in PUBLIC:
            assert "M_MISSING_TOKEN" not in answer.text, request
            continue
        if "flows" in answer.json():
            # "account/password" and "account/deactivate" can be authenticated by other means than a token.
            assert template.endswith(("/account/password", "/account/deactivate")), request
            continue
        assert (answer.status_code, answer.json()["errcode"]) == (401, "M_MISSING_TOKEN"), request
        for token in (b"nonsense", b"x" * 4000, b"%00", "ü".encode(), b"\xff"):
            answer = world.raw(request, b"{}", token)
            assert (answer.status_code, answer.json()["errcode"]) == (401, "M_UNKNOWN_TOKEN"), (request, token)


def test_every_path_says_which_methods_it_does_not_have(world: World) -> None:
    templates = {template for _, template in world.endpoints}
    for template in sorted(templates):
        has = {method for method, found in world.endpoints if found == template}
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - has:
            answer = world.raw(replace(world.scene.request("POST", template), method=method, query={}), b"{}")
            check(answer, (method, template))
            assert (answer.status_code, answer.json()["errcode"]) == (405, "M_UNRECOGNIZED"), (method, template)


def test_no_path_below_an_endpoint_is_taken_for_another(world: World) -> None:
    for method, template in world.endpoints:
        request = world.scene.request(method, template)
        answer = world.raw(replace(request, path=f"{request.path.rstrip('/')}/is/not/there"), b"{}")
        check(answer, request)
        assert (answer.status_code, answer.json()["errcode"]) == (404, "M_UNRECOGNIZED"), request


def test_every_answer_may_be_read_by_pages_of_any_origin(world: World) -> None:
    for request in world.requests():
        asked = world.http.options(request.path, headers={"origin": "https://x.example"})
        assert (asked.status_code, asked.json()) == (200, {}), request
        for answer in (asked, world.raw(request, b"{}", b"nonsense"), world.raw(request, b"{")):
            assert CORS.items() <= dict(answer.headers).items(), request


def test_no_query_makes_a_reader_fail(world: World) -> None:
    names = {"limit", "from", "to", "at", "since", "server"}
    varied = (
        replace(request, query={**request.query, name: value})
        for request in world.requests()
        if request.method == "GET"
        for name in {*request.query, *names}
        for value in QUERY_VALUES
    )
    check_all(varied, lambda request: world.raw(request, None))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_nothing_that_can_be_generated_makes_an_endpoint_fail(world: World, data: st.DataObject) -> None:
    requests = list(world.requests())
    request = data.draw(st.sampled_from(requests))
    parameters = world.scene.parameters(request.template)
    changed = data.draw(
        st.dictionaries(st.sampled_from(sorted(parameters) or ["-"]), st.text(min_size=1, max_size=300), max_size=2)
    )
    path = fill(
        request.template, {**parameters, **{name: value for name, value in changed.items() if name in parameters}}
    )
    raw: bytes | None = None
    if request.method != "GET":
        body = json.dumps(request.body).encode()
        place = data.draw(st.integers(0, len(body)))
        mutilated = st.binary(max_size=6).map(lambda noise: body[:place] + noise + body[place + len(noise) // 2 :])
        fields = request.body if isinstance(request.body, dict) and request.body else {"a": 1}
        replaced = st.dictionaries(st.sampled_from(sorted(fields)), VALUES, max_size=3).map(
            lambda new: {**fields, **new}
        )
        serialised = (VALUES | replaced).map(
            lambda value: json.dumps(value, allow_nan=True).encode("utf-8", "surrogatepass")
        )
        raw = data.draw(mutilated | serialised | st.binary(max_size=64))
    with contextlib.suppress(UnicodeEncodeError):
        varied = replace(request, path=path)
        check(world.raw(varied, raw), (varied, raw))


@pytest.mark.parametrize("room_version", ROOM_VERSIONS)
def test_no_state_makes_a_room_unusable_for_its_readers(world: World, room_version: str) -> None:
    asker = {"Authorization": f"Bearer {world.token}"}
    for event_type, content in STATE.items():
        options = {"preset": "public_chat", "room_version": room_version}
        made = world.http.post(V3 + "/createRoom", json=options, headers=asker).raise_for_status()
        scene = replace(world.scene, room_id=made.json()["room_id"])
        template = V3 + "/rooms/{room_id}/state/{event_type}/{state_key}"
        # Mostly the state key that means something, for some readers look at no other.
        keys = (
            itertools.cycle(("", "", "", "another"))
            if event_type != "m.room.member"
            else itertools.repeat(scene.other_id)
        )
        values = {"room_id": scene.room_id, "event_type": event_type}
        bodies = itertools.chain([content], variations(content), WRONG)
        check_all(
            (
                Request("PUT", template, fill(template, {**values, "state_key": key}), {}, body)
                for key, body in zip(keys, bodies, strict=False)
            ),
            world.send,
        )
        for method, template in world.endpoints:
            if method == "GET" and "{room_id}" in template:
                request = scene.request(method, template)
                answer = world.send(request)
                check(answer, request)
                if template.endswith(("/state", "/members", "/joined_members", "/messages")):
                    assert answer.status_code == 200, (event_type, request, answer.text)


async def test_strings_may_have_the_character_zero_and_arrive_as_they_were_sent(world: World) -> None:
    async with Person(world.server.url) as one, Person(world.server.url) as other:
        await one.register()
        await other.register()
        room_id = await one.create_room(power_level_content_override={"state_default": 0, "events_default": 0})
        await other.join(room_id)
        other.listen()
        content = {"msgtype": "m.text", "body": "a\0b", "\0": {"x\0": ["\0", "\\u0000"]}}
        room = f"rooms/{segment(room_id)}"
        sent = await one.call("PUT", f"{room}/send/org.example.a%00b/zero%00transaction", content)
        again = await one.call("PUT", f"{room}/send/org.example.a%00b/zero%00transaction", content)
        assert sent == again
        state = await one.call("PUT", f"{room}/state/org.example.state%00/key%00", content)
        await one.call("PUT", f"user/{segment(one.user_id)}/account_data/org.example%00", content)
        await one.call("PUT", f"profile/{segment(one.user_id)}/displayname", {"displayname": "A\0Z"})
        await other.until_seen(room_id, sent["event_id"])
        await other.until_seen(room_id, state["event_id"])
        seen = {event["event_id"]: event for event in other.timelines[room_id]}
        assert seen[sent["event_id"]]["content"] == content
        assert seen[sent["event_id"]]["type"] == "org.example.a\0b"
        assert seen[state["event_id"]]["content"] == content
        assert seen[state["event_id"]]["state_key"] == "key\0"
        assert await other.call("GET", f"{room}/state/org.example.state%00/key%00") == content
        assert await one.call("GET", f"user/{segment(one.user_id)}/account_data/org.example%00") == content
        assert (await one.call("GET", f"profile/{segment(one.user_id)}"))["displayname"] == "A\0Z"


async def test_an_event_of_65536_bytes_arrives_and_one_of_a_byte_more_is_too_large(world: World) -> None:
    async with Person(world.server.url) as one, Person(world.server.url) as other:
        await one.register()
        await other.register()
        room_id = await one.create_room()
        await other.join(room_id)
        other.listen()
        room = f"rooms/{segment(room_id)}"

        async def send(filling: int) -> tuple[int, Any]:
            return await one.once("PUT", f"{room}/send/m.room.message/{filling}", {"body": "x" * filling})

        # From the tenth event on, depth has two digits: the rest of an event then has one length.
        for filling in range(1, 11):
            await send(filling)
        _, measured = await send(50_000)
        rows = world.server.rows(
            "select octet_length(json) as bytes from eventlog.events where event_id = %(event_id)s",
            event_id=measured["event_id"],
        )
        most = 65_536 - (rows[0]["bytes"] - 50_000)
        status, answer = await send(most + 1)
        assert (status, answer["errcode"]) == (413, "M_TOO_LARGE")
        status, answer = await send(most)
        assert status == 200
        rows = world.server.rows(
            "select octet_length(json) as bytes from eventlog.events where event_id = %(event_id)s",
            event_id=answer["event_id"],
        )
        assert rows[0]["bytes"] == 65_536
        await other.until_seen(room_id, answer["event_id"])
        assert other.timelines[room_id][-1]["content"] == {"body": "x" * most}


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x00\x01\x02\x03\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /_matrix/client/versions HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET /_matrix/client/versions HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n{}",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n{}",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999\r\n\r\n{}",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n0\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{",
        b"BREW /_matrix/client/versions HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET /%ff%fe/%zz?%zz=%ff HTTP/1.1\r\nhost: a\r\n\r\n",
    ],
)
def test_bytes_that_are_no_proper_http_end_their_connection_at_most(world: World, request_bytes: bytes) -> None:
    host, port = world.server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        with contextlib.suppress(OSError):
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65_536):
                answer += piece
                if b"\r\n\r\n" in answer:
                    break
    assert not answer or b" 500 " not in answer.split(b"\r\n", 1)[0], answer[:300]
    assert world.http.get("/_matrix/client/versions").status_code == 200

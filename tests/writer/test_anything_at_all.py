"""Every endpoint is asked nonsense: whatever comes, the answer is an error of the specification's form, and never a 500."""

import re
from typing import Any

import orjson
import pytest
from api_server import Answer, Api, Client, part
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SEGMENTS = [
    "x",
    "\0",
    "nul\0",
    "!nowhere:test.example",
    "@nobody:test.example",
    "#nothing:test.example",
    "$nothing",
    "!" + "x" * 300 + ":test.example",
    "\U0010ffff",
    "../..",
    "a b/c%d",
    "ü",
    "m.room.member",
    "-1",
    "{}",
]
QUERIES = [
    "",
    "?limit=x",
    "?limit=-5",
    "?limit=99999999999999999999",
    "?from=x&to=y&dir=z",
    "?since=\U0001f98a",
    "?x",
    "?kind=&x=",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
FIELDS = """type identifier user password token device_id initial_device_display_name refresh_token username auth inhibit_login
 new_password logout_devices display_name devices visibility preset room_alias_name name topic invite invite_3pid room_version
 creation_content initial_state is_direct power_level_content_override user_id reason third_party_signed typing timeout thread_id
 m.fully_read m.read m.read.private displayname avatar_url order room enabled actions pattern conditions room_id limit since filter
 nonce mac admin suspended locked client_secret sid email send_attempt next_link medium address three_pid_creds id_server
 guest_access_token erase country phone_number""".split()  # noqa: SIM905
BODIES = st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=4) | VALUES
# What another test does on purpose, and what waits.
SKIPPED = ("/sync", "/account/deactivate", "/logout", "/logout/all")


def _check(answer: Answer, asked: str) -> None:
    assert answer.status < 500, (asked, answer.body)
    if answer.status >= 400:
        assert (answer.status == 401 and "flows" in answer.body) or answer.errcode is not None, (asked, answer.body)
        assert answer.errcode != "M_UNRECOGNIZED" or answer.status in (401, 404, 405), (asked, answer.body)


async def _ask(user: Client, method: str, path: str, body: bytes | None) -> None:
    _check(await user.call(method, path, content=body), f"{method} {path} {body!r:.200}")


def _serialised(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:
        # Integers of more than 64 bits.
        import json

        return json.dumps(body).encode()


@pytest.mark.slow
async def test_no_path_and_no_query_makes_the_server_fail(api: Api) -> None:
    user = await api.register()
    room_id = await user.create_room(preset="public_chat")
    for method, template in api.process.routes.methods():
        if template.endswith(SKIPPED):
            continue
        names = re.findall(r"\{(\w+)\}", template)
        own = {"room_id": room_id, "user_id": user.user_id, "room_id_or_alias": room_id}
        for number, segment in enumerate(SEGMENTS):
            for proper in ((), tuple(own)):
                path = template
                for name in names:
                    path = path.replace(f"{{{name}}}", part(own[name] if name in proper else segment))
                body = None if method == "GET" else (b"{}", b"", b"[]", b"\xff")[number % 4]
                await _ask(user, method, path + QUERIES[number % len(QUERIES)], body)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
async def test_no_body_makes_the_server_fail(api: Api, data: st.DataObject) -> None:
    users: dict[str, Any] = api.__dict__.setdefault("_nonsense", {})
    if not users:
        users["user"] = await api.register()
        users["room"] = await users["user"].create_room(preset="public_chat")
    user, room_id = users["user"], users["room"]
    own = {"room_id": room_id, "user_id": user.user_id, "room_id_or_alias": room_id, "field": "displayname"}
    routes = sorted((m, t) for m, t in api.process.routes.methods() if m != "GET" and not t.endswith(SKIPPED))
    method, template = data.draw(st.sampled_from(routes))
    path = re.sub(r"\{(\w+)\}", lambda found: part(own.get(found[1], "x")), template)
    await _ask(user, method, path, _serialised(data.draw(BODIES)))

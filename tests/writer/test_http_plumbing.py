"""What every request has in common: paths, tokens, bodies, CORS."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from api_server import Api, part

VERSIONS = "/_matrix/client/versions"


async def test_an_unknown_path_is_not_recognised(api: Api) -> None:
    assert (await api.anybody.get("nothing/here")).refusal == (404, "M_UNRECOGNIZED")
    assert (await api.anybody.get("/")).refusal == (404, "M_UNRECOGNIZED")


async def test_a_wrong_method_is_not_recognised(api: Api) -> None:
    answer = await api.anybody.delete(VERSIONS)
    assert answer.refusal == (405, "M_UNRECOGNIZED")
    assert "GET" in answer.headers["allow"]
    assert (await api.anybody.call("FROBNICATE", VERSIONS)).status in (400, 405)


async def test_a_request_without_a_token_is_told_so(api: Api) -> None:
    assert (await api.anybody.get("account/whoami")).refusal == (401, "M_MISSING_TOKEN")
    for header in ("", "Bearer", "Bearer ", "Basic abc"):
        answer = await api.anybody.call("GET", "account/whoami", headers={"Authorization": header})
        assert answer.refusal == (401, "M_MISSING_TOKEN")


async def test_an_unknown_token_is_told_so(api: Api) -> None:
    for token in ("x", "a b", "ü", "x" * 5000):
        answer = await api.anybody.call("GET", "account/whoami", headers={"Authorization": f"Bearer {token}".encode()})
        assert answer.refusal == (401, "M_UNKNOWN_TOKEN")
        assert answer.body["soft_logout"] is False


async def test_the_scheme_of_a_token_may_be_written_in_any_case(api: Api) -> None:
    alice = await api.register()
    answer = await api.anybody.call("GET", "account/whoami", headers={"Authorization": f"bearer {alice.token}"})
    assert answer.ok()["user_id"] == alice.user_id


async def test_a_token_in_the_query_string_still_counts(api: Api) -> None:
    alice = await api.register()
    assert (await api.anybody.get(f"account/whoami?access_token={alice.token}")).ok()["user_id"] == alice.user_id
    assert (await api.anybody.get("account/whoami?access_token=")).refusal == (401, "M_MISSING_TOKEN")


async def test_every_answer_to_options_is_an_empty_success_with_cors_headers(api: Api) -> None:
    for path in (VERSIONS, "/_matrix/client/v3/sync", "/nothing"):
        response = await api.http.options(path)
        assert response.status_code == 200
        assert response.headers["access-control-allow-methods"] == "GET, POST, PUT, DELETE, OPTIONS"
        assert "Authorization" in response.headers["access-control-allow-headers"]


async def test_old_clients_may_say_r0(api: Api) -> None:
    alice = await api.register()
    assert (await alice.get("/_matrix/client/r0/account/whoami")).ok()["user_id"] == alice.user_id


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff\xfe", b'{"a": NaN}', b"{'a': 1}"])
async def test_what_is_no_json_is_told_so(api: Api, body: bytes) -> None:
    assert (await api.anybody.call("POST", "login", content=body)).refusal == (400, "M_NOT_JSON")


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"1", b"null", b'{"a": 1, "a": 2}', b"[" * 5000 + b"]" * 5000])
async def test_json_that_is_no_proper_object_is_bad(api: Api, body: bytes) -> None:
    assert (await api.anybody.call("POST", "login", content=body)).refusal == (400, "M_BAD_JSON")


async def test_the_content_type_does_not_matter(api: Api) -> None:
    for content_type in ("text/plain", "application/x-www-form-urlencoded", "x", ""):
        answer = await api.anybody.call("POST", "login", content=b"{}", headers={"Content-Type": content_type})
        assert answer.refusal == (400, "M_MISSING_PARAM")


async def test_a_body_beyond_the_limit_is_too_large_whatever_its_length_says(api: Api) -> None:
    limit = 1_048_576
    assert (await api.anybody.call("POST", "login", content=b" " * limit)).refusal == (400, "M_NOT_JSON")
    assert (await api.anybody.call("POST", "login", content=b" " * (limit + 1))).refusal == (413, "M_TOO_LARGE")

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * 100_000

    response = await api.http.post("/_matrix/client/v3/login", content=chunks())
    assert (response.status_code, response.json()["errcode"]) == (413, "M_TOO_LARGE")


async def test_a_query_string_of_bytes_that_are_no_text_is_refused(api: Api) -> None:
    assert (await api.anybody.get("register/available?username=a%00b")).refusal == (400, "M_INVALID_PARAM")


async def test_a_path_that_is_no_utf8_is_refused(api: Api) -> None:
    alice = await api.register()
    assert (await alice.get("profile/%ff%fe")).refusal == (400, "M_INVALID_PARAM")


async def test_a_slash_within_a_path_segment_belongs_to_it(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    path = f"rooms/{part(room_id)}/state/{part('org.example/slashed')}/{part('a/b%c d')}"
    (await alice.put(path, {"value": 1})).ok()
    assert await alice.state(room_id, "org.example/slashed", "a/b%c d") == {"value": 1}


async def test_versions_need_no_token_and_ignore_a_bad_one(api: Api) -> None:
    assert "v1.11" in (await api.anybody.get(VERSIONS)).ok()["versions"]
    answer = await api.anybody.call("GET", VERSIONS, headers={"Authorization": "Bearer nonsense"})
    assert answer.status == 200


async def test_discovery_names_the_base_url(api: Api) -> None:
    found = (await api.anybody.get("/.well-known/matrix/client")).ok()
    assert found["m.homeserver"]["base_url"].startswith("http")
    assert (await api.anybody.get("/.well-known/matrix/support")).refusal == (404, "M_NOT_FOUND")


async def test_capabilities_name_the_room_versions(api: Api) -> None:
    alice = await api.register()
    capabilities = (await alice.get("capabilities")).ok()["capabilities"]
    assert capabilities["m.room_versions"]["default"] == "12"
    assert set(capabilities["m.room_versions"]["available"]) == {str(n) for n in range(1, 13)}
    assert capabilities["m.change_password"] == {"enabled": True}


async def test_requests_at_once_do_not_meet(api: Api) -> None:
    users = await asyncio.gather(*(api.register() for _ in range(8)))
    answers = await asyncio.gather(*(user.get("account/whoami") for user in users for _ in range(5)))
    assert [answer.ok()["user_id"] for answer in answers] == [user.user_id for user in users for _ in range(5)]

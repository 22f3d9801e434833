import hashlib
import hmac
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_server import Api, serving, settings_for

DUMMY = {"type": "m.login.dummy"}


async def test_registration_first_asks_for_authentication_and_then_makes_the_account(api: Api) -> None:
    asked = await api.anybody.post("register", {"username": "first.asked", "password": "secret!"})
    assert asked.status == 401
    assert asked.body["flows"] == [{"stages": ["m.login.dummy"]}]
    assert asked.body["completed"] == [] and asked.body["params"] == {}
    assert "errcode" not in asked.body
    auth = {**DUMMY, "session": asked.body["session"]}
    made = await api.anybody.post("register", {"username": "first.asked", "password": "secret!", "auth": auth})
    assert made.ok()["user_id"] == "@first.asked:test.example"
    assert made.body["access_token"] and made.body["device_id"]
    whoami = await api.anybody.get(f"account/whoami?access_token={made.body['access_token']}")
    assert whoami.ok() == {
        "user_id": "@first.asked:test.example",
        "device_id": made.body["device_id"],
        "is_guest": False,
    }


async def test_a_user_without_a_wish_gets_a_name(api: Api) -> None:
    one = (await api.anybody.post("register", {"password": "secret!", "auth": DUMMY})).ok()
    other = (await api.anybody.post("register", {"password": "secret!", "auth": DUMMY})).ok()
    assert one["user_id"] != other["user_id"]


async def test_without_login_there_is_no_token(api: Api) -> None:
    body = {"username": "no.login", "password": "secret!", "auth": DUMMY, "inhibit_login": True}
    made = (await api.anybody.post("register", body)).ok()
    assert made["user_id"] == "@no.login:test.example"
    assert not made.keys() & {"access_token", "device_id", "refresh_token"}


async def test_a_name_is_given_once(api: Api) -> None:
    await api.register("taken")
    again = await api.anybody.post("register", {"username": "taken", "password": "x"})
    assert again.refusal == (400, "M_USER_IN_USE")
    assert (await api.anybody.get("register/available?username=taken")).refusal == (400, "M_USER_IN_USE")
    assert (await api.anybody.get("register/available?username=still.free")).ok() == {"available": True}
    assert (await api.anybody.get("register/available")).refusal == (400, "M_MISSING_PARAM")


@pytest.mark.parametrize(
    "username", ["", "K-sign-\u212a", "with space", "@a:test.example", "ümlaut", "a" * 250, "nul\0"]
)
async def test_a_name_that_cannot_be_is_refused_before_authentication(api: Api, username: str) -> None:
    assert (await api.anybody.post("register", {"username": username})).refusal == (400, "M_INVALID_USERNAME")


async def test_capitals_in_a_name_are_made_small(api: Api) -> None:
    body = {"username": "User-UPPER", "password": "secret!", "auth": DUMMY}
    assert (await api.anybody.post("register", body)).ok()["user_id"] == "@user-upper:test.example"
    assert (await api.anybody.get("register/available?username=USER-upper")).refusal == (400, "M_USER_IN_USE")


async def test_guests_are_refused(api: Api) -> None:
    assert (await api.anybody.post("register?kind=guest", {})).refusal == (403, "M_GUEST_ACCESS_FORBIDDEN")
    assert (await api.anybody.post("register?kind=robot", {})).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", 5),
        ("password", ["x"]),
        ("device_id", {}),
        ("initial_device_display_name", 1),
        ("inhibit_login", "yes"),
        ("refresh_token", 1),
        ("auth", "m.login.dummy"),
        ("auth", {"type": 1}),
        ("auth", {"type": "m.login.dummy", "session": 1}),
    ],
)
async def test_a_field_of_the_wrong_type_is_bad_json(api: Api, field: str, value: Any) -> None:
    answer = await api.anybody.post("register", {"auth": DUMMY, field: value})
    assert answer.refusal == (400, "M_BAD_JSON")


async def test_a_stage_that_is_not_offered_does_not_count(api: Api) -> None:
    answer = await api.anybody.post("register", {"auth": {"type": "m.login.recaptcha"}})
    assert answer.refusal == (401, "M_UNRECOGNIZED")
    assert answer.body["flows"]


async def test_an_empty_password_is_too_weak(api: Api) -> None:
    assert (await api.anybody.post("register", {"password": "", "auth": DUMMY})).refusal == (400, "M_WEAK_PASSWORD")


async def test_a_device_that_is_named_keeps_its_name(api: Api) -> None:
    user = await api.register(device_id="MYDEVICE", initial_device_display_name="Phone")
    device = (await user.get("devices/MYDEVICE")).ok()
    assert device["display_name"] == "Phone"


async def test_registration_with_tokens_takes_each_as_often_as_allowed(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    settings = settings_for(writers_database, writers_folder, WALDEN_REGISTRATION="token")
    with psycopg.connect(writers_database, autocommit=True) as connection:
        connection.execute("insert into writer.registration_tokens (token, uses_allowed) values ('once', 1)")
        connection.execute(
            "insert into writer.registration_tokens (token, expires_at) values ('over', now() - interval '1 s')"
        )
    validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token="
    async with serving(settings) as other:
        asked = await other.anybody.post("register", {"username": "holder", "password": "secret!"})
        assert asked.body["flows"] == [{"stages": ["m.login.registration_token"]}]
        assert (await other.anybody.get(validity + "once")).ok() == {"valid": True}
        assert (await other.anybody.get(validity + "over")).ok() == {"valid": False}
        assert (await other.anybody.get(validity + "never")).ok() == {"valid": False}
        auth = {"type": "m.login.registration_token", "session": asked.body["session"]}
        for token in ("never", "over", "not a token", "x" * 300):
            body = {"username": "holder", "password": "secret!", "auth": {**auth, "token": token}}
            refused = await other.anybody.post("register", body)
            assert refused.refusal == (401, "M_FORBIDDEN")
            assert refused.body["flows"] and refused.body["session"] == asked.body["session"]
        body = {"username": "holder", "password": "secret!", "auth": {**auth, "token": "once"}}
        (await other.anybody.post("register", body)).ok()
        body = {"username": "holder2", "password": "secret!", "auth": {**auth, "token": "once"}}
        assert (await other.anybody.post("register", body)).refusal == (401, "M_FORBIDDEN")
        assert (await other.anybody.get(validity + "once")).ok() == {"valid": False}
    assert (await api.anybody.get(validity + "once")).refusal == (403, "M_FORBIDDEN")


async def test_registration_that_is_off_is_forbidden(writers_database: str, writers_folder: Path) -> None:
    async with serving(settings_for(writers_database, writers_folder, WALDEN_REGISTRATION="off")) as other:
        assert (await other.anybody.post("register", {"auth": DUMMY})).refusal == (403, "M_FORBIDDEN")
        assert (await other.anybody.get("/_synapse/admin/v1/register")).refusal == (400, "M_UNKNOWN")


def _mac(nonce: str, username: str, password: str, admin: bool) -> str:
    parts = "\0".join((nonce, username, password, "admin" if admin else "notadmin"))
    return hmac.new(b"the secret", parts.encode(), hashlib.sha1).hexdigest()


async def test_who_knows_the_shared_secret_makes_accounts(writers_database: str, writers_folder: Path) -> None:
    settings = settings_for(
        writers_database,
        writers_folder,
        WALDEN_REGISTRATION="shared-secret",
        WALDEN_REGISTRATION_SHARED_SECRET="the secret",
    )
    path = "/_synapse/admin/v1/register"
    async with serving(settings) as other:
        assert (await other.anybody.post("register", {"auth": DUMMY})).refusal == (403, "M_FORBIDDEN")
        nonce = (await other.anybody.get(path)).ok()["nonce"]
        body = {"nonce": nonce, "username": "boss", "password": "secret!", "admin": True}
        wrong = {**body, "mac": _mac(nonce, "boss", "secret!", False)}
        assert (await other.anybody.post(path, wrong)).refusal == (403, "M_FORBIDDEN")
        foreign = {**body, "nonce": "1-2-3", "mac": _mac("1-2-3", "boss", "secret!", True)}
        assert (await other.anybody.post(path, foreign)).refusal == (400, "M_UNKNOWN")
        right = {**body, "mac": _mac(nonce, "boss", "secret!", True)}
        made = (await other.anybody.post(path, right)).ok()
        assert made["user_id"] == "@boss:test.example" and made["access_token"]
        assert (await other.anybody.post(path, right)).refusal == (400, "M_USER_IN_USE")
        assert (await other.anybody.post(path, {**right, "mac": 5})).refusal == (400, "M_BAD_JSON")
        assert (await other.anybody.post(path, {"nonce": nonce})).refusal == (400, "M_MISSING_PARAM")


async def test_a_session_that_has_begun_is_known_to_another_process(
    api: Api, writers_database: str, writers_folder: Path
) -> None:
    asked = await api.anybody.post("register", {"username": "two.processes", "password": "secret!"})
    auth = {**DUMMY, "session": asked.body["session"]}
    async with serving(settings_for(writers_database, writers_folder)) as other:
        body = {"username": "two.processes", "password": "secret!", "auth": auth}
        (await other.anybody.post("register", body)).ok()

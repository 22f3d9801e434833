from pathlib import Path
from typing import Any

import psycopg
from api_server import Api, Client, serving, settings_for

from writer.accounts import set_locked

GET_TOKEN = "/_matrix/client/v1/login/get_token"


def _auth(user: Client) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"auth": {"type": "m.login.password", "identifier": identifier, "password": user.password}}


def _login(token: str) -> dict[str, str]:
    return {"type": "m.login.token", "token": token}


async def test_a_token_logs_one_more_device_in_once(api: Api) -> None:
    alice = await api.register()
    flows = (await api.anybody.get("login")).ok()["flows"]
    assert {"type": "m.login.token", "get_login_token": True} in flows
    asked = await alice.post(GET_TOKEN, {})
    assert asked.status == 401 and asked.body["flows"] == [{"stages": ["m.login.password"]}]
    made = (await alice.post(GET_TOKEN, _auth(alice))).ok()
    assert made["expires_in_ms"] == 120_000
    found = (await api.anybody.post("login", {**_login(made["login_token"]), "device_id": "NEW"})).ok()
    assert (found["user_id"], found["device_id"]) == (alice.user_id, "NEW")
    (await Client(api, token=found["access_token"]).get("account/whoami")).ok()
    again = await api.anybody.post("login", _login(made["login_token"]))
    assert again.refusal == (403, "M_FORBIDDEN")


async def test_each_token_needs_the_password_again(api: Api) -> None:
    alice = await api.register()
    asked = await alice.post(GET_TOKEN, {})
    body = _auth(alice)
    body["auth"]["session"] = asked.body["session"]
    (await alice.post(GET_TOKEN, body)).ok()
    again = {"auth": {"session": asked.body["session"]}}
    assert (await alice.post(GET_TOKEN, again)).status == 401


async def test_a_token_ends_with_its_time_its_account_and_a_lock(api: Api, writers_database: str) -> None:
    alice = await api.register()
    tokens = [(await alice.post(GET_TOKEN, _auth(alice))).ok()["login_token"] for _ in range(3)]
    async with api.process.pool.connection() as connection:
        await set_locked(connection, alice.user_id, True)
        assert (await api.anybody.post("login", _login(tokens[0]))).refusal == (401, "M_USER_LOCKED")
        await set_locked(connection, alice.user_id, False)
    api.process.sessions.forget(alice.user_id)
    with psycopg.connect(writers_database, autocommit=True) as owner:
        owner.execute(
            "update writer.login_tokens set expires_at = now() - interval '1 s' where user_id = %s", [alice.user_id]
        )
    assert (await api.anybody.post("login", _login(tokens[1]))).refusal == (403, "M_FORBIDDEN")
    token = (await alice.post(GET_TOKEN, _auth(alice))).ok()["login_token"]
    (await alice.post("account/deactivate", _auth(alice))).ok()
    assert (await api.anybody.post("login", _login(token))).refusal == (403, "M_FORBIDDEN")


async def test_a_server_may_give_out_no_login_tokens(writers_database: str, writers_folder: Path) -> None:
    settings = settings_for(writers_database, writers_folder, WALDEN_SESSIONS_LOGIN_TOKENS="off")
    async with serving(settings) as other:
        alice = await other.register()
        assert [flow["type"] for flow in (await other.anybody.get("login")).ok()["flows"]] == ["m.login.password"]
        assert (await alice.post(GET_TOKEN, _auth(alice))).refusal == (400, "M_UNKNOWN")
        assert (await other.anybody.post("login", _login("x"))).refusal == (400, "M_UNKNOWN")
        capabilities = (await alice.get("capabilities")).ok()["capabilities"]
        assert capabilities["m.get_login_token"] == {"enabled": False}


async def test_access_tokens_without_a_refresh_may_end_in_a_soft_logout(
    writers_database: str, writers_folder: Path
) -> None:
    settings = settings_for(writers_database, writers_folder, WALDEN_SESSIONS_UNREFRESHABLE_SECONDS="3600")
    async with serving(settings) as other:
        alice = await other.register()
        body = {"type": "m.login.password", "user": alice.user_id, "password": alice.password}
        made = (await other.anybody.post("login", body)).ok()
        assert made["expires_in_ms"] == 3_600_000 and "refresh_token" not in made
        with psycopg.connect(writers_database, autocommit=True) as owner:
            owner.execute(
                "update writer.sessions set expires_at = now() - interval '30 days' where user_id = %s", [alice.user_id]
            )
        phone = Client(other, token=made["access_token"])
        ended = await phone.get("account/whoami")
        assert ended.refusal == (401, "M_UNKNOWN_TOKEN") and ended.body["soft_logout"] is True
        again = (await other.anybody.post("login", {**body, "device_id": made["device_id"]})).ok()
        assert again["device_id"] == made["device_id"]

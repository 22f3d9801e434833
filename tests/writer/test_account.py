from typing import Any

import psycopg
import pytest
from api_server import Api, Client

URL = "https://gateway.example/_matrix/push/v1/notify"


def _password(user: Client, **more: Any) -> dict[str, Any]:
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": user.password, **more}


async def test_a_new_password_needs_the_old_one_and_logs_out_other_devices(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    asked = await alice.post("account/password", {"new_password": "new password"})
    assert asked.status == 401
    assert asked.body["flows"] == [{"stages": ["m.login.password"]}]
    session = asked.body["session"]
    wrong = {"new_password": "new password", "auth": {**_password(alice, session=session), "password": "wrong"}}
    refused = await alice.post("account/password", wrong)
    assert refused.refusal == (401, "M_FORBIDDEN")
    assert refused.body["session"] == session
    right = {"new_password": "new password", "auth": _password(alice, session=session)}
    assert (await alice.post("account/password", right)).ok() == {}
    (await alice.get("account/whoami")).ok()
    assert (await phone.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
    old = {"type": "m.login.password", "user": alice.user_id, "password": alice.password}
    assert (await api.anybody.post("login", old)).refusal == (403, "M_FORBIDDEN")
    (await api.anybody.post("login", {**old, "password": "new password"})).ok()


async def test_other_devices_stay_when_asked_for(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    body = {"new_password": "new password", "logout_devices": False, "auth": _password(alice)}
    (await alice.post("account/password", body)).ok()
    (await phone.get("account/whoami")).ok()


async def test_a_device_may_have_any_id_and_its_own_sessions_nevertheless(api: Api) -> None:
    alice = await api.register()
    odd = await api.login(alice, device_id="\U0010ffff odd")
    gateway = {"kind": "http", "app_id": "org.example", "pushkey": "odd", "data": {"url": URL}}
    names = {"app_display_name": "App", "device_display_name": "Phone", "lang": "en"}
    (await odd.post("pushers/set", {**gateway, **names})).ok()
    (await odd.post("account/password", {"new_password": "new password", "auth": _password(alice)})).ok()
    assert (await odd.get("account/whoami")).ok()["device_id"] == odd.device_id
    assert len((await odd.get("pushers")).ok()["pushers"]) == 1
    assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_another_users_password_does_not_do(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    body = {"new_password": "new password", "auth": _password(bob)}
    assert (await alice.post("account/password", body)).refusal == (401, "M_FORBIDDEN")
    device = f"devices/{alice.device_id}"
    assert (await alice.delete(device, {"auth": _password(bob)})).refusal == (403, "M_FORBIDDEN")
    (await alice.get(device)).ok()
    assert (await alice.post("account/deactivate", {"auth": _password(bob)})).refusal == (403, "M_FORBIDDEN")
    assert (await alice.delete(device, {"auth": {**_password(bob), "password": "x"}})).refusal == (401, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"new_password": 5}, (400, "M_BAD_JSON")),
        ({"new_password": ""}, (400, "M_WEAK_PASSWORD")),
        ({"new_password": "x" * 5000}, (400, "M_INVALID_PARAM")),
        ({"new_password": "x", "logout_devices": "no"}, (400, "M_BAD_JSON")),
        ({"new_password": "x", "auth": []}, (400, "M_BAD_JSON")),
        ({"new_password": "x", "auth": {"type": "m.login.password"}}, (400, "M_MISSING_PARAM")),
        ({"new_password": "x", "auth": {"type": "m.login.password", "identifier": 1}}, (400, "M_BAD_JSON")),
        ({"new_password": "x", "auth": {"session": "no such/session"}}, (403, "M_FORBIDDEN")),
    ],
)
async def test_a_change_of_password_that_is_not_well_formed_is_refused(
    api: Api, body: dict[str, Any], refusal: tuple[int, str]
) -> None:
    alice = await api.register()
    assert (await alice.post("account/password", body)).refusal == refusal


async def test_a_deactivated_account_has_left_its_rooms_and_cannot_come_back(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    joined = await bob.create_room(preset="public_chat")
    invited = await bob.create_room(invite=[alice.user_id])
    (await alice.post(f"join/{joined}", {})).ok()
    assert (await alice.post("account/deactivate", {})).status == 401
    answer = await alice.post("account/deactivate", {"auth": _password(alice)})
    assert answer.ok() == {"id_server_unbind_result": "success"}
    assert await bob.membership(joined, alice.user_id) == "leave"
    assert await bob.membership(invited, alice.user_id) == "leave"
    assert (await alice.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")
    login = {"type": "m.login.password", "user": alice.user_id, "password": alice.password}
    assert (await api.anybody.post("login", login)).refusal == (403, "M_USER_DEACTIVATED")
    localpart = alice.user_id[1:].partition(":")[0]
    assert (await api.anybody.post("register", {"username": localpart})).refusal == (400, "M_USER_IN_USE")


async def test_who_asks_to_be_forgotten_is_erased(api: Api, writers_database: str) -> None:
    alice, bob = await api.register(), await api.register()
    for user in (alice, bob):
        presence = {"presence": "unavailable", "status_msg": "at sea"}
        (await user.put(f"presence/{user.user_id}/status", presence)).ok()
    for user, body in ((alice, {"erase": True}), (bob, {"erase": "yes"}), (bob, {"erase": False})):
        answer = await user.post("account/deactivate", {**body, "auth": _password(user)})
        assert answer.status == (200 if isinstance(body["erase"], bool) else 400)
    with psycopg.connect(writers_database) as connection:
        rows = connection.execute(
            "select user_id from roomserver.erased where user_id = any (%s)", [[alice.user_id, bob.user_id]]
        ).fetchall()
        statuses = connection.execute("select user_id from roomserver.presence where status_msg = 'at sea'").fetchall()
    assert rows == [(alice.user_id,)] and statuses == [(bob.user_id,)]


async def test_devices_are_listed_renamed_and_deleted(api: Api) -> None:
    alice = await api.register(device_id="ONE", initial_device_display_name="One")
    await api.login(alice, device_id="TWO", initial_device_display_name="Two")
    devices = {device["device_id"]: device for device in (await alice.get("devices")).ok()["devices"]}
    assert {key: value["display_name"] for key, value in devices.items()} == {"ONE": "One", "TWO": "Two"}
    assert devices["TWO"]["last_seen_ip"] == "198.51.100.7"
    assert devices["TWO"]["last_seen_ts"] > 1_600_000_000_000
    assert (await alice.put("devices/TWO", {"display_name": "Renamed"})).ok() == {}
    assert (await alice.put("devices/TWO", {})).ok() == {}
    assert (await alice.get("devices/TWO")).ok()["display_name"] == "Renamed"
    asked = await alice.delete("devices/TWO")
    assert asked.status == 401
    auth = _password(alice, session=asked.body["session"])
    assert (await alice.delete("devices/TWO", {"auth": auth})).ok() == {}
    assert (await alice.get("devices/TWO")).refusal == (404, "M_NOT_FOUND")


async def test_several_devices_are_deleted_at_once(api: Api) -> None:
    alice = await api.register(device_id="KEPT")
    for name in ("A", "B"):
        await api.login(alice, device_id=name)
    body = {"devices": ["A", "B", "never there"], "auth": _password(alice)}
    assert (await alice.post("delete_devices", body)).ok() == {}
    assert [device["device_id"] for device in (await alice.get("devices")).ok()["devices"]] == ["KEPT"]


async def test_devices_belong_to_their_user(api: Api) -> None:
    alice, bob = await api.register(device_id="MINE"), await api.register()
    assert (await bob.get("devices/MINE")).refusal == (404, "M_NOT_FOUND")
    assert (await bob.put("devices/MINE", {"display_name": "x"})).refusal == (404, "M_NOT_FOUND")
    (await bob.delete("devices/MINE", {"auth": _password(bob)})).ok()
    (await alice.get("devices/MINE")).ok()


@pytest.mark.parametrize(
    ("method", "path", "body", "refusal"),
    [
        ("PUT", "devices/ONE", {"display_name": 5}, (400, "M_BAD_JSON")),
        ("PUT", "devices/ONE", {"display_name": "x" * 300}, (400, "M_INVALID_PARAM")),
        ("PUT", "devices/none", {}, (404, "M_NOT_FOUND")),
        ("GET", "devices/none", None, (404, "M_NOT_FOUND")),
        ("GET", "devices/%00", None, (400, "M_INVALID_PARAM")),
        ("DELETE", "devices/ONE", [], (400, "M_BAD_JSON")),
        ("POST", "delete_devices", {}, (400, "M_MISSING_PARAM")),
        ("POST", "delete_devices", {"devices": "ONE"}, (400, "M_BAD_JSON")),
        ("POST", "delete_devices", {"devices": [1]}, (400, "M_BAD_JSON")),
        ("POST", "delete_devices", {"devices": ["x"] * 2000}, (413, "M_TOO_LARGE")),
    ],
)
async def test_a_device_request_that_is_not_well_formed_is_refused(
    api: Api, method: str, path: str, body: Any, refusal: tuple[int, str]
) -> None:
    alice = await api.register(device_id="ONE")
    assert (await alice.call(method, path, body)).refusal == refusal


async def test_there_are_no_third_party_identifiers(api: Api) -> None:
    alice = await api.register()
    assert (await alice.get("account/3pid")).ok() == {"threepids": []}

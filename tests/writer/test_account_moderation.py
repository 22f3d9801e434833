import asyncio
from typing import Any

import psycopg
import pytest
from api_server import V3, Api, Client, eventually, part, serving

from bin.admission import GUESTS, LOCKED, SUSPENDED
from eventlog.settings import Settings
from writer.accounts import set_admin, set_locked

V1 = "/_matrix/client/v1"
LOCK = (401, "M_USER_LOCKED")
SUSPENSION = (403, "M_USER_SUSPENDED")


async def _admin(api: Api) -> Client:
    admin = await api.register()
    async with api.process.pool.connection() as connection:
        await set_admin(connection, admin.user_id, True)
    api.process.sessions.forget(admin.user_id)
    return admin


def _path(kind: str, user_id: str) -> str:
    return f"{V1}/admin/{kind}/{part(user_id)}"


@pytest.mark.parametrize(("kind", "member"), [("lock", "locked"), ("suspend", "suspended")])
async def test_only_administrators_moderate_and_neither_themselves_nor_each_other(
    api: Api, kind: str, member: str
) -> None:
    admin, other_admin, alice = await _admin(api), await _admin(api), await api.register()
    nobody = "@nobody.at.all:test.example"
    for user_id in (alice.user_id, nobody, "@x:elsewhere.example", "nonsense"):
        assert (await alice.get(_path(kind, user_id))).refusal == (403, "M_FORBIDDEN")
        assert (await alice.put(_path(kind, user_id), {member: True})).refusal == (403, "M_FORBIDDEN")
    assert (await admin.get(_path(kind, nobody))).refusal == (404, "M_NOT_FOUND")
    assert (await admin.put(_path(kind, nobody), {member: True})).refusal == (404, "M_NOT_FOUND")
    for user_id in ("@x:elsewhere.example", "nonsense"):
        assert (await admin.put(_path(kind, user_id), {member: True})).refusal == (400, "M_INVALID_PARAM")
    for user_id in (admin.user_id, other_admin.user_id):
        assert (await admin.put(_path(kind, user_id), {member: True})).refusal == (403, "M_FORBIDDEN")
    assert (await admin.get(_path(kind, other_admin.user_id))).refusal == (403, "M_FORBIDDEN")
    assert (await admin.put(_path(kind, alice.user_id), {})).refusal == (400, "M_MISSING_PARAM")
    assert (await admin.put(_path(kind, alice.user_id), {member: "yes"})).refusal == (400, "M_BAD_JSON")
    for wanted in (False, True, True, False):
        assert (await admin.put(_path(kind, alice.user_id), {member: wanted})).ok() == {member: wanted}
        assert (await admin.get(_path(kind, alice.user_id))).ok() == {member: wanted}
    identifier = {"type": "m.id.user", "user": alice.user_id}
    auth = {"type": "m.login.password", "identifier": identifier, "password": alice.password}
    (await alice.post("account/deactivate", {"auth": auth})).ok()
    assert (await admin.get(_path(kind, alice.user_id))).refusal == (404, "M_NOT_FOUND")


async def test_a_locked_account_can_log_out_and_nothing_else_and_keeps_its_session(api: Api) -> None:
    admin, alice = await _admin(api), await api.register()
    phone = await api.login(alice, refresh_token=True)
    login: dict[str, Any] = {"type": "m.login.password", "user": alice.user_id, "password": alice.password}
    refreshable = (await api.anybody.post("login", {**login, "refresh_token": True})).ok()
    (await admin.put(_path("lock", alice.user_id), {"locked": True})).ok()
    for method, path in (("GET", "account/whoami"), ("GET", "sync"), ("POST", "createRoom"), ("GET", "devices")):
        answer = await alice.call(method, path, {} if method == "POST" else None)
        assert answer.refusal == LOCK
        assert answer.body["soft_logout"] is True
    assert (await api.anybody.post("login", login)).refusal == LOCK
    assert (await api.anybody.post("login", {**login, "password": "wrong"})).refusal == (403, "M_FORBIDDEN")
    again = await api.anybody.post("refresh", {"refresh_token": refreshable["refresh_token"]})
    assert again.refusal == LOCK
    assert (await phone.post("logout", {})).ok() == {}
    (await admin.put(_path("lock", alice.user_id), {"locked": False})).ok()
    assert (await alice.get("account/whoami")).ok()["user_id"] == alice.user_id
    assert (await phone.get("account/whoami")).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_a_sync_that_waits_ends_when_its_account_is_locked(api: Api) -> None:
    admin, alice = await _admin(api), await api.register()
    since = (await alice.get("sync")).ok()["next_batch"]
    waiting = asyncio.create_task(alice.get(f"sync?since={since}&timeout=30000"))

    async def waits() -> bool:
        return alice.user_id in api.process.sync._ends

    await eventually(waits)
    (await admin.put(_path("lock", alice.user_id), {"locked": True})).ok()
    async with asyncio.timeout(10):
        assert (await waiting).refusal == LOCK


async def test_a_sync_that_waits_ends_when_its_device_is_logged_out(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    since = (await alice.get("sync")).ok()["next_batch"]
    waiting = asyncio.create_task(phone.get(f"sync?since={since}&timeout=30000"))

    async def waits() -> bool:
        return alice.user_id in api.process.sync._ends

    await eventually(waits)
    (await phone.post("logout", {})).ok()
    async with asyncio.timeout(10):
        assert (await waiting).refusal == (401, "M_UNKNOWN_TOKEN")


async def test_another_process_knows_of_a_lock_at_once(api: Api, writers_settings: Settings) -> None:
    alice = await api.register()
    async with serving(writers_settings) as other:
        there = Client(other, alice.user_id, alice.token)
        (await there.get("account/whoami")).ok()
        async with api.process.pool.connection() as connection:
            await set_locked(connection, alice.user_id, True)

        async def is_locked() -> bool:
            return (await there.get("account/whoami")).refusal == LOCK

        await eventually(is_locked)


async def test_a_suspended_account_reads_and_leaves_but_does_not_speak(api: Api) -> None:
    admin, alice, bob = await _admin(api), await api.register(), await api.register()
    room_id, other_id = await bob.create_room(preset="public_chat"), await bob.create_room(preset="public_chat")
    (await alice.post(f"join/{room_id}", {})).ok()
    own, foreign = await alice.send(room_id, "mine"), await bob.send(room_id, "his")
    own_room = await alice.create_room()
    (await bob.post(f"rooms/{part(other_id)}/invite", {"user_id": alice.user_id})).ok()
    (await admin.put(_path("suspend", alice.user_id), {"suspended": True})).ok()
    room, user = f"rooms/{part(room_id)}", part(alice.user_id)
    for method, path, body in (
        ("PUT", f"{room}/send/m.room.message/1", {"msgtype": "m.text", "body": "x"}),
        ("PUT", f"{room}/state/m.room.topic", {"topic": "x"}),
        ("POST", f"join/{part(other_id)}", {}),
        ("POST", f"rooms/{part(other_id)}/join", {}),
        ("POST", f"knock/{part(other_id)}", {}),
        ("POST", f"rooms/{part(own_room)}/invite", {"user_id": bob.user_id}),
        ("POST", "createRoom", {}),
        ("PUT", f"profile/{user}/displayname", {"displayname": "x"}),
        ("DELETE", f"profile/{user}/avatar_url", None),
        ("PUT", f"{room}/redact/{part(foreign)}/2", {}),
        ("PUT", f"{room}/send/m.room.redaction/4", {"redacts": foreign}),
        ("PUT", f"{room}/send/m.room.redaction/5", {"reason": "to say something"}),
        ("PUT", f"{room}/typing/{user}", {"typing": True}),
        ("POST", "account/3pid/delete", {"medium": "email", "address": "a@b.example"}),
    ):
        assert (await alice.call(method, path, body)).refusal == SUSPENSION, path
    for method, path, body in (
        ("GET", "sync", None),
        ("GET", f"{room}/messages?dir=b", None),
        ("PUT", f"{room}/redact/{part(own)}/3", {}),
        ("PUT", f"{room}/send/m.room.redaction/6", {"redacts": own}),
        ("POST", f"{room}/receipt/m.read/{part(foreign)}", {}),
        ("PUT", f"user/{user}/account_data/org.example.x", {}),
        ("POST", f"rooms/{part(other_id)}/leave", {}),
        ("POST", f"{room}/leave", {}),
    ):
        assert (await alice.call(method, path, body)).status == 200, path
    phone = await api.login(alice)
    assert (await phone.post(f"join/{part(room_id)}", {})).refusal == SUSPENSION
    (await admin.put(_path("suspend", alice.user_id), {"suspended": False})).ok()
    (await alice.post(f"join/{part(room_id)}", {})).ok()


async def test_whois_tells_administrators_and_oneself_where_sessions_were_used(api: Api) -> None:
    admin, alice, bob = await _admin(api), await api.register(device_id="ONE"), await api.register()
    await api.login(alice, device_id="TWO")
    whois = f"admin/whois/{part(alice.user_id)}"
    (await alice.call("GET", "account/whoami", headers={"User-Agent": "Kettle/1.0"})).ok()
    await api.process.sessions._flush_seen()
    for client in (alice, admin):
        found = (await client.get(whois)).ok()
        assert found["user_id"] == alice.user_id
        (used,) = found["devices"]["ONE"]["sessions"][0]["connections"]
        assert used["ip"] == "198.51.100.7" and used["last_seen"] > 1_600_000_000_000
        assert used["user_agent"] == "Kettle/1.0"
        assert set(found["devices"]) == {"ONE", "TWO"}
    assert (await bob.get(whois)).refusal == (403, "M_FORBIDDEN")
    assert (await bob.get("admin/whois/@nobody:test.example")).refusal == (403, "M_FORBIDDEN")
    assert (await admin.get("admin/whois/@nobody.at.all:test.example")).refusal == (404, "M_NOT_FOUND")
    assert (await admin.get("admin/whois/@x:elsewhere.example")).refusal == (400, "M_INVALID_PARAM")


async def test_administrators_are_told_that_they_may_moderate(api: Api) -> None:
    admin, alice = await _admin(api), await api.register()
    told = (await admin.get("capabilities")).ok()["capabilities"]
    assert told["m.account_moderation"] == {"suspend": True, "lock": True}
    assert "m.account_moderation" not in (await alice.get("capabilities")).ok()["capabilities"]


def test_the_endpoints_opened_to_some_accounts_are_named_as_they_are_mounted(api: Api) -> None:
    mounted = set(api.process.routes.methods())
    # What is not built yet is opened beforehand; what is built must not be misspelt.
    paths = {template for _, template in mounted}
    for method, template in GUESTS | SUSPENDED | LOCKED:
        assert (method, template) in mounted or template not in paths, (method, template)
    assert mounted >= LOCKED
    for ending in ("/join", "/leave", "/send/{event_type}/{txn_id}", "/state/{event_type}/{state_key}"):
        assert any(template == f"{V3}/rooms/{{room_id}}{ending}" for _, template in GUESTS)


async def test_an_account_that_is_locked_stays_so_over_a_restart(api: Api, writers_settings: Settings) -> None:
    alice = await api.register()
    async with api.process.pool.connection() as connection:
        await set_locked(connection, alice.user_id, True)
    async with serving(writers_settings) as other:
        assert (await Client(other, token=alice.token).get("account/whoami")).refusal == LOCK
    with psycopg.connect(writers_settings.dsn(), autocommit=True) as connection:
        row = connection.execute(
            "select locked_at is not null from writer.accounts where user_id = %s", [alice.user_id]
        ).fetchone()
    assert row == (True,)

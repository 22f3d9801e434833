"""Server notices: an administrator's word to a user, in a room that the user cannot decline."""

from __future__ import annotations

import hmac
from pathlib import Path
from typing import Any

import pytest
from api_server import SERVER_NAME, Api, Client, serving, settings_for
from commands import Run

from writer.accounts import set_admin

PATH = "/_synapse/admin/v1/send_server_notice"
SERVER = f"@_server:{SERVER_NAME}"
NOTICE = {"msgtype": "m.text", "body": "the server goes to sleep at noon"}


async def administrator(api: Api) -> Client:
    user = await api.register()
    async with api.process.pool.connection() as connection:
        await set_admin(connection, user.user_id, True)
    return await api.login(user)


async def invited_to(user: Client) -> str:
    rooms = (await user.get("sync")).ok()["rooms"]["invite"]
    (room_id,) = [one for one, room in rooms.items() if room["invite_state"]["events"][0]["sender"] == SERVER]
    return str(room_id)


async def test_a_notice_comes_in_one_room_whatever_the_user_does(api: Api) -> None:
    admin, user = await administrator(api), await api.register()
    said = {"user_id": user.user_id, "content": NOTICE}
    first = (await admin.post(PATH, said)).ok()["event_id"]
    room_id = await invited_to(user)
    assert (await user.post(f"rooms/{room_id}/leave")).refusal == (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
    member = f"rooms/{room_id}/state/m.room.member/{user.user_id}"
    assert (await user.put(member, {"membership": "leave"})).refusal == (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
    tags = (await user.get(f"user/{user.user_id}/rooms/{room_id}/tags")).ok()["tags"]
    assert tags == {"m.server_notice": {}}

    (await user.post(f"join/{room_id}")).ok()
    event = (await user.get(f"rooms/{room_id}/event/{first}")).ok()
    assert (event["sender"], event["content"]) == (SERVER, NOTICE)
    refusal = (await user.put(f"rooms/{room_id}/send/m.room.message/1", NOTICE)).refusal
    assert refusal == (403, "M_FORBIDDEN")

    (await user.post(f"rooms/{room_id}/leave")).ok()
    (await admin.post(PATH, said)).ok()
    assert await invited_to(user) == room_id


async def test_a_notice_with_a_transaction_id_is_sent_once(api: Api) -> None:
    admin, user = await administrator(api), await api.register()
    said = {"user_id": user.user_id, "content": NOTICE}
    first = (await admin.put(f"{PATH}/once", said)).ok()["event_id"]
    assert (await admin.put(f"{PATH}/once", said)).ok()["event_id"] == first
    assert (await admin.put(f"{PATH}/twice", said)).ok()["event_id"] != first
    other = await administrator(api)
    assert (await other.put(f"{PATH}/once", said)).ok()["event_id"] != first


async def test_only_an_administrator_sends_notices(api: Api) -> None:
    user = await api.register()
    assert (await user.post(PATH)).refusal == (403, "M_FORBIDDEN")
    assert (await user.put(f"{PATH}/1", {"user_id": user.user_id, "content": NOTICE})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("changed", "refusal"),
    [
        ({"user_id": f"@nobody:{SERVER_NAME}"}, (404, "M_NOT_FOUND")),
        ({"user_id": "nobody"}, (400, "M_INVALID_PARAM")),
        ({"content": None}, (400, "M_MISSING_PARAM")),
        ({"content": "text"}, (400, "M_BAD_JSON")),
        ({"type": "m.room.create"}, (400, "M_BAD_STATE")),
        ({"content": {"a": 1.5}}, (400, "M_BAD_JSON")),
    ],
)
async def test_a_notice_that_is_none_is_refused(api: Api, changed: dict[str, Any], refusal: tuple[int, str]) -> None:
    admin, user = await administrator(api), await api.register()
    said = {"user_id": user.user_id, "content": NOTICE} | changed
    assert (await admin.post(PATH, said)).refusal == refusal


async def test_nobody_can_take_the_name_that_notices_come_from(api: Api) -> None:
    admin, user = await administrator(api), await api.register()
    (await admin.post(PATH, {"user_id": user.user_id, "content": NOTICE})).ok()
    body = {"username": "_server", "password": "a fine password", "auth": {"type": "m.login.dummy"}}
    assert (await api.anybody.post("register", body)).status == 400
    assert (await api.anybody.post("login", {**body, "type": "m.login.password"})).status in (400, 403)


async def test_the_name_that_notices_will_come_from_is_nobodys(
    api: Api, writers_database: str, writers_folder: Path, run: Run
) -> None:
    shared = {"WALDEN_REGISTRATION_SHARED_SECRET": "the secret", "WALDEN_SERVER_NOTICES_LOCALPART": "reserved.name"}
    async with serving(settings_for(writers_database, writers_folder, **shared)) as other:
        for name in ("reserved.name", "RESERVED.name"):
            body = {"username": name, "auth": {"type": "m.login.dummy"}}
            assert (await other.anybody.post("register", body)).refusal == (400, "M_USER_IN_USE")
            assert (await other.anybody.get(f"register/available?username={name}")).refusal == (400, "M_USER_IN_USE")
        path = "/_synapse/admin/v1/register"
        nonce = (await other.anybody.get(path)).ok()["nonce"]
        mac = hmac.new(b"the secret", f"{nonce}\0reserved.name\0x\0notadmin".encode(), "sha1").hexdigest()
        body = {"nonce": nonce, "username": "reserved.name", "password": "x", "mac": mac}
        assert (await other.anybody.post(path, body)).refusal == (400, "M_USER_IN_USE")
    refused = await run("user", "add", "_server", "--make-password")
    assert refused.exit_code == 1, refused.output

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from api_server import Api, Client, eventually, part, serving, settings_for

from writer.drafts import Draft

REFUSED = (403, "M_GUEST_ACCESS_FORBIDDEN")
CAN_JOIN = {"type": "m.room.guest_access", "state_key": "", "content": {"guest_access": "can_join"}}


@pytest_asyncio.fixture(loop_scope="session")
async def guests_api(api: Api, writers_database: str, writers_folder: Path) -> AsyncIterator[Api]:
    """A server that has guests, beside the other, whose room server it shares."""
    async with serving(settings_for(writers_database, writers_folder, WALDEN_REGISTRATION_GUESTS="on")) as other:
        yield other


async def _guest(api: Api) -> Client:
    # "All parameters in the request body with the exception of initial_device_display_name MUST BE ignored."
    body = {"device_id": "WANTED", "username": "wanted", "password": 5, "initial_device_display_name": "Browser"}
    made = (await api.anybody.post("register?kind=guest", body)).ok()
    assert made["device_id"] != "WANTED" and not made["user_id"].startswith("@wanted:")
    return Client(api, made["user_id"], made["access_token"], made["device_id"])


async def test_a_guest_has_an_account_without_a_password(guests_api: Api) -> None:
    api = guests_api
    guest = await _guest(api)
    assert (await guest.get("account/whoami")).ok()["is_guest"] is True
    (device,) = (await guest.get("devices")).ok()["devices"]
    assert device["display_name"] == "Browser"
    login = {"type": "m.login.password", "user": guest.user_id, "password": ""}
    assert (await api.anybody.post("login", login)).refusal == (403, "M_FORBIDDEN")


async def test_a_guest_joins_only_rooms_that_let_guests_in(guests_api: Api) -> None:
    api = guests_api
    guest, alice = await _guest(api), await api.register()
    closed = await alice.create_room(preset="public_chat")
    open_room = await alice.create_room(preset="public_chat", initial_state=[CAN_JOIN])
    for path in (f"rooms/{part(closed)}/join", f"join/{part(closed)}"):
        assert (await guest.post(path, {})).refusal == REFUSED
    member = f"rooms/{part(closed)}/state/m.room.member/{part(guest.user_id)}"
    assert (await guest.put(member, {"membership": "join"})).refusal == REFUSED
    (await guest.post(f"rooms/{part(open_room)}/join", {})).ok()
    await guest.send(open_room, "hello from a guest")

    async def is_shown() -> bool:
        return (await guest.get("sync")).ok().get("rooms", {}).get("join", {}).keys() == {open_room}

    await eventually(is_shown)
    (await guest.post(f"rooms/{part(open_room)}/leave", {})).ok()


async def test_guests_leave_when_a_room_no_longer_lets_them_in(guests_api: Api) -> None:
    api = guests_api
    guest, alice, bob = await _guest(api), await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", initial_state=[CAN_JOIN])
    other_id = await alice.create_room(preset="public_chat", initial_state=[CAN_JOIN])
    for user in (guest, bob):
        (await user.post(f"join/{part(room_id)}", {})).ok()
    (await guest.post(f"join/{part(other_id)}", {})).ok()
    path = f"rooms/{part(room_id)}/state/m.room.guest_access"
    (await alice.put(path, {"guest_access": "can_join", "again": True})).ok()
    assert await alice.membership(room_id, guest.user_id) == "join"
    (await alice.put(path, {"guest_access": "forbidden"})).ok()
    assert await alice.membership(room_id, guest.user_id) == "leave"
    assert await alice.membership(room_id, bob.user_id) == "join"
    assert await alice.membership(other_id, guest.user_id) == "join"
    # As another server would have changed it: nobody here is told.
    draft = Draft(other_id, alice.user_id, "m.room.guest_access", {"guest_access": "forbidden"}, state_key="")
    await api.process.log.send([draft])
    assert await alice.membership(other_id, guest.user_id) == "join"
    await api.process.guests.expel()
    assert await alice.membership(other_id, guest.user_id) == "leave"


async def test_guests_leave_and_stay_out_when_what_let_them_in_is_redacted(guests_api: Api) -> None:
    api = guests_api
    guest, other, alice = await _guest(api), await _guest(api), await api.register()
    room_id = await alice.create_room(preset="public_chat", initial_state=[CAN_JOIN])
    (await guest.post(f"join/{part(room_id)}", {})).ok()
    path = f"rooms/{part(room_id)}/state/m.room.guest_access"
    let_in = (await alice.put(path, {"guest_access": "can_join", "again": True})).ok()["event_id"]
    (await alice.put(f"rooms/{part(room_id)}/redact/{part(let_in)}/1", {})).ok()
    assert await alice.membership(room_id, guest.user_id) == "leave"
    assert (await other.post(f"join/{part(room_id)}", {})).refusal == REFUSED


async def test_a_guest_may_do_what_is_named_and_nothing_else(guests_api: Api) -> None:
    api = guests_api
    guest, alice = await _guest(api), await api.register()
    room_id = await alice.create_room(preset="public_chat", initial_state=[CAN_JOIN])
    (await guest.post(f"join/{part(room_id)}", {})).ok()
    user, room = part(guest.user_id), f"rooms/{part(room_id)}"
    for method, path, body in (
        ("POST", "createRoom", {}),
        ("POST", f"{room}/invite", {"user_id": alice.user_id}),
        ("PUT", f"profile/{user}/avatar_url", {"avatar_url": "mxc://a/b"}),
        ("DELETE", f"profile/{user}/m.tz", None),
        ("PUT", f"user/{user}/account_data/x.y", {}),
        ("POST", "account/password", {"new_password": "x"}),
        ("POST", "account/deactivate", {}),
        ("GET", "joined_rooms", None),
        ("GET", "voip/turnServer", None),
        ("POST", f"user/{user}/openid/request_token", {}),
        ("POST", "/_matrix/client/v1/login/get_token", {}),
    ):
        assert (await guest.call(method, path, body)).refusal == REFUSED, path
    for method, path, body in (
        ("PUT", f"profile/{user}/displayname", {"displayname": "Guest"}),
        ("DELETE", f"profile/{user}/displayname", None),
        ("PUT", f"devices/{part(guest.device_id)}", {"display_name": "x"}),
        ("GET", f"{room}/messages?dir=b", None),
        ("GET", f"{room}/members", None),
        ("GET", "capabilities", None),
        ("POST", "logout", {}),
    ):
        assert (await guest.call(method, path, body)).status == 200, path


async def test_a_guest_becomes_a_user_of_the_same_name(guests_api: Api) -> None:
    api = guests_api
    guest, alice = await _guest(api), await api.register()
    name = guest.user_id[1:].partition(":")[0]
    body = {"username": name, "password": "secret!", "auth": {"type": "m.login.dummy"}}
    assert (await api.anybody.post("register", body)).refusal == (400, "M_USER_IN_USE")
    for change, refusal in (
        ({"guest_access_token": "nonsense"}, (401, "M_UNKNOWN_TOKEN")),
        ({"guest_access_token": alice.token}, (403, "M_FORBIDDEN")),
        ({"guest_access_token": guest.token, "username": "another"}, (403, "M_FORBIDDEN")),
        ({"guest_access_token": 5}, (400, "M_BAD_JSON")),
    ):
        assert (await api.anybody.post("register", {**body, **change})).refusal == refusal
    made = (await api.anybody.post("register", {**body, "guest_access_token": guest.token})).ok()
    assert made["user_id"] == guest.user_id
    user = Client(api, made["user_id"], made["access_token"])
    assert (await user.get("account/whoami")).ok()["is_guest"] is False
    assert (await guest.get("account/whoami")).ok()["is_guest"] is False
    await user.create_room()


async def test_a_server_without_guests_makes_none(api: Api) -> None:
    for body in ({}, None):
        assert (await api.anybody.post("register?kind=guest", body)).refusal == REFUSED

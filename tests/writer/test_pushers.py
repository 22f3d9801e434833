"""Pushers: set, listed, replaced, and gone with their device."""

from __future__ import annotations

from typing import Any

import pytest
from api_server import Api, Client

URL = "https://gateway.example/_matrix/push/v1/notify"


def pusher(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "http",
        "app_id": "org.example",
        "pushkey": "key \0",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "en",
        "profile_tag": "tag",
        "data": {"url": URL, "format": "event_id_only", "x": {"y": 1}},
        **changes,
    }


async def listed(client: Client) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get("pushers")).ok()["pushers"]
    return found


async def test_a_pusher_is_listed_as_it_was_set_replaced_and_removed(api: Api) -> None:
    alice = await api.register()
    assert await listed(alice) == []
    wanted = pusher()
    (await alice.post("pushers/set", wanted)).ok()
    assert await listed(alice) == [wanted]
    (await alice.post("pushers/set", pusher(lang="de"))).ok()
    (await alice.post("pushers/set", pusher(pushkey="another"))).ok()
    assert [(one["pushkey"], one["lang"]) for one in await listed(alice)] == [("key \0", "de"), ("another", "en")]
    (await alice.post("pushers/set", {"kind": None, "app_id": "org.example", "pushkey": "key \0"})).ok()
    assert [one["pushkey"] for one in await listed(alice)] == ["another"]


async def test_a_push_key_is_taken_from_others_unless_it_is_appended(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    for user, append in ((alice, False), (bob, True)):
        (await user.post("pushers/set", pusher(pushkey="shared", append=append))).ok()
    assert len(await listed(alice)) == len(await listed(bob)) == 1
    (await bob.post("pushers/set", pusher(pushkey="shared"))).ok()
    assert await listed(alice) == [] and len(await listed(bob)) == 1


async def test_a_pusher_goes_with_the_device_that_set_it(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    (await phone.post("pushers/set", pusher(pushkey="phone"))).ok()
    (await alice.post("pushers/set", pusher(pushkey="desk"))).ok()
    (await phone.post("logout")).ok()
    assert [one["pushkey"] for one in await listed(alice)] == ["desk"]


async def test_a_user_has_so_many_pushers_at_most(api: Api) -> None:
    alice = await api.register()
    for number in range(50):
        (await alice.post("pushers/set", pusher(pushkey=f"{number}"))).ok()
    assert (await alice.post("pushers/set", pusher(pushkey="one more"))).status == 400
    (await alice.post("pushers/set", pusher(pushkey="7", lang="fr"))).ok()


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"kind": "http", "app_id": "a", "pushkey": "b"}, (400, "M_MISSING_PARAM")),
        (pusher(kind="email"), (400, "M_INVALID_PARAM")),
        (pusher(app_id="x" * 65), (400, "M_INVALID_PARAM")),
        (pusher(pushkey="é" * 300), (400, "M_INVALID_PARAM")),
        (pusher(data={}), (400, "M_MISSING_PARAM")),
        (pusher(data={"url": URL.replace("https", "http")}), (400, "M_INVALID_PARAM")),
        (pusher(data={"url": "https://gateway.example/elsewhere"}), (400, "M_INVALID_PARAM")),
        (pusher(data={"url": "https://[/_matrix/push/v1/notify"}), (400, "M_INVALID_PARAM")),
        (pusher(data={"url": URL, "x": "x" * 9000}), (413, "M_TOO_LARGE")),
        (pusher(data={"url": URL, "format": ["event_id_only"]}), (400, "M_BAD_JSON")),
        (pusher(lang=1), (400, "M_BAD_JSON")),
        (pusher(append="no"), (400, "M_BAD_JSON")),
    ],
)
async def test_what_is_no_pusher_is_refused(api: Api, body: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    assert (await alice.post("pushers/set", body)).refusal == refusal
    assert await listed(alice) == []


async def test_a_changed_password_takes_the_pushers_of_other_devices_and_deactivation_all(api: Api) -> None:
    alice = await api.register()
    phone = await api.login(alice)
    (await phone.post("pushers/set", pusher(pushkey="phone"))).ok()
    (await alice.post("pushers/set", pusher(pushkey="desk"))).ok()
    identifier = {"type": "m.id.user", "user": alice.user_id}

    async def authenticated(path: str, body: dict[str, Any], password: str) -> None:
        asked = await alice.post(path, body)
        assert asked.status == 401
        auth = {
            "type": "m.login.password",
            "identifier": identifier,
            "password": password,
            "session": asked.body["session"],
        }
        (await alice.post(path, {**body, "auth": auth})).ok()

    await authenticated("account/password", {"new_password": "another fine password"}, alice.password)
    assert [one["pushkey"] for one in await listed(alice)] == ["desk"]
    await authenticated("account/deactivate", {}, "another fine password")
    async with api.process.pool.connection() as connection:
        cursor = await connection.execute("select count(*) from writer.pushers where user_id = %s", [alice.user_id])
        assert await cursor.fetchone() == (0,)

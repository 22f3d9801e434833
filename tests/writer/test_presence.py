"""Presence: set, seen by who shares a room, followed by polls, and let go of when nobody polls."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, eventually

from eventlog.settings import Settings
from writer import presence
from writer.presence import Presences


async def sync(client: Client, since: str = "", **more: str) -> dict[str, Any]:
    words = {"timeout": "0", **({"since": since} if since else {}), **more}
    query = "&".join(f"{name}={value}" for name, value in words.items())
    return (await client.get(f"sync?{query}")).ok()


def presences(body: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {event["sender"]: event["content"] for event in body.get("presence", {}).get("events", [])}


async def together(api: Api) -> tuple[Client, Client, str]:
    """Two who share a room, and the token of the second who has synced."""
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    return alice, bob, (await sync(bob, set_presence="offline"))["next_batch"]


async def until_seen(client: Client, since: str, user_id: str, presence: str) -> dict[str, Any]:
    """The presence of a user, once the client's sync tells it."""
    async with asyncio.timeout(10):
        while True:
            body = await sync(client, since, timeout="2000", set_presence="offline")
            since = body["next_batch"]
            found = presences(body).get(user_id)
            if found is not None and found["presence"] == presence:
                return found


def path(client: Client) -> str:
    return f"presence/{client.user_id}/status"


async def test_what_a_user_says_of_their_presence_is_told_to_who_shares_a_room_and_nobody_else(api: Api) -> None:
    alice, bob, since = await together(api)
    eve = await api.register()
    assert (await bob.get(path(alice))).ok()["presence"] == "offline"
    (await alice.put(path(alice), {"presence": "online", "status_msg": "reading \0"})).ok()
    for asker in (alice, bob):
        found = (await asker.get(path(alice))).ok()
        assert found.pop("last_active_ago") >= 0
        assert found == {"presence": "online", "status_msg": "reading \0", "currently_active": True}
    assert (await eve.get(path(alice))).refusal == (403, "M_FORBIDDEN")
    told = await until_seen(bob, since, alice.user_id, "online")
    assert told["status_msg"] == "reading \0" and told["currently_active"]
    (await alice.put(path(alice), {"presence": "unavailable"})).ok()
    assert "status_msg" not in await until_seen(bob, since, alice.user_id, "unavailable")
    assert alice.user_id not in presences(await sync(eve))


async def test_polling_makes_a_user_present_as_the_client_asks(api: Api) -> None:
    alice, bob, since = await together(api)
    await sync(alice, set_presence="offline")
    assert (await bob.get(path(alice))).ok()["presence"] == "offline"
    await sync(alice, set_presence="unavailable")
    await until_seen(bob, since, alice.user_id, "unavailable")
    await sync(alice)
    await until_seen(bob, since, alice.user_id, "online")
    # Whoever comes anew is told of all who are there.
    assert presences(await sync(bob))[alice.user_id]["presence"] == "online"
    carol = await api.register()
    first = await sync(carol)
    room_id = await alice.create_room(preset="public_chat")
    (await carol.post(f"join/{room_id}", {})).ok()
    assert presences(await sync(carol, first["next_batch"]))[alice.user_id]["presence"] == "online"
    assert presences(await sync(bob, filter='{"presence":{"types":[]}}')) == {}


@pytest.mark.slow
async def test_who_polls_no_more_goes_offline_and_who_does_nothing_is_unavailable(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, since = await together(api)
    await sync(alice)
    await until_seen(bob, since, alice.user_id, "online")
    monkeypatch.setattr(presence, "IDLE_MS", 0)
    api.process.presences._stir(alice.user_id)
    await until_seen(bob, since, alice.user_id, "unavailable")
    monkeypatch.setattr(presence, "IDLE_MS", 300_000)
    await alice.create_room()
    await until_seen(bob, since, alice.user_id, "online")
    monkeypatch.setattr(presence, "OFFLINE_SECONDS", 0.0)
    api.process.presences._stir(alice.user_id)
    await until_seen(bob, since, alice.user_id, "offline")


async def test_presence_that_nobody_renews_lapses(api: Api, writers_settings: Settings) -> None:
    alice, bob, since = await together(api)
    await api.process.log.append_entry(
        type="presence",
        user_id=alice.user_id,
        content={"presence": "online", "active_at": 1, "until": 2, "by": "a process that died"},
    )
    assert (await bob.get(path(alice))).ok()["presence"] == "offline"
    await api.process.presences._end_lapsed()
    await until_seen(bob, since, alice.user_id, "offline")


async def test_a_process_says_that_somebody_is_gone_only_of_whom_it_answered_for_last(
    api: Api, writers_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob, since = await together(api)
    await sync(alice)
    await until_seen(bob, since, alice.user_id, "online")
    other = Presences(api.process.pool, api.process.log, enabled=True)
    other.polled(alice.user_id, "PHONE", "online", 30.0)
    await other._settle([alice.user_id])

    async def taken_over() -> bool:
        known = api.process.presences._locals[alice.user_id].known
        return known is not None and known.by == other.name

    await eventually(taken_over)
    monkeypatch.setattr(presence, "OFFLINE_SECONDS", -60.0)
    await api.process.presences._settle([alice.user_id])
    assert (await bob.get(path(alice))).ok()["presence"] == "online"


async def test_polls_of_who_is_known_put_nothing_into_the_log(api: Api, writers_settings: Settings) -> None:
    alice, bob, since = await together(api)
    await sync(alice)
    await until_seen(bob, since, alice.user_id, "online")

    def count() -> int:
        with psycopg.connect(writers_settings.dsn()) as connection:
            row = connection.execute(
                "select count(*) from eventlog.events where type = 'presence' and sender = %s", [alice.user_id]
            ).fetchone()
        assert row is not None
        return int(row[0])

    before = count()
    for _ in range(20):
        await sync(alice)
    await api.process.presences._settle([alice.user_id])
    assert count() == before


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"presence": "busy as a bee"}, (400, "M_INVALID_PARAM")),
        ({"presence": 1}, (400, "M_INVALID_PARAM")),
        ({"presence": "online", "status_msg": 1}, (400, "M_BAD_JSON")),
        ({"presence": "online", "status_msg": "x" * 1001}, (400, "M_INVALID_PARAM")),
        ([], (400, "M_BAD_JSON")),
    ],
)
async def test_what_is_no_presence_is_refused(api: Api, body: Any, refusal: tuple[int, str]) -> None:
    alice, bob = await api.register(), await api.register()
    assert (await alice.put(path(alice), body)).refusal == refusal
    assert (await alice.put(path(bob), {"presence": "online"})).refusal == (403, "M_FORBIDDEN")

"""Lazy-loaded members: those who speak, once, and everybody whose membership changed in a gap."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sync_world import Client, World, caught_up, settings_of, user, world

pytestmark = pytest.mark.postgres

ALICE, BOB, CAROL, DAVE = user("alice"), user("bob"), user("carol"), user("dave")


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


def lazy(limit: int = 10, **more: Any) -> dict[str, Any]:
    return {"room": {"state": {"lazy_load_members": True, **more}, "timeline": {"limit": limit}}}


def members(client: Client, room: str) -> set[str]:
    """Whose member events the last response's state has."""
    told = client.last.get("rooms", {}).get("join", {}).get(room, {"state": {"events": []}})["state"]["events"]
    return {event["state_key"] for event in told if event["type"] == "m.room.member"}


async def test_members_are_told_when_they_speak_and_not_again(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.join(room, BOB, CAROL, DAVE)
    client = Client(here.sync, BOB, filter=lazy(2))
    await here.say(room, ALICE, "1")
    await here.say(room, ALICE, "2")
    await caught_up(here.sync)
    await client.sync()
    assert members(client, room) >= {ALICE, BOB}
    assert client.room(room)["summary"]["m.heroes"] == [ALICE, CAROL, DAVE]
    await here.say(room, CAROL, "3")
    await client.sync(5)
    assert CAROL not in members(client, room), "the heroes were told already"
    await here.say(room, ALICE, "4")
    await client.sync(5)
    assert members(client, room) == set()


async def test_a_response_that_never_arrived_has_told_nobody(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    everybody = [user(f"u{n}") for n in range(8)]
    await here.join(room, BOB, *everybody)
    client = Client(here.sync, BOB, filter=lazy(2))
    await here.say(room, ALICE, "1")
    await here.say(room, ALICE, "1")
    await client.settle()
    since = client.since
    await here.say(room, everybody[-1], "2")
    await client.sync(5)
    assert members(client, room) == {everybody[-1]}
    await client.sync(since=since)
    assert members(client, room) == {everybody[-1]}
    await here.say(room, everybody[-1], "3")
    await client.sync(5)
    assert members(client, room) == set()


async def test_who_comes_back_to_an_older_place_is_told_again_who_speaks(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    everybody = [user(f"u{n}") for n in range(8)]
    await here.join(room, BOB, *everybody)
    client = Client(here.sync, BOB, filter=lazy(2))
    await here.say(room, ALICE, "1")
    await here.say(room, ALICE, "1")
    await client.settle()
    since, speaker = client.since, everybody[-1]
    # Another client of the same device stands where this one stood.
    other = Client(here.sync, BOB, filter=lazy(2))
    other.device_id, other.since = client.device_id, since
    await here.say(room, speaker, "2")
    await client.sync(5)
    assert members(client, room) == {speaker}
    await here.say(room, speaker, "3")
    await client.sync(5)
    assert members(client, room) == set()
    await other.sync(5)
    assert members(other, room) == {speaker}
    # So does one whose disk lost what it was told.
    await client.sync(since=since)
    assert members(client, room) == {speaker}
    await here.say(room, speaker, "4")
    await client.sync(5)
    assert members(client, room) == set()


async def test_redundant_members_are_told_when_the_filter_asks_for_them(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.join(room, BOB)
    client = Client(here.sync, BOB, filter=lazy(include_redundant_members=True))
    await client.settle()
    for body in ("1", "2"):
        await here.say(room, ALICE, body)
        await client.sync(5)
        assert members(client, room) == {ALICE}


async def test_membership_changes_in_a_gap_are_told_whoever_speaks(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.join(room, BOB, CAROL)
    client = Client(here.sync, BOB, filter=lazy(2))
    await client.settle()
    await here.join(room, DAVE)
    await here.leave(room, CAROL)
    for body in ("1", "2", "3"):
        await here.say(room, ALICE, body)
    # All of it in one response, or there would be no gap.
    await caught_up(here.sync)
    await client.sync(5)
    assert members(client, room) >= {CAROL, DAVE}
    assert client.room(room)["summary"]["m.joined_member_count"] == 3


async def test_a_room_joined_lately_comes_with_the_own_member_event(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    client = Client(here.sync, BOB, filter=lazy(1))
    await client.settle()
    await here.join(room, BOB)
    await here.say(room, ALICE, "1")
    await client.settle()
    assert ("m.room.member", BOB) in client.rooms[room].state
    assert ("m.room.name", "") in client.rooms[room].state


async def test_many_waiting_devices_are_told_a_new_speaker_with_one_look_at_the_tables(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    everybody = [user(f"u{n}") for n in range(8)]
    await here.join(room, BOB, *everybody)
    await here.say(room, ALICE, "1")
    clients = [Client(here.sync, BOB, f"D{n}", filter=lazy(1)) for n in range(20)]
    for client in clients:
        await client.settle()
    asked: list[str] = []
    fetch = here.sync.current.events.fetch

    async def counting(*arguments: Any) -> Any:
        asked.append("fetch")
        return await fetch(*arguments)

    here.sync.current.events.fetch = counting  # type: ignore[method-assign]
    waiting = [asyncio.create_task(client.sync(20)) for client in clients]
    await asyncio.sleep(0.1)
    await here.say(room, everybody[-1], "2")
    await asyncio.wait_for(asyncio.gather(*waiting), 10)
    assert [members(client, room) for client in clients] == [{everybody[-1]}] * 20
    assert len(asked) == 1


async def test_a_changed_profile_is_told_as_it_was_before_the_timeline(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.join(room, BOB, CAROL, *[user(f"u{n}") for n in range(8)])
    await here.say(room, ALICE, "1")
    client = Client(here.sync, BOB, filter=lazy(5))
    await client.settle()
    speaker = user("u7")
    old = (await here.member(room, speaker, speaker, "join", displayname="old")).event_id
    await client.settle()
    fresh = Client(here.sync, BOB, "OTHER", filter=lazy(5), since=client.since)
    await here.say(room, speaker, "2")
    new = (await here.member(room, speaker, speaker, "join", displayname="new")).event_id
    await here.say(room, speaker, "3")
    await caught_up(here.sync)
    await fresh.sync()
    (told,) = [event for event in fresh.room(room)["state"]["events"] if event["state_key"] == speaker]
    assert told["event_id"] == old
    assert fresh.rooms[room].state["m.room.member", speaker] == new


async def test_heroes_are_told_anew_when_they_change_and_not_otherwise(here: World) -> None:
    room = await here.room(ALICE)
    crowd = [user(f"u{n}") for n in range(8)]
    await here.join(room, BOB, *crowd)
    client = Client(here.sync, BOB)
    await client.settle()
    await here.leave(room, crowd[7])
    await client.sync(5)
    assert client.rooms[room].summary["m.heroes"] == [ALICE, *crowd[:4]]
    await here.join(room, crowd[7])
    await client.sync(5)
    assert client.room(room)["summary"]["m.joined_member_count"] == 10
    assert "m.heroes" not in client.room(room)["summary"]
    await here.leave(room, crowd[0])
    await client.sync(5)
    assert client.room(room)["summary"] == {
        "m.heroes": [ALICE, *crowd[1:5]],
        "m.joined_member_count": 9,
        "m.invited_member_count": 0,
    }


async def test_who_left_is_a_hero_only_where_nobody_else_is_left(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB, CAROL, DAVE)
    client = Client(here.sync, ALICE)
    await client.settle()

    async def heroes() -> list[str]:
        await client.settle()
        fresh = Client(here.sync, ALICE, "FRESH")
        await fresh.settle()
        assert client.rooms[room].summary == fresh.rooms[room].summary
        told: list[str] = fresh.rooms[room].summary["m.heroes"]
        return told

    assert await heroes() == [BOB, CAROL, DAVE]
    await here.member(room, CAROL, CAROL, "leave")
    assert await heroes() == [BOB, DAVE]
    # Nobody comes or goes, but another one is now the first.
    await here.member(room, BOB, BOB, "join", displayname="Bob")
    assert await heroes() == [DAVE, BOB]
    crowd = [user(f"u{n}") for n in range(7)]
    await here.join(room, *crowd)
    for gone in (DAVE, BOB, *crowd):
        await here.member(room, gone, gone, "leave")
    assert await heroes() == [CAROL, DAVE, BOB, *crowd[:2]]
    await here.member(room, ALICE, CAROL, "ban")
    assert await heroes() == [DAVE, BOB, *crowd[:3]]
    last = crowd[-1]
    await here.join(room, last)
    assert await heroes() == [last]

"""The event stream from before /sync, over the whole server; peeking; an event by its id; mutual rooms."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from api_server import Api, Client, part

WORLD_READABLE = {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}}


def bodies(events: list[dict[str, Any]]) -> list[str]:
    return [event["content"]["body"] for event in events if event["type"] == "m.room.message"]


async def test_initial_sync_tells_all_rooms_and_events_go_on_from_it(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(name="Pond", visibility="public", preset="public_chat")
    left = await alice.create_room(name="left")
    for number in range(4):
        await alice.send(room_id, f"{number}")
    (await alice.post(f"rooms/{left}/leave", {})).ok()
    invited = await bob.create_room(name="Invited", invite=[alice.user_id])
    (await alice.put(f"user/{alice.user_id}/rooms/{room_id}/tags/m.favourite", {})).ok()
    body = (await alice.get("initialSync?limit=3")).ok()
    rooms = {room["room_id"]: room for room in body["rooms"]}
    assert set(rooms) == {room_id, invited}
    room = rooms[room_id]
    assert (room["membership"], room["visibility"]) == ("join", "public")
    assert bodies(room["messages"]["chunk"]) == ["1", "2", "3"]
    assert {"name": "Pond"} in [event["content"] for event in room["state"] if event["type"] == "m.room.name"]
    assert all(event["room_id"] == room_id for event in (*room["state"], *room["messages"]["chunk"]))
    assert [event["type"] for event in room["account_data"]] == ["m.tag"]
    assert rooms[invited]["membership"] == "invite"
    assert rooms[invited]["invite"]["content"]["membership"] == "invite"
    assert "m.push_rules" in {event["type"] for event in body["account_data"]}
    archived = (await alice.get("initialSync?archived=true")).ok()["rooms"]
    assert {room["room_id"]: room["membership"] for room in archived}[left] == "leave"
    earlier = (await alice.get(f"rooms/{room_id}/messages?dir=b&from={room['messages']['start']}&limit=1")).ok()
    assert bodies(earlier["chunk"]) == ["0"]

    assert (await alice.get(f"events?from={body['end']}&timeout=0")).ok()["chunk"] == []
    waiting = asyncio.create_task(alice.get(f"events?from={body['end']}&timeout=20000"))
    event_id = await alice.send(room_id, "news")
    told = (await waiting).ok()
    assert told["start"] == body["end"]
    assert [(event["event_id"], event["room_id"]) for event in told["chunk"]] == [(event_id, room_id)]
    another = await bob.create_room(invite=[alice.user_id])
    (invite,) = (await alice.get(f"events?from={told['end']}&timeout=20000")).ok()["chunk"]
    assert (invite["type"], invite["room_id"], invite["state_key"]) == ("m.room.member", another, alice.user_id)
    assert (await alice.get("events?from=nonsense")).refusal == (400, "M_INVALID_PARAM")
    assert (await alice.get("events?timeout=-1")).refusal == (400, "M_INVALID_PARAM")


async def test_the_event_stream_waits_for_events_whatever_else_is_told(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{part(room_id)}", {})).ok()
    start = (await alice.get("initialSync")).ok()["end"]
    waiting = asyncio.create_task(alice.get(f"events?from={start}&timeout=20000"))
    (await bob.put(f"presence/{bob.user_id}/status", {"presence": "unavailable"})).ok()
    (await bob.put(f"rooms/{room_id}/typing/{bob.user_id}", {"typing": True})).ok()
    (await alice.put(f"user/{alice.user_id}/account_data/org.example", {"a": 1})).ok()
    event_id = await bob.send(room_id, "news")
    assert [event["event_id"] for event in (await waiting).ok()["chunk"]] == [event_id]


async def test_a_world_readable_room_is_peeked_into_and_no_other(api: Api) -> None:
    alice, eve = await api.register(), await api.register()
    room_id = await alice.create_room(name="Open", initial_state=[WORLD_READABLE])
    closed = await alice.create_room()
    await alice.send(room_id, "before")
    glance = (await eve.get(f"rooms/{room_id}/initialSync")).ok()
    assert bodies(glance["messages"]["chunk"]) == ["before"]
    assert "membership" not in glance
    assert {"name": "Open"} in [event["content"] for event in glance["state"]]
    path = f"events?room_id={part(room_id)}"
    end = glance["messages"]["end"]
    nothing = (await eve.get(f"{path}&from={end}&timeout=0")).ok()
    assert nothing["chunk"] == []
    waiting = asyncio.create_task(eve.get(f"{path}&from={nothing['end']}&timeout=20000"))
    await alice.send(closed, "not for Eve")
    event_id = await alice.send(room_id, "after")
    told = (await waiting).ok()
    assert [event["event_id"] for event in told["chunk"]] == [event_id]
    assert (await eve.get(f"{path}&from={told['end']}&timeout=0")).ok()["chunk"] == []
    # What is said once the room is closed to the world is not for those outside.
    waiting = asyncio.create_task(eve.get(f"{path}&from={told['end']}&timeout=20000"))
    hidden = {"history_visibility": "shared"}
    (await alice.put(f"rooms/{room_id}/state/m.room.history_visibility", hidden)).ok()
    answer = await waiting
    assert answer.refusal == (403, "M_FORBIDDEN") or answer.ok()["chunk"][0]["content"] == hidden
    for request in (path, f"events?room_id={part(closed)}", f"rooms/{closed}/initialSync"):
        assert (await eve.get(request)).refusal == (403, "M_FORBIDDEN")
    # A member is told by the same endpoint.
    mine = (await alice.get(f"{path}&from={end}&timeout=0")).ok()
    assert bodies(mine["chunk"]) == ["after"]


async def test_a_room_at_a_glance_is_for_members_as_it_is_and_for_former_ones_as_it_was(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", name="then")
    (await bob.post(f"join/{room_id}", {})).ok()
    await alice.send(room_id, "heard")
    (await bob.put(f"user/{bob.user_id}/rooms/{room_id}/account_data/org.example.x", {"a": 1})).ok()
    (await bob.post(f"rooms/{room_id}/leave", {})).ok()
    await alice.send(room_id, "missed")
    (await alice.put(f"rooms/{room_id}/state/m.room.name", {"name": "now"})).ok()
    mine = (await alice.get(f"rooms/{room_id}/initialSync?limit=2")).ok()
    assert (mine["membership"], mine["visibility"]) == ("join", "private")
    assert [event["type"] for event in mine["messages"]["chunk"]] == ["m.room.message", "m.room.name"]
    former = (await bob.get(f"rooms/{room_id}/initialSync")).ok()
    assert former["membership"] == "leave"
    assert bodies(former["messages"]["chunk"]) == ["heard"]
    names = [event["content"]["name"] for event in former["state"] if event["type"] == "m.room.name"]
    assert names == ["then"]
    assert former["account_data"] == [{"type": "org.example.x", "content": {"a": 1}}]


async def test_an_event_is_found_by_its_id_alone_by_who_may_see_it(api: Api) -> None:
    alice, eve = await api.register(), await api.register()
    room_id = await alice.create_room()
    event_id = await alice.send(room_id, "secret")
    found = (await alice.get(f"events/{part(event_id)}")).ok()
    assert (found["content"]["body"], found["room_id"]) == ("secret", room_id)
    assert (await eve.get(f"events/{part(event_id)}")).refusal == (404, "M_NOT_FOUND")
    assert (await alice.get("events/%24unknown")).refusal == (404, "M_NOT_FOUND")


async def test_mutual_rooms_are_those_both_are_in(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, bob = await api.register(), await api.register()
    rooms = [await alice.create_room(preset="public_chat") for _ in range(5)]
    for room_id in rooms:
        (await bob.post(f"join/{room_id}", {})).ok()
    (await bob.post(f"rooms/{rooms[0]}/leave", {})).ok()
    await bob.create_room(invite=[alice.user_id])
    path = "/_matrix/client/v1/mutual_rooms"

    async def ask(user: Client, **parameters: str) -> Any:
        return await user.get(path + "?" + "&".join(f"{name}={part(value)}" for name, value in parameters.items()))

    assert (await ask(alice, user_id=bob.user_id)).ok() == {"joined": rooms[1:], "count": 4}
    monkeypatch.setattr("readers.rooms.mutual.PAGE", 3)
    page = (await ask(alice, user_id=bob.user_id)).ok()
    assert (page["joined"], page["count"]) == (rooms[1:4], 4)
    assert (await ask(alice, user_id=bob.user_id, **{"from": page["next_batch"]})).ok() == {
        "joined": rooms[4:],
        "count": 4,
    }
    assert (await ask(alice, user_id="@nobody:elsewhere.example")).ok() == {"joined": [], "count": 0}
    assert (await alice.get(path)).refusal == (400, "M_MISSING_PARAM")
    for wrong in ({"user_id": alice.user_id}, {"user_id": "nobody"}, {"user_id": bob.user_id, "from": "x"}):
        assert (await ask(alice, **wrong)).refusal == (400, "M_INVALID_PARAM")


async def test_who_stops_peeking_is_not_waited_for(api: Api, writers_database: str) -> None:
    alice, eve = await api.register(), await api.register()
    room_id = await alice.create_room(initial_state=[WORLD_READABLE])
    (await eve.get(f"events?room_id={part(room_id)}&timeout=50")).ok()
    with psycopg.connect(writers_database) as connection:
        row = connection.execute("select nid from roomserver.rooms where room_id = %s", [room_id]).fetchone()
    assert row is not None
    assert row[0] not in api.process.sync.current.peekers

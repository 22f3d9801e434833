"""Bundled aggregations: what is told with an event about those that relate to it, wherever events are served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from judged_rooms import Log, Room
from rooms_client import V1, V3, Client, serving
from sync_world import Client as SyncClient
from sync_world import caught_up, settings_of, user, world

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:test.example"


def path(room: Room, rest: str, version: str = V3) -> str:
    return f"{version}/rooms/{room.room_id}/{rest}"


def relations(event: dict[str, Any]) -> Any:
    return event.get("unsigned", {}).get("m.relations")


async def everywhere(client: Client, room: Room, event_id: str) -> list[Any]:
    """The event's relations from every endpoint that shows it."""
    context = await client.get(path(room, f"context/{event_id}"), limit=20)
    page = await client.get(path(room, "messages"), dir="b", limit=100)
    found = [await client.get(path(room, f"event/{event_id}")), context["event"]]
    found += [event for event in page["chunk"] if event["event_id"] == event_id]
    return [relations(event) for event in found]


async def test_the_latest_edit_a_thread_and_references_are_told_wherever_the_event_is_served(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        for user_id in (BOB, EVE):
            room.member(user_id, "join")
        root = room.message(ALICE, "root")
        room.edit(ALICE, root, "first")
        edit = room.edit(ALICE, root, "second")
        room.relate(BOB, root, "m.thread", "m.room.message", body="1")
        reply = room.relate(BOB, root, "m.thread", "m.room.message", body="2")
        reedit = room.edit(BOB, reply, "two")
        refs = [room.relate(EVE, root, "m.reference", "org.example.ref").event_id for _ in range(2)]
        room.relate(EVE, root, "m.annotation", key="+1")
        log.commit()
    async with serving(database) as server:
        for user_id, took_part in ((ALICE, True), (BOB, True), (EVE, False)):
            found = await everywhere(server.client(user_id), room, root.event_id)
            assert len(found) == 3 and found[0] == found[1] == found[2]
            bundle = found[0]
            assert set(bundle) == {"m.replace", "m.thread", "m.reference"}
            assert bundle["m.replace"]["event_id"] == edit.event_id
            assert bundle["m.replace"]["content"]["m.new_content"]["body"] == "second"
            assert bundle["m.replace"]["room_id"] == room.room_id
            assert bundle["m.reference"] == {"chunk": [{"event_id": event_id} for event_id in refs]}
            thread = bundle["m.thread"]
            assert (thread["count"], thread["current_user_participated"]) == (2, took_part)
            assert thread["latest_event"]["event_id"] == reply.event_id
            # "Child events of the latest_event should themselves be aggregated."
            assert relations(thread["latest_event"])["m.replace"]["event_id"] == reedit.event_id
        alice = server.client(ALICE)
        related = await alice.get(path(room, f"relations/{root.event_id}/m.thread", V1))
        assert relations(related["chunk"][0])["m.replace"]["event_id"] == reedit.event_id
        assert relations(related["chunk"][1]) is None


async def test_only_edits_that_are_valid_count_and_the_most_recent_is_by_time_then_id(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        message = room.message(ALICE, "original")
        content = {
            "m.new_content": {"body": "x"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": message.event_id},
        }
        later = log.clock + 10_000
        same_time = [
            room.send(ALICE, "m.room.message", {"body": body, **content}, origin_server_ts=later) for body in ("a", "b")
        ]
        room.edit(ALICE, message, "earlier in time, later in the room")
        room.edit(BOB, message, "somebody else's")
        room.send(ALICE, "m.sticker", content, origin_server_ts=later + 1)
        room.send(ALICE, "m.room.message", {**content, "m.new_content": 1}, origin_server_ts=later + 2)
        gone = room.send(ALICE, "m.room.message", content, origin_server_ts=later + 3)
        room.redact(ALICE, gone)
        best = max(same_time, key=lambda sent: sent.event_id)
        room.edit(ALICE, best, "an edit of an edit")
        topic = room.send(ALICE, "m.room.topic", {"topic": "state"}, state_key="")
        room.send(
            ALICE, "m.room.topic", {**content, "m.relates_to": {"rel_type": "m.replace", "event_id": topic.event_id}}
        )
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        event = await alice.get(path(room, f"event/{message.event_id}"))
        assert event["content"]["body"] == "original"
        assert relations(event)["m.replace"]["event_id"] == best.event_id
        for event_id in (best.event_id, topic.event_id):
            assert relations(await alice.get(path(room, f"event/{event_id}"))) is None


async def test_a_redacted_event_keeps_its_thread_and_loses_its_edit(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        message = room.message(ALICE, "original")
        room.edit(ALICE, message, "edited")
        replies = [room.relate(ALICE, message, "m.thread", "m.room.message") for _ in range(3)]
        room.redact(ALICE, replies[2])
        room.redact(ALICE, message)
        log.commit()
    async with serving(database) as server:
        event = await server.client(ALICE).get(path(room, f"event/{message.event_id}"))
        assert event["content"] == {}
        assert set(relations(event)) == {"m.thread"}
        assert relations(event)["m.thread"]["latest_event"]["event_id"] == replies[1].event_id
        assert relations(event)["m.thread"]["count"] == 2


async def test_what_ignored_users_sent_takes_no_part(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(EVE, "join")
        message = room.message(ALICE, "root")
        reply = room.relate(ALICE, message, "m.thread", "m.room.message")
        room.relate(EVE, message, "m.thread", "m.room.message")
        room.relate(EVE, message, "m.reference", "m.room.message")
        other = room.message(ALICE, "other")
        room.relate(EVE, other, "m.thread", "m.room.message")
        log.account_data(ALICE, "m.ignored_user_list", {"ignored_users": {EVE: {}}})
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        found = relations(await alice.get(path(room, f"event/{message.event_id}")))
        assert set(found) == {"m.thread"}
        assert (found["m.thread"]["count"], found["m.thread"]["latest_event"]["event_id"]) == (1, reply.event_id)
        assert relations(await alice.get(path(room, f"event/{other.event_id}"))) is None
        assert "m.thread" in relations(await server.client(EVE).get(path(room, f"event/{other.event_id}")))


async def test_what_the_user_may_not_see_takes_no_part(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        room.member(BOB, "join")
        message = room.message(ALICE, "root")
        before = room.relate(ALICE, message, "m.thread", "m.room.message")
        room.member(BOB, "leave")
        room.relate(ALICE, message, "m.thread", "m.room.message")
        room.edit(ALICE, message, "edited while Bob was away")
        room.member(BOB, "join")
        after = room.relate(ALICE, message, "m.thread", "m.room.message")
        room.member(EVE, "join")
        room.member(EVE, "leave")
        room.relate(ALICE, after, "m.reference", "org.example.ref")
        log.commit()
    async with serving(database) as server:
        found = relations(await server.client(BOB).get(path(room, f"event/{message.event_id}")))
        assert set(found) == {"m.thread"}
        assert (found["m.thread"]["count"], found["m.thread"]["latest_event"]["event_id"]) == (2, after.event_id)
        found = relations(await server.client(ALICE).get(path(room, f"event/{message.event_id}")))
        assert found["m.thread"]["count"] == 3 and "m.replace" in found
        assert before.event_id != after.event_id


async def test_sync_tells_them_where_a_timeline_is_limited_and_only_there(provisioned: str, tmp_path: Path) -> None:
    alice, bob = user("alice"), user("bob")
    async with world(settings_of(provisioned, tmp_path)) as here:
        room = await here.room(alice)
        await here.join(room, bob)
        client = SyncClient(here.sync, bob, filter={"room": {"timeline": {"limit": 4}}})
        await client.sync()
        root = (await here.say(room, alice, "root")).event_id
        relation = {"rel_type": "m.thread", "event_id": root}
        content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation}
        reply = (await here.event(room, bob, "m.room.message", content)).event_id
        await caught_up(here.sync)
        await client.sync()
        assert [relations(event) for event in client.room(room)["timeline"]["events"]] == [None, None]
        fresh = SyncClient(here.sync, bob, "OTHER", filter={"room": {"timeline": {"limit": 2}}})
        await fresh.sync()
        first, second = fresh.room(room)["timeline"]["events"]
        assert (first["event_id"], second["event_id"]) == (root, reply)
        assert relations(second) is None
        thread = relations(first)["m.thread"]
        assert (thread["count"], thread["current_user_participated"]) == (1, True)
        assert thread["latest_event"]["event_id"] == reply
        assert first["unsigned"]["membership"] == "join"
        # A thread that goes on elsewhere: the root alone is within the gap's end.
        for number in range(6):
            await here.say(room, alice, f"{number}")
        edited = (await here.say(room, alice, "edited soon")).event_id
        new = {"msgtype": "m.text", "body": "edited"}
        relation = {"rel_type": "m.replace", "event_id": edited}
        await here.event(room, alice, "m.room.message", {**new, "m.new_content": new, "m.relates_to": relation})
        await caught_up(here.sync)
        await client.sync()
        assert client.room(room)["timeline"]["limited"]
        found = {event["event_id"]: relations(event) for event in client.room(room)["timeline"]["events"]}
        assert found[edited]["m.replace"]["content"]["body"] == "edited"


async def test_an_edit_with_the_character_zero_is_told_like_any_other(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        root = room.message(ALICE, "root")
        edit = room.edit(ALICE, root, "first \0 \U0010ffff")
        log.commit()
    async with serving(database) as server:
        for bundle in await everywhere(server.client(ALICE), room, root.event_id):
            assert bundle["m.replace"]["event_id"] == edit.event_id
            assert bundle["m.replace"]["content"]["m.new_content"]["body"] == "first \0 \U0010ffff"

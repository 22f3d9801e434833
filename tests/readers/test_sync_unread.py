"""Unread counts: what notifies, what has been read, by whom, in which thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sync_world import Client, World, settings_of, sync_process, user, world

from matrix.push_rules import PushRuleset

pytestmark = pytest.mark.postgres

ALICE, BOB = user("alice"), user("bob")


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


def counts(client: Client, room: str) -> tuple[int, int]:
    unread = client.rooms[room].unread
    return unread["notification_count"], unread["highlight_count"]


async def cold(here: World, user_id: str, room: str) -> tuple[int, int]:
    """The counts as a process tells them that remembers nothing."""
    async with sync_process(here.settings) as service:
        client = Client(service, user_id)
        await client.sync()
        return counts(client, room)


async def test_messages_of_others_count_until_they_are_read_and_count_alike_from_the_tables(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    assert counts(client, room) == (0, 0)
    sent = [await here.say(room, ALICE, f"{n}") for n in range(3)]
    await here.say(room, BOB, "my own")
    await here.event(room, ALICE, "m.room.topic", {"topic": "t"}, state_key="")
    await here.event(
        room, ALICE, "m.room.message", {"msgtype": "m.text", "body": "hey", "m.mentions": {"user_ids": [BOB]}}
    )
    await client.settle()
    assert counts(client, room) == (4, 1) == await cold(here, BOB, room)
    await here.receipt(room, BOB, sent[1].event_id, "m.read.private")
    await client.settle()
    assert counts(client, room) == (2, 1) == await cold(here, BOB, room)
    await here.receipt(room, BOB, sent[0].event_id)
    await client.settle()
    assert counts(client, room) == (2, 1) == await cold(here, BOB, room)
    last = await here.say(room, ALICE, "last")
    await here.receipt(room, BOB, last.event_id)
    await client.settle()
    assert counts(client, room) == (0, 0) == await cold(here, BOB, room)


async def test_threads_are_counted_and_read_each_for_itself_where_the_filter_asks(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    chosen = {"room": {"timeline": {"unread_thread_notifications": True}}}
    client, plain = Client(here.sync, BOB, filter=chosen), Client(here.sync, BOB, "PLAIN")
    await client.settle()
    await plain.settle()
    root = await here.say(room, ALICE, "root")

    def reply(body: str) -> dict[str, Any]:
        relation = {"rel_type": "m.thread", "event_id": root.event_id}
        return {"msgtype": "m.text", "body": body, "m.relates_to": relation}

    first = await here.event(room, ALICE, "m.room.message", reply("one"))
    mention = {"m.mentions": {"user_ids": [BOB]}}
    second = await here.event(room, ALICE, "m.room.message", reply("two") | mention)
    await here.event(
        room,
        ALICE,
        "m.room.message",
        {"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": "m.reference", "event_id": first.event_id}},
    )
    await client.sync()
    await client.settle()
    await plain.settle()
    told = client.rooms[room].unread
    assert (told["notification_count"], counts(plain, room)) == (1, (4, 1))
    await client.sync(full_state=True)
    assert client.room(room)["unread_thread_notifications"] == {
        root.event_id: {"notification_count": 3, "highlight_count": 1}
    }
    assert client.room(room)["unread_notifications"] == {"notification_count": 1, "highlight_count": 0}
    await here.receipt(room, BOB, first.event_id, thread=root.event_id)
    await client.settle()
    await client.sync(full_state=True)
    assert client.room(room)["unread_thread_notifications"][root.event_id]["notification_count"] == 2
    await here.receipt(room, BOB, second.event_id, thread=root.event_id)
    await client.settle()
    await client.sync(full_state=True)
    assert client.room(room)["unread_thread_notifications"] == {
        root.event_id: {"notification_count": 1, "highlight_count": 0}
    }
    await here.receipt(room, BOB, root.event_id, thread="main")
    await client.settle()
    await client.sync(full_state=True)
    assert client.room(room)["unread_notifications"]["notification_count"] == 0
    async with sync_process(here.settings) as service:
        fresh = Client(service, BOB, filter=chosen)
        await fresh.sync()
        assert fresh.room(room)["unread_thread_notifications"][root.event_id]["notification_count"] == 1
        assert fresh.room(room)["unread_notifications"]["notification_count"] == 0


async def test_changed_push_rules_change_what_counts_and_are_told_in_the_form_of_the_api(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    await here.say(room, ALICE, "x")
    await client.settle()
    assert counts(client, room) == (1, 0)
    quiet = PushRuleset().put("room", room, {"actions": []})
    await here.account_data(BOB, "m.push_rules", quiet.stored())
    await here.say(room, ALICE, "y")
    await client.settle()
    assert counts(client, room) == (0, 0) == await cold(here, BOB, room)
    assert client.account_data["m.push_rules"] == {"global": quiet.client_form(BOB)}


async def test_nothing_from_before_the_own_join_counts_nor_what_was_redacted(here: World) -> None:
    room = await here.room(ALICE)
    await here.say(room, ALICE, "before")
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    sent = await here.say(room, ALICE, "regret")
    await client.settle()
    assert counts(client, room) == (1, 0) == await cold(here, BOB, room)
    await here.event(room, ALICE, "m.room.redaction", {}, redacts=sent.event_id)
    await client.settle()
    assert counts(client, room) == (0, 0) == await cold(here, BOB, room)


async def test_a_room_joined_while_syncing_is_counted_from_memory(here: World) -> None:
    client = Client(here.sync, BOB)
    await client.settle()
    room = await here.room(ALICE)
    await here.join(room, BOB)
    await here.say(room, ALICE, "first")
    await client.settle()
    pool, asked = here.sync._pool, []
    connection = pool.connection

    def noted(*arguments: object, **options: object) -> object:
        asked.append(arguments)
        return connection(*arguments, **options)  # type: ignore[arg-type]

    pool.connection = noted  # type: ignore[method-assign,assignment]
    try:
        await here.say(room, ALICE, "second")
        await client.sync(5)
    finally:
        del pool.connection  # type: ignore[method-assign]
    assert client.rooms[room].unread["notification_count"] == 2
    assert not asked, "the tables were asked"


@pytest.mark.parametrize("rel_type", ["m.thread", "m.reference"])
@pytest.mark.parametrize("target", ["$a\0b", "$" + "x" * 300, "nothing", ""])
async def test_what_relates_to_no_event_counts_in_the_main_timeline(target: str, rel_type: str, here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    relation = {"rel_type": rel_type, "event_id": target}
    content = {"msgtype": "m.text", "body": "hello", "m.relates_to": relation}
    sent = await here.event(room, ALICE, "m.room.message", content)
    client = Client(here.sync, BOB)
    await client.settle()
    assert counts(client, room) == (1, 0) == await cold(here, BOB, room)
    await here.receipt(room, BOB, sent.event_id)
    await client.settle()
    assert counts(client, room) == (0, 0) == await cold(here, BOB, room)

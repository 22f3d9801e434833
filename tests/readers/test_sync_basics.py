"""What /sync tells: initial, incremental, long poll; each kind of room; whose receipts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from sync_world import Client, World, caught_up, settings_of, sync_process, user, world

pytestmark = pytest.mark.postgres

ALICE, BOB, CAROL = user("alice"), user("bob"), user("carol")


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


async def test_an_initial_sync_tells_the_joined_room_with_its_state_before_the_timeline(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.join(room, BOB)
    for number in range(12):
        await here.say(room, ALICE, f"{number}")
    client = Client(here.sync, ALICE)
    await client.settle()
    await client.sync(since="")
    told = client.room(room)
    assert client.bodies(room) == [str(number) for number in range(2, 12)]
    assert told["timeline"]["limited"] is True
    types = {event["type"] for event in told["state"]["events"]}
    assert types >= {"m.room.create", "m.room.member", "m.room.name", "m.room.power_levels"}
    assert told["summary"]["m.joined_member_count"] == 2
    assert told["timeline"]["events"][0]["unsigned"]["membership"] == "join"
    assert "room_id" not in told["timeline"]["events"][0]


async def test_a_waiting_sync_is_answered_by_the_next_message_and_by_nothing_else(here: World) -> None:
    room, other = await here.room(ALICE), await here.room(CAROL)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    waiting = asyncio.create_task(client.sync(20.0))
    await asyncio.sleep(0.05)
    await here.say(other, CAROL, "elsewhere")
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await here.say(room, ALICE, "hello")
    await asyncio.wait_for(waiting, 5)
    assert client.bodies(room) == ["hello"]
    assert list(client.last["rooms"]["join"]) == [room]


async def test_a_sync_with_nothing_to_say_waits_its_timeout_and_moves_on(here: World) -> None:
    await here.room(ALICE)
    client = Client(here.sync, BOB)
    first = await client.sync()
    second = await client.sync(0.2)
    assert set(first) - set(second) == {"account_data"}
    assert set(second) == {"next_batch", "device_one_time_keys_count", "device_unused_fallback_key_types"}


async def test_only_the_sending_device_sees_its_transaction_id(here: World) -> None:
    room = await here.room(ALICE)
    mine, other = Client(here.sync, ALICE, "ONE"), Client(here.sync, ALICE, "TWO")
    await mine.settle()
    await other.settle()
    await here.say(room, ALICE, "x", device_id="ONE", txn_id="t1", txn_path="/send")
    await mine.sync(5)
    await other.sync(5)
    assert mine.room(room)["timeline"]["events"][0]["unsigned"]["transaction_id"] == "t1"
    assert "transaction_id" not in other.room(room)["timeline"]["events"][0]["unsigned"]


async def test_an_invite_shows_stripped_state_with_the_create_event(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    client = Client(here.sync, BOB)
    await client.settle()
    await here.member(room, ALICE, BOB, "invite")
    await client.sync(5)
    events = client.last["rooms"]["invite"][room]["invite_state"]["events"]
    assert {e["type"] for e in events} == {
        "m.room.create",
        "m.room.name",
        "m.room.join_rules",
        "m.room.member",
    }
    assert all(set(event) == {"type", "sender", "state_key", "content"} for event in events)
    fresh = Client(here.sync, BOB)
    await fresh.sync()
    assert fresh.last["rooms"]["invite"][room]["invite_state"]["events"]


async def test_a_rejected_invite_is_told_as_a_left_room_and_not_again(here: World) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, BOB)
    await here.member(room, ALICE, BOB, "invite")
    await client.settle()
    await here.leave(room, BOB)
    await client.sync(5)
    told = client.last["rooms"]["leave"][room]
    assert [event["state_key"] for event in told["timeline"]["events"]] == [BOB]
    assert told["state"]["events"] == []
    assert "rooms" not in await client.sync()


async def test_a_rejected_invite_is_told_as_a_left_room_with_the_full_state_too(here: World) -> None:
    room, earlier = await here.room(ALICE), await here.room(ALICE)
    client = Client(here.sync, BOB)
    await here.join(earlier, BOB)
    await here.leave(earlier, BOB)
    await client.settle()
    since = client.since
    for one in (room, earlier):
        await here.member(one, ALICE, BOB, "invite")
        await here.leave(one, BOB)
    await client.settle()
    await client.sync(since=since, full_state=True)
    assert set(client.last["rooms"]["leave"]) == {room, earlier}
    for one in (room, earlier):
        told = client.last["rooms"]["leave"][one]["timeline"]["events"]
        assert [event["content"]["membership"] for event in told] == ["leave"]
    await client.sync(full_state=True)
    assert "leave" not in client.last.get("rooms", {})


async def test_who_does_not_wait_is_told_of_all_that_was_acknowledged_before(
    here: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE)
    await client.settle()
    # The stream comes late: nothing is applied before it is time.
    feed, head = here.sync.feed, here.sync.feed._head
    moved = asyncio.Event()
    monkeypatch.setattr(head, "_watchers", [moved.set])
    monkeypatch.setattr(feed, "release", lambda: None)
    monkeypatch.setattr(feed, "_fill_shard", AsyncMock(return_value=0.0))
    sent = await here.say(room, ALICE, "said")
    await moved.wait()  # the writer has a head of its own here
    syncing = asyncio.create_task(client.sync(0)), asyncio.create_task(Client(here.sync, ALICE).sync(0))
    await asyncio.sleep(0.05)
    assert feed.positions != head.positions
    assert not any(one.done() for one in syncing)
    monkeypatch.undo()
    feed.release()
    for answer in await asyncio.gather(*syncing):
        events = answer["rooms"]["join"][room]["timeline"]["events"]
        assert events[-1]["event_id"] == sent.event_id


async def test_a_timeline_limited_to_nothing_tells_the_state_alone(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.say(room, ALICE, "before")
    client = Client(here.sync, ALICE, filter={"room": {"timeline": {"limit": 0}}})
    await caught_up(here.sync)
    await client.sync()
    told = client.room(room)
    assert (told["timeline"]["events"], told["timeline"]["limited"]) == ([], True)
    assert {event["type"] for event in told["state"]["events"]} >= {"m.room.create", "m.room.name", "m.room.member"}
    await here.event(room, ALICE, "m.room.topic", {"topic": "ponds"}, state_key="")
    await client.sync(5)
    told = client.room(room)
    assert (told["timeline"]["events"], told["timeline"]["limited"]) == ([], True)
    assert [event["type"] for event in told["state"]["events"]] == ["m.room.topic"]


async def test_joining_tells_the_whole_state_and_leaving_ends_with_the_leave(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    client = Client(here.sync, BOB)
    await client.settle()
    await here.say(room, ALICE, "before")
    await here.join(room, BOB)
    await client.sync(5)
    assert ("m.room.name", "") in client.rooms[room].state
    assert client.bodies(room) == ["before"]
    await here.say(room, ALICE, "during")
    await here.leave(room, BOB)
    await here.say(room, ALICE, "after")
    await client.settle()
    assert client.rooms[room].section == "leave"
    fresh = Client(here.sync, BOB, filter={"room": {"include_leave": True}})
    await fresh.sync()
    assert fresh.bodies(room)[-1] == "during"
    assert fresh.rooms[room].section == "leave"
    assert "rooms" not in await Client(here.sync, BOB).sync()


async def test_history_that_was_for_members_alone_is_not_shown_to_those_who_come_later(here: World) -> None:
    room = await here.room(ALICE, visibility="joined")
    await here.say(room, ALICE, "secret")
    await here.join(room, BOB)
    await here.say(room, ALICE, "open")
    client = Client(here.sync, BOB)
    await client.settle()
    client.since = ""
    await client.sync()
    assert client.bodies(room) == ["open"]
    assert client.room(room)["timeline"]["limited"] is True
    assert ("m.room.join_rules", "") in client.rooms[room].state


async def test_private_receipts_are_their_owners_alone(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    sent = await here.say(room, ALICE, "x")
    alice, bob = Client(here.sync, ALICE), Client(here.sync, BOB)
    await alice.settle()
    await bob.settle()
    await here.receipt(room, BOB, sent.event_id, "m.read.private")
    await here.receipt(room, ALICE, sent.event_id, "m.read")
    await alice.settle()
    await bob.settle()
    assert set(alice.rooms[room].receipts) == {("m.read", ALICE, "")}
    assert set(bob.rooms[room].receipts) == {("m.read", ALICE, ""), ("m.read.private", BOB, "")}
    for client in (Client(here.sync, ALICE), Client(here.sync, BOB)):
        await client.sync()
        assert (("m.read.private", BOB, "") in client.rooms[room].receipts) is (client.user_id == BOB)


async def test_account_data_of_both_kinds_is_told_once(here: World) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE)
    await client.settle()
    await here.account_data(ALICE, "org.example", {"a": 1})
    await here.account_data(ALICE, "m.tag", {"tags": {"u.x": {}}}, room)
    await client.settle()
    assert set(client.account_data) == {"m.push_rules", "org.example"}
    assert client.account_data["org.example"] == {"a": 1}
    assert client.rooms[room].account_data == {"m.tag": {"tags": {"u.x": {}}}}
    assert "account_data" not in await client.sync()
    fresh = Client(here.sync, ALICE)
    await fresh.sync()
    assert fresh.account_data == client.account_data
    assert fresh.rooms[room].account_data == client.rooms[room].account_data


async def test_who_leaves_types_no_more(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB, CAROL)
    client = Client(here.sync, ALICE)
    await client.settle()
    for typist in (BOB, CAROL):
        await here.writer.typing(room, typist, True, 100_000)
    while set(client.rooms[room].typing) != {BOB, CAROL}:
        await client.sync(10)
    await here.leave(room, BOB)
    while client.rooms[room].typing != [CAROL]:
        await client.sync(10)
    async with sync_process(here.settings) as later:
        newcomer = Client(later, ALICE, "NEW")
        await newcomer.sync()
        assert newcomer.rooms[room].typing == [CAROL]


async def test_typing_is_told_when_it_begins_and_when_it_runs_out(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, ALICE)
    await client.settle()
    await here.writer.typing(room, BOB, True, 2_000)
    await client.sync(5)
    assert client.room(room)["ephemeral"]["events"] == [{"type": "m.typing", "content": {"user_ids": [BOB]}}]
    await client.sync(5)
    assert client.room(room)["ephemeral"]["events"] == [{"type": "m.typing", "content": {"user_ids": []}}]
    assert "rooms" not in await client.sync()


async def test_a_gap_is_limited_and_its_state_changes_are_told_beside_the_timeline(here: World) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE, filter={"room": {"timeline": {"limit": 3}}})
    await client.settle()
    await here.event(room, ALICE, "m.room.topic", {"topic": "new"}, state_key="")
    for number in range(6):
        await here.say(room, ALICE, f"{number}")
    await client.settle()
    client.since, before = client.since, client.since
    assert client.rooms[room].gap
    assert ("m.room.topic", "") in client.rooms[room].state
    assert before


async def test_a_redacted_event_is_told_without_its_content(here: World) -> None:
    room = await here.room(ALICE)
    sent = await here.say(room, ALICE, "regret")
    client = Client(here.sync, ALICE)
    await client.settle()
    redaction = await here.event(room, ALICE, "m.room.redaction", {}, redacts=sent.event_id)
    await client.sync(5)
    assert client.room(room)["timeline"]["events"][-1]["redacts"] == sent.event_id
    fresh = Client(here.sync, ALICE)
    await fresh.sync()
    (told,) = [e for e in fresh.room(room)["timeline"]["events"] if e["event_id"] == sent.event_id]
    assert told["content"] == {}
    assert told["unsigned"]["redacted_because"]["event_id"] == redaction.event_id


async def test_what_a_redacted_state_event_said_is_not_told_by_the_one_that_replaced_it(here: World) -> None:
    room = await here.room(ALICE)
    first = await here.event(room, ALICE, "m.room.topic", {"topic": "secret"}, state_key="")
    second = await here.event(room, ALICE, "m.room.topic", {"topic": "open"}, state_key="")
    client = Client(here.sync, ALICE)
    await client.settle()

    async def told(client: Client, event_id: str) -> dict[str, object]:
        await client.sync(since="", full_state=True)
        body = client.room(room)
        (event,) = [e for e in body["timeline"]["events"] + body["state"]["events"] if e["event_id"] == event_id]
        return dict(event["unsigned"])

    assert (await told(client, second.event_id))["prev_content"] == {"topic": "secret"}
    await here.event(room, ALICE, "m.room.redaction", {}, redacts=first.event_id)
    await here.event(room, ALICE, "m.room.redaction", {}, redacts=second.event_id)
    third = await here.event(room, ALICE, "m.room.topic", {"topic": "new"}, state_key="")
    await client.settle()
    async with sync_process(here.settings) as service:
        for teller in (client, Client(service, ALICE)):
            for sent in (second, third):
                unsigned = await told(teller, sent.event_id)
                assert "prev_content" not in unsigned
                assert unsigned["replaces_state"] == (first if sent is second else second).event_id
        late = Client(service, ALICE)
        await late.settle()
        fourth = await here.event(room, ALICE, "m.room.topic", {"topic": "newer"}, state_key="")
        await here.event(room, ALICE, "m.room.redaction", {}, redacts=fourth.event_id)
        await late.settle()
        await here.event(room, ALICE, "m.room.topic", {"topic": "newest"}, state_key="")
        await late.sync(5)
        assert "prev_content" not in late.room(room)["timeline"]["events"][-1]["unsigned"]


async def test_a_forgotten_room_is_in_no_section(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB, filter={"room": {"include_leave": True}})
    await client.settle()
    await here.leave(room, BOB)
    await client.settle()
    await client.sync(since="")
    assert client.rooms[room].section == "leave"
    await here.writer.append_entry(type="forget", user_id=BOB, content={"room_id": room}, room_id=room)
    await caught_up(here.sync)
    await client.sync(since="")
    assert "rooms" not in client.last


@pytest.mark.parametrize("kind", ["ephemeral", "account_data"])
async def test_a_filter_chooses_rooms_for_what_is_no_event_of_theirs(here: World, kind: str) -> None:
    rooms = [await here.room(ALICE), await here.room(ALICE)]

    async def news() -> None:
        for room in rooms:
            await here.receipt(room, ALICE, (await here.say(room, ALICE, "x")).event_id)
            await here.account_data(ALICE, "org.example.x", {}, room)
        await caught_up(here.sync)

    await news()
    for chosen, expected in (
        ({"rooms": rooms[:1]}, rooms[:1]),
        ({"not_rooms": rooms[:1]}, rooms[1:]),
        ({"rooms": []}, []),
    ):
        client = Client(here.sync, ALICE, filter={"room": {kind: chosen}})
        # At first from the tables, then from what is at hand.
        for _ in range(2):
            await client.sync()
            told = client.last["rooms"]["join"]
            assert [room for room in rooms if told[room].get(kind, {}).get("events")] == expected
            await news()


async def test_a_filter_chooses_rooms_types_and_fields(here: World) -> None:
    room, other = await here.room(ALICE, name="Garden"), await here.room(ALICE)
    await here.say(room, ALICE, "x")
    sticker = await here.event(room, ALICE, "m.sticker", {"body": "s", "url": "mxc://a/b"})
    await here.say(other, ALICE, "y")
    cases = [
        ({"room": {"rooms": [room]}}, [room]),
        ({"room": {"not_rooms": [room]}}, [other]),
    ]
    for chosen, expected in cases:
        client = Client(here.sync, ALICE, filter=chosen)
        await client.sync()
        assert list(client.last["rooms"]["join"]) == expected

    async def types(**timeline: object) -> list[str]:
        client = Client(here.sync, ALICE, filter={"room": {"rooms": [room], "timeline": timeline}})
        await caught_up(here.sync)
        await client.sync()
        return [event["type"] for event in client.room(room)["timeline"]["events"]]

    assert await types(types=["m.room.message"]) == ["m.room.message"]
    assert await types(types=["m.st*"]) == ["m.sticker"]
    assert await types(not_types=["m.room.*"]) == ["m.sticker"]
    assert await types(contains_url=True) == ["m.sticker"]
    assert "m.sticker" not in await types(contains_url=False)
    assert await types(senders=[BOB]) == []
    assert await types(senders=["@nul\0:test.example"]) == []
    assert await types(types=["m.st*"], not_senders=["@nul\0:test.example"]) == ["m.sticker"]
    assert await types(types=[]) == []
    client = Client(here.sync, ALICE, filter={"event_fields": ["content.body", "type"], "room": {"rooms": [room]}})
    await client.sync_raw()
    assert client.last["rooms"]["join"][room]["timeline"]["events"][-1] == {
        "content": {"body": "s"},
        "type": "m.sticker",
    }
    client = Client(here.sync, ALICE, filter={"event_format": "federation", "room": {"rooms": [room]}})
    await client.sync_raw()
    assert "auth_events" in client.last["rooms"]["join"][room]["timeline"]["events"][-1]
    await here.event(room, ALICE, "m.room.redaction", {}, redacts=sticker.event_id)
    assert await types(contains_url=True) == []


async def test_messages_and_invites_of_ignored_users_are_not_told(here: World) -> None:
    room, other = await here.room(ALICE), await here.room(CAROL)
    await here.join(room, BOB, CAROL)
    client = Client(here.sync, BOB)
    await client.settle()
    await here.account_data(BOB, "m.ignored_user_list", {"ignored_users": {CAROL: {}}})
    await here.say(room, CAROL, "nonsense")
    await here.say(room, ALICE, "sense")
    await here.member(other, CAROL, BOB, "invite")
    await caught_up(here.sync)
    await client.sync()
    assert client.bodies(room) == ["sense"]
    assert "invite" not in client.last["rooms"]
    fresh = Client(here.sync, BOB)
    await fresh.sync()
    assert fresh.bodies(room) == ["sense"]


async def test_a_knock_shows_stripped_state(here: World) -> None:
    room = await here.room(ALICE, name="Garden")
    await here.event(room, ALICE, "m.room.join_rules", {"join_rule": "knock"}, state_key="")
    client = Client(here.sync, BOB)
    await client.settle()
    await here.member(room, BOB, BOB, "knock")
    await client.sync(5)
    events = client.last["rooms"]["knock"][room]["knock_state"]["events"]
    assert {"m.room.create", "m.room.name", "m.room.member"} <= {event["type"] for event in events}


async def test_what_an_erased_user_said_is_redacted_for_those_who_came_later(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    await here.say(room, BOB, "forget me")
    await here.join(room, CAROL)
    await here.writer.append_entry(type="erase", user_id=BOB, content={})
    await caught_up(here.sync)
    for name, said in ((ALICE, {"msgtype": "m.text", "body": "forget me"}), (CAROL, {})):
        fresh = Client(here.sync, name)
        await fresh.sync()
        events = fresh.room(room)["timeline"]["events"]
        assert [event["content"] for event in events if event["type"] == "m.room.message"] == [said]

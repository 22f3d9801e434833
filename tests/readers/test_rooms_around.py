"""GET /context, /relations and /timestamp_to_event."""

from __future__ import annotations

from typing import Any

import pytest
from judged_rooms import Log, Room, bodies
from rooms_client import V1, V3, serving

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:test.example"


def path(room: Room, rest: str, version: str = V3) -> str:
    return f"{version}/rooms/{room.room_id}/{rest}"


def ids(events: list[dict[str, Any]]) -> list[str]:
    return [event["event_id"] for event in events]


async def test_context_surrounds_the_event_and_its_tokens_go_on_from_there(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, name="then")
        sent = [room.message(ALICE, f"{number}") for number in range(9)]
        room.send(ALICE, "m.room.name", {"name": "now"}, state_key="")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        context = await alice.get(path(room, f"context/{sent[4].event_id}"), limit=4)
        assert bodies(context["events_before"]) == ["3", "2"]
        assert context["event"]["content"]["body"] == "4"
        assert bodies(context["events_after"]) == ["5", "6"]
        names = [event["content"]["name"] for event in context["state"] if event["type"] == "m.room.name"]
        assert names == ["then"]
        page = await alice.get(path(room, "messages"), dir="b", from_=context["start"], limit=2)
        assert bodies(page["chunk"]) == ["1", "0"]
        page = await alice.get(path(room, "messages"), dir="f", from_=context["end"], limit=2)
        assert bodies(page["chunk"]) == ["7", "8"]


async def test_context_of_no_events_is_the_event_alone(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        sent = [room.message(ALICE, f"{number}") for number in range(3)]
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        context = await alice.get(path(room, f"context/{sent[1].event_id}"), limit=0)
        assert (context["events_before"], context["events_after"]) == ([], [])
        assert context["event"]["event_id"] == sent[1].event_id
        context = await alice.get(path(room, f"context/{sent[1].event_id}"), limit=1)
        assert len(context["events_before"]) + len(context["events_after"]) == 1


async def test_context_filters_what_surrounds_and_loads_members_lazily(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        room.member(EVE, "join")
        room.send(BOB, "m.sticker", {"body": "sticker"})
        target = room.send(BOB, "m.sticker", {"body": "target"})
        room.message(ALICE, "after")
        log.commit()
    wanted = {"not_types": ["m.sticker"], "lazy_load_members": True}
    async with serving(database) as server:
        context = await server.client(ALICE).get(path(room, f"context/{target.event_id}"), limit=10, filter=wanted)
    assert context["event"]["content"]["body"] == "target"
    assert "m.sticker" not in {event["type"] for event in context["events_before"]}
    assert bodies(context["events_after"]) == ["after"]
    # Eve is among the events before, as one who joined; Alice and Bob have sent what is shown.
    assert {event["state_key"] for event in context["state"] if event["type"] == "m.room.member"} == {ALICE, BOB, EVE}


async def test_context_and_event_of_what_is_unknown_are_not_found(database: str) -> None:
    with Log(database) as log:
        room, other = Room(log, ALICE), Room(log, ALICE)
        elsewhere = other.message(ALICE, "elsewhere")
        refused = room.send(ALICE, "m.room.message", {"body": "x", "msgtype": "m.text"}, verdict="r")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        for event_id in ("$nothing", elsewhere.event_id, refused.event_id):
            for endpoint in ("event", "context"):
                assert await alice.refusal(path(room, f"{endpoint}/{event_id}")) == (404, "M_NOT_FOUND")
            assert await alice.refusal(path(room, f"relations/{event_id}", V1)) == (404, "M_NOT_FOUND")


async def test_relations_by_kind_and_type_in_both_directions(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        target = room.message(ALICE, "target")
        likes = [room.relate(ALICE, target, "m.annotation", key=f"{number}") for number in range(3)]
        edit = room.edit(ALICE, target, "edited")
        reply = room.relate(ALICE, target, "m.annotation", kind="org.example.vote")
        gone = room.relate(ALICE, target, "m.annotation", key="gone")
        room.redact(ALICE, gone)
        log.commit()
    everything = [*(like.event_id for like in likes), edit.event_id, reply.event_id]
    related = path(room, f"relations/{target.event_id}", V1)
    async with serving(database) as server:
        alice = server.client(ALICE)
        body = await alice.get(related)
        assert ids(body["chunk"]) == everything[::-1]
        assert not {"next_batch", "prev_batch", "recursion_depth"} & set(body)
        assert ids((await alice.get(related, dir="f"))["chunk"]) == everything
        assert ids((await alice.get(f"{related}/m.replace"))["chunk"]) == [edit.event_id]
        votes = await alice.get(f"{related}/m.annotation/org.example.vote")
        assert ids(votes["chunk"]) == [reply.event_id]
        found: list[str] = []
        page = await alice.get(related, limit=2)
        while "next_batch" in page:
            found += ids(page["chunk"])
            page = await alice.get(related, limit=2, from_=page["next_batch"])
            assert "prev_batch" in page
        assert found + ids(page["chunk"]) == everything[::-1]


async def test_relations_recurse_three_steps_and_say_so(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        last = target = room.message(ALICE, "target")
        chain = []
        for step in range(5):
            last = room.relate(ALICE, last, "m.thread" if step != 1 else "m.annotation", kind="m.room.message")
            chain.append(last.event_id)
        log.commit()
    related = path(room, f"relations/{target.event_id}", V1)
    async with serving(database) as server:
        alice = server.client(ALICE)
        body = await alice.get(related, recurse="true", dir="f")
        assert (ids(body["chunk"]), body["recursion_depth"]) == (chain[:3], 3)
        body = await alice.get(related, recurse="false")
        assert (ids(body["chunk"]), body["recursion_depth"]) == (chain[:1], 1)
        # "Events … whose only relation to the original given event is through a non-matching intermediate event, will not
        # be included."
        assert ids((await alice.get(f"{related}/m.thread", recurse="true"))["chunk"]) == chain[:1]
        assert await alice.refusal(related, recurse="yes") == (400, "M_INVALID_PARAM")


async def test_the_event_closest_to_a_moment_is_found_in_either_direction(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        start = log.clock
        sent = []
        for number in range(400):
            log.clock = start + number * 1000
            sent.append(room.message(ALICE, f"{number}"))
        log.commit()
    times = [message.event.origin_server_ts for message in sent]
    closest = path(room, "timestamp_to_event", V1)
    async with serving(database) as server:
        alice = server.client(ALICE)
        for number in (0, 1, 57, 256, 399):
            expected = {"event_id": sent[number].event_id, "origin_server_ts": times[number]}
            assert await alice.get(closest, ts=times[number], dir="f") == expected
            assert await alice.get(closest, ts=times[number], dir="b") == expected
            assert await alice.get(closest, ts=times[number] + 400, dir="b") == expected
            if number:
                assert await alice.get(closest, ts=times[number] - 400, dir="f") == expected
        assert await alice.refusal(closest, ts=times[-1] + 1, dir="f") == (404, "M_NOT_FOUND")
        assert await alice.refusal(closest, ts=0, dir="b") == (404, "M_NOT_FOUND")
        assert await alice.refusal(closest, dir="b") == (400, "M_MISSING_PARAM")
        assert await alice.refusal(closest, ts="then", dir="b") == (400, "M_INVALID_PARAM")
        assert await server.client(EVE).refusal(closest, ts=0, dir="f") == (403, "M_FORBIDDEN")


async def test_the_closest_event_is_one_that_the_user_may_see(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        hidden = room.message(ALICE, "hidden")
        room.messages([ALICE], 150)
        joined = room.member(BOB, "join")
        log.commit()
    closest = path(room, "timestamp_to_event", V1)
    ts = hidden.event.origin_server_ts
    async with serving(database) as server:
        bob = server.client(BOB)
        assert (await bob.get(closest, ts=ts, dir="f"))["event_id"] == joined.event_id
        # What came before the setting, and the setting itself, is shared with who joined later.
        setting = room.state["m.room.history_visibility", ""]
        assert (await bob.get(closest, ts=ts, dir="b"))["event_id"] == setting.event_id

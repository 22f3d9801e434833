"""GET /state, /state/{type}/{key}, /members, /joined_members, /joined_rooms."""

from __future__ import annotations

from typing import Any

import pytest
from judged_rooms import Log, Room
from rooms_client import V3, serving

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE, DAN = "@alice:test.example", "@bob:test.example", "@eve:test.example", "@dan:test.example"


def path(room: Room, rest: str) -> str:
    return f"{V3}/rooms/{room.room_id}/{rest}"


def keys(events: list[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(event["type"], event["state_key"]) for event in events}


async def test_state_is_what_it_is_now_for_members_and_what_it_was_for_who_left(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, name="first")
        room.member(BOB, "join")
        room.member(BOB, "leave")
        room.member(BOB, "invite", by=ALICE)
        room.send(ALICE, "m.room.name", {"name": "second"}, state_key="")
        room.send(ALICE, "org.example.new", {}, state_key="key")
        log.commit()
    async with serving(database) as server:
        now = await server.client(ALICE).get(path(room, "state"))
        then = await server.client(BOB).get(path(room, "state"))
    assert keys(now) - keys(then) == {("org.example.new", "key")}
    assert len(now) == len(keys(now))

    def name(events: list[dict[str, Any]]) -> str:
        return next(event["content"]["name"] for event in events if event["type"] == "m.room.name")

    def membership(events: list[dict[str, Any]]) -> str:
        return next(event["content"]["membership"] for event in events if event["state_key"] == BOB)

    assert (name(now), name(then)) == ("second", "first")
    # A new invitation does not open what happened since.
    assert (membership(now), membership(then)) == ("invite", "leave")


async def test_one_key_as_content_and_as_event(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        sent = room.send(ALICE, "org.example/odd type", {"value": [1, None]}, state_key="a/b%c\0")
        log.commit()
    odd = path(room, "state/org.example%2Fodd%20type/a%2Fb%25c%00")
    async with serving(database) as server:
        alice = server.client(ALICE)
        event = await alice.get(path(room, "state/m.room.join_rules"), format="event")
        assert event["content"] == {"join_rule": "public"}
        assert (event["state_key"], event["room_id"]) == ("", room.room_id)
        assert await alice.get(path(room, "state/m.room.join_rules/")) == {"join_rule": "public"}
        assert await alice.refusal(path(room, "state/m.room.avatar")) == (404, "M_NOT_FOUND")
        assert await alice.refusal(path(room, "state/m.room.join_rules"), format="pdu") == (400, "M_INVALID_PARAM")
        assert await server.client(EVE).refusal(path(room, "state/m.room.join_rules")) == (403, "M_FORBIDDEN")
        assert (await alice.get(odd, format="event"))["event_id"] == sent.event_id


async def test_redacted_state_is_pruned(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        topic = room.send(ALICE, "m.room.topic", {"topic": "slander"}, state_key="")
        member = room.member(ALICE, "join", displayname="slanderer")
        room.redact(ALICE, topic)
        room.redact(ALICE, member)
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        assert await alice.get(path(room, "state/m.room.topic")) == {}
        assert await alice.get(path(room, f"state/m.room.member/{ALICE}")) == {"membership": "join"}
        assert await alice.get(path(room, "joined_members")) == {"joined": {ALICE: {}}}


async def test_members_by_membership_and_by_its_opposite(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "invite", by=ALICE)
        room.member(EVE, "join")
        room.member(EVE, "ban", by=ALICE)
        room.member(DAN, "join")
        room.member(DAN, "leave")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)

        async def members(**parameters: str) -> set[str]:
            chunk = (await alice.get(path(room, "members"), **parameters))["chunk"]
            return {event["state_key"] for event in chunk}

        assert await members() == {ALICE, BOB, EVE, DAN}
        assert await members(membership="join") == {ALICE}
        assert await members(not_membership="leave") == {ALICE, BOB, EVE}
        # Both together are an "or".
        assert await members(membership="leave", not_membership="ban") == {ALICE, BOB, DAN}
        assert await members(membership="ban", not_membership="ban") == {ALICE, BOB, DAN, EVE}
        assert await alice.refusal(path(room, "members"), membership="friend") == (400, "M_INVALID_PARAM")


async def test_members_at_a_token_are_those_of_then(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join", displayname="Bob")
        then = room.message(ALICE, "then")
        room.member(BOB, "join", displayname="Robert")
        room.member(EVE, "join")
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        for at in (f"w1_e1_{then.position}", f"t{then.position}"):
            chunk = (await alice.get(path(room, "members"), at=at, membership="join"))["chunk"]
            names = {event["state_key"]: event["content"].get("displayname") for event in chunk}
            assert names == {ALICE: None, BOB: "Bob"}
        assert await alice.refusal(path(room, "members"), at="yesterday") == (400, "M_INVALID_PARAM")
        assert await alice.refusal(path(room, "members"), at="t-5") == (404, "M_NOT_FOUND")


async def test_members_of_a_time_that_was_hidden_are_not_told(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        room.member(EVE, "join")
        hidden = room.message(ALICE, "hidden")
        room.member(EVE, "leave")
        room.member(BOB, "join")
        room.member(BOB, "leave")
        room.member(DAN, "join")
        log.commit()
    async with serving(database) as server:
        bob = server.client(BOB)
        assert await bob.refusal(path(room, "members"), at=f"t{hidden.position}") == (403, "M_FORBIDDEN")
        members = (await bob.get(path(room, "members"), at=f"w1_e1_{log.position}"))["chunk"]
    assert {event["state_key"] for event in members} == {ALICE, EVE, BOB}


async def test_joined_members_have_their_profiles(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join", displayname="Bob\0", avatar_url="mxc://test.example/bob")
        room.member(EVE, "join", displayname=7, avatar_url=None)
        room.member(DAN, "invite", by=ALICE)
        log.commit()
    async with serving(database) as server:
        joined = await server.client(ALICE).get(path(room, "joined_members"))
        assert await server.client(DAN).refusal(path(room, "joined_members")) == (403, "M_FORBIDDEN")
    assert joined == {
        "joined": {ALICE: {}, BOB: {"display_name": "Bob\0", "avatar_url": "mxc://test.example/bob"}, EVE: {}}
    }


async def test_joined_rooms_are_those_the_user_is_in(database: str) -> None:
    with Log(database) as log:
        rooms = [Room(log, ALICE) for _ in range(4)]
        rooms[0].member(BOB, "join")
        rooms[1].member(BOB, "invite", by=ALICE)
        rooms[2].member(BOB, "join")
        rooms[2].member(BOB, "leave")
        log.commit()
    async with serving(database) as server:
        assert await server.client(BOB).get(f"{V3}/joined_rooms") == {"joined_rooms": [rooms[0].room_id]}
        assert await server.client(EVE).get(f"{V3}/joined_rooms") == {"joined_rooms": []}


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
async def test_the_create_event_is_served_in_every_room_version(database: str, version: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, version=version)
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        event = await alice.get(path(room, f"event/{room.create.event_id.replace('/', '%2F')}"))
        assert (event["type"], event["room_id"], event["event_id"]) == (
            "m.room.create",
            room.room_id,
            room.create.event_id,
        )
        assert set(event) == {
            "content",
            "event_id",
            "origin_server_ts",
            "room_id",
            "sender",
            "state_key",
            "type",
            "unsigned",
        }

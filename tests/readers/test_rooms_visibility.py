"""History visibility in everything that reads rooms: a small model decides, and every endpoint must agree with it."""

from __future__ import annotations

import random

import pytest
from judged_rooms import Log, Room, Sent, bodies
from rooms_client import V1, V3, Client, serving

pytestmark = pytest.mark.postgres

ALICE, BOB, CAROL = "@alice:test.example", "@bob:test.example", "@carol:test.example"


def path(room: Room, rest: str, version: str = V3) -> str:
    return f"{version}/rooms/{room.room_id}/{rest}"


async def seen_by_pages(client: Client, room: Room, direction: str, limit: int) -> list[str]:
    found: list[str] = []
    page = await client.get(path(room, "messages"), dir=direction, limit=limit)
    while True:
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            return found
        page = await client.get(path(room, "messages"), dir=direction, limit=limit, from_=page["end"])


def allowed(history: list[Sent], user_id: str) -> list[str]:
    """The specification's rules on a list of events in order, written as plainly as they are there."""
    shown: list[str] = []
    for place, sent in enumerate(history):
        before, event = history[:place], sent.event
        visibility, membership = "shared", "leave"
        for earlier in before:
            if earlier.event.type == "m.room.history_visibility":
                visibility = earlier.event.content["history_visibility"]
            if earlier.event.type == "m.room.member" and earlier.event.state_key == user_id:
                membership = earlier.event.content["membership"]
        joined_later = any(
            later.event.type == "m.room.member"
            and later.event.state_key == user_id
            and later.event.content["membership"] == "join"
            for later in history[place + 1 :]
        )
        views = {(visibility, membership)}
        if event.type == "m.room.history_visibility":
            views.add((event.content["history_visibility"], membership))
        if event.type == "m.room.member" and event.state_key == user_id:
            views.add((visibility, event.content["membership"]))
        for setting, standing in views:
            if (
                setting == "world_readable"
                or standing == "join"
                or (setting == "shared" and joined_later)
                or (setting == "invited" and standing == "invite")
            ):
                shown.append(sent.event_id)
                break
    return shown


def live(room: Room, rng: random.Random, events: int) -> list[Sent]:
    """A room's life with Bob coming and going while the setting changes."""
    history: list[Sent] = []
    for _ in range(events):
        match rng.randrange(8):
            case 0:
                history.append(room.visibility(rng.choice(["world_readable", "shared", "invited", "joined", "joined"])))
            case 1:
                history.append(room.member(BOB, rng.choice(["join", "invite", "leave", "ban", "leave"]), by=ALICE))
            case _:
                history.append(room.message(ALICE, "words"))
    return history


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(one, marks=pytest.mark.slow) for one in range(2, 12))])
async def test_every_endpoint_shows_what_the_rules_allow_and_nothing_else(database: str, seed: int) -> None:
    rng = random.Random(seed)
    with Log(database) as log:
        room = Room(log, ALICE)
        start = list(room.state.values())
        history = start + live(room, rng, 60)
        # Every life ends with Bob having been in the room, so that he may ask at all.
        history.append(room.member(BOB, "join"))
        history += live(room, rng, 12)
        history.append(room.member(BOB, rng.choice(["join", "leave", "ban"]), by=ALICE))
        history += live(room, rng, 5) if rng.random() < 0.5 else [room.message(ALICE, "after")]
        log.commit()
    expected = allowed(history, BOB)
    async with serving(database) as server:
        bob = server.client(BOB)
        for limit in (1, 7, 100):
            assert await seen_by_pages(bob, room, "f", limit) == expected
            assert await seen_by_pages(bob, room, "b", limit) == expected[::-1]
        for sent in history[:: max(1, len(history) // 25)]:
            status, _ = await bob.ask(path(room, f"event/{sent.event_id}"))
            assert (status == 200) == (sent.event_id in expected), sent
        # Around any event that he sees, context shows a window of just what he sees.
        for event_id in expected[:: max(1, len(expected) // 5)]:
            context = await bob.get(path(room, f"context/{event_id}"), limit=6)
            window = [
                e["event_id"] for e in (*context["events_before"][::-1], context["event"], *context["events_after"])
            ]
            at = expected.index(event_id)
            assert window == expected[max(0, at - 3) : at + 4]


async def test_a_long_hidden_past_costs_no_pages(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        room.messages([ALICE], 500)
        room.member(BOB, "join")
        room.message(ALICE, "welcome")
        log.commit()
    async with serving(database) as server:
        page = await server.client(BOB).get(path(room, "messages"), dir="f", limit=10)
        assert bodies(page["chunk"]) == ["welcome"]
        page = await server.client(BOB).get(path(room, "messages"), dir="b", limit=10)
        assert bodies(page["chunk"]) == ["welcome"]


async def test_who_left_sees_the_past_and_nothing_since(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, name="then")
        room.member(BOB, "join")
        room.message(ALICE, "before")
        room.member(BOB, "leave")
        for number in range(300):
            room.message(ALICE, f"since {number}")
        room.send(ALICE, "m.room.name", {"name": "now"}, state_key="")
        log.commit()
    async with serving(database) as server:
        bob = server.client(BOB)
        page = await bob.get(path(room, "messages"), dir="b", limit=2)
        assert [event["type"] for event in page["chunk"]] == ["m.room.member", "m.room.message"]
        assert [event["unsigned"]["membership"] for event in page["chunk"]] == ["leave", "join"]
        assert await bob.get(path(room, "state/m.room.name")) == {"name": "then"}
        assert await bob.refusal(path(room, "joined_members")) == (403, "M_FORBIDDEN")
        log_name = (await server.client(ALICE).get(path(room, "state/m.room.name")))["name"]
        assert log_name == "now"


async def test_who_has_forgotten_the_room_is_a_stranger(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        entered = room.member(BOB, "join")
        seen = room.message(ALICE, "seen then")
        room.member(BOB, "leave")
        log.commit()
        log.add("forgotten", user_id=BOB, room=room.nid)
        room.visibility("world_readable")
        public = room.message(ALICE, "for everybody")
        log.commit()
    async with serving(database) as server:
        bob = server.client(BOB)
        page = await bob.get(path(room, "messages"), dir="b", limit=50)
        assert bodies(page["chunk"]) == ["for everybody"]
        around = await bob.get(path(room, f"context/{public.event_id}"))
        assert "m.room.create" not in {event["type"] for event in around["events_before"]}
        with Log(database) as later:
            later.clock = log.clock
            room.log = later
            room.visibility("shared")
            later.commit()
        assert await bob.refusal(path(room, "messages"), dir="b") == (403, "M_FORBIDDEN")
        assert await bob.refusal(path(room, "state")) == (403, "M_FORBIDDEN")
        for event in (seen, entered):
            for kind in ("event", "context"):
                assert await bob.refusal(path(room, f"{kind}/{event.event_id}")) == (404, "M_NOT_FOUND")
        assert (await bob.get(path(room, f"event/{public.event_id}")))["content"]["body"] == "for everybody"


async def test_a_world_readable_room_is_open_to_anybody(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.message(ALICE, "in private")
        room.visibility("world_readable")
        room.message(ALICE, "in public")
        log.commit()
    async with serving(database) as server:
        bob = server.client(BOB)
        page = await bob.get(path(room, "messages"), dir="b", limit=50)
        assert bodies(page["chunk"]) == ["in public"]
        assert {event["unsigned"]["membership"] for event in page["chunk"]} == {"leave"}
        assert (await bob.get(path(room, "state/m.room.history_visibility")))["history_visibility"] == "world_readable"
        assert await bob.refusal(path(room, "joined_members")) == (403, "M_FORBIDDEN")


async def test_events_on_a_fork_are_judged_by_the_state_of_their_line(database: str) -> None:
    """On a line that forked before the room was opened, what was said there stays hidden from who came later."""
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        fork = room.message(ALICE, "the fork begins after this")
        room.visibility("shared")
        log.commit()
        hidden = room.message(ALICE, "said beside the main line")
        for output in log.batch["outputs"]:
            output["l"] = 1
        log.add("lines", room=room.nid, line=1, base_position=fork.position)
        shown = room.message(ALICE, "said on the main line")
        room.member(BOB, "join")
        log.commit()
    async with serving(database) as server:
        bob = server.client(BOB)
        page = await bob.get(path(room, "messages"), dir="b", limit=50)
        assert bodies(page["chunk"]) == ["said on the main line"]
        assert await bob.refusal(path(room, f"event/{hidden.event_id}")) == (404, "M_NOT_FOUND")
        assert (await bob.get(path(room, f"event/{shown.event_id}")))["event_id"] == shown.event_id
        assert await bob.refusal(path(room, f"relations/{hidden.event_id}", V1)) == (404, "M_NOT_FOUND")


async def test_what_an_erased_user_said_is_redacted_for_those_who_came_later(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        said = room.message(BOB, "forget me")
        room.edit(BOB, said, "forget this too")
        root = room.message(ALICE, "root")
        room.relate(BOB, root, "m.thread", "m.room.message", body="and this")
        room.member(CAROL, "join")
        log.commit()
        log.connection.execute("insert into roomserver.erased (user_id, shard, position) values (%s, 0, 1)", [BOB])
    async with serving(database) as server:
        path = f"{V3}/rooms/{room.room_id}/event"
        shown = await server.client(ALICE).get(f"{path}/{said.event_id}")
        assert shown["content"] == {"msgtype": "m.text", "body": "forget me"}
        edit = shown["unsigned"]["m.relations"]["m.replace"]["content"]
        assert edit["m.new_content"]["body"] == "forget this too"
        for event_id, content in ((said.event_id, {}), (root.event_id, {"msgtype": "m.text", "body": "root"})):
            found = await server.client(CAROL).get(f"{path}/{event_id}")
            assert found["content"] == content and "m.relations" not in found.get("unsigned", {})

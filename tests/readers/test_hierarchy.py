"""GET /rooms/{room_id}/hierarchy and GET /room_summary/{room_id_or_alias}."""

from __future__ import annotations

from typing import Any

import pytest
from judged_rooms import Log, Room
from rooms_client import V1, serving

from readers.rooms import hierarchy

pytestmark = pytest.mark.postgres

ALICE, BOB = "@alice:test.example", "@bob:test.example"


def a_room(
    log: Log, name: str, *, space: bool = False, rule: str = "public", version: str = "11", **rules: Any
) -> Room:
    room = Room(log, ALICE, version=version, name=name, type="m.space" if space else None)
    room.send(ALICE, "m.room.join_rules", {"join_rule": rule, **rules}, state_key="")
    return room


def link(parent: Room, child: Room, **content: Any) -> None:
    parent.send(ALICE, "m.space.child", {"via": ["test.example"], **content}, state_key=child.room_id)


def path(room: Room) -> str:
    return f"{V1}/rooms/{room.room_id}/hierarchy"


def names(body: dict[str, Any]) -> list[str]:
    return [room["name"] for room in body["rooms"]]


async def test_a_tree_is_walked_depth_first_in_the_order_of_its_children(database: str) -> None:
    with Log(database) as log:
        root, sub, deep = (a_room(log, name, space=True) for name in ("root", "sub", "deep"))
        leaves = {name: a_room(log, name) for name in ("a", "b", "c", "d", "e", "gone")}
        link(root, leaves["a"], suggested=True)
        link(root, sub)
        link(root, leaves["b"], suggested=True)
        link(root, leaves["c"], order="A")
        link(root, leaves["gone"])
        root.send(ALICE, "m.space.child", {}, state_key=leaves["gone"].room_id)
        link(sub, deep)
        link(deep, leaves["d"], order="not valid \x7f")
        link(deep, leaves["e"])
        # A loop, and a room that is no space.
        link(deep, root)
        link(leaves["b"], leaves["gone"])
        log.commit()
    async with serving(database) as server:
        alice = server.client(ALICE)
        body = await alice.get(path(root))
        assert names(body) == ["root", "c", "a", "sub", "deep", "d", "e", "b"]
        assert "next_batch" not in body
        top = body["rooms"][0]
        assert top["room_type"] == "m.space" and top["room_version"] == "11"
        child = top["children_state"][0]
        assert set(child) == {"content", "origin_server_ts", "sender", "state_key", "type"}
        assert [len(room["children_state"]) for room in body["rooms"]] == [4, 0, 0, 1, 3, 0, 0, 0]
        assert names(await alice.get(path(root), max_depth=1)) == ["root", "c", "a", "sub", "b"]
        assert names(await alice.get(path(root), max_depth=0)) == ["root"]
        suggested = await alice.get(path(root), suggested_only="true")
        assert names(suggested) == ["root", "a", "b"]
        assert len(suggested["rooms"][0]["children_state"]) == 2
        found, page = [], await alice.get(path(root), limit=3)
        while "next_batch" in page:
            found += names(page)
            page = await alice.get(path(root), limit=3, from_=page["next_batch"])
        assert found + names(page) == names(body)
        token = (await alice.get(path(root), limit=3))["next_batch"]
        for wrong in ({"max_depth": 1}, {"suggested_only": "true"}):
            assert await alice.refusal(path(root), from_=token, **wrong) == (400, "M_INVALID_PARAM")
        assert await alice.refusal(path(sub), from_=token) == (400, "M_INVALID_PARAM")
        for wrong in ({"from": "nonsense"}, {"max_depth": -1}, {"limit": 0}, {"suggested_only": "perhaps"}):
            assert await alice.refusal(path(root), **wrong) == (400, "M_INVALID_PARAM")


async def test_a_walk_visits_a_bounded_number_of_rooms(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "MOST_ROOMS", 4)
    with Log(database) as log:
        root = a_room(log, "root", space=True)
        for number in range(6):
            link(root, a_room(log, f"{number}"))
        log.commit()
    async with serving(database) as server:
        assert len((await server.client(ALICE).get(path(root)))["rooms"]) == 4


async def test_rooms_that_the_user_could_not_enter_do_not_exist_and_hide_what_is_beyond(database: str) -> None:
    with Log(database) as log:
        root = a_room(log, "root", space=True)
        closed = a_room(log, "closed", space=True, rule="invite")
        allow = {"allow": [{"type": "m.room_membership", "room_id": root.room_id}]}
        rooms = {
            "open": a_room(log, "open"),
            "closed": closed,
            "knock": a_room(log, "knock", rule="knock"),
            "knock too early": a_room(log, "knock too early", rule="knock", version="6"),
            "restricted": a_room(log, "restricted", rule="restricted", **allow),
            "knock restricted": a_room(log, "knock restricted", rule="knock_restricted", **allow),
            "invited": a_room(log, "invited", rule="invite"),
            "banned": a_room(log, "banned"),
            "readable": a_room(log, "readable", rule="invite"),
            "banned but readable": a_room(log, "banned but readable"),
        }
        rooms["invited"].member(BOB, "invite", by=ALICE)
        for name in ("banned", "banned but readable"):
            rooms[name].member(BOB, "ban", by=ALICE)
        for name in ("readable", "banned but readable"):
            rooms[name].visibility("world_readable")
        for room in rooms.values():
            link(root, room)
        link(closed, beyond := a_room(log, "beyond"))
        log.commit()
    seen = ["open", "knock", "knock restricted", "invited", "readable", "banned but readable"]
    async with serving(database) as server:
        bob = server.client(BOB)
        assert names(await bob.get(path(root))) == ["root", *seen]
        assert await bob.refusal(path(closed)) == (403, "M_FORBIDDEN")
        assert await bob.refusal(f"{V1}/rooms/!nowhere:test.example/hierarchy") == (403, "M_FORBIDDEN")
        for name, room in {**rooms, "beyond": beyond}.items():
            status, body = await bob.ask(f"{V1}/room_summary/{room.room_id}")
            assert (status == 200) == (name in seen or name == "beyond"), (name, body)
        with Log(database) as later:
            later.clock = log.clock
            root.log = later
            root.member(BOB, "join")
            later.commit()
        assert names(await bob.get(path(root))) == ["root", "open", "knock", "restricted", *seen[2:]]


async def test_a_summary_says_what_the_room_shows_and_where_the_user_stands(database: str) -> None:
    with Log(database) as log:
        room = a_room(log, "Pond", rule="restricted", allow=[{"type": "m.room_membership", "room_id": "!x:y"}, {}])
        room.member(BOB, "invite", by=ALICE)
        room.send(ALICE, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}, state_key="")
        room.send(ALICE, "m.room.topic", {"topic": "old", "m.topic": {"m.text": [{"body": "Ducks"}]}}, state_key="")
        room.redact(ALICE, room.send(ALICE, "m.room.avatar", {"url": "mxc://x/y"}, state_key=""))
        log.add("aliases", alias="#pond:test.example", room_id=room.room_id, creator=ALICE, position=log.position)
        log.commit()
    expected = {
        "room_id": room.room_id,
        "name": "Pond",
        "topic": "Ducks",
        "num_joined_members": 1,
        "world_readable": False,
        "guest_can_join": False,
        "join_rule": "restricted",
        "allowed_room_ids": ["!x:y"],
        "encryption": "m.megolm.v1.aes-sha2",
        "room_version": "11",
    }
    async with serving(database) as server:
        for named in (room.room_id, "%23pond:test.example"):
            assert await server.client(ALICE).get(f"{V1}/room_summary/{named}") == {**expected, "membership": "join"}
        assert await server.client(BOB).get(f"{V1}/room_summary/{room.room_id}") == {**expected, "membership": "invite"}
        eve = server.client("@eve:test.example")
        assert await eve.refusal(f"{V1}/room_summary/{room.room_id}") == (404, "M_NOT_FOUND")
        assert await eve.refusal(f"{V1}/room_summary/%23none:test.example") == (404, "M_NOT_FOUND")
        assert await eve.refusal(f"{V1}/room_summary/nonsense") == (400, "M_INVALID_PARAM")

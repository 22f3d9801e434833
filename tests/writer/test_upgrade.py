"""Room upgrades: what the successor takes over, and what becomes of the room that was replaced."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from api_server import Api, Client, part

from writer.drafts import Draft

_numbers = itertools.count(1)


async def upgrade(user: Client, room_id: str, version: str = "11", **more: Any) -> str:
    answer = await user.post(f"rooms/{room_id}/upgrade", {"new_version": version, **more})
    replacement: str = answer.ok()["replacement_room"]
    return replacement


async def put_state(user: Client, room_id: str, kind: str, content: dict[str, Any], key: str = "") -> None:
    (await user.put(f"rooms/{room_id}/state/{kind}/{part(key)}", content)).ok()


async def test_state_bans_addresses_and_levels_are_carried_over_and_the_old_room_is_closed(api: Api) -> None:
    alice, bob, eve = [await api.register() for _ in range(3)]
    alias = f"upgraded{next(_numbers)}"
    room_id = await alice.create_room(
        preset="public_chat", room_version="10", name="Pond", topic="Ducks", room_alias_name=alias, visibility="public"
    )
    for user in (bob, eve):
        (await user.post(f"join/{room_id}", {})).ok()
    other = f"#other{alias}:test.example"
    (await bob.put(f"directory/room/{part(other)}", {"room_id": room_id})).ok()
    (await alice.post(f"rooms/{room_id}/ban", {"user_id": eve.user_id, "reason": "spam"})).ok()
    acl = {"allow": ["*"], "deny": ["evil.example"]}
    await put_state(alice, room_id, "m.room.server_acl", acl)
    await put_state(alice, room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
    await put_state(alice, room_id, "org.example.mine", {"x": 1})
    levels: Any = await alice.state(room_id, "m.room.power_levels")
    await put_state(alice, room_id, "m.room.power_levels", {**levels, "users": {**levels["users"], bob.user_id: 60}})

    new_room = await upgrade(alice, room_id)
    create: Any = await alice.state(new_room, "m.room.create")
    assert create["room_version"] == "11"
    assert create["predecessor"]["room_id"] == room_id and create["predecessor"]["event_id"].startswith("$")
    for kind, content in (
        ("name", {"name": "Pond"}),
        ("server_acl", acl),
        ("encryption", {"algorithm": "m.megolm.v1.aes-sha2"}),
        ("join_rules", {"join_rule": "public"}),
        ("guest_access", {"guest_access": "forbidden"}),
        ("canonical_alias", {"alias": f"#{alias}:test.example"}),
    ):
        assert await alice.state(new_room, f"m.room.{kind}") == content
    topic: Any = await alice.state(new_room, "m.room.topic")
    assert topic["topic"] == "Ducks"
    assert await alice.state(new_room, "org.example.mine") is None
    carried: Any = await alice.state(new_room, "m.room.power_levels")
    assert carried["users"] == {alice.user_id: 100, bob.user_id: 60}
    assert await alice.state(new_room, "m.room.member", eve.user_id) == {"membership": "ban", "reason": "spam"}
    assert await alice.membership(new_room, alice.user_id) == "join"
    assert await alice.membership(new_room, bob.user_id) is None

    assert await alice.state(room_id, "m.room.tombstone") == {
        "body": "This room has been replaced",
        "replacement_room": new_room,
    }
    closed: Any = await alice.state(room_id, "m.room.power_levels")
    assert (closed["events_default"], closed["invite"]) == (50, 50)
    assert await alice.state(room_id, "m.room.canonical_alias") == {}
    for name in (f"#{alias}:test.example", other):
        assert (await api.anybody.get(f"directory/room/{part(name)}")).ok()["room_id"] == new_room
    # Whoever made an alias may still remove it.
    assert (await bob.delete(f"directory/room/{part(other)}")).ok() == {}
    for room, visibility in ((room_id, "private"), (new_room, "public")):
        assert (await api.anybody.get(f"directory/list/room/{room}")).ok() == {"visibility": visibility}
    assert (await eve.post(f"join/{new_room}", {})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize(
    ("version", "levels", "additional", "creators", "users"),
    [
        ("11", {1: 100}, None, None, {}),
        ("11", {1: 100, 2: 100}, None, None, {2: 100}),
        ("12", {1: 150}, [2], [2], {}),
        ("12", {1: 150, 2: 50}, [2], [2], {}),
        ("11", {0: 100, 1: 100, 2: 50}, [0], [0], {2: 50}),
    ],
)
async def test_creators_of_the_successor_are_who_asks_and_whom_they_name(
    api: Api,
    version: str,
    levels: dict[int, int],
    additional: list[int] | None,
    creators: list[int] | None,
    users: dict[int, int],
) -> None:
    people = [await api.register() for _ in range(3)]
    ids = [user.user_id for user in people]
    room_id = await people[0].create_room(preset="public_chat", room_version=version)
    for user in people[1:]:
        (await user.post(f"join/{room_id}", {})).ok()
    content = {"users": {ids[number]: level for number, level in levels.items()}}
    await put_state(people[0], room_id, "m.room.power_levels", content)
    more = {} if additional is None else {"additional_creators": [ids[number] for number in additional]}
    new_room = await upgrade(people[1], room_id, "12", **more)
    create: Any = await people[1].state(new_room, "m.room.create")
    assert create.get("additional_creators") == (None if creators is None else [ids[number] for number in creators])
    assert create["predecessor"] == {"room_id": room_id}
    carried: Any = await people[1].state(new_room, "m.room.power_levels")
    assert carried["users"] == {ids[number]: level for number, level in users.items()}
    assert carried["events"]["m.room.tombstone"] > carried.get("state_default", 50)


async def test_what_newer_versions_cannot_hold_takes_nothing_else_along(api: Api) -> None:
    alice, eve = await api.register(), await api.register()
    room_id = await alice.create_room(room_version="5", preset="public_chat")
    await put_state(alice, room_id, "m.room.history_visibility", {"history_visibility": "joined", "x": 1.5})
    await put_state(alice, room_id, "m.room.member", {"membership": "ban", "score": 10**17}, eve.user_id)
    new_room = await upgrade(alice, room_id, "12")
    assert await alice.state(new_room, "m.room.history_visibility") == {"history_visibility": "joined"}
    assert await alice.state(new_room, "m.room.member", eve.user_id) == {"membership": "ban"}


@pytest.mark.parametrize("version", ["1", "6", "9", "11", "12"])
async def test_levels_stay_what_they_stood_for_where_they_have_to_be_integers(api: Api, version: str) -> None:
    alice, bob = await api.register(), await api.register()
    override = {"users": {alice.user_id: 10**18}}
    room_id = await alice.create_room(room_version="1", power_level_content_override=override)
    content = {
        "users": {alice.user_id: str(10**18), bob.user_id: " 50 "},
        "users_default": -10.0,
        "events_default": 20.9,
        "events": {"m.room.name": "+30", "m.room.topic": 10**17, "m.room.avatar": 40.5},
        "notifications": {"room": "7"},
    }
    # As clients could once, and other servers' can.
    await api.process.log.send([Draft(room_id, alice.user_id, "m.room.power_levels", content, state_key="")])
    carried: Any = await alice.state(await upgrade(alice, room_id, version), "m.room.power_levels")
    assert (carried["users_default"], carried["events_default"], carried["notifications"]) == (-10, 20, {"room": 7})
    assert carried["users"][bob.user_id] == 50
    assert [carried["events"][f"m.room.{name}"] for name in ("name", "topic", "avatar")] == [30, 2**53 - 1, 40]


async def test_former_creators_are_powerful_where_creators_are_not(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room(room_version="12")
    older = await upgrade(alice, room_id, "11")
    carried: Any = await alice.state(older, "m.room.power_levels")
    # As much as anything in the room takes.
    assert carried["users"] == {alice.user_id: 150}
    await upgrade(alice, older, "12")


async def test_only_who_may_replace_a_room_upgrades_it_and_only_to_what_there_is(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", room_version="11")
    path = f"rooms/{room_id}/upgrade"
    assert (await bob.post(path, {"new_version": "12"})).refusal == (403, "M_FORBIDDEN")
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.post(path, {"new_version": "12"})).refusal == (403, "M_FORBIDDEN")
    assert (await alice.post(path, {"new_version": "nonsense"})).refusal == (400, "M_UNSUPPORTED_ROOM_VERSION")
    assert (await alice.post(path, {})).refusal == (400, "M_MISSING_PARAM")
    body = {"new_version": "12", "additional_creators": ["nobody"]}
    assert (await alice.post(path, body)).refusal == (400, "M_INVALID_PARAM")
    unknown = "rooms/!nowhere:test.example/upgrade"
    assert (await alice.post(unknown, {"new_version": "12"})).refusal == (404, "M_NOT_FOUND")
    assert await alice.state(room_id, "m.room.tombstone") is None


async def test_who_asks_while_a_room_is_upgraded_gets_the_same_room(api: Api) -> None:
    alice = await api.register()
    other = await api.login(alice)
    room_id = await alice.create_room(room_version="11")
    made = await asyncio.gather(*(upgrade(device, room_id, "12") for device in (alice, other, alice)))
    assert len(set(made)) == 1
    assert await upgrade(alice, room_id, "12") not in made


async def test_a_space_keeps_its_children_and_a_rule_that_the_version_lacks_is_not_kept(api: Api) -> None:
    alice = await api.register()
    space = await alice.create_room(room_version="8", creation_content={"type": "m.space"})
    child, former = await alice.create_room(), await alice.create_room()
    await put_state(alice, space, "m.space.child", {"via": ["test.example"]}, child)
    await put_state(alice, space, "m.space.child", {}, former)
    allow = [{"type": "m.room_membership", "room_id": child}]
    await put_state(alice, space, "m.room.join_rules", {"join_rule": "restricted", "allow": allow})
    newer = await upgrade(alice, space, "11")
    create: Any = await alice.state(newer, "m.room.create")
    assert create["type"] == "m.space"
    assert await alice.state(newer, "m.space.child", child) == {"via": ["test.example"]}
    assert await alice.state(newer, "m.space.child", former) is None
    assert await alice.state(newer, "m.room.join_rules") == {"join_rule": "restricted", "allow": allow}
    older = await upgrade(alice, newer, "6")
    assert await alice.state(older, "m.room.join_rules") == {"join_rule": "invite"}


def rules_about(rules: Any, room_id: str) -> set[str]:
    return {kind for kind in ("override", "room") for rule in rules["global"][kind] if rule["rule_id"] == room_id}


@pytest.mark.parametrize("by_hand", [False, True])
async def test_tags_push_rules_and_direct_chats_follow_who_joins_the_successor(api: Api, by_hand: bool) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", room_version="10")
    (await bob.post(f"join/{room_id}", {})).ok()
    for user in (alice, bob):
        (await user.put(f"pushrules/global/room/{part(room_id)}", {"actions": []})).ok()
        mute = {"actions": [], "conditions": [{"kind": "event_match", "key": "room_id", "pattern": room_id}]}
        (await user.put(f"pushrules/global/override/{part(room_id)}", mute)).ok()
        (await user.put(f"user/{user.user_id}/rooms/{room_id}/tags/m.favourite", {"order": 0.5})).ok()
        direct = {"@friend:test.example": [room_id], "@other:test.example": []}
        (await user.put(f"user/{user.user_id}/account_data/m.direct", direct)).ok()
    since = (await bob.get("sync")).ok()["next_batch"]
    if by_hand:
        new_room = await alice.create_room(
            preset="public_chat", room_version="11", creation_content={"predecessor": {"room_id": room_id}}
        )
        await put_state(alice, room_id, "m.room.tombstone", {"body": "moved", "replacement_room": new_room})
    else:
        new_room = await upgrade(alice, room_id)
    (await bob.post(f"join/{new_room}", {})).ok()
    for user in (alice, bob):
        rules = (await user.get("pushrules/")).ok()
        assert rules_about(rules, room_id) == rules_about(rules, new_room) == {"override", "room"}
        condition = next(rule for rule in rules["global"]["override"] if rule["rule_id"] == new_room)["conditions"][0]
        assert condition["pattern"] == new_room
        tags = (await user.get(f"user/{user.user_id}/rooms/{new_room}/tags")).ok()
        assert tags == {"tags": {"m.favourite": {"order": 0.5}}}
        direct = (await user.get(f"user/{user.user_id}/account_data/m.direct")).ok()
        assert direct == {"@friend:test.example": [room_id, new_room], "@other:test.example": []}
    told = (await bob.get(f"sync?since={since}")).ok()
    (event,) = [event for event in told["account_data"]["events"] if event["type"] == "m.push_rules"]
    assert rules_about(event["content"], new_room) == {"override", "room"}
    of_room = told["rooms"]["join"][new_room]["account_data"]["events"]
    assert [event["content"] for event in of_room if event["type"] == "m.tag"] == [
        {"tags": {"m.favourite": {"order": 0.5}}}
    ]
    old = told["rooms"]["join"][room_id]["timeline"]["events"]
    assert "m.room.tombstone" in {event["type"] for event in old}


async def test_what_was_redacted_is_not_carried_over(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room(name="a slur", topic="fine")
    name = (await alice.get(f"rooms/{room_id}/state/m.room.name?format=event")).ok()
    (await alice.put(f"rooms/{room_id}/redact/{part(name['event_id'])}/1", {})).ok()
    new_room = await upgrade(alice, room_id, "12")
    assert await alice.state(new_room, "m.room.name") is None
    topic: Any = await alice.state(new_room, "m.room.topic")
    assert topic["topic"] == "fine"

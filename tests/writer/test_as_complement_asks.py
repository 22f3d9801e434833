"""What Complement's tests ask of rooms beyond what the specification says in so many words."""

from __future__ import annotations

from typing import Any

from api_server import Api, part


async def test_a_removed_alias_leaves_the_canonical_alias(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    first, second, third = (f"#canonical{number}{room_id[1:9]}:test.example" for number in range(3))
    for alias in (first, second, third):
        (await bob.put(f"directory/room/{part(alias)}", {"room_id": room_id})).ok()
    path = f"rooms/{room_id}/state/m.room.canonical_alias"
    (await alice.put(path, {"alias": first, "alt_aliases": [second, third]})).ok()
    (await alice.delete(f"directory/room/{part(second)}")).ok()
    assert await alice.state(room_id, "m.room.canonical_alias") == {"alias": first, "alt_aliases": [third]}
    # Who made an alias may remove it, but not change what the room says.
    (await bob.delete(f"directory/room/{part(third)}")).ok()
    assert await alice.state(room_id, "m.room.canonical_alias") == {"alias": first, "alt_aliases": [third]}
    (await alice.put(path, {"alias": first})).ok()
    (await alice.delete(f"directory/room/{part(first)}")).ok()
    assert await alice.state(room_id, "m.room.canonical_alias") == {}


async def test_what_a_client_adds_to_its_join_is_in_the_event(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    body = {"foo": "bar", "membership": "ban", "displayname": "Alice", "join_authorised_via_users_server": "@x:y"}
    (await bob.post(f"join/{room_id}", body)).ok()
    content: Any = await alice.state(room_id, "m.room.member", bob.user_id)
    assert content == {"foo": "bar", "membership": "join"}


async def test_a_rejected_invitation_is_told_by_a_full_sync_until_the_room_is_joined(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    since = (await bob.get("sync")).ok()["next_batch"]
    (await alice.post(f"rooms/{room_id}/invite", {"user_id": bob.user_id})).ok()
    (await bob.post(f"rooms/{room_id}/leave", {})).ok()
    # A full sync waits for nothing, not even for what was just done.
    told = (await bob.get(f"sync?full_state=true&since={since}")).ok()
    while "leave" not in told.get("rooms", {}):
        told = (await bob.get(f"sync?full_state=true&since={told['next_batch']}")).ok()
    (event,) = told["rooms"]["leave"][room_id]["timeline"]["events"]
    assert (event["state_key"], event["content"]["membership"]) == (bob.user_id, "leave")
    (await bob.post(f"join/{room_id}", {})).ok()
    while "join" not in told.get("rooms", {}):
        told = (await bob.get(f"sync?full_state=true&since={told['next_batch']}")).ok()
    assert "leave" not in told["rooms"] and room_id in told["rooms"]["join"]


async def test_a_timeline_may_be_empty_and_the_state_of_a_room_left_is_whole(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat", name="before")
    (await bob.post(f"join/{room_id}", {})).ok()
    (await bob.post(f"rooms/{room_id}/leave", {})).ok()
    (await alice.put(f"rooms/{room_id}/state/m.room.name", {"name": "after"})).ok()
    chosen = '{"room":{"timeline":{"limit":0},"include_leave":true}}'
    left: Any = {}
    while room_id not in left:
        left = (await bob.get(f"sync?filter={part(chosen)}")).ok().get("rooms", {}).get("leave", {})
    room = left[room_id]
    assert room["timeline"]["events"] == []
    state = {(event["type"], event["state_key"]): event["content"] for event in room["state"]["events"]}
    assert state["m.room.name", ""] == {"name": "before"}
    assert state["m.room.member", bob.user_id]["membership"] == "leave"


async def test_the_members_before_a_rooms_first_event_are_who_began_it(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    place = (await alice.get("sync")).ok()["rooms"]["join"][room_id]["timeline"]["prev_batch"]
    (await bob.post(f"join/{room_id}", {})).ok()
    chunk = (await alice.get(f"rooms/{room_id}/members?at={place}")).ok()["chunk"]
    assert [event["state_key"] for event in chunk] == [alice.user_id]


async def test_who_has_forgotten_a_room_is_refused_before_the_request_is_read(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    path = f"rooms/{room_id}/messages"
    assert (await alice.get(path)).refusal == (400, "M_MISSING_PARAM")
    (await alice.post(f"rooms/{room_id}/leave", {})).ok()
    (await alice.post(f"rooms/{room_id}/forget", {})).ok()
    assert (await alice.get(path)).refusal == (403, "M_FORBIDDEN")

"""Invitations that the invited do not want: refused where they are sent, and hidden from /sync."""

from __future__ import annotations

from typing import Any

from api_server import Api, Client, part

STABLE, UNSTABLE = "m.invite_permission_config", "org.matrix.msc4155.invite_permission_config"


async def allow(user: Client, kind: str, content: dict[str, Any]) -> None:
    (await user.put(f"user/{user.user_id}/account_data/{kind}", content)).ok()


async def invited_to(user: Client, since: str = "") -> set[str]:
    body = (await user.get("sync" + (f"?since={since}" if since else ""))).ok()
    return set(body.get("rooms", {}).get("invite", {}))


async def test_who_blocks_invitations_is_not_invited_by_any_endpoint(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room()
    invite = f"rooms/{room_id}/invite", {"user_id": bob.user_id}
    state = f"rooms/{room_id}/state/m.room.member/{part(bob.user_id)}"
    await allow(bob, STABLE, {"default_action": "block"})
    assert (await alice.post(*invite)).refusal == (403, "M_INVITE_BLOCKED")
    assert (await alice.put(state, {"membership": "invite"})).refusal == (403, "M_INVITE_BLOCKED")
    assert (await alice.post("createRoom", {"invite": [bob.user_id]})).refusal == (403, "M_INVITE_BLOCKED")
    assert await alice.membership(room_id, bob.user_id) is None
    await allow(bob, STABLE, {})
    assert (await alice.post(*invite)).ok() == {}
    assert await invited_to(bob) == {room_id}


async def test_invitations_that_came_before_are_hidden_while_they_are_blocked(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(invite=[bob.user_id])
    assert await invited_to(bob) == {room_id}
    await allow(bob, STABLE, {"default_action": "block"})
    assert await invited_to(bob) == set()
    state = (await alice.get(f"rooms/{room_id}/state/m.room.member/{part(bob.user_id)}")).ok()
    assert state["membership"] == "invite"
    await allow(bob, STABLE, {})
    assert await invited_to(bob) == {room_id}


async def test_lists_refuse_some_and_silently_ignore_others(api: Api) -> None:
    alice, bob, eve = [await api.register() for _ in range(3)]
    await allow(bob, UNSTABLE, {"blocked_users": [eve.user_id], "ignored_users": [alice.user_id]})
    since = (await bob.get("sync")).ok()["next_batch"]
    rooms = {user.user_id: await user.create_room() for user in (alice, eve)}
    body = {"user_id": bob.user_id}
    assert (await eve.post(f"rooms/{rooms[eve.user_id]}/invite", body)).refusal == (403, "M_INVITE_BLOCKED")
    assert (await alice.post(f"rooms/{rooms[alice.user_id]}/invite", body)).ok() == {}
    assert await invited_to(bob, since) == await invited_to(bob) == set()
    # Who was invited without being told may still join.
    assert (await bob.post(f"join/{rooms[alice.user_id]}", {})).refusal == (200, None)


async def test_invitations_by_ignored_users_are_not_told(api: Api) -> None:
    alice, bob, carol = [await api.register() for _ in range(3)]
    await allow(alice, "m.ignored_user_list", {"ignored_users": {bob.user_id: {}}})
    since = (await alice.get("sync")).ok()["next_batch"]
    await bob.create_room(invite=[alice.user_id])
    room_id = await carol.create_room(invite=[alice.user_id])
    assert await invited_to(alice, since) == await invited_to(alice) == {room_id}

from typing import Any

import pytest
from api_server import Api, Client, part


async def _users(api: Api, count: int) -> list[Client]:
    return [await api.register() for _ in range(count)]


async def test_a_public_room_is_joined_by_id_and_by_alias_with_ones_name(api: Api) -> None:
    alice, bob, carol = await _users(api, 3)
    (await carol.put(f"profile/{carol.user_id}/displayname", {"displayname": "Carol"})).ok()
    room_id = await alice.create_room(preset="public_chat", room_alias_name=f"joined.{bob.user_id[1:6]}.by.alias")
    alias = (await alice.get(f"rooms/{room_id}/aliases")).ok()["aliases"][0]
    assert (await bob.post(f"rooms/{room_id}/join", {"reason": "curious"})).ok() == {"room_id": room_id}
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "join", "reason": "curious"}
    assert (await carol.post(f"join/{part(alias)}")).ok() == {"room_id": room_id}
    assert await alice.state(room_id, "m.room.member", carol.user_id) == {"membership": "join", "displayname": "Carol"}
    # Joining again changes nothing.
    assert (await carol.post(f"join/{room_id}", {"reason": "again"})).ok() == {"room_id": room_id}
    assert "reason" not in (await alice.state(room_id, "m.room.member", carol.user_id) or {})


async def test_a_join_carries_what_the_client_adds_and_nothing_that_is_not_its_to_say(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    room_id = await alice.create_room(preset="public_chat")
    mine = {
        "org.example.mark": {"a": [1]},
        "membership": "ban",
        "displayname": "X",
        "join_authorised_via_users_server": "@a:b",
    }
    (await bob.post(f"rooms/{room_id}/join", mine)).ok()
    expected = {"membership": "join", "org.example.mark": {"a": [1]}}
    assert await alice.state(room_id, "m.room.member", bob.user_id) == expected
    carol = await api.register()
    assert (await carol.post(f"rooms/{room_id}/join", {"org.example.mark": 1.5})).refusal == (400, "M_BAD_JSON")
    big = {"org.example.mark": "x" * 70_000}
    assert (await carol.post(f"rooms/{room_id}/join", big)).refusal == (413, "M_TOO_LARGE")


async def test_a_private_room_is_joined_by_invitation_only(api: Api) -> None:
    alice, bob = await _users(api, 2)
    room_id = await alice.create_room()
    assert (await bob.post(f"join/{room_id}", {})).refusal == (403, "M_FORBIDDEN")
    body = {"user_id": bob.user_id, "reason": "come"}
    assert (await alice.post(f"rooms/{room_id}/invite", body)).ok() == {}
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "invite", "reason": "come"}
    (await bob.post(f"join/{room_id}", {})).ok()
    assert await alice.membership(room_id, bob.user_id) == "join"
    assert (await alice.post(f"rooms/{room_id}/invite", body)).refusal == (403, "M_FORBIDDEN")


async def test_who_is_outside_cannot_invite(api: Api) -> None:
    alice, bob, carol = await _users(api, 3)
    room_id = await alice.create_room(preset="public_chat")
    answer = await bob.post(f"rooms/{room_id}/invite", {"user_id": carol.user_id})
    assert answer.refusal == (403, "M_FORBIDDEN")


async def test_leaving_can_be_repeated_and_declines_invitations(api: Api) -> None:
    alice, bob = await _users(api, 2)
    room_id = await alice.create_room(invite=[bob.user_id])
    for _ in range(2):
        assert (await bob.post(f"rooms/{room_id}/leave", {"reason": "no"})).ok() == {}
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "leave", "reason": "no"}
    carol = await api.register()
    assert (await carol.post(f"rooms/{room_id}/leave")).refusal == (403, "M_FORBIDDEN")


async def test_who_is_kicked_may_come_back_and_who_is_banned_may_not(api: Api) -> None:
    alice, bob = await _users(api, 2)
    room_id = await alice.create_room(preset="public_chat")
    (await bob.post(f"join/{room_id}", {})).ok()
    about_bob = {"user_id": bob.user_id, "reason": "noise"}
    (await alice.post(f"rooms/{room_id}/kick", about_bob)).ok()
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "leave", "reason": "noise"}
    assert (await alice.post(f"rooms/{room_id}/kick", about_bob)).refusal == (403, "M_FORBIDDEN")
    (await bob.post(f"join/{room_id}", {})).ok()
    (await alice.post(f"rooms/{room_id}/ban", about_bob)).ok()
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "ban", "reason": "noise"}
    assert (await bob.post(f"join/{room_id}", {})).refusal == (403, "M_FORBIDDEN")
    assert (await bob.post(f"rooms/{room_id}/leave", {})).refusal == (403, "M_FORBIDDEN")
    # A kick would lift the ban.
    assert (await alice.post(f"rooms/{room_id}/kick", about_bob)).refusal == (403, "M_FORBIDDEN")
    (await alice.post(f"rooms/{room_id}/unban", about_bob)).ok()
    assert (await alice.post(f"rooms/{room_id}/unban", about_bob)).refusal == (403, "M_BAD_STATE")
    (await bob.post(f"join/{room_id}", {})).ok()


async def test_moderating_needs_power(api: Api) -> None:
    alice, bob, carol = await _users(api, 3)
    room_id = await alice.create_room(preset="public_chat")
    for user in (bob, carol):
        (await user.post(f"join/{room_id}", {})).ok()
    for action in ("kick", "ban"):
        answer = await bob.post(f"rooms/{room_id}/{action}", {"user_id": carol.user_id})
        assert answer.refusal == (403, "M_FORBIDDEN")
        answer = await bob.post(f"rooms/{room_id}/{action}", {"user_id": alice.user_id})
        assert answer.refusal == (403, "M_FORBIDDEN")


async def test_who_knocks_is_let_in_by_invitation(api: Api) -> None:
    alice, bob = await _users(api, 2)
    rules = [{"type": "m.room.join_rules", "content": {"join_rule": "knock"}}]
    room_id = await alice.create_room(initial_state=rules)
    assert (await bob.post(f"knock/{room_id}", {"reason": "please"})).ok() == {"room_id": room_id}
    assert (await bob.post(f"knock/{room_id}")).ok() == {"room_id": room_id}
    assert await alice.state(room_id, "m.room.member", bob.user_id) == {"membership": "knock", "reason": "please"}
    assert (await bob.post(f"join/{room_id}", {})).refusal == (403, "M_FORBIDDEN")
    (await alice.post(f"rooms/{room_id}/invite", {"user_id": bob.user_id})).ok()
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.post(f"knock/{room_id}")).refusal == (403, "M_FORBIDDEN")


async def test_one_cannot_knock_where_the_rule_or_the_version_has_no_knocking(api: Api) -> None:
    alice, bob = await _users(api, 2)
    for options in ({}, {"room_version": "6"}):
        room_id = await alice.create_room(**options)
        assert (await bob.post(f"knock/{room_id}", {})).refusal == (403, "M_FORBIDDEN")


@pytest.mark.parametrize("version", ["8", "10", "12"])
async def test_members_of_an_allowed_room_may_join_a_restricted_one(api: Api, version: str) -> None:
    alice, bob, carol = await _users(api, 3)
    space = await alice.create_room(preset="public_chat")
    allow = [{"type": "m.room_membership", "room_id": space}, {"type": "org.example.other"}, "nonsense", 5]
    rules = {"join_rule": "restricted", "allow": allow}
    room_id = await alice.create_room(
        room_version=version, initial_state=[{"type": "m.room.join_rules", "content": rules}]
    )
    (await bob.post(f"join/{space}", {})).ok()
    (await bob.post(f"join/{room_id}", {})).ok()
    content = await alice.state(room_id, "m.room.member", bob.user_id)
    assert content == {"membership": "join", "join_authorised_via_users_server": alice.user_id}
    assert (await carol.post(f"join/{room_id}", {})).refusal == (403, "M_FORBIDDEN")
    (await alice.post(f"rooms/{room_id}/invite", {"user_id": carol.user_id})).ok()
    (await carol.post(f"join/{room_id}", {})).ok()
    assert await alice.state(room_id, "m.room.member", carol.user_id) == {"membership": "join"}


async def test_nobody_gets_into_a_restricted_room_where_nobody_may_invite(api: Api) -> None:
    alice, bob = await _users(api, 2)
    space = await alice.create_room(preset="public_chat")
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room_id = await alice.create_room(
        room_version="11",
        initial_state=[{"type": "m.room.join_rules", "content": rules}],
        power_level_content_override={"invite": 101},
    )
    (await bob.post(f"join/{space}", {})).ok()
    assert (await bob.post(f"join/{room_id}", {})).refusal == (403, "M_FORBIDDEN")


async def test_a_room_that_was_left_can_be_forgotten(api: Api) -> None:
    alice, bob = await _users(api, 2)
    room_id = await alice.create_room(preset="public_chat")
    assert (await bob.post(f"rooms/{room_id}/forget")).refusal == (400, "M_UNKNOWN")
    (await bob.post(f"join/{room_id}", {})).ok()
    assert (await bob.post(f"rooms/{room_id}/forget", {})).refusal == (400, "M_UNKNOWN")
    (await bob.post(f"rooms/{room_id}/leave", {})).ok()
    for _ in range(2):
        assert (await bob.post(f"rooms/{room_id}/forget", {})).ok() == {}


async def test_rooms_and_aliases_that_are_not_here_are_not_found(api: Api) -> None:
    alice = await api.register()
    for room_id in ("!nowhere:test.example", "!elsewhere:other.example", "!" + "a" * 43):
        assert (await alice.post(f"join/{room_id}", {})).refusal == (404, "M_NOT_FOUND")
        assert (await alice.post(f"knock/{room_id}", {})).refusal == (404, "M_NOT_FOUND")
        assert (await alice.post(f"rooms/{room_id}/join", {})).refusal == (404, "M_NOT_FOUND")
        assert (await alice.post(f"rooms/{room_id}/leave", {})).refusal == (404, "M_NOT_FOUND")
        assert (await alice.post(f"rooms/{room_id}/forget", {})).refusal == (404, "M_NOT_FOUND")
    for alias in ("#nowhere:test.example", "#elsewhere:other.example"):
        assert (await alice.post(f"join/{part(alias)}", {})).refusal == (404, "M_NOT_FOUND")
    for nonsense in ("room", part("#nocolon"), part("!a b"), "%00", part("!x:test.example\0")):
        assert (await alice.post(f"join/{nonsense}", {})).refusal == (400, "M_INVALID_PARAM")
        assert (await alice.post(f"rooms/{nonsense}/join", {})).refusal == (400, "M_INVALID_PARAM")


@pytest.mark.parametrize("action", ["invite", "kick", "ban", "unban"])
@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({}, (400, "M_MISSING_PARAM")),
        ({"user_id": None}, (400, "M_MISSING_PARAM")),
        ({"user_id": 5}, (400, "M_BAD_JSON")),
        ({"user_id": "bob"}, (400, "M_INVALID_PARAM")),
        ({"user_id": "@nul\0:test.example"}, (400, "M_INVALID_PARAM")),
        ({"user_id": "@bob:test.example", "reason": 1}, (400, "M_BAD_JSON")),
        ([], (400, "M_BAD_JSON")),
    ],
)
async def test_a_user_that_is_none_is_refused(api: Api, action: str, body: Any, refusal: tuple[int, str]) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    assert (await alice.post(f"rooms/{room_id}/{action}", body)).refusal == refusal


@pytest.mark.parametrize("action", ["join", "leave"])
async def test_a_reason_that_is_no_text_is_bad_json(api: Api, action: str) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    assert (await alice.post(f"rooms/{room_id}/{action}", {"reason": 5})).refusal == (400, "M_BAD_JSON")


async def test_nobody_of_another_server_and_nobody_by_an_untrusted_one_can_be_invited(api: Api) -> None:
    alice = await api.register()
    room_id = await alice.create_room()
    answer = await alice.post(f"rooms/{room_id}/invite", {"user_id": "@bob:elsewhere.example"})
    assert answer.refusal == (403, "M_FORBIDDEN")
    body = {"id_server": "vector.im", "id_access_token": "x", "medium": "email", "address": "a@example.com"}
    assert (await alice.post(f"rooms/{room_id}/invite", body)).refusal == (403, "M_SERVER_NOT_TRUSTED")
    answer = await alice.put(f"rooms/{room_id}/state/m.room.member/@bob:elsewhere.example", {"membership": "invite"})
    assert answer.refusal == (403, "M_FORBIDDEN")


async def test_nobody_lets_themselves_into_a_restricted_room_in_the_name_of_a_member(api: Api) -> None:
    alice, bob = await api.register(), await api.register()
    space = await alice.create_room(preset="public_chat")
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
    room_id = await alice.create_room(initial_state=[{"type": "m.room.join_rules", "content": rules}])
    path = f"rooms/{part(room_id)}/state/m.room.member/{part(bob.user_id)}"
    forged = {"membership": "join", "join_authorised_via_users_server": alice.user_id}
    assert (await bob.put(path, forged)).refusal == (403, "M_FORBIDDEN")
    assert await bob.membership(room_id, bob.user_id) is None
    (await bob.post(f"join/{part(space)}", {})).ok()
    (await bob.put(path, {"membership": "join", "displayname": "Bob"})).ok()
    content = await bob.state(room_id, "m.room.member", bob.user_id)
    assert content == {"membership": "join", "displayname": "Bob", "join_authorised_via_users_server": alice.user_id}
    (await bob.put(path, {"membership": "join", "displayname": "Bobby", "join_authorised_via_users_server": "x"})).ok()
    content = await bob.state(room_id, "m.room.member", bob.user_id)
    assert content == {"membership": "join", "displayname": "Bobby"}

"""History visibility: the table of the specification, and the events that change it."""

from __future__ import annotations

from typing import Any

import pytest
from auth_rooms import ALICE, BOB, CREATOR, AuthRoom

from matrix.events import Event
from matrix.visibility import (
    history_visibility_of,
    is_content_withheld,
    is_visible,
    server_may_see,
    user_may_see,
)

VISIBILITIES = ["world_readable", "shared", "invited", "joined"]
MEMBERSHIPS = ["join", "invite", "leave", "ban", "knock"]
ROOM = AuthRoom()


@pytest.mark.parametrize("joined_since", [True, False])
@pytest.mark.parametrize("membership", MEMBERSHIPS)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_the_table_of_the_specification(visibility: str, membership: str, joined_since: bool) -> None:
    expected = (
        visibility == "world_readable"
        or membership == "join"
        or (visibility == "shared" and joined_since)
        or (visibility == "invited" and membership == "invite")
    )
    assert is_visible(visibility, membership, joined_since=joined_since) == expected
    message = ROOM.event("m.room.message", CREATOR)
    seen = user_may_see(message, ALICE, visibility=visibility, membership=membership, joined_since=joined_since)
    assert seen == expected


@pytest.mark.parametrize("value", [None, "", "x", 1, [], {"a": 1}])
def test_a_setting_that_is_not_understood_is_shared(value: Any) -> None:
    event = ROOM.event("m.room.history_visibility", CREATOR, "", {"history_visibility": value})
    assert history_visibility_of(event) == "shared"
    assert history_visibility_of(None) == "shared"


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_a_setting_that_is_understood_is_taken(visibility: str) -> None:
    event = ROOM.event("m.room.history_visibility", CREATOR, "", {"history_visibility": visibility})
    assert history_visibility_of(event) == visibility


def _setting(visibility: str, state_key: str | None = "") -> Event:
    return ROOM.event("m.room.history_visibility", CREATOR, state_key, {"history_visibility": visibility})


@pytest.mark.parametrize(("before", "after"), [("world_readable", "joined"), ("joined", "world_readable")])
def test_a_change_of_visibility_is_seen_if_either_side_shows_it(before: str, after: str) -> None:
    change = _setting(after)
    assert user_may_see(change, ALICE, visibility=before, membership="leave", joined_since=False)
    assert not user_may_see(_setting("joined"), ALICE, visibility="joined", membership="leave", joined_since=False)


@pytest.mark.parametrize("state_key", ["x", None])
def test_what_only_looks_like_a_change_of_visibility_changes_nothing(state_key: str | None) -> None:
    event = _setting("world_readable", state_key)
    assert not user_may_see(event, ALICE, visibility="joined", membership="leave", joined_since=False)


@pytest.mark.parametrize("state_key", ["", ALICE])
def test_state_of_other_types_opens_nothing_whatever_its_content_says(state_key: str) -> None:
    content = {"history_visibility": "world_readable", "membership": "join"}
    event = ROOM.event("org.example.state", CREATOR, state_key, content)
    assert not user_may_see(event, ALICE, visibility="joined", membership="leave", joined_since=False)


@pytest.mark.parametrize("before", MEMBERSHIPS)
@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_one_s_own_join_is_always_seen(visibility: str, before: str) -> None:
    join = ROOM.transition(ALICE, ALICE, "join")
    assert user_may_see(join, ALICE, visibility=visibility, membership=before, joined_since=False)


@pytest.mark.parametrize("after", MEMBERSHIPS)
def test_one_s_own_leaving_of_a_joined_room_is_always_seen(after: str) -> None:
    change = ROOM.transition(CREATOR, ALICE, after)
    assert user_may_see(change, ALICE, visibility="joined", membership="join", joined_since=False)


def test_one_s_own_invitation_is_seen_where_invited_users_see() -> None:
    invite = ROOM.transition(CREATOR, ALICE, "invite")
    assert user_may_see(invite, ALICE, visibility="invited", membership="leave", joined_since=False)
    assert not user_may_see(invite, ALICE, visibility="joined", membership="leave", joined_since=False)


def test_another_user_s_join_is_seen_like_any_event() -> None:
    join = ROOM.transition(BOB, BOB, "join")
    assert not user_may_see(join, ALICE, visibility="joined", membership="leave", joined_since=False)


@pytest.mark.parametrize("membership", [None, 1, []])
def test_a_malformed_membership_shows_nothing(membership: Any) -> None:
    event = ROOM.transition(ALICE, ALICE, membership)
    assert not user_may_see(event, ALICE, visibility="joined", membership="leave", joined_since=False)


@pytest.mark.parametrize("visibility", VISIBILITIES)
def test_a_server_sees_what_one_of_its_users_may_need(visibility: str) -> None:
    shown = visibility in ("world_readable", "shared")
    assert server_may_see(visibility, []) == shown
    assert server_may_see(visibility, ["leave", "join"])
    assert server_may_see(visibility, ["leave", "ban"]) == shown
    assert server_may_see(visibility, ["invite"]) == (shown or visibility == "invited")


def test_the_messages_of_an_erased_user_stay_with_those_who_were_there() -> None:
    assert not is_content_withheld(sender_is_erased=True, membership="join")
    assert is_content_withheld(sender_is_erased=True, membership="leave")
    assert not is_content_withheld(sender_is_erased=False, membership="leave")

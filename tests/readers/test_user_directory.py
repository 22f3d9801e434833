"""POST /user_directory/search: who is found, by what, by whom, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from projected_world import ProjectedWorld, projected
from sync_world import user

from readers.userdirectory.words import fold, queries_of, words_of

ALICE, BOB, EVE = user("alice"), user("bob"), user("eve")
SEARCH = "/_matrix/client/v3/user_directory/search"


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[ProjectedWorld]:
    async with projected(provisioned, tmp_path) as made:
        yield made


async def find(here: ProjectedWorld, user_id: str, term: str, **more: Any) -> list[str]:
    status, body = await here.client(user_id).post(SEARCH, {"search_term": term, **more})
    assert status == 200, body
    return [one["user_id"] for one in body["results"]]


async def private_room(here: ProjectedWorld, creator: str, *others: str) -> str:
    room = await here.world.room(creator, visibility="shared")
    await here.world.event(room, creator, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    for other in others:
        await here.world.member(room, creator, other, "invite")
        await here.world.join(room, other)
    return room


@pytest.mark.postgres
async def test_found_is_who_shares_a_room_or_is_in_a_public_one_and_never_oneself(here: ProjectedWorld) -> None:
    await private_room(here, ALICE, BOB)
    assert await find(here, BOB, "alice") == [ALICE]
    assert await find(here, EVE, "alice") == []
    assert await find(here, ALICE, "alice") == []
    public = await here.world.room(ALICE)
    assert await find(here, EVE, "alice") == [ALICE]
    await here.world.event(public, ALICE, "m.room.join_rules", {"join_rule": "invite"}, state_key="")
    assert await find(here, EVE, "alice") == []
    await here.world.event(
        public, ALICE, "m.room.history_visibility", {"history_visibility": "world_readable"}, state_key=""
    )
    assert await find(here, EVE, "alice") == [ALICE]
    await here.world.leave(public, ALICE)
    assert await find(here, EVE, "alice") == []
    assert await find(here, BOB, "alice") == [ALICE]


@pytest.mark.postgres
async def test_a_name_of_one_room_is_not_told_and_that_of_the_profile_is_found(here: ProjectedWorld) -> None:
    await here.profile(ALICE, "displayname", "Alice Cooper")
    await here.profile(ALICE, "avatar_url", "mxc://test.example/a")
    await here.world.room(ALICE)
    room = await private_room(here, BOB, ALICE)
    await here.world.member(room, ALICE, ALICE, "join", displayname="Freddy")
    for seeker in (BOB, EVE):
        status, body = await here.client(seeker).post(SEARCH, {"search_term": "cooper"})
        found = {"user_id": ALICE, "display_name": "Alice Cooper", "avatar_url": "mxc://test.example/a"}
        assert (status, body) == (200, {"results": [found], "limited": False})
        assert await find(here, seeker, "Freddy") == []
    await here.profile(ALICE, "displayname", None)
    assert await find(here, BOB, "cooper") == []
    assert await find(here, BOB, "@alice:test.ex") == [ALICE]


@pytest.mark.postgres
async def test_results_are_limited_and_in_one_order_the_very_word_first(here: ProjectedWorld) -> None:
    await here.world.room(ALICE)
    people = [user(name) for name in ("frogger", "frog", "froggy", "bullfrog", "frogman")]
    room = await here.world.room(people[0])
    await here.world.join(room, *people[1:])
    await here.profile(people[4], "displayname", "Frog Man")
    expected = [people[4], people[1], people[0], people[2]]
    assert await find(here, ALICE, "FROG") == expected
    status, body = await here.client(ALICE).post(SEARCH, {"search_term": "frog", "limit": 2})
    assert status == 200 and body["limited"] and [one["user_id"] for one in body["results"]] == expected[:2]


@pytest.mark.postgres
async def test_a_deactivated_account_is_not_found_and_nonsense_is_refused(here: ProjectedWorld) -> None:
    await here.world.room(ALICE)
    assert await find(here, EVE, "alice") == [ALICE]
    with psycopg.connect(here.dsn, autocommit=True) as connection:
        connection.execute("insert into writer.accounts (user_id, deactivated_at) values (%s, now())", [ALICE])
    assert await find(here, EVE, "alice") == []
    assert await find(here, EVE, "'&|!:* ()") == []
    for body in ([], {}, {"search_term": 1}, {"search_term": "a", "limit": 0}, {"search_term": "a", "limit": "1"}):
        status, _ = await here.client(EVE).post(SEARCH, body)
        assert status == 400, body


@given(st.text(min_size=1, max_size=40), st.integers(0, 39))
def test_every_beginning_of_a_word_of_a_name_is_a_way_to_find_it(name: str, length: int) -> None:
    words = words_of("@someone:test.example", name)
    for word in fold(name).split():
        begins, _ = queries_of(word[: length + 1])
        wanted = [part for part in words_of("@someone:x", word[: length + 1]) if part not in ("someone:x", "someone")]
        if begins:
            assert all(any(known.startswith(part) for known in words) for part in wanted)

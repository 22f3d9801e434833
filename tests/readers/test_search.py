"""POST /search: what is found, in which order, with what around it, and what nobody finds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from projected_world import ProjectedWorld, projected, room_events
from sync_world import user

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = user("alice"), user("bob"), user("eve")
SEARCH = "/_matrix/client/v3/search"


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[ProjectedWorld]:
    async with projected(provisioned, tmp_path) as made:
        yield made


async def search(here: ProjectedWorld, user_id: str, term: str, batch: str = "", **more: Any) -> dict[str, Any]:
    parameters = {"next_batch": batch} if batch else {}
    status, body = await here.client(user_id).post(SEARCH, room_events(term, **more), **parameters)
    assert status == 200, body
    found: dict[str, Any] = body["search_categories"]["room_events"]
    return found


def bodies(found: dict[str, Any]) -> list[str]:
    return [one["result"]["content"]["body"] for one in found["results"]]


async def test_messages_names_and_topics_are_found_by_their_words_whatever_the_case(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE, name="The Pond")
    await here.world.event(room, ALICE, "m.room.topic", {"topic": "frogs and ponds"}, state_key="")
    await here.world.say(room, ALICE, "A frog jumps into the pond")
    await here.world.say(room, ALICE, "nothing of the kind")
    found = await search(here, ALICE, "POND")
    assert sorted(one["result"]["type"] for one in found["results"]) == ["m.room.message", "m.room.name"]
    assert (found["count"], found["highlights"]) == (2, ["pond"])
    assert bodies(await search(here, ALICE, "pond frog")) == ["A frog jumps into the pond"]
    only = await search(here, ALICE, "pond", keys=["content.name"])
    assert [one["result"]["type"] for one in only["results"]] == ["m.room.name"]
    assert (await search(here, ALICE, "'; drop & |!(")) == {"count": 0, "highlights": [], "results": []}


async def test_a_topic_is_found_by_its_text_in_either_form(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    forms = [{"mimetype": "text/html", "body": "<b>newts</b>"}, {"body": "toads and tadpoles"}]
    await here.world.event(room, ALICE, "m.room.topic", {"topic": "frogs", "m.topic": {"m.text": forms}}, state_key="")
    await here.world.event(room, ALICE, "m.room.topic", {"m.topic": {"m.text": [{"body": "axolotls"}]}}, state_key="")
    await here.world.writer.append_entry(type="scrub", user_id=ALICE, content={"room_id": room}, room_id=room)
    for term, count in (("frogs", 1), ("tadpoles", 1), ("axolotls", 1), ("newts", 0)):
        found = await search(here, ALICE, term, keys=["content.topic"])
        assert (found["count"], found["highlights"]) == (count, [term] * count)


async def test_pages_by_rank_and_by_time_hold_every_match_once(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    for number in range(12):
        await here.world.say(room, ALICE, "frog " * (number % 3 + 1) + f"number {number}")
    for order in ("recent", "rank"):
        pages, batch = [], ""
        while True:
            found = await search(here, ALICE, "frog", batch, order_by=order, filter={"limit": 5})
            pages.append(bodies(found))
            assert found["count"] == 12
            batch = found.get("next_batch", "")
            if not batch:
                break
        numbers = [body.split()[-1] for page in pages for body in page]
        assert sorted(numbers, key=int) == [str(n) for n in range(12)]
        if order == "recent":
            assert numbers == [str(n) for n in reversed(range(12))]


async def test_a_result_comes_with_what_surrounds_it_profiles_and_state(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.member(room, BOB, BOB, "join", displayname="Bobby")
    for number in range(1, 8):
        await here.world.say(room, BOB, f"Message number {number}")
    found = await search(
        here,
        ALICE,
        "Message 4",
        order_by="recent",
        event_context={"before_limit": 2, "after_limit": 2, "include_profile": True},
        include_state=True,
        groupings={"group_by": [{"key": "room_id"}, {"key": "sender"}]},
        filter={"limit": 1},
    )
    (one,) = found["results"]
    around = one["context"]
    assert [e["content"]["body"][-1] for e in around["events_before"]] == ["3", "2"]
    assert [e["content"]["body"][-1] for e in around["events_after"]] == ["5", "6"]
    assert around["profile_info"] == {BOB: {"displayname": "Bobby"}}
    assert one["result"]["room_id"] == room and one["rank"] > 0
    assert {"m.room.create", "m.room.member"} <= {event["type"] for event in found["state"][room]}
    event_id = one["result"]["event_id"]
    groups = found["groups"]
    assert groups["room_id"][room]["results"] == groups["sender"][BOB]["results"] == [event_id]
    assert (await search(here, ALICE, "Message 4", found["next_batch"], order_by="recent"))["results"] == []
    page = await here.client(ALICE).get(f"/_matrix/client/v3/rooms/{room}/messages", dir="b", from_=around["start"])
    assert page["chunk"][0]["content"]["body"] == "Message number 1"


async def test_a_group_is_carried_on_by_its_own_token(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    for number in range(4):
        await here.world.say(room, ALICE, f"frog {number}")
        await here.world.say(room, BOB, f"frog {number}")
    asked: dict[str, Any] = {
        "order_by": "recent",
        "groupings": {"group_by": [{"key": "sender"}]},
        "filter": {"limit": 2},
    }
    found = await search(here, ALICE, "frog", **asked)
    batch = found["groups"]["sender"][BOB]["next_batch"]
    more = await search(here, ALICE, "frog", batch, **asked)
    assert [(one["result"]["sender"], one["result"]["content"]["body"]) for one in more["results"]] == [
        (BOB, "frog 2"),
        (BOB, "frog 1"),
    ]


async def test_nobody_finds_what_they_may_not_see(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE, visibility="joined")
    await here.world.say(room, ALICE, "frog before, and a newt")
    await here.world.join(room, BOB)
    await here.world.say(room, ALICE, "frog meanwhile")
    await here.world.leave(room, BOB)
    await here.world.say(room, ALICE, "frog after")
    found = await search(here, BOB, "frog")
    assert (bodies(found), found["count"]) == (["frog meanwhile"], 1)
    assert bodies(await search(here, EVE, "frog")) == []
    # A number would say that the word was said.
    assert (await search(here, BOB, "newt"))["count"] == 0
    assert (await search(here, ALICE, "newt"))["count"] == 1
    assert len(bodies(await search(here, ALICE, "frog"))) == 3
    assert bodies(await search(here, EVE, "frog", filter={"rooms": [room]})) == []
    await here.world.writer.append_entry(type="forget", user_id=BOB, content={"room_id": room}, room_id=room)
    assert bodies(await search(here, BOB, "frog")) == []


async def test_what_is_redacted_ignored_or_encrypted_is_not_found(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    sent = await here.world.say(room, ALICE, "frog to be redacted")
    await here.world.event(room, ALICE, "m.room.encrypted", {"ciphertext": "frog", "body": "frog"})
    await here.world.say(room, BOB, "frog of Bob")
    for order in ("rank", "recent"):
        assert (await search(here, ALICE, "frog", order_by=order))["count"] == 2
    await here.world.event(room, ALICE, "m.room.redaction", {}, redacts=sent.event_id)
    for order in ("rank", "recent"):
        found = await search(here, ALICE, "frog", order_by=order)
        assert (found["count"], bodies(found)) == (1, ["frog of Bob"])
    await here.world.account_data(ALICE, "m.ignored_user_list", {"ignored_users": {BOB: {}}})
    assert bodies(await search(here, ALICE, "frog")) == []


async def test_who_came_later_is_not_told_the_name_of_who_asked_to_be_forgotten(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    await here.world.member(room, BOB, BOB, "join", displayname="Bob")
    await here.world.say(room, BOB, "hush")
    await here.world.say(room, ALICE, "frog")
    await here.world.writer.append_entry(type="erase", user_id=BOB, content={})
    await here.world.join(room, EVE)
    for reader, profile in ((ALICE, {"displayname": "Bob"}), (EVE, {})):
        found = await search(here, reader, "frog", event_context={"include_profile": True})
        assert found["results"][0]["context"]["profile_info"][BOB] == profile


async def test_a_filter_chooses_rooms_senders_types_and_urls(here: ProjectedWorld) -> None:
    one, two = await here.world.room(ALICE, name="frog"), await here.world.room(ALICE)
    await here.world.join(one, BOB)
    await here.world.say(one, BOB, "frog of Bob")
    await here.world.event(
        two, ALICE, "m.room.message", {"msgtype": "m.image", "body": "frog.png frog", "url": "mxc://a/b"}
    )

    async def found(**chosen: Any) -> list[tuple[str, str]]:
        answer = await search(here, ALICE, "frog", order_by="recent", filter=chosen)
        return [(hit["result"]["room_id"], hit["result"]["sender"]) for hit in answer["results"]]

    assert await found() == [(two, ALICE), (one, BOB), (one, ALICE)]
    assert await found(rooms=[one]) == [(one, BOB), (one, ALICE)]
    assert await found(not_rooms=[one]) == [(two, ALICE)]
    assert await found(senders=[BOB]) == [(one, BOB)]
    assert await found(not_senders=[BOB]) == [(two, ALICE), (one, ALICE)]
    assert await found(types=["m.room.n*"]) == [(one, ALICE)]
    assert await found(contains_url=True) == [(two, ALICE)]
    assert await found(types=[]) == []


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ([], "M_BAD_JSON"),
        ({}, "M_MISSING_PARAM"),
        ({"search_categories": {"room_events": {}}}, "M_MISSING_PARAM"),
        (room_events("x", order_by="age"), "M_INVALID_PARAM"),
        (room_events("x", keys=["content.url"]), "M_INVALID_PARAM"),
        (room_events("x", groupings={"group_by": [{"key": "type"}]}), "M_INVALID_PARAM"),
        (room_events("x", event_context={"before_limit": -1}), "M_INVALID_PARAM"),
        (room_events("x" * 1001), "M_INVALID_PARAM"),
        (room_events("x", filter={"limit": "many"}), "M_BAD_JSON"),
    ],
)
async def test_a_request_that_is_none_is_refused(here: ProjectedWorld, body: Any, errcode: str) -> None:
    status, answer = await here.client(ALICE).post(SEARCH, body)
    assert (status, answer["errcode"]) == (400, errcode)
    status, answer = await here.client(ALICE).post(SEARCH, room_events("x"), next_batch="bm9uZQ")
    assert (status, answer["errcode"]) == (400, "M_INVALID_PARAM")


async def test_what_has_left_the_log_leaves_the_index_with_its_words(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    gone = await here.world.say(room, ALICE, "frog that goes")
    await here.world.say(room, BOB, "frog of Bob")
    await here.world.say(room, ALICE, "frog that stays")
    await here.settle()
    with psycopg.connect(here.dsn, autocommit=True) as connection:
        # As a replica: the log's guards are triggers.
        connection.execute("set session_replication_role = replica")
        connection.execute("delete from eventlog.events where event_id = %s", [gone.event_id])
        connection.execute(
            'update eventlog.events set json = replace(json, \'"body":"frog of Bob"\', \'"other":"x"\') where sender = %s',
            [BOB],
        )
    await here.world.writer.append_entry(type="scrub", user_id=ALICE, content={"room_id": room}, room_id=room)
    await here.settle()
    with psycopg.connect(here.dsn) as connection:
        left = connection.execute("select sender, words::text from search.documents").fetchall()
    assert len(left) == 1 and left[0][0] == ALICE and "stays" in left[0][1]

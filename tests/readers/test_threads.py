"""GET /rooms/{room_id}/threads."""

from __future__ import annotations

from typing import Any

import pytest
from judged_rooms import Log, Room, Sent
from rooms_client import V1, serving

from readers.rooms import threads

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:test.example"


def path(room: Room) -> str:
    return f"{V1}/rooms/{room.room_id}/threads"


def reply(room: Room, sender: str, root: Sent) -> Sent:
    return room.relate(sender, root, "m.thread", "m.room.message", body="reply")


def listed(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Roots with their latest events."""
    return [
        (event["event_id"], event["unsigned"]["m.relations"]["m.thread"]["latest_event"]["event_id"])
        for event in body["chunk"]
    ]


async def test_threads_are_listed_by_their_latest_reply_page_by_page(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        roots = [room.message(ALICE, f"{number}") for number in range(5)]
        latest = {}
        for number in (0, 1, 2, 3, 4, 2, 0, 0):
            latest[roots[number].event_id] = reply(room, ALICE, roots[number]).event_id
        room.message(ALICE, "no thread")
        log.commit()
    expected = [(roots[number].event_id, latest[roots[number].event_id]) for number in (0, 2, 4, 3, 1)]
    async with serving(database) as server:
        alice = server.client(ALICE)
        body = await alice.get(path(room))
        assert listed(body) == expected and "next_batch" not in body
        for scan in (2_000, 2):
            monkeypatch.setattr(threads, "SCAN", scan)
            found, page = [], await alice.get(path(room), limit=2)
            while "next_batch" in page:
                found += listed(page)
                page = await alice.get(path(room), limit=2, from_=page["next_batch"])
            assert found + listed(page) == expected
        assert await alice.refusal(path(room), limit=0) == (400, "M_INVALID_PARAM")
        assert await alice.refusal(path(room), include="none") == (400, "M_INVALID_PARAM")
        assert await alice.refusal(path(room), from_="nonsense") == (400, "M_INVALID_PARAM")
        assert await server.client(EVE).refusal(path(room)) == (403, "M_FORBIDDEN")


async def test_only_threads_that_the_user_took_part_in_on_demand(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE)
        room.member(BOB, "join")
        mine, theirs, other = room.message(BOB, "1"), room.message(ALICE, "2"), room.message(ALICE, "3")
        for root, sender in ((mine, ALICE), (theirs, BOB), (theirs, ALICE), (other, ALICE)):
            reply(room, sender, root)
        room.redact(BOB, reply(room, BOB, other))
        log.commit()
    async with serving(database) as server:
        body = await server.client(BOB).get(path(room), include="participated")
        assert [event["event_id"] for event in body["chunk"]] == [theirs.event_id, mine.event_id]
        assert len((await server.client(BOB).get(path(room), include="all"))["chunk"]) == 3


async def test_redacted_hidden_and_ignored_replies_make_no_thread_and_no_order(database: str) -> None:
    with Log(database) as log:
        room = Room(log, ALICE, visibility="joined")
        for user_id in (BOB, EVE):
            room.member(user_id, "join")
        first, second, third = (room.message(ALICE, f"{number}") for number in range(3))
        by_eve = room.message(EVE, "root of an ignored user")
        kept = [reply(room, ALICE, root).event_id for root in (first, second, by_eve)]
        room.redact(ALICE, reply(room, ALICE, first))
        reply(room, EVE, first)
        reply(room, EVE, third)
        room.member(BOB, "leave")
        reply(room, ALICE, first)
        log.account_data(BOB, "m.ignored_user_list", {"ignored_users": {EVE: {}}})
        log.commit()
    async with serving(database) as server:
        body = await server.client(BOB).get(path(room))
        assert listed(body) == [
            (by_eve.event_id, kept[2]),
            (second.event_id, kept[1]),
            (first.event_id, kept[0]),
        ]
        # "The event is returned redacted to the caller."
        assert body["chunk"][0]["content"] == {}
        assert body["chunk"][1]["content"]["body"] == "1"
        alice = await server.client(ALICE).get(path(room))
        assert [event["event_id"] for event in alice["chunk"]][:2] == [first.event_id, third.event_id]

"""What notifies whom, once per event for all: GET /notifications, and counts that agree with those of /sync."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from projected_tables import rows
from projected_world import ProjectedWorld, projected
from psycopg import AsyncConnection
from sync_world import Client, sync_process, user

from matrix.errors import MatrixError
from matrix.push_rules import PushRuleset
from readers.notifications.rooms import SQL

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = user("alice"), user("bob"), user("eve")
PATH = "/_matrix/client/v3/notifications"


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[ProjectedWorld]:
    async with projected(provisioned, tmp_path) as made:
        yield made


def mention(*users: str, body: str = "hey") -> dict[str, Any]:
    return {"msgtype": "m.text", "body": body, "m.mentions": {"user_ids": list(users)}}


async def listed(here: ProjectedWorld, user_id: str, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await here.client(user_id).get(PATH, **parameters))["notifications"]
    return found


def bodies(notifications: list[dict[str, Any]]) -> list[str]:
    return [one["event"]["content"].get("body", one["event"]["type"]) for one in notifications]


async def test_an_event_for_all_is_one_row_and_who_is_mentioned_one_more(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    others = [user(f"u{n}") for n in range(5)]
    await here.world.join(room, *others)
    await here.world.say(room, ALICE, "one")
    await here.world.event(room, ALICE, "m.room.message", mention(others[0], EVE))
    await here.world.event(room, ALICE, "m.reaction", {"m.relates_to": {"rel_type": "m.annotation"}})
    await here.settle()
    *_, notices, exceptions = rows(here.dsn)
    assert len(notices) == 2
    (one,) = map(orjson.loads, exceptions)
    assert (one["user_id"], one["notify"], one["highlight"]) == (others[0], True, True)


async def test_the_list_has_what_notified_the_latest_first_and_whether_it_was_read(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.say(room, ALICE, "before")
    await here.world.join(room, BOB)
    first = await here.world.say(room, ALICE, "first")
    await here.world.say(room, BOB, "my own")
    await here.world.event(room, ALICE, "m.room.message", mention(BOB, body="for you"))
    await here.world.receipt(room, BOB, first.event_id)
    found = await listed(here, BOB)
    assert bodies(found) == ["for you", "first"]
    assert [one["read"] for one in found] == [False, True]
    assert found[0]["actions"] == ["notify", {"set_tweak": "sound", "value": "default"}, {"set_tweak": "highlight"}]
    assert {one["room_id"] for one in found} == {room} and found[0]["ts"] > 1_600_000_000_000
    assert bodies(await listed(here, BOB, only="highlight")) == ["for you"]
    assert bodies(await listed(here, ALICE)) == ["my own"]
    assert await listed(here, EVE) == []


async def test_pages_hold_every_notification_once(here: ProjectedWorld) -> None:
    rooms = [await here.world.room(ALICE) for _ in range(3)]
    for room in rooms:
        await here.world.join(room, BOB)
    for number in range(9):
        await here.world.say(rooms[number % 3], ALICE, f"{number}")
    found: list[str] = []
    page = await here.client(BOB).get(PATH, limit=4)
    while True:
        found += bodies(page["notifications"])
        if "next_token" not in page:
            break
        page = await here.client(BOB).get(PATH, limit=4, from_=page["next_token"])
    assert found == [str(number) for number in reversed(range(9))]
    assert await here.client(BOB).refusal(PATH, from_="x1") == (400, "M_INVALID_PARAM")
    assert await here.client(BOB).refusal(PATH, limit="0") == (400, "M_INVALID_PARAM")


async def test_an_invitation_notifies_whom_it_invites(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.member(room, ALICE, BOB, "invite")
    (one,) = await listed(here, BOB)
    assert (one["event"]["type"], one["event"]["state_key"]) == ("m.room.member", BOB)
    await here.world.join(room, BOB)
    assert len(await listed(here, BOB)) == 1


async def test_rules_of_ones_own_count_from_when_they_are_made(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    await here.world.say(room, ALICE, "loud")
    await here.settle()
    rules = PushRuleset().put("room", room, {"actions": []})
    rules = rules.put("content", "frog", {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "frog"})
    await here.world.account_data(BOB, "m.push_rules", rules.stored())
    await here.world.say(room, ALICE, "quiet")
    await here.world.say(room, ALICE, "a frog")
    assert bodies(await listed(here, BOB)) == ["a frog", "loud"]
    assert bodies(await listed(here, BOB, only="highlight")) == ["a frog"]


async def test_messages_of_ignored_users_and_invitations_that_are_not_told_notify_nobody(here: ProjectedWorld) -> None:
    room, other = await here.world.room(ALICE), await here.world.room(EVE)
    await here.world.join(room, BOB, EVE)
    await here.world.account_data(BOB, "m.ignored_user_list", {"ignored_users": {EVE: {}}})
    await here.world.account_data(ALICE, "m.invite_permission_config", {"default_action": "block"})
    await here.world.event(room, EVE, "m.room.message", mention(ALICE, BOB))
    await here.world.member(other, EVE, BOB, "invite")
    await here.world.member(other, EVE, ALICE, "invite")
    await here.world.say(room, ALICE, "heard")
    assert bodies(await listed(here, BOB)) == ["heard"]
    assert bodies(await listed(here, ALICE)) == ["hey"]
    client = Client(here.world.sync, BOB)
    await client.sync()
    assert client.room(room)["unread_notifications"] == {"highlight_count": 0, "notification_count": 1}
    await here.world.account_data(BOB, "m.ignored_user_list", {"ignored_users": {}})
    await here.world.event(room, EVE, "m.room.message", mention(BOB, body="now"))
    assert bodies(await listed(here, BOB)) == ["now", "heard"]
    await client.sync(1)
    await client.settle()
    assert client.rooms[room].unread == {"highlight_count": 2, "notification_count": 3}


async def test_what_is_redacted_or_no_longer_to_be_seen_is_not_listed(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    sent = await here.world.event(room, ALICE, "m.room.message", mention(BOB))
    await here.world.say(room, ALICE, "stays")
    assert len(await listed(here, BOB)) == 2
    await here.world.event(room, ALICE, "m.room.redaction", {}, redacts=sent.event_id)
    assert bodies(await listed(here, BOB)) == ["stays"]
    await here.world.leave(room, BOB)
    assert await listed(here, BOB) == []


USERS = [user(f"u{n}") for n in range(4)]
ACTIONS = ("say", "say", "mention", "room", "thread", "refer", "read", "read thread", "join", "leave", "redact")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_stored_counts_agree_with_those_of_sync_by_room_and_thread(here: ProjectedWorld, seed: int) -> None:
    dice = random.Random(seed)
    # The last two have rules of their own.
    words = PushRuleset().put("content", "o", {"actions": [], "pattern": "odd"})
    await here.world.account_data(USERS[2], "m.push_rules", words.stored())
    silent = PushRuleset().set_enabled("override", ".m.rule.master", True)
    await here.world.account_data(USERS[3], "m.push_rules", silent.stored())
    await here.world.account_data(USERS[1], "m.ignored_user_list", {"ignored_users": {USERS[2]: {}}})
    room = await here.world.room(USERS[0])
    await here.world.join(room, *USERS[1:])
    sent: list[str] = []
    compared = 0
    for _ in range(5):
        for _ in range(15):
            try:
                await act(here, room, sent, dice.choice(ACTIONS), dice.randrange(4), dice.randrange(7))
            except MatrixError as error:
                assert error.status in (400, 403), error
        await here.settle()
        for user_id in USERS:
            counted = await stored(here, user_id)
            assert counted == await told(here, user_id, room)
            compared += bool(counted)
    assert compared > 3


async def act(here: ProjectedWorld, room: str, sent: list[str], kind: str, who: int, what: int) -> None:
    actor, world = USERS[who], here.world
    target = sent[what % len(sent)] if sent else "$none"
    content: dict[str, Any] = {"msgtype": "m.text", "body": "odd" if what % 2 else "even"}
    if kind == "mention":
        content |= {"m.mentions": {"user_ids": [USERS[what % 4]]}}
    elif kind == "room":
        content |= {"m.mentions": {"room": True}}
    elif kind == "thread":
        content |= {"m.relates_to": {"rel_type": "m.thread", "event_id": target}}
    elif kind == "refer":
        content |= {"m.relates_to": {"rel_type": "m.reference", "event_id": target}}
    if kind == "read":
        await world.receipt(room, actor, target, ("m.read", "m.read.private")[what % 2])
    elif kind == "read thread":
        await world.receipt(room, actor, target, thread="main" if what % 2 else sent[0])
    elif kind == "join":
        await world.join(room, actor)
    elif kind == "leave" and who:
        await world.leave(room, actor)
    elif kind == "redact":
        await world.event(room, USERS[0], "m.room.redaction", {}, redacts=target)
    elif kind not in ("leave",):
        sent.append((await world.event(room, actor, "m.room.message", content)).event_id)


async def stored(here: ProjectedWorld, user_id: str) -> dict[str, tuple[int, int]]:
    async with await AsyncConnection.connect(here.dsn, autocommit=True) as connection:
        cursor = await connection.execute(SQL["counts"], {"user_id": user_id, "rooms": None})
        return {thread: (count, highlights) for _, thread, count, highlights in await cursor.fetchall()}


async def told(here: ProjectedWorld, user_id: str, room: str) -> dict[str, tuple[int, int]]:
    """The counts of a process that remembers nothing."""
    async with sync_process(here.world.settings) as service:
        client = Client(service, user_id, filter={"room": {"timeline": {"unread_thread_notifications": True}}})
        await client.sync()
        joined = client.last.get("rooms", {}).get("join", {})
    if room not in joined:
        return {}
    threads = {"main": joined[room]["unread_notifications"], **joined[room].get("unread_thread_notifications", {})}
    counts = {root: (one["notification_count"], one["highlight_count"]) for root, one in threads.items()}
    return {root: count for root, count in counts.items() if count != (0, 0)}

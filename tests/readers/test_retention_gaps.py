"""After retention readers meet a gap: clients go on, pages end, and what has gone is not found; nothing is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import AsyncConnection
from rooms_client import V1, V3, serving
from rooms_client import Client as RoomsClient
from sync_world import Client, World, caught_up, settings_of, sync_process, user, world

from eventlog.append import Entry, append, append_statement
from readers.retention.partitions import drop_expired
from readers.retention.policies import Policies
from readers.retention.purging import erase_user, purge_history
from writer.drafts import Draft

pytestmark = pytest.mark.postgres

ALICE, BOB, CAROL = user("alice"), user("bob"), user("carol")
# Forty days from now everything that is here is old.
ALL = -40.0


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


@pytest.fixture
async def owner(provisioned: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        yield connection


async def lively(here: World) -> tuple[str, list[str]]:
    """A room with messages, an edit, a reaction, a thread, redactions and receipts; and what was said."""
    room = await here.room(ALICE, name="Before")
    await here.join(room, BOB)
    said = [(await here.say(room, ALICE, f"old {n}")).event_id for n in range(40)]
    relation = {"rel_type": "m.replace", "event_id": said[0]}
    await here.event(
        room, ALICE, "m.room.message", {"body": "*", "m.new_content": {"body": "x"}, "m.relates_to": relation}
    )
    await here.event(
        room, BOB, "m.reaction", {"m.relates_to": {"rel_type": "m.annotation", "event_id": said[1], "key": "+"}}
    )
    await here.event(
        room, BOB, "m.room.message", {"body": "t", "m.relates_to": {"rel_type": "m.thread", "event_id": said[2]}}
    )
    named = await here.event(room, ALICE, "m.room.name", {"name": "Redacted"}, state_key="")
    for target in (said[3], named.event_id):
        await here.event(room, ALICE, "m.room.redaction", {"redacts": target})
    await here.receipt(room, BOB, said[5])
    await here.account_data(BOB, "org.example", {"a": 1}, room)
    return room, said


async def pages(client: RoomsClient, room: str, **parameters: object) -> list[str]:
    """The types of all events there are, latest first."""
    found: list[str] = []
    page = await client.get(f"{V3}/rooms/{room}/messages", dir="b", **parameters)
    while True:
        found += [event["type"] for event in page["chunk"]]
        if "end" not in page:
            return found
        page = await client.get(f"{V3}/rooms/{room}/messages", dir="b", from_=page["end"])


async def test_clients_go_on_after_everything_old_was_dropped(
    here: World, provisioned: str, owner: AsyncConnection
) -> None:
    room, said = await lively(here)
    early = Client(here.sync, BOB)
    await early.settle()
    said += [(await here.say(room, ALICE, f"later {n}")).event_id for n in range(30)]
    for kind in "mu":
        assert await drop_expired(owner, kind, ALL, Policies(0.0, ())) is not None
    async with sync_process(here.settings) as cold, serving(provisioned) as server:
        # A token from before the gap, a first sync, and the process that remembers everything.
        early.service = cold
        await early.settle()
        fresh = Client(cold, BOB)
        await fresh.settle()
        warm = Client(here.sync, BOB)
        await warm.settle()
        assert early.rooms[room].state == fresh.rooms[room].state == warm.rooms[room].state
        assert ("m.room.name", "") in fresh.rooms[room].state
        assert fresh.rooms[room].timeline[-1] == said[-1]
        assert fresh.rooms[room].account_data == {"org.example": {"a": 1}}
        assert fresh.rooms[room].unread["notification_count"] <= 30

        bob = server.client(BOB)
        types = await pages(bob, room)
        # The redaction of the name and the room's last message are what is left beside the state.
        assert types.count("m.room.message") == 1
        assert types.count("m.room.member") == 2
        assert types[-1] == "m.room.create"
        assert await pages(bob, room, from_=early.since) == types
        path = f"{V3}/rooms/{room}"
        assert await bob.refusal(f"{path}/event/{said[0]}") == (404, "M_NOT_FOUND")
        assert await bob.refusal(f"{path}/context/{said[0]}") == (404, "M_NOT_FOUND")
        assert (await bob.get(f"{path}/context/{said[-1]}"))["event"]["event_id"] == said[-1]
        status, _ = await bob.ask(f"{V1}/rooms/{room}/relations/{said[1]}")
        assert status in (200, 404)
        status, _ = await bob.ask(f"{V1}/rooms/{room}/threads")
        assert status == 200
        assert len((await bob.get(f"{path}/members"))["chunk"]) == 2
        (name,) = [e for e in await bob.get(f"{path}/state") if e["type"] == "m.room.name"]
        assert name["content"] == {}

        views = await (
            await owner.execute("select table_name::text from information_schema.views where table_schema = 'history'")
        ).fetchall()
        assert len(views) >= 3
        for (view,) in views:
            await owner.execute(f"select * from history.{view}")  # type: ignore[arg-type]
        await owner.execute("select * from history.state_at(%s, now())", [room])
        row = await (await owner.execute("select count(*) from history.messages where room_id = %s", [room])).fetchone()
        assert row == (1,)

        # It goes on: a message, a member, a reply to what has gone, a receipt.
        await here.join(room, CAROL)
        sent = await here.event(
            room, BOB, "m.room.message", {"body": "re", "m.relates_to": {"m.in_reply_to": {"event_id": said[0]}}}
        )
        await here.receipt(room, BOB, sent.event_id)
        for client in (early, fresh):
            await client.settle()
            assert client.rooms[room].timeline[-1] == sent.event_id
        assert (await pages(bob, room))[:2] == ["m.room.message", "m.room.member"]


async def test_a_receipt_on_what_has_gone_is_refused_like_one_on_nothing(here: World, owner: AsyncConnection) -> None:
    room, said = await lively(here)
    assert await purge_history(owner, room, datetime.now(UTC) + timedelta(hours=1), "test", dry_run=False) != (0, 0)
    with pytest.raises(Exception, match="not known"):
        await here.receipt(room, BOB, said[0])


async def test_what_an_erased_user_said_is_shown_by_no_process_that_remembers_it(
    here: World, provisioned: str, owner: AsyncConnection
) -> None:
    room, _ = await lively(here)
    await here.say(room, ALICE, "a secret")
    bob = Client(here.sync, BOB)
    async with serving(provisioned) as server:
        rooms = server.client(BOB)
        await bob.settle()
        assert "a secret" in str((await rooms.get(f"{V3}/rooms/{room}/messages", dir="b"))["chunk"])
        assert "a secret" in str(bob.received)
        await erase_user(owner, ALICE, "test", dry_run=False)
        entry = Entry("u", 0, "scrub", ALICE, b'{"user_id": "%s"}' % ALICE.encode())
        await append(append_statement(owner, prepare=False), [], [entry])
        while here.sync.current.positions != [row[0] for row in await here.sync.rows("heads")] or (
            await (
                await owner.execute(
                    "select count(*) from eventlog.events e where not exists"
                    " (select from eventlog.outputs o where o.entry = e.id)"
                )
            ).fetchone()
        ) != (0,):
            await caught_up(here.sync)
        again = Client(here.sync, BOB)
        await again.settle()
        assert again.rooms[room].timeline
        assert "a secret" not in str(again.received)
        assert "a secret" not in str((await rooms.get(f"{V3}/rooms/{room}/messages", dir="b"))["chunk"])
    await here.writer.send([Draft(room, BOB, "m.room.message", {"body": "on"})])

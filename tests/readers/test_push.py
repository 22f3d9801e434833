"""Push gateways are told of what notifies: whom, of what, again when they fail, and nobody inside the network."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from aiohttp import web
from projected_world import ProjectedWorld, dsn_of, projected
from psycopg import AsyncConnection
from sync_world import user

from eventlog.outgoing import Guard
from readers.notifications.pushing import AT_ONCE, SQL, Gateways, Pushing

pytestmark = pytest.mark.postgres

ALICE, BOB = user("alice"), user("bob")
LOCAL = Guard(["127.0.0.0/8"])


class Gateway:
    """A push gateway on this machine that says what it is told to say."""

    def __init__(self) -> None:
        self.taken: list[dict[str, Any]] = []
        self.status = 200
        self.answer: Any = {"rejected": []}
        self.url = ""
        self.told = asyncio.Semaphore(0)
        self.answers = asyncio.Event()
        self.answers.set()

    async def notify(self, request: web.Request) -> web.StreamResponse:
        await self.answers.wait()
        if self.status != 200:
            return web.Response(status=self.status, headers={"location": "http://127.0.0.1:1/"})
        self.taken.append((await request.json())["notification"])
        self.told.release()
        response = web.StreamResponse()
        await response.prepare(request)
        # In parts, as large answers come and those of servers that begin before they know the end.
        for part in orjson.dumps(self.answer).partition(b":"):
            await response.write(part)
            await asyncio.sleep(0)
        return response


@contextlib.asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    one = Gateway()
    app = web.Application()
    app.router.add_post("/_matrix/push/v1/notify", one.notify)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    one.url = f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}/_matrix/push/v1/notify"  # type: ignore[attr-defined]
    try:
        yield one
    finally:
        await runner.cleanup()


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[ProjectedWorld]:
    async with projected(provisioned, tmp_path) as made:
        yield made


def set_pusher(here: ProjectedWorld, user_id: str, url: str, pushkey: str = "key", **data: Any) -> None:
    with psycopg.connect(here.dsn, autocommit=True) as connection:
        connection.execute("insert into writer.accounts (user_id) values (%s) on conflict do nothing", [user_id])
        connection.execute(
            "insert into writer.devices (user_id, device_id) values (%s, 'PHONE') on conflict do nothing", [user_id]
        )
        connection.execute(
            "insert into writer.pushers (user_id, device_id, app_id, pushkey, app_display_name, device_display_name, profile_tag,"
            " lang, data) values (%s, 'PHONE', 'app', %s, 'App', 'Phone', '', 'en', %s)",
            [user_id, pushkey, orjson.dumps({"url": url, "brand": "x", **data}).decode()],
        )


async def push(here: ProjectedWorld, guard: Guard = LOCAL) -> None:
    """Sends everything that is due."""
    await here.settle()
    pushing = Pushing(dsn_of(here.world), guard)
    async with (
        await AsyncConnection.connect(dsn_of(here.world), autocommit=True) as connection,
        Gateways(guard) as gateways,
    ):
        while await pushing.round(connection, gateways):
            pass


async def test_the_gateway_is_told_of_an_event_as_the_rules_say(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE, name="Pond")
        await here.world.join(room, BOB)
        await here.world.member(room, ALICE, ALICE, "join", displayname="Alice")
        set_pusher(here, BOB, one.url)
        await here.world.say(room, BOB, "my own")
        sent = await here.world.event(
            room, ALICE, "m.room.message", {"msgtype": "m.text", "body": "hey", "m.mentions": {"user_ids": [BOB]}}
        )
        await push(here)
        (told,) = one.taken
        (device,) = told.pop("devices")
        assert device["tweaks"] == {"sound": "default", "highlight": True}
        assert (device["app_id"], device["pushkey"], device["data"]) == ("app", "key", {"brand": "x"})
        assert told == {
            "event_id": sent.event_id,
            "room_id": room,
            "type": "m.room.message",
            "sender": ALICE,
            "sender_display_name": "Alice",
            "room_name": "Pond",
            "prio": "high",
            "content": {"msgtype": "m.text", "body": "hey", "m.mentions": {"user_ids": [BOB]}},
            "counts": {"unread": 1},
        }
        await here.world.say(room, ALICE, "more")
        await push(here)
        await push(here)
        assert [one["counts"]["unread"] for one in one.taken] == [1, 2]


async def test_who_wants_the_event_id_alone_is_told_no_more(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        set_pusher(here, BOB, one.url, format="event_id_only")
        sent = await here.world.say(room, ALICE, "secret")
        await push(here)
        (told,) = one.taken
        assert told.keys() == {"event_id", "room_id", "prio", "counts", "devices"}
        assert told["event_id"] == sent.event_id and "tweaks" not in told["devices"][0]
        assert "secret" not in orjson.dumps(told).decode()


async def test_a_gateway_that_fails_is_asked_again_later_and_nothing_is_lost(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        set_pusher(here, BOB, one.url)
        for number in range(3):
            await here.world.say(room, ALICE, f"{number}")
        for status in (500, 302):
            one.status = status
            await push(here)
            with psycopg.connect(here.dsn, autocommit=True) as connection:
                waiting = connection.execute(
                    "select count(*), max(attempts), bool_and(due_at > now()) from notifications.pushes where sent_at is null"
                ).fetchone()
                assert waiting is not None and waiting[0] == 3 and waiting[2]
                connection.execute("update notifications.pushes set due_at = now() where sent_at is null")
        assert waiting[1] == 2 and one.taken == []
        one.status = 200
        await push(here)
        assert [told["content"]["body"] for told in one.taken] == ["0", "1", "2"]


async def test_what_comes_while_a_gateway_is_left_alone_waits_its_turn(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        set_pusher(here, BOB, one.url)
        await here.world.say(room, ALICE, "0")
        one.status = 500
        await push(here)
        one.status = 200
        with psycopg.connect(here.dsn, autocommit=True) as connection:
            connection.execute("update notifications.pushes set due_at = due_at + interval '1 hour'")
            for body in ("1", "2"):
                await here.world.say(room, ALICE, body)
                await push(here)
                assert one.taken == []
            connection.execute("update notifications.pushes set due_at = now()")
        await push(here)
        assert [told["content"]["body"] for told in one.taken] == ["0", "1", "2"]


async def test_a_gateway_that_does_not_answer_keeps_nobody_waiting_but_its_own(here: ProjectedWorld) -> None:
    async with gateway() as silent, gateway() as one:
        silent.answers.clear()
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        # Before the other in the order in which they are looked at.
        for number in range(AT_ONCE + 1):
            set_pusher(here, BOB, silent.url, f"silent {number}")
        set_pusher(here, BOB, one.url)
        pushing = asyncio.create_task(Pushing(dsn_of(here.world), LOCAL).run())
        try:
            for body in ("0", "1"):
                await here.world.say(room, ALICE, body)
            await here.settle()
            async with asyncio.timeout(60):
                for _ in range(2):
                    await one.told.acquire()
            assert [told["content"]["body"] for told in one.taken] == ["0", "1"] and silent.taken == []
        finally:
            silent.answers.set()
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)


async def test_a_rejected_push_key_is_given_up_and_what_was_redacted_is_not_told(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        set_pusher(here, BOB, one.url)
        sent = await here.world.say(room, ALICE, "regret")
        await here.world.event(room, ALICE, "m.room.redaction", {}, redacts=sent.event_id)
        await push(here)
        assert one.taken == []
        one.answer = {"rejected": ["key", "somebody else's"]}
        await here.world.say(room, ALICE, "hello")
        await push(here)
        with psycopg.connect(here.dsn) as connection:
            assert connection.execute("select count(*) from writer.pushers").fetchone() == (0,)
            assert connection.execute("select count(*) from notifications.pushes").fetchone() == (0,)


async def test_a_gateway_inside_the_network_is_never_asked(here: ProjectedWorld) -> None:
    async with gateway() as one:
        room = await here.world.room(ALICE)
        await here.world.join(room, BOB)
        set_pusher(here, BOB, one.url)
        set_pusher(here, BOB, one.url.replace("127.0.0.1", "localhost"), "by name")
        await here.world.say(room, ALICE, "x")
        await push(here, Guard())
        assert one.taken == []


async def test_nothing_from_before_the_pusher_was_there_or_of_long_ago_is_pushed(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    await here.world.say(room, ALICE, "before")
    await here.settle()
    async with gateway() as one:
        set_pusher(here, BOB, one.url)
        await push(here)
        assert one.taken == []


async def test_what_waits_for_a_gateway_that_is_gone_is_bounded_and_the_latest_stays(here: ProjectedWorld) -> None:
    room = await here.world.room(ALICE)
    await here.world.join(room, BOB)
    async with gateway() as one:
        one.status = 500
        for key in ("first", "second"):
            set_pusher(here, BOB, one.url, key)
        for number in range(5):
            await here.world.say(room, ALICE, f"{number}")
        await push(here)
        with psycopg.connect(here.dsn, autocommit=True) as connection:
            assert connection.execute("select count(*) from notifications.pushes").fetchone() == (10,)
            connection.execute(SQL["sweep"], {"most": 2})
            connection.execute("update notifications.pushes set due_at = now()")
        one.status = 200
        await push(here)
        told = sorted((told["devices"][0]["pushkey"], told["content"]["body"]) for told in one.taken)
        assert told == [("first", "3"), ("first", "4"), ("second", "3"), ("second", "4")]

"""Lost slots, cut connections, other processes, other epochs: clients are told everything once all the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from sync_world import Client, World, caught_up, settings_of, sync_process, user, world

from matrix.errors import MatrixError
from readers.sync.service import SyncService

pytestmark = pytest.mark.postgres

ALICE, BOB = user("alice"), user("bob")


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


async def streaming(service: SyncService) -> None:
    for _ in range(1000):
        if service.feed.streaming:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the stream did not begin")


async def talk(here: World, room: str, client: Client, bodies: list[str]) -> list[str]:
    """Says things while the client polls; what it heard."""
    heard: list[str] = []

    async def listen() -> None:
        while len(heard) < len(bodies):
            await client.sync(5)
            if "rooms" in client.last:
                heard.extend(client.bodies(room))

    listening = asyncio.create_task(listen())
    for body in bodies:
        await here.say(room, ALICE, body)
        await asyncio.sleep(0.02)
    await asyncio.wait_for(listening, 20)
    return heard


async def test_nothing_is_lost_or_told_twice_when_the_stream_and_the_slot_are_gone(
    here: World, provisioned: str
) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    await streaming(here.sync)
    first = [f"a{n}" for n in range(10)]
    assert await talk(here, room, client, first) == first
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots where temporary and active_pid is not null"
            " and database = current_database()"
        )
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name like '%_outputs'"
            " and database = current_database()"
        )
    before = here.sync.feed.from_tables
    second = [f"b{n}" for n in range(20)]
    assert await talk(here, room, client, second) == second
    assert here.sync.feed.from_tables > before


async def test_every_connection_may_be_cut_at_once(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    waiting = asyncio.create_task(client.sync(20))
    await asyncio.sleep(0.05)
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() and (application_name like 'walden reader%' or backend_type = 'walsender')"
        )
    await here.say(room, ALICE, "still here")
    await asyncio.wait_for(waiting, 15)
    assert client.bodies(room) == ["still here"]


async def test_a_waiter_whose_client_goes_away_is_released(here: World) -> None:
    client = Client(here.sync, ALICE)
    await client.settle()
    ends = []

    from readers.sync.request import SyncRequest

    request = SyncRequest(ALICE, "DEVICE", await here.sync.shape(ALICE, "", False), client.since, 30.0)
    waiting = asyncio.create_task(here.sync.sync(request, lambda end: ends.append(end) or (lambda: None)))
    await asyncio.sleep(0.05)
    ends[0]()
    await asyncio.wait_for(waiting, 1)
    subject = here.sync.current.users.get(ALICE)
    assert subject is not None and not subject.waiters


async def test_what_is_decoded_but_not_committed_everywhere_is_told_to_nobody(here: World) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE)
    await client.settle()
    await streaming(here.sync)
    head = here.sync._head
    look, standing = head._look, list(head.positions)

    async def blind(*_: object, **__: object) -> None:
        head._looked_at = 0.0

    head._look = blind  # type: ignore[method-assign]
    hear, head._take = head._take, lambda _: False  # type: ignore[method-assign]
    try:
        await here.say(room, ALICE, "early")
        for _ in range(200):
            # It is left in the socket for a while, as nothing says that it is of use.
            if here.sync.feed._ready[0]:
                break
            await asyncio.sleep(0.05)
        assert here.sync.feed._ready[0], "the stream has brought it"
        assert "rooms" not in await client.sync(0.1)
        assert here.sync.feed.positions == standing
    finally:
        head._look = look  # type: ignore[method-assign]
        head._take = hear  # type: ignore[method-assign]
    await client.sync(10)
    assert client.bodies(room) == ["early"]


async def test_a_token_of_another_process_is_waited_for(here: World) -> None:
    room = await here.room(ALICE)
    async with sync_process(here.settings) as other:
        one, two = Client(here.sync, ALICE), Client(other, ALICE)
        await one.settle()
        await here.say(room, ALICE, "x")
        await one.sync(5)
        two.since = one.since
        await two.sync(0.1)
        assert "rooms" not in two.last
        assert two.since == one.since


async def test_tokens_that_are_none_are_refused(here: World) -> None:
    client = Client(here.sync, ALICE)
    for text in ("x", "w1_", "s1_2", "w1_abc_1.2", "w1_abc_-1"):
        with pytest.raises(MatrixError) as refused:
            await client.sync(since=text)
        assert refused.value.errcode == "M_INVALID_PARAM"


async def test_a_token_of_an_abandoned_future_leads_to_the_present_without_gap_or_loop(
    here: World, provisioned: str
) -> None:
    room = await here.room(ALICE)
    client = Client(here.sync, ALICE)
    await client.settle()
    epoch, position = client.since.split("_")[1:]
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute(
            "insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)"
            " values ('feed', %s, %s, 'x', 1, 'recover')",
            [epoch, [int(position)]],
        )
        connection.execute("update eventlog.positions set epoch = 'feed'")
    await here.say(room, ALICE, "new history")
    await asyncio.sleep(0.1)
    for since in (f"w1_{epoch}_{int(position) + 5}", "w1_nobodyknows_3", f"w1_feed_{int(position) + 100000}"):
        fresh = Client(here.sync, ALICE)
        await fresh.sync(since=since)
        assert fresh.since.startswith("w1_feed_")
        assert fresh.rooms[room].state == client.rooms[room].state
        assert fresh.bodies(room)[-1:] == ["new history"]
        assert "rooms" not in await fresh.sync()
    still = Client(here.sync, ALICE)
    await still.sync(since=f"w1_{epoch}_{position}")
    assert still.bodies(room) == ["new history"]
    assert still.room(room)["timeline"]["limited"] is False


async def test_whoever_waits_while_the_database_goes_back_is_told_its_present(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    await here.say(room, ALICE, "lost")
    client = Client(here.sync, BOB)
    await client.settle()
    epoch, position = client.since.split("_")[1:]
    waiting = asyncio.create_task(client.sync(20))
    await asyncio.sleep(0.05)
    with psycopg.connect(provisioned, autocommit=True) as connection:
        # What a restore by some positions leaves behind, as far as readers can see: positions and a new epoch.
        connection.execute(
            "insert into eventlog.epochs (epoch, parent, forked_at, system_identifier, timeline, reason)"
            " values ('cafe', %s, %s, 'x', 1, 'recover')",
            [epoch, [int(position) - 1]],
        )
        connection.execute("update eventlog.positions set epoch = 'cafe', position = position - 1")
    await asyncio.wait_for(waiting, 10)
    assert client.since == f"w1_cafe_{int(position) - 1}"
    assert client.room(room)["timeline"]["events"]
    waiting = asyncio.create_task(client.sync(0.3))
    assert "rooms" not in await waiting


async def test_an_output_that_cannot_be_applied_costs_the_caches_and_nothing_else(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    await streaming(here.sync)
    former = here.sync.current

    def fail(_: object) -> None:
        raise AttributeError("nobody thought of this")

    former._apply_event = fail  # type: ignore[method-assign]
    waiting = asyncio.create_task(client.sync(20))
    await asyncio.sleep(0.05)
    await here.say(room, ALICE, "unthinkable")
    await asyncio.wait_for(waiting, 10)
    assert client.bodies(room) == ["unthinkable"]
    assert here.sync.current is not former
    waiting = asyncio.create_task(client.sync(20))
    await asyncio.sleep(0.05)
    await here.say(room, ALICE, "ordinary")
    await asyncio.wait_for(waiting, 10)
    assert client.bodies(room) == ["ordinary"]


async def test_what_happens_while_an_up_to_date_users_rooms_are_read_is_told(here: World) -> None:
    room = await here.room(ALICE)
    await here.join(room, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    async with sync_process(here.settings) as other:
        # A process that has not seen the user before, asked with a token that is as new as what it has applied.
        client.service = other
        assert client.since == other._token
        rows = other.rows

        async def rows_and_then_news(query: str, **parameters: object) -> list[tuple[object, ...]]:
            found = await rows(query, **parameters)
            if query == "rooms_of_user":
                await here.say(room, ALICE, "meanwhile")
                await caught_up(other)
            return found

        other.rows = rows_and_then_news  # type: ignore[method-assign]
        await client.sync(0.05)
        assert client.bodies(room) == ["meanwhile"]


async def test_a_process_that_begins_later_knows_who_types_and_tells_when_they_stop(here: World) -> None:
    room, other = await here.room(ALICE), await here.room(ALICE)
    await here.join(room, BOB)
    await here.join(other, BOB)
    client = Client(here.sync, BOB)
    await client.settle()
    await here.writer.typing(room, ALICE, True, 300)
    await here.writer.typing(other, ALICE, True, 100_000)
    while client.rooms[other].typing != [ALICE]:
        await client.sync(10)
    # Also if it has run out by now, on a slow machine.
    client.rooms[room].typing = [ALICE]
    async with sync_process(here.settings) as later:
        newcomer = Client(later, BOB, "NEW")
        await newcomer.sync()
        assert newcomer.rooms[other].typing == [ALICE]
        client.service = later
        while client.rooms[room].typing:
            await client.sync(10)
        assert client.rooms[other].typing == [ALICE]
        # Something has left the log, and this process begins anew.
        await here.writer.append_entry(type="scrub", user_id=ALICE, content={"user_id": ALICE})
        await here.writer.typing(other, ALICE, False, 0)
        while client.rooms[other].typing:
            await client.sync(10)

"""The follower applies every output exactly once, whatever is killed, lost, overtaken or broken."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import psycopg
import pytest
from projected_tables import rows
from projected_world import ProjectedWorld, dsn_of, projected
from psycopg import AsyncConnection
from sync_world import World, settings_of, user, world

from bin.rebuilding import refill
from eventlog.settings import PROJECTIONS
from matrix.errors import MatrixError
from matrix.push_rules import PushRuleset
from readers.follower import Follower, Judged, Overtaken, Projection
from readers.projections import follower

pytestmark = pytest.mark.postgres

ALICE, BOB = user("alice"), user("bob")


class Tally:
    """A projection that counts each output's applications, in a table of the test's own."""

    name = "search"

    def __init__(self, poison: Callable[[Judged], bool] = lambda _: False) -> None:
        self.poison = poison
        self.batches: list[int] = []

    async def begin(self, connection: AsyncConnection) -> None:
        await connection.execute("create temporary table if not exists unused (x int)")

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        await connection.execute(
            "insert into public.tally select unnest(%s::bigint[])", [[output.position for output in outputs]]
        )
        if any(map(self.poison, outputs)):
            raise ValueError("poison")
        self.batches.append(len(outputs))

    async def clear(self, connection: AsyncConnection) -> None:
        await connection.execute("delete from public.tally")

    async def tidy(self, connection: AsyncConnection) -> None:
        pass


@pytest.fixture
async def here(provisioned: str, tmp_path: Path) -> AsyncIterator[World]:
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute("create table public.tally (position bigint)")
        connection.execute("grant all on public.tally to public")
    async with world(settings_of(provisioned, tmp_path)) as made:
        yield made


def applied(dsn: str) -> list[int]:
    with psycopg.connect(dsn) as connection:
        return [position for (position,) in connection.execute("select position from public.tally order by 1")]


def head(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select position from eventlog.positions where component = 'roomserver'").fetchone()
    assert row is not None
    return int(row[0])


def places(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as connection:
        return dict(
            connection.execute(
                "select component, position from eventlog.positions where component <> 'roomserver'"
            ).fetchall()
        )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the database has no event to wait for
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def following(dsn: str, *projections: Projection) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(Follower("test", dsn, projections, share=1.0).run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_there_and_what_comes_is_applied_once_across_restarts(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    async with following(dsn_of(here), Tally()):
        await until(lambda: applied(provisioned) == list(range(1, head(provisioned) + 1)))
    for number in range(5):
        await here.say(room, ALICE, f"{number}")
    async with following(dsn_of(here), Tally()):
        await here.say(room, ALICE, "and another")
        await until(lambda: applied(provisioned) == list(range(1, head(provisioned) + 1)))


async def test_sessions_that_are_killed_in_the_middle_leave_nothing_out_and_nothing_twice(
    here: World, provisioned: str
) -> None:
    room = await here.room(ALICE)
    async with following(dsn_of(here), Tally()) as task:
        with psycopg.connect(provisioned, autocommit=True) as connection:
            for number in range(12):
                await here.say(room, ALICE, f"{number}")
                if number % 3 == 1:
                    connection.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'walden reader'"
                        " and datname = current_database()"
                    )
        await until(lambda: applied(provisioned) == list(range(1, head(provisioned) + 1)))
        assert not task.done()


async def test_a_second_one_stands_by_and_takes_over(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    first, second = Tally(), Tally()
    async with following(dsn_of(here), second), contextlib.AsyncExitStack() as stack:
        await until(lambda: bool(second.batches))
        await stack.enter_async_context(following(dsn_of(here), first))
        await here.say(room, ALICE, "one")
        await until(lambda: applied(provisioned) == list(range(1, head(provisioned) + 1)))
        assert first.batches == []
    async with following(dsn_of(here), first):
        await here.say(room, ALICE, "two")
        await until(lambda: applied(provisioned) == list(range(1, head(provisioned) + 1)))
        assert first.batches


async def test_whoever_finds_the_position_elsewhere_changes_nothing(here: World, provisioned: str) -> None:
    await here.room(ALICE)
    one = Follower("test", dsn_of(here), [Tally()])
    async with await AsyncConnection.connect(dsn_of(here), autocommit=True) as connection:
        await one.take(connection)
        with psycopg.connect(provisioned, autocommit=True) as other:
            other.execute("update eventlog.positions set position = 2 where component = 'search'")
        with pytest.raises(Overtaken):
            await one.step(connection)
        assert applied(provisioned) == []
        await one.take(connection)
        await one.step(connection)
        assert applied(provisioned) == list(range(3, head(provisioned) + 1))


async def test_an_output_that_breaks_a_projection_is_left_out_and_no_other(here: World, provisioned: str) -> None:
    room = await here.room(ALICE)
    poison = await here.say(room, ALICE, "poison")
    for number in range(4):
        await here.say(room, ALICE, f"{number}")
    async with following(dsn_of(here), Tally(lambda output: output.event_id == poison.event_id)):
        await until(lambda: max(applied(provisioned), default=0) == head(provisioned))
        assert set(range(1, head(provisioned) + 1)) - set(applied(provisioned)) == {poison.position}
        assert len(applied(provisioned)) == head(provisioned) - 1


class Broken(Tally):
    """Another, that breaks on every output."""

    name = "userdirectory"

    async def apply(self, connection: AsyncConnection, outputs: Sequence[Judged]) -> None:
        await connection.execute("insert into public.tally values (-1)")
        raise ValueError("poison")


@pytest.mark.slow
async def test_a_projection_that_breaks_takes_nothing_from_those_that_share_its_transaction(
    here: World, provisioned: str
) -> None:
    room = await here.room(ALICE)
    for number in range(4):
        await here.say(room, ALICE, f"{number}")
    async with following(dsn_of(here), Tally(), Broken()):
        await until(lambda: len(applied(provisioned)) == head(provisioned))
        await until(lambda: places(provisioned) == {"search": head(provisioned), "userdirectory": head(provisioned)})
    assert applied(provisioned) == list(range(1, head(provisioned) + 1))


ACTIONS = ("say", "say", "mention", "thread", "join", "leave", "redact", "name", "topic", "open")


async def act(
    here: ProjectedWorld, rooms: list[str], sent: dict[str, list[str]], kind: str, who: int, where: int
) -> None:
    actor, room = user(f"u{who}"), rooms[where % len(rooms)]
    target = sent[room][(who * 7 + where) % len(sent[room])] if sent[room] else None
    try:
        if kind == "say":
            sent[room].append((await here.world.say(room, actor, f"words {who} of {where}")).event_id)
        elif kind == "mention":
            content = {"msgtype": "m.text", "body": "hey", "m.mentions": {"user_ids": [user(f"u{where}")]}}
            sent[room].append((await here.world.event(room, actor, "m.room.message", content)).event_id)
        elif kind == "thread" and target is not None:
            relation = {"rel_type": "m.thread", "event_id": target}
            content = {"msgtype": "m.text", "body": "reply", "m.relates_to": relation}
            sent[room].append((await here.world.event(room, actor, "m.room.message", content)).event_id)
        elif kind == "join":
            await here.world.join(room, actor)
        elif kind == "leave":
            await here.world.leave(room, actor)
        elif kind == "redact" and target is not None:
            await here.world.event(room, user("u0"), "m.room.redaction", {}, redacts=target)
        elif kind == "name":
            await here.profile(actor, "displayname", f"Name {where}")
        elif kind == "topic":
            await here.world.event(room, actor, "m.room.topic", {"topic": f"topic {where}"}, state_key="")
        elif kind == "open":
            rule = "public" if where % 2 else "invite"
            await here.world.event(room, user("u0"), "m.room.join_rules", {"join_rule": rule}, state_key="")
    except MatrixError as error:
        assert error.status in (400, 403), error


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_projection_after_replay_equals_the_one_rebuilt(
    provisioned: str, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    async with projected(provisioned, tmp_path) as here:
        quiet = PushRuleset().put("content", "w", {"actions": [], "pattern": "words"})
        await here.world.account_data(user("u3"), "m.push_rules", quiet.stored())
        rooms = [await here.world.room(user("u0")) for _ in range(2)]
        await here.world.join(rooms[0], *(user(f"u{n}") for n in range(1, 4)))
        sent: dict[str, list[str]] = {room: [] for room in rooms}
        for _ in range(60):
            await act(here, rooms, sent, dice.choice(ACTIONS), dice.randrange(4), dice.randrange(4))
        await here.settle()
        kept = rows(provisioned)
        assert all(kept)
        said: list[str] = []
        for name in PROJECTIONS:
            await refill(here.world.settings, name, said.append)
        await here.settle()
        assert rows(provisioned) == kept
        assert said[-1].startswith("notifications: ") and said[-1].endswith("(100 %)")


async def test_a_reader_that_is_dead_for_a_while_takes_in_what_came_meanwhile(provisioned: str, tmp_path: Path) -> None:
    async with world(settings_of(provisioned, tmp_path)) as here:
        room = await here.room(ALICE)
        for number in range(3):
            await here.say(room, ALICE, f"frog {number}")
        task = asyncio.create_task(follower(here.settings, PROJECTIONS, share=1.0).run())
        try:
            await until(lambda: len(rows(provisioned)[0]) == 3)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

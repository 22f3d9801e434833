"""What leaves the log leaves a gap and nothing else: rooms go on, projections rebuild, and each time there is a record."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import psycopg
import pytest
from judged_rooms import Log, Room
from local_rooms import Talk, talk
from psycopg import AsyncConnection
from random_life import Life
from running_roomserver import running, settings_for

from eventlog.settings import Retention
from readers.retention import partitions
from readers.retention.partitions import drop_expired, expired
from readers.retention.policies import Policies, bounded
from readers.retention.purging import Refused, erase_user, purge_history, purge_room
from readers.retention.record import Busy, alone
from readers.retention.rounds import go_round, look_ahead
from readers.retention.scrubbing import scrub_redactions
from roomserver.projections import differences
from writer.drafts import Draft

pytestmark = pytest.mark.postgres

FOR_EVER = Policies(0.0, ())
# The present partition has expired when forty days from now is the limit.
ALL = -40.0
SETTINGS = Retention(0.0, True, 0.0, 0.0, 0.0, 0.0)


@pytest.fixture
async def owner(provisioned: str) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        yield connection


async def rows(connection: AsyncConnection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query, parameters, prepare=False)).fetchall()  # type: ignore[call-overload,no-any-return]


async def number(connection: AsyncConnection, query: str, *parameters: Any) -> int:
    ((found,),) = await rows(connection, query, *parameters)
    return int(found)


async def say(t: Talk, room: str, count: int, **more: Any) -> list[str]:
    return [(await t.writer.send([t.message(room, f"number {n}", **more)]))[0].event_id or "" for n in range(count)]


async def last_state(connection: AsyncConnection) -> list[tuple[Any, ...]]:
    return await rows(connection, "select * from roomserver.state order by room, line, type, state_key, valid_from")


@pytest.mark.parametrize("seed", [4, 5])
async def test_rooms_go_on_and_projections_rebuild_after_everything_old_was_dropped(
    seed: int, provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        life = Life(t, seed)
        await life.live(150)
        before = await last_state(owner)
        messages = await number(owner, "select count(*) from eventlog.events where kind = 'm'")
        keys = await number(owner, "select count(*) from eventlog.event_keys")
        for kind in "mu":
            record = await drop_expired(owner, kind, ALL, FOR_EVER)
            assert record is not None
            assert record.events > 5
            assert record.bytes > 8192
        kept = await number(owner, "select count(*) from eventlog.events where kind = 'm'")
        assert 0 < kept < messages
        assert await number(owner, "select count(*) from eventlog.event_keys") == keys - (messages - kept)
        assert await last_state(owner) == before
        assert await differences(owner) == []
        await life.live(60)
        assert await differences(owner) == []
        # Once more, with what was kept the first time.
        assert await drop_expired(owner, "m", 2 * ALL, FOR_EVER) is not None
        assert await differences(owner) == []
        await life.live(20)
    assert await differences(owner) == []
    assert await rows(owner, "select name from eventlog.retired()") == []
    recorded = await rows(
        owner,
        "select subject, requested_by, events > 0, bytes > 0, ended_at is not null from eventlog.erasures order by id",
    )
    assert recorded[:2] == [(name, "maintenance", True, True, True) for name in ("messages", "user entries")]


async def test_what_is_dropped_is_off_the_disk(provisioned: str, owner: AsyncConnection, tmp_path: Path) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        room = await t.room()
        for _ in range(40):
            await t.writer.send([t.message(room, secrets.token_hex(1000)) for _ in range(25)])
        size = await number(owner, "select pg_database_size(current_database())")
        record = await drop_expired(owner, "m", ALL, FOR_EVER)
        assert record is not None
        assert (record.events, record.kept) == (999, 1)
        assert record.bytes > 2_000_000
        assert await number(owner, "select pg_database_size(current_database())") < size - record.bytes * 0.9


async def test_an_open_read_keeps_the_partition_and_stops_no_sender(
    provisioned: str,
    owner: AsyncConnection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    figures: Callable[[str], None],
) -> None:
    monkeypatch.setattr(partitions, "PAUSE", 0.01)
    monkeypatch.setattr(partitions, "ATTEMPTS", 10)
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        room = await t.room()
        await say(t, room, 20)
        async with await AsyncConnection.connect(provisioned) as analyst:
            assert await number(analyst, "select count(*) from eventlog.events") > 20
            trying = asyncio.create_task(drop_expired(owner, "m", ALL, FOR_EVER))
            probing = asyncio.create_task(_longest_lock(provisioned, trying))
            sent = 0
            while not trying.done():
                await say(t, room, 1)
                sent += 1
            assert await trying is None
            figures(f"retention: longest wait of an INSERT beside an open read {await probing * 1000:.0f} ms")
            assert sent
            assert await number(analyst, "select count(*) from eventlog.events where kind = 'm'") >= 20
        trying = asyncio.create_task(drop_expired(owner, "m", ALL, FOR_EVER))
        figures(
            f"retention: longest wait of an INSERT while dropping {await _longest_lock(provisioned, trying) * 1000:.0f} ms"
        )
        assert await trying is not None
    assert await number(owner, "select count(*) from eventlog.events where kind = 'm'") == 1
    # Of both attempts there is one record: the second took up what the first began.
    assert await number(owner, "select count(*) from eventlog.erasures") == 1


async def test_rows_that_came_without_a_partition_leave_nothing_behind_either(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    with Log(provisioned) as log:
        # In a time that no partition is there for.
        room = Room(log, "@alice:test.example")
        for n in range(10):
            room.message("@alice:test.example", f"{n}")
        log.commit()
    assert await number(owner, "select count(*) from eventlog.events_m_default") == 10
    assert await drop_expired(owner, "m", ALL, FOR_EVER) is not None
    assert await number(owner, "select count(*) from eventlog.events_m_default") == 0
    assert await number(owner, "select count(*) from eventlog.events where kind = 'm'") == 1
    assert await number(owner, "select count(*) from eventlog.event_keys") == 4 + 1
    assert await rows(owner, "select name from eventlog.retired()") == []


async def test_a_partition_waits_for_every_consumer(provisioned: str, owner: AsyncConnection, tmp_path: Path) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        await say(t, await t.room(), 5)
    await owner.execute(
        "insert into eventlog.positions (component, shard, position, lsn, epoch)"
        " select 'slow', shard, position - 1, lsn, epoch from eventlog.positions where component = 'roomserver'"
    )
    assert await drop_expired(owner, "m", ALL, FOR_EVER) is None
    ((waits,),) = [(one.waits_for,) for one in await expired(owner, "m", ALL)]
    assert waits is not None and "slow" in waits
    await owner.execute("update eventlog.positions set position = position + 1 where component = 'slow'")
    assert await drop_expired(owner, "m", ALL, FOR_EVER) is not None


async def _longest_lock(dsn: str, during: asyncio.Task[Any]) -> float:
    """Seconds that the lock of an INSERT took at most, taken again and again."""
    longest = 0.0
    async with await AsyncConnection.connect(dsn, autocommit=True) as probe:
        while not during.done():
            async with probe.transaction():
                began = time.perf_counter()
                await probe.execute("lock table eventlog.events_m, eventlog.outputs_m in row exclusive mode")
                longest = max(longest, time.perf_counter() - began)
    return longest


async def test_a_partition_waits_for_what_nobody_judged(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        await say(t, await t.room(), 1)
    await owner.execute(
        "insert into eventlog.events (id, kind, shard, type, sender, json)"
        " values (eventlog.next_id(), 'm', 0, 'm.room.message', '@a:b', '{}')"
    )
    assert await drop_expired(owner, "m", ALL, FOR_EVER) is None
    assert await number(owner, "select count(*) from eventlog.events where kind = 'm'") == 2


async def test_rooms_that_keep_longer_lose_nothing(provisioned: str, owner: AsyncConnection, tmp_path: Path) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        short, long = await t.room(), await t.room()
        lifetime = {"max_lifetime": 1000 * 86_400_000}
        await t.writer.send([Draft(long, t.user, "m.room.retention", lifetime, "")])
        for room in (short, long):
            await say(t, room, 10)
        settings = replace(SETTINGS, message_days=1.0)
        from readers.retention.policies import read_policies

        policies = await read_policies(owner, settings)
        assert [(one.room_id, one.days) for one in policies.rooms] == [(long, 1000.0)]
        assert await drop_expired(owner, "m", ALL, policies) is not None
    left = dict(await rows(owner, "select room_id, count(*) from eventlog.events where kind = 'm' group by room_id"))
    assert left == {short: 1, long: 10}
    assert await differences(owner) == []


async def test_a_rooms_own_policy_lets_its_old_messages_go(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        policed, other = await t.room(), await t.room()
        await t.writer.send([Draft(policed, t.user, "m.room.retention", {"max_lifetime": 1}, "")])
        for room in (policed, other):
            await say(t, room, 10)
        done = await go_round(owner, SETTINGS)
        assert done.by_policy == 9
        left = dict(
            await rows(owner, "select room_id, count(*) from eventlog.events where kind = 'm' group by room_id")
        )
        assert left == {policed: 1, other: 10}
        assert await differences(owner) == []
        await say(t, policed, 5)
    assert await differences(owner) == []
    assert await rows(owner, "select action, subject, events, requested_by from eventlog.erasures") == [
        ("policy", policed, 9, "maintenance")
    ]


@pytest.mark.parametrize(("days", "counts"), [(0.5, 2.0), (5.0, 5.0), (50.0, 30.0)])
def test_what_a_room_asks_for_is_held_within_the_servers_bounds(days: float, counts: float) -> None:
    assert bounded(days, replace(SETTINGS, room_minimum_days=2.0, room_maximum_days=30.0)) == counts
    assert bounded(days, SETTINGS) == days


async def test_history_is_purged_before_a_time_and_the_room_goes_on(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        room = await t.room()
        await say(t, room, 300)
        # Ids of entries have milliseconds.
        await asyncio.sleep(0.01)
        ((moment,),) = await rows(owner, "select now()")
        await asyncio.sleep(0.01)
        await say(t, room, 5)
        before = await last_state(owner)
        assert await purge_history(owner, room, moment, "dba", dry_run=True) == (300, 0)
        assert await number(owner, "select count(*) from eventlog.events where kind = 'm'") == 305
        assert await purge_history(owner, room, moment, "dba", dry_run=False) == (300, 0)
        assert await number(owner, "select count(*) from eventlog.events where kind = 'm'") == 5
        assert await last_state(owner) == before
        assert await differences(owner) == []
        await say(t, room, 5)
        with pytest.raises(Refused, match="not known"):
            await purge_history(owner, "!none:test.example", moment, "dba", dry_run=True)
    assert await differences(owner) == []
    assert await rows(owner, "select action, subject, requested_by, events from eventlog.erasures") == [
        ("history", room, "dba", 300)
    ]


async def test_a_room_is_purged_as_a_whole_and_no_other_is_touched(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        life = Life(t, 6)
        await life.live(60)
        room, other = await t.room(), await t.room()
        await say(t, room, 250)
        await say(t, other, 3)
        with pytest.raises(Refused, match="1 of this server"):
            await purge_room(owner, room, "test.example", "dba", dry_run=False)
        await t.writer.send([Draft(room, t.user, "m.room.member", {"membership": "leave"}, t.user)])
        counts = await purge_room(owner, room, "test.example", "dba", dry_run=True)
        assert counts == {"s": 5, "m": 250}
        assert await number(owner, "select count(*) from eventlog.events where room_id = %s", room) == 255
        await purge_room(owner, room, "test.example", "dba", dry_run=False)
        for table in ("eventlog.events", "eventlog.tips", "roomserver.rooms"):
            assert await number(owner, f"select count(*) from {table} where room_id = %s", room) == 0
        assert await differences(owner) == []
        await say(t, other, 3)
        with pytest.raises(Refused, match="not known"):
            await purge_room(owner, room, "test.example", "dba", dry_run=True)
    assert await differences(owner) == []


async def test_redacted_content_is_scrubbed_after_its_delay_and_nothing_else_is(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        room = await t.room()
        secret, plain = await say(t, room, 2)
        topic = await t.writer.send([Draft(room, t.user, "m.room.topic", {"topic": "a secret topic"}, "")])
        await t.writer.send([Draft(room, t.user, "m.room.topic", {"topic": "harmless"}, "")])
        for target in (secret, topic[0].event_id):
            await t.writer.send([Draft(room, t.user, "m.room.redaction", {"redacts": target})])
    before = await last_state(owner)
    assert await scrub_redactions(owner, replace(SETTINGS, redacted_days=1.0)) == 0
    assert await number(owner, "select count(*) from eventlog.outputs where annotation like '%%a secret topic%%'") == 1
    # What was redacted in the hour to come has been long enough.
    hour = -1 / 24
    assert (await look_ahead(owner, replace(SETTINGS, redacted_days=hour))).unscrubbed == 2
    assert await scrub_redactions(owner, replace(SETTINGS, redacted_days=hour)) == 2
    contents = dict(await rows(owner, "select event_id, json::json -> 'content' from eventlog.events where kind = 'm'"))
    assert contents[secret] == {}
    assert contents[plain]["body"] == "number 1"
    assert await number(owner, "select count(*) from eventlog.events where json like '%%a secret topic%%'") == 0
    assert await number(owner, "select count(*) from eventlog.outputs where annotation like '%%a secret topic%%'") == 0
    assert await last_state(owner) == before
    assert await differences(owner) == []
    assert await scrub_redactions(owner, replace(SETTINGS, redacted_days=hour)) == 0
    assert await rows(owner, "select action, events from eventlog.erasures") == [("redactions", 2)]


async def test_an_erased_user_is_in_the_rooms_and_says_nothing(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    alice = "@alice:test.example"
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        life = Life(t, 7)
        await life.live(60)
        room = await t.room()
        await t.writer.send(
            [Draft(room, alice, "m.room.member", {"membership": "join", "displayname": "Alice W."}, alice)]
        )
        await say(t, room, 10, sender=alice)
        theirs = await say(t, room, 3)
        before = await last_state(owner)
        await owner.execute("insert into writer.accounts (user_id) values (%s)", [alice])
        with pytest.raises(Refused, match="in use"):
            await erase_user(owner, alice, "dba", dry_run=False)
        await owner.execute("update writer.accounts set deactivated_at = now()")
        assert (await erase_user(owner, alice, "dba", dry_run=True))["m"] == 10
        assert await number(owner, "select count(*) from eventlog.events where json like '%%Alice W.%%'") == 1
        await erase_user(owner, alice, "dba", dry_run=False)
        assert await number(owner, "select count(*) from eventlog.events where json like '%%Alice W.%%'") == 0
        said = await rows(
            owner, "select json::json ->> 'content' from eventlog.events where kind = 'm' and sender = %s", alice
        )
        assert said == [("{}",)] * 10
        assert await last_state(owner) == before
        assert await differences(owner) == []
        ((left,),) = await rows(owner, "select json from eventlog.events where event_id = %s", theirs[0])
        assert orjson.loads(left)["content"]["body"] == "number 0"
        await say(t, room, 2)
    assert await differences(owner) == []
    assert await rows(owner, "select action, subject, requested_by, ended_at is null from eventlog.erasures") == [
        ("user", alice, "dba", False)
    ]


async def test_two_do_not_take_things_out_at_once(provisioned: str, owner: AsyncConnection) -> None:
    async with alone(owner), await AsyncConnection.connect(provisioned, autocommit=True) as other:
        with pytest.raises(Busy):
            await go_round(other, SETTINGS)
    await go_round(owner, SETTINGS)


async def test_what_a_killed_run_took_out_is_dropped_by_the_next(
    provisioned: str, owner: AsyncConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        await say(t, await t.room(), 20)

    async def killed(*_: object) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(partitions, "finish", killed)
    with pytest.raises(RuntimeError):
        await drop_expired(owner, "m", ALL, FOR_EVER)
    monkeypatch.undo()
    assert len(await rows(owner, "select name from eventlog.retired()")) == 4
    assert await differences(owner) == []
    await go_round(owner, SETTINGS)
    assert await rows(owner, "select name from eventlog.retired()") == []
    assert await rows(owner, "select events, kept, ended_at is null from eventlog.erasures") == [(19, 1, False)]
    assert await number(owner, "select count(*) from eventlog.event_keys") == 4 + 1


async def test_the_maintenance_login_has_the_rights_for_all_of_it(
    provisioned: str, owner: AsyncConnection, tmp_path: Path
) -> None:
    async with running(settings_for(provisioned, tmp_path)), talk(settings_for(provisioned, tmp_path)) as t:
        room = await t.room()
        await say(t, room, 5)
        await t.writer.send([Draft(room, t.user, "m.room.member", {"membership": "leave"}, t.user)])
    await owner.execute("set role walden_maintenance")
    assert await drop_expired(owner, "m", ALL, FOR_EVER) is not None
    await go_round(owner, Retention(1.0, True, 0.0, 0.0, 1.0, 1.0))
    await purge_history(owner, room, datetime.now(UTC) + timedelta(hours=1), "dba", dry_run=False)
    await erase_user(owner, t.user, "dba", dry_run=False)
    await purge_room(owner, room, "test.example", "dba", dry_run=False)


@pytest.mark.parametrize("role", ["walden_writer", "walden_roomserver", "walden_reader", "walden_history"])
async def test_nobody_else_has(owner: AsyncConnection, role: str) -> None:
    await owner.execute(f"set role {role}")  # type: ignore[arg-type]
    for call in (
        "eventlog.retire('m', 0, '{}')",
        "eventlog.scrub('{}', '{}')",
        "eventlog.remove_entries('m', '{}')",
        "roomserver.purge_room('!a:b', 1)",
        "roomserver.purge_user('@a:b')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await owner.execute(f"select {call}")  # type: ignore[arg-type]

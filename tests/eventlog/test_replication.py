"""The subscriber on real servers, with connections that are cut and stalled and consumers that are slow."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from clusters import Cluster
from proxy import Proxy
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from replicated_log import ENTRIES, Log, eventually, log_on

from eventlog.faults import Interrupted, Misconfigured, Retries
from eventlog.handshake import SETUP, History, Setup, Subscription
from eventlog.heartbeat import PREFIX
from eventlog.pgoutput import UNCHANGED, Column, Commit, Delete, Message, Row, Truncate, Update
from eventlog.replication import Batch, Subscriber
from eventlog.slots import Loss, SlotActive, SlotLost, SlotName, drop_slot

pytestmark = pytest.mark.postgres


def impatient(dsn: str, milliseconds: int, **more: Any) -> str:
    """The DSN with a wal_sender_timeout of its own."""
    return make_conninfo(dsn, options=f"-c wal_sender_timeout={milliseconds}", **more)


async def take(subscriber: Subscriber, rows: int, **limits: Any) -> list[Batch]:
    """Batches, each confirmed, until that many rows have come."""
    batches: list[Batch] = []
    async with asyncio.timeout(30):
        async for batch in subscriber.batches(**limits):
            subscriber.confirm(batch.end_lsn)
            if batch.items:
                batches.append(batch)
            rows -= batch.rows
            if rows <= 0:
                break
    return batches


def ids(batches: list[Batch]) -> list[int]:
    return [row.values[0] for batch in batches for item in batch.items if isinstance(item, Commit) for row in item.rows]


@pytest.fixture
async def proxy(log: Log) -> AsyncIterator[Proxy]:
    async with Proxy(log.cluster.socket_path) as made:
        yield made


def through(proxy: Proxy, log: Log, milliseconds: int = 60_000) -> str:
    return impatient(log.dsn, milliseconds, host="127.0.0.1", port=str(proxy.port))


async def test_transactions_come_whole_in_commit_order_and_messages_between_them(log: Log) -> None:
    async with log.subscriber() as subscriber:
        await log.append("a", None)
        await log.connection.execute("select pg_logical_emit_message(false, 'typing', '\\x00ff'::bytea)")
        await log.append("ü\n")
        batches = await take(subscriber, 4)
    first, message, second = [item for batch in batches for item in batch.items]
    assert isinstance(first, Commit) and isinstance(second, Commit)
    assert first.rows == [Row(ENTRIES, (1, "a")), Row(ENTRIES, (2, None))]
    assert second.rows == [Row(ENTRIES, (3, "ü\n"))]
    assert message == Message(message.lsn, "typing", b"\x00\xff", False)
    assert first.commit_lsn < first.end_lsn < message.lsn < second.end_lsn
    assert abs(first.committed_at / 1e6 - time.time()) < 60


async def test_everything_an_ordinary_publication_sends_is_decoded(log: Log) -> None:
    await log.connection.execute("alter publication walden_log set (publish = 'insert, update, delete, truncate')")
    await log.connection.execute("create type log.colour as enum ('red')")
    await log.connection.execute("alter table log.entries alter column body set storage external")
    wanted = {
        ENTRIES: [
            "id",
            "body",
            Column("flag", optional=True),
            Column("hash", optional=True),
            Column("c", optional=True),
        ]
    }
    async with log.subscriber(wanted=wanted) as subscriber:
        await log.append("x" * 10_000)
        await log.connection.execute("alter table log.entries add flag boolean, add hash bytea, add c log.colour")
        async with log.connection.transaction():
            await log.connection.execute("insert into log.entries (flag, hash, c) values (true, '\\x00ff', 'red')")
            await log.connection.execute("update log.entries set flag = false where id = 1")
            await log.connection.execute("update log.entries set id = default, body = 'short' where id = 1")
            await log.connection.execute("select pg_logical_emit_message(true, 'inside', 'm')")
            await log.connection.execute("delete from log.entries where id = 2")
            await log.connection.execute("truncate log.entries")
        one, two = [item for batch in await take(subscriber, 2) for item in batch.items]
    assert isinstance(one, Commit) and isinstance(two, Commit)
    assert one.rows == [Row(ENTRIES, (1, "x" * 10_000, None, None, None))]
    assert two.rows == [Row(ENTRIES, (2, None, True, b"\x00\xff", "red"))]
    update, moved, message, delete, truncate = two.others
    assert update == Update(ENTRIES, (1, UNCHANGED, False, None, None), None)
    assert moved == Update(ENTRIES, (3, "short", False, None, None), (1, None, None, None, None))
    assert isinstance(message, Message) and message[1:] == ("inside", b"m", True)
    assert delete == Delete(ENTRIES, (2, None, None, None, None))
    assert truncate == Truncate((ENTRIES,))


async def test_partitions_come_under_the_name_of_their_table(log: Log) -> None:
    await log.connection.execute("create table log.parted (id int8, kind text) partition by list (kind)")
    await log.connection.execute("create table log.parted_a partition of log.parted for values in ('a')")
    await log.connection.execute("create publication parted for table log.parted with (publish_via_partition_root)")
    async with Subscriber(log.dsn, str(log.slot), ["walden_log", "parted"], wanted={("log", "parted"): ["id"]}) as both:
        await log.append("not wanted")
        await log.connection.execute("insert into log.parted values (5, 'a')")
        (batch,) = await take(both, 1)
    assert [row for item in batch.items if isinstance(item, Commit) for row in item.rows] == [
        Row(("log", "parted"), (5,))
    ]


async def test_batches_form_under_load_and_never_split_a_transaction(log: Log) -> None:
    for _ in range(30):
        await log.append(*["x"] * 7)
    async with log.subscriber() as subscriber:
        batches = await take(subscriber, 210, max_rows=10)
    assert ids(batches) == list(range(1, 211))
    # Two transactions reach ten rows; some batches are smaller, where no more was there yet.
    assert {batch.rows for batch in batches} <= {7, 14}
    assert len(batches) <= 25
    assert all(len(item.rows) == 7 for batch in batches for item in batch.items if isinstance(item, Commit))


async def test_a_batch_ends_with_the_transaction_that_reaches_its_bytes(log: Log) -> None:
    await log.append_filler(400)
    async with log.subscriber() as subscriber:
        batches = await take(subscriber, 400, max_bytes=50_000)
    # Ten rows of 1,500 bytes and their headers make a transaction of less than 16,000.
    assert max(batch.size for batch in batches) < 50_000 + 16_000
    assert ids(batches) == list(range(1, 401))


async def test_nothing_coming_is_said_after_the_wait_and_no_sooner(log: Log) -> None:
    async with log.subscriber() as subscriber:
        began = time.monotonic()
        async for batch in subscriber.batches(max_wait=0.3):
            assert batch.items == []
            break
        assert 0.29 < time.monotonic() - began < 2


async def test_a_stored_position_is_where_the_stream_goes_on(log: Log) -> None:
    await log.append("a")
    await log.append("b")
    async with log.subscriber() as subscriber:
        async for batch in subscriber.batches(max_rows=1):
            stored = batch.end_lsn
            break
    async with log.subscriber(start_lsn=stored) as subscriber:
        batches = await take(subscriber, 1)
        assert ids(batches) == [2]
        with pytest.raises(ValueError, match="handed out"):
            subscriber.confirm(batches[-1].end_lsn + 1)
    await eventually(log.confirmed, batches[-1].end_lsn)


@pytest.mark.slow
async def test_the_server_is_answered_during_a_batch_ten_times_as_long_as_its_patience(log: Log) -> None:
    async with log.subscriber(impatient(log.dsn, 400)) as subscriber:
        await log.append("first")
        async for batch in subscriber.batches(max_wait=0.1):
            subscriber.confirm(batch.end_lsn)
            if ids([batch]) == [1]:
                # More than the sockets hold, so that the server is stuck in writing as well.
                await log.append_filler(4000, each=100)
                await asyncio.sleep(4)
            elif ids([batch]):
                break
        assert subscriber.progress.reconnects == 0
        await take(subscriber, 3000)
        assert subscriber.progress.reconnects == 0


@pytest.mark.slow
async def test_an_idle_stream_outlives_the_servers_patience(log: Log) -> None:
    async with log.subscriber(impatient(log.dsn, 400)) as subscriber:
        async with asyncio.timeout(10):
            count = 0
            async for _ in subscriber.batches(max_wait=0.5):
                if (count := count + 1) == 5:
                    break
        assert subscriber.progress.reconnects == 0


@pytest.mark.parametrize("kind", ["durable", "temporary"])
async def test_cut_connections_lose_nothing_and_bring_nothing_twice(log: Log, proxy: Proxy, kind: str) -> None:
    confirmed: list[int] = []
    seen: list[int] = []
    await log.connection.execute("create table log.unpublished (x text)")

    async def write() -> None:
        for number in range(150):
            await log.append(str(number), str(number))
            await log.connection.execute("insert into log.unpublished select 'x' from generate_series(1, 20)")
            await asyncio.sleep(0.005)

    async def cut() -> None:
        for _ in range(6):
            await asyncio.sleep(0.12)
            proxy.blink()

    source = {"slot": "walden_1_copy", "temporary_copy_of": str(log.slot)} if kind == "temporary" else {}
    subscriber = log.subscriber(through(proxy, log, 300), retries=Retries(20, 0.02, 0.1), **source)
    async with asyncio.timeout(60), subscriber:
        work = asyncio.gather(write(), cut())
        async for batch in subscriber.batches(max_wait=0.5):
            seen += ids([batch])
            # The effects take a while, so that cuts fall between a delivery and its confirmation too.
            await asyncio.sleep(0.01)
            if batch.items:
                confirmed.append(batch.end_lsn)
            subscriber.confirm(batch.end_lsn)
            if len(seen) >= 300 and work.done():
                break
        await work
        reconnects = subscriber.progress.reconnects
    assert seen == list(range(1, 301))
    assert confirmed == sorted(set(confirmed))
    assert reconnects >= 3
    if kind == "durable":
        await eventually(log.confirmed, confirmed[-1].__le__)


async def test_what_was_received_and_not_handed_out_before_a_cut_comes_again(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.connection.execute("create table log.unpublished (x text)")
    async with log.subscriber(impatient(log.dsn, 900), adopt_idle=True, retries=Retries(20, 0.02, 0.1)) as subscriber:
        await log.append("a")
        await log.connection.execute("insert into log.unpublished select 'x' from generate_series(1, 1000)")
        # Both the row and the news that the server has read past it are in the socket now.
        await asyncio.sleep(0.5)
        take_message = subscriber._take

        def cut_after_the_news(data: bytes) -> object:
            item = take_message(data)
            if data[:1] == b"k" and subscriber.progress.server_end > subscriber.progress.received:
                monkeypatch.undo()
                raise psycopg.OperationalError("cut")
            return item

        monkeypatch.setattr(subscriber, "_take", cut_after_the_news)
        # Without any wait, so that the new stream is found empty first.
        assert ids(await take(subscriber, 1, max_wait=0.0)) == [1]
        assert subscriber.progress.reconnects == 1


async def test_a_role_that_may_only_replicate_can_follow_and_copy(log: Log) -> None:
    await log.connection.execute("drop role if exists follower")
    await log.connection.execute("create role follower login replication password 'follower'")
    dsn = make_conninfo(log.dsn, user="follower", password="follower")
    durable, temporary = log.subscriber(dsn), log.subscriber(dsn, slot="walden_1_a", temporary_copy_of=str(log.slot))
    async with durable, temporary:
        await log.append("a")
        assert ids(await take(durable, 1)) == ids(await take(temporary, 1)) == [1]


async def test_the_connection_is_made_again_through_an_outage_within_the_budget(log: Log, proxy: Proxy) -> None:
    async with log.subscriber(through(proxy, log), retries=Retries(20, 0.02, 0.1)) as subscriber:
        proxy.cut()
        await log.append("meanwhile")
        asyncio.get_running_loop().call_later(1, proxy.mend)
        assert ids(await take(subscriber, 1)) == [1]
        assert subscriber.progress.reconnects > 1


async def test_an_outage_beyond_the_budget_ends_with_its_error(log: Log, proxy: Proxy) -> None:
    async with log.subscriber(through(proxy, log), retries=Retries(0.5, 0.02, 0.1)) as subscriber:
        proxy.cut()
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            await take(subscriber, 1)
        assert 0.3 < time.monotonic() - began < 5


async def test_a_stalled_connection_is_noticed_and_replaced(log: Log, proxy: Proxy) -> None:
    async with log.subscriber(through(proxy, log, 900), retries=Retries(20, 0.02, 0.1)) as subscriber:
        proxy.stall()
        await log.append("unheard")
        # The old connections stay silent for ever; new ones work.
        asyncio.get_running_loop().call_later(1.5, proxy.blink)
        assert ids(await take(subscriber, 1)) == [1]
        assert subscriber.progress.reconnects >= 1


async def test_a_crash_of_the_server_is_survived() -> None:
    with Cluster(18) as cluster:
        async with log_on(cluster) as log, log.subscriber(retries=Retries(30, 0.05, 0.2)) as subscriber:
            await log.append("before")
            assert ids(await take(subscriber, 1)) == [1]
            await asyncio.to_thread(cluster.kill)
            starting = asyncio.create_task(asyncio.to_thread(cluster.start))
            waiting = asyncio.create_task(take(subscriber, 1))
            await starting
            async with await AsyncConnection.connect(log.dsn, autocommit=True) as connection:
                await connection.execute("insert into log.entries (body) values ('after')")
            assert len(ids(await waiting)) == 1
            assert subscriber.progress.reconnects >= 1


async def test_a_slot_dropped_while_running_is_said_to_be_lost(log: Log) -> None:
    async with log.subscriber() as subscriber:
        await log.append("a")
        await take(subscriber, 1)
        dropping = asyncio.create_task(log.drop_slot_under_load())
        with pytest.raises(SlotLost) as caught:
            await take(subscriber, 1)
        await dropping
    assert caught.value.loss is Loss.MISSING


async def test_a_slot_that_is_not_there_is_lost_from_the_beginning(log: Log) -> None:
    await drop_slot(log.connection, log.slot)
    with pytest.raises(SlotLost, match="does not exist"):
        async with log.subscriber():
            pass


async def test_a_slot_that_goes_between_the_look_and_the_start_is_said_to_be_lost(log: Log) -> None:
    async with await AsyncConnection.connect(
        make_conninfo(log.dsn, replication="database"), autocommit=True, cursor_factory=psycopg.AsyncClientCursor
    ) as connection:
        subscription = Subscription(log.dsn, str(log.slot), ("walden_log",), None, True, None)
        setup = Setup(connection, subscription, str(log.slot), 0)
        for purpose, step in SETUP:
            if purpose != "start the stream":
                await step(setup)
                continue
            await drop_slot(log.connection, log.slot)
            with pytest.raises(SlotLost) as caught:
                await step(setup)
    assert caught.value.loss is Loss.MISSING


async def test_a_slot_past_the_stored_position_is_lost(log: Log) -> None:
    stored = await log.confirmed()
    await log.append("a")
    async with log.subscriber() as subscriber:
        batches = await take(subscriber, 1)
    await eventually(log.confirmed, batches[-1].end_lsn)
    with pytest.raises(SlotLost) as caught:
        async with log.subscriber(start_lsn=stored):
            pass
    assert caught.value.loss is Loss.AHEAD


async def test_a_stored_position_of_another_history_counts_as_lost(log: Log) -> None:
    async with log.subscriber() as subscriber:
        history = subscriber.setup.history
    others = [
        {"history": history._replace(system_id="1")},
        {"history": history._replace(timeline=history.timeline + 1)},
        {"start_lsn": 1 << 50},
    ]
    for other in others:
        with pytest.raises(SlotLost) as caught:
            async with log.subscriber(**other):
                pass
        assert caught.value.loss is Loss.OTHER_HISTORY
    async with log.subscriber(history=History(*history)):
        pass


async def test_a_publication_made_again_counts_as_a_loss(log: Log) -> None:
    async with log.subscriber() as subscriber:
        history = subscriber.setup.history
        await log.connection.execute("drop publication walden_log")
        await log.append("in no publication")
        await log.connection.execute("create publication walden_log for table log.entries with (publish = 'insert')")
        if log.cluster.version < 18:
            with pytest.raises(SlotLost) as caught:
                await take(subscriber, 1)
            assert caught.value.loss is Loss.OTHER_PUBLICATION
    with pytest.raises(SlotLost) as caught:
        async with log.subscriber(history=history):
            pass
    assert caught.value.loss is Loss.OTHER_PUBLICATION


async def test_a_missing_publication_stops_with_its_remedy(log: Log) -> None:
    await log.connection.execute("drop publication walden_log")
    with pytest.raises(Misconfigured, match="walden migrate"):
        async with log.subscriber():
            pass


async def test_a_role_that_may_not_replicate_is_told_so(log: Log) -> None:
    await log.connection.execute("drop role if exists plain")
    await log.connection.execute("create role plain login password 'plain'")
    with pytest.raises(Misconfigured, match="alter role"):
        async with log.subscriber(make_conninfo(log.dsn, user="plain", password="plain")):
            pass


async def test_a_second_consumer_is_refused_until_the_first_has_gone(log: Log) -> None:
    async with log.subscriber():
        with pytest.raises(SlotActive, match=r"active for process \d+"):
            async with log.subscriber(retries=Retries(0.5, 0.05, 0.1)):
                pass
        second = log.subscriber(retries=Retries(20, 0.05, 0.1))
        waiting = asyncio.create_task(second.__aenter__())
        await asyncio.sleep(0.5)
        assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
    await log.append("a")
    assert ids(await take(second, 1)) == [1]
    assert second.progress.reconnects >= 1
    await second.__aexit__(None, None, None)


async def test_processes_follow_temporary_copies_of_one_slot_side_by_side(log: Log) -> None:
    name = str(SlotName(log.slot.database_oid, "sync", "a"))
    # Nobody's open transaction holds them up.
    async with await AsyncConnection.connect(log.cluster.dsn()) as other:
        await other.execute("create table held (x int)")
        async with asyncio.timeout(10), contextlib.AsyncExitStack() as stack:
            one, two = [
                await stack.enter_async_context(log.subscriber(slot=name, temporary_copy_of=str(log.slot)))
                for _ in "ab"
            ]
            await log.append("a")
            assert ids(await take(one, 1)) == ids(await take(two, 1)) == [1]
            assert len(await log.slots()) == 3
        await other.rollback()
    await eventually(log.slots, {str(log.slot)})


async def test_a_temporary_copy_is_made_again_after_a_cut(log: Log, proxy: Proxy) -> None:
    name = str(SlotName(log.slot.database_oid, "sync", "a"))
    copy = log.subscriber(
        through(proxy, log), slot=name, temporary_copy_of=str(log.slot), retries=Retries(20, 0.02, 0.1)
    )
    async with copy as subscriber:
        await log.append("a")
        first = await take(subscriber, 1)
        proxy.blink()
        await log.append("b")
        assert ids(first + await take(subscriber, 1)) == [1, 2]


async def test_a_copy_of_a_slot_past_the_stored_position_is_lost(log: Log) -> None:
    stored = await log.confirmed()
    await log.append("a")
    async with log.subscriber() as subscriber:
        await take(subscriber, 1)
    await eventually(log.confirmed, lambda now: now > stored)
    with pytest.raises(SlotLost) as caught:
        async with log.subscriber(slot="walden_1_copy", temporary_copy_of=str(log.slot), start_lsn=stored):
            pass
    assert caught.value.loss is Loss.AHEAD


async def test_idle_wal_of_others_is_let_go_where_no_position_is_stored(log: Log) -> None:
    before = await log.confirmed()
    await log.connection.execute("create table log.unpublished (x text)")
    async with log.subscriber(impatient(log.dsn, 900), adopt_idle=True) as subscriber:
        await log.connection.execute("insert into log.unpublished select 'x' from generate_series(1, 1000)")
        end = int(await log.value("select (pg_current_wal_lsn() - '0/0')::int8"))
        listening = asyncio.create_task(take(subscriber, 1))
        await eventually(log.confirmed, end.__le__)
        await log.append("a")
        assert ids(await listening) == [1]
    assert end > before


async def test_idle_wal_is_let_go_only_when_stored_where_positions_are(log: Log) -> None:
    await log.connection.execute("create table log.unpublished (x text)")
    async with log.subscriber(impatient(log.dsn, 600)) as subscriber:
        before = await log.confirmed()
        await log.connection.execute("insert into log.unpublished select 'x' from generate_series(1, 1000)")
        end = int(await log.value("select (pg_current_wal_lsn() - '0/0')::int8"))
        async for batch in subscriber.batches(max_wait=0.7):
            assert not batch.items
            if batch.end_lsn >= end:
                await asyncio.sleep(0.5)
                assert await log.confirmed() == before
                subscriber.confirm(batch.end_lsn)
                break
        await eventually(log.confirmed, batch.end_lsn)


async def test_nothing_unconfirmed_is_let_go_however_idle_the_stream_is(log: Log) -> None:
    await log.connection.execute("create table log.unpublished (x text)")
    async with log.subscriber(impatient(log.dsn, 600), adopt_idle=True) as subscriber:
        await log.append("a")
        held = 0
        async for batch in subscriber.batches(max_wait=0.3):
            if batch.items:
                held = batch.end_lsn
                await log.connection.execute("insert into log.unpublished select 'x' from generate_series(1, 1000)")
            elif subscriber.progress.server_end > held:
                break
        await asyncio.sleep(1)
        assert await log.confirmed() < held
        subscriber.confirm(held)
        await eventually(log.confirmed, subscriber.progress.server_end.__le__)


async def test_heartbeats_come_round_and_are_not_handed_out(log: Log) -> None:
    async with log.subscriber(heartbeat=log.heartbeat, heartbeat_seconds=0.1) as subscriber:
        # Another consumer's heartbeat passes by on every slot.
        await log.connection.execute("select pg_logical_emit_message(false, %s, 'someone else')", (PREFIX,))
        async for batch in subscriber.batches(max_wait=0.2):
            assert not batch.items
            if subscriber.progress.heartbeat_seconds is not None:
                break
        assert subscriber.progress.heartbeat_seconds < 5
        assert subscriber.progress.reconnects == 0


async def test_a_heartbeat_that_does_not_come_round_replaces_the_connection(log: Log) -> None:
    async def into_the_void(payload: bytes) -> None:
        pass

    dead = log.subscriber(impatient(log.dsn, 600), heartbeat=into_the_void, retries=Retries(20, 0.05, 0.1))
    async with dead as subscriber, asyncio.timeout(20):
        async for _ in subscriber.batches(max_wait=0.2):
            if subscriber.progress.reconnects:
                break


@pytest.mark.slow
async def test_a_late_heartbeat_is_no_fault_while_rows_come(log: Log) -> None:
    async def into_the_void(payload: bytes) -> None:
        pass

    busy = log.subscriber(impatient(log.dsn, 600), heartbeat=into_the_void, heartbeat_seconds=60)
    async with busy as subscriber, asyncio.timeout(20):
        until = time.monotonic() + 2
        while time.monotonic() < until:
            await log.append("x")
            await take(subscriber, 1)
            await asyncio.sleep(0.05)
        assert subscriber.progress.reconnects == 0


async def test_a_heartbeat_that_cannot_be_sent_disturbs_nothing(log: Log) -> None:
    async def fails(payload: bytes) -> None:
        raise psycopg.OperationalError("no connection")

    async with log.subscriber(heartbeat=fails, heartbeat_seconds=0.05) as subscriber:
        await asyncio.sleep(0.2)
        await log.append("a")
        assert ids(await take(subscriber, 1)) == [1]


def resident() -> int:
    """Bytes of memory of this process that are in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.slow
async def test_a_slow_consumer_holds_a_bounded_amount_in_memory(log: Log) -> None:
    async with log.subscriber() as subscriber:
        await log.append("first")
        await take(subscriber, 1)
        for _ in range(60):
            await log.append_filler(500, each=500)
        gc.collect()
        before, most, rows = resident(), 0, 0
        async for batch in subscriber.batches(max_bytes=1 << 20):
            subscriber.confirm(batch.end_lsn)
            rows += batch.rows
            most = max(most, resident())
            await asyncio.sleep(0.02)
            if rows == 30_000:
                break
    # 48 MB went through, in batches of one and transactions of under one.
    assert most - before < 16 << 20


async def test_a_slot_that_ran_out_of_its_wal_allowance_is_said_to_be_lost_and_holds_up_no_checkpoint() -> None:
    allowance = {"max_slot_wal_keep_size": "1MB", "max_wal_size": "32MB", "min_wal_size": "32MB"}
    with Cluster(18, allowance) as cluster:
        async with log_on(cluster) as log, log.subscriber(away_seconds=0.5) as subscriber:
            # Nobody reads meanwhile, so the server cannot even say goodbye to the consumer of the slot that it gives up.
            async with asyncio.timeout(20):
                for _ in range(3):
                    await log.append_filler(8000, each=400)
                    await log.connection.execute("checkpoint")
            with pytest.raises(SlotLost) as caught:
                await take(subscriber, 1)
            assert caught.value.loss is Loss.INVALIDATED
            assert "wal_removed" in str(caught.value)
            assert "raise max_slot_wal_keep_size" in caught.value.remedy


async def test_a_consumer_that_is_away_too_long_lets_go_and_loses_nothing(log: Log) -> None:
    async def consumer() -> str | None:
        query = "select active_pid::text from pg_replication_slots where slot_name = %s"
        return str(await log.value(query, str(log.slot)))

    async with log.subscriber(away_seconds=0.5, retries=Retries(20, 0.02, 0.1)) as subscriber:
        await log.append_filler(4000, each=100)
        seen: list[int] = []
        async for batch in subscriber.batches(max_rows=1000):
            if not seen:
                await eventually(consumer, "None")
            seen += ids([batch])
            subscriber.confirm(batch.end_lsn)
            if len(seen) == 4000:
                break
        assert seen == list(range(1, 4001))
        assert subscriber.progress.reconnects == 1


async def test_a_consumer_without_more_to_confirm_does_not_hold_up_a_shutdown() -> None:
    with Cluster(18) as cluster:
        async with log_on(cluster) as log, log.subscriber(retries=Retries(30, 0.05, 0.2)) as subscriber:
            await log.append("a")
            await take(subscriber, 1)
            # Its position cannot be stored past this, and the server wants all of its WAL confirmed before it ends.
            await log.connection.execute("create table log.unpublished as select generate_series(1, 1000)")
            waiting = asyncio.create_task(take(subscriber, 1, max_wait=100.0))
            await asyncio.sleep(0.2)
            async with asyncio.timeout(10):
                await asyncio.to_thread(cluster.restart)
            async with await AsyncConnection.connect(log.dsn, autocommit=True) as connection:
                await connection.execute("insert into log.entries (body) values ('after')")
            assert len(ids(await waiting)) == 1


async def test_a_server_without_logical_decoding_is_refused_with_the_setting_to_change() -> None:
    with (
        Cluster(18, {"wal_level": "replica"}) as cluster,
        pytest.raises(Misconfigured, match="set wal_level = logical"),
    ):
        async with Subscriber(cluster.dsn(), "walden_5_room", ["p"], wanted={}):
            pass


async def test_a_failing_step_names_itself(log: Log) -> None:
    with pytest.raises(SlotLost) as caught:
        async with log.subscriber(slot="walden_1_gone"):
            pass
    assert caught.value.__notes__ == ["while trying to check the slot for slot walden_1_gone"]


async def test_an_interruption_is_retried_and_not_raised(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    async with log.subscriber(retries=Retries(20, 0.02, 0.1)) as subscriber:
        await log.append("a")
        subscriber._broken = Interrupted("as a failed status message leaves it", "none")
        assert ids(await take(subscriber, 1)) == [1]

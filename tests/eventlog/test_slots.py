import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest
from clusters import Cluster
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection
from replicated_log import Log, eventually, log_on

from eventlog.slots import (
    NAME_LENGTH,
    ForeignSlot,
    Loss,
    SlotBlocked,
    SlotLost,
    SlotName,
    advance_slot,
    copy_slot,
    create_slot,
    drop_slot,
    slot_health,
)

roles = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)
suffixes = st.text("abcdefghijklmnopqrstuvwxyz0123456789_", max_size=20)


@given(st.integers(1, 2**32 - 1), roles, suffixes)
def test_a_slot_name_is_read_as_it_was_written(oid: int, role: str, suffix: str) -> None:
    name = SlotName(oid, role, suffix)
    assert SlotName.parse(str(name)) == name
    assert len(str(name)) <= NAME_LENGTH


@pytest.mark.parametrize(
    "wrong",
    ["", "other_5_room", "walden_room", "walden_5", "walden_5_", "walden_5_Room", "walden_05_room", "walden_5_a_"],
)
def test_names_that_are_not_ours_are_not_read(wrong: str) -> None:
    with pytest.raises(ValueError, match="not the name of a Walden slot"):
        SlotName.parse(wrong)


@pytest.mark.parametrize(
    ("role", "suffix"), [("two_words", ""), ("Room", ""), ("room", "a-b"), ("", ""), ("r", "x" * 60)]
)
def test_names_that_the_server_or_we_could_not_read_are_not_made(role: str, suffix: str) -> None:
    with pytest.raises(ValueError, match="slot name"):
        SlotName(5, role, suffix)


async def replication_connection(log: Log) -> AsyncConnection[tuple[object, ...]]:
    dsn = psycopg.conninfo.make_conninfo(log.dsn, replication="database")
    return await AsyncConnection.connect(dsn, autocommit=True)


@pytest.mark.postgres
@pytest.mark.parametrize("how", ["ordinary", "replication"])
async def test_a_held_write_transaction_bounds_making_a_slot_and_leaves_no_orphan(log: Log, how: str) -> None:
    connection = log.connection if how == "ordinary" else await replication_connection(log)
    # The transaction is in another database: a slot waits for those too.
    async with await AsyncConnection.connect(log.cluster.dsn(), application_name="dba") as other:
        await other.execute("create table held (x int)")
        began = time.monotonic()
        with pytest.raises(SlotBlocked, match=r"process \d+ in postgres \(dba\)"):
            await create_slot(connection, SlotName(log.slot.database_oid, "late"), lock_timeout=0.3)
        assert time.monotonic() - began < 5
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await create_slot(connection, SlotName(log.slot.database_oid, "late"), lock_timeout=60)
        await other.rollback()
    assert [slot.slot_name for slot in await slot_health(log.connection)] == [str(log.slot)]
    # The connection is as it was, and the slot can be made now.
    assert await create_slot(connection, SlotName(log.slot.database_oid, "late")) > 0
    cursor = await connection.execute("show lock_timeout")
    assert await cursor.fetchone() == ("0",)
    if connection is not log.connection:
        await connection.close()


@pytest.mark.postgres
async def test_a_held_write_transaction_does_not_hold_up_copying(log: Log) -> None:
    async with await AsyncConnection.connect(log.cluster.dsn()) as other:
        await other.execute("create table held (x int)")
        async with await replication_connection(log) as connection:
            async with asyncio.timeout(5):
                at = await copy_slot(connection, log.slot, SlotName(log.slot.database_oid, "copy"))
            assert at == await log.confirmed()
            slots = {slot.slot_name: slot.temporary for slot in await slot_health(log.connection)}
            assert slots == {str(log.slot): False, str(SlotName(log.slot.database_oid, "copy")): True}
        await other.rollback()


@pytest.mark.postgres
async def test_a_temporary_copy_ends_with_its_connection_and_a_durable_one_does_not(log: Log) -> None:
    temporary, durable = SlotName(log.slot.database_oid, "temporary"), SlotName(log.slot.database_oid, "durable")
    async with await replication_connection(log) as connection:
        await copy_slot(connection, log.slot, temporary)
        await copy_slot(connection, log.slot, durable, temporary=False)
    await eventually(log.slots, {str(log.slot), str(durable)})


@pytest.mark.postgres
async def test_copying_what_is_not_there_says_that_it_is_lost(log: Log) -> None:
    with pytest.raises(SlotLost) as caught:
        await copy_slot(log.connection, "walden_1_gone", "walden_1_copy")
    assert caught.value.loss is Loss.MISSING


@pytest.mark.postgres
async def test_an_idle_slot_can_be_moved_forward(log: Log) -> None:
    await log.append("a")
    end = int(await log.value("select (pg_current_wal_lsn() - '0/0')::int8"))
    before = await log.confirmed()
    assert before < await advance_slot(log.connection, log.slot, end) <= end
    assert await log.confirmed() > before


@pytest.mark.postgres
async def test_slots_of_another_database_are_neither_dropped_nor_moved(log: Log) -> None:
    async with log_on(log.cluster) as neighbour:
        for connection, slot in ((log.connection, neighbour.slot), (neighbour.connection, log.slot)):
            with pytest.raises(ForeignSlot):
                await drop_slot(connection, slot)
            with pytest.raises(ForeignSlot):
                await advance_slot(connection, slot, 1 << 40)
        assert len(await slot_health(neighbour.connection)) == 1
    assert len(await slot_health(log.connection)) == 1


@pytest.mark.postgres
async def test_a_slot_whose_name_carries_another_database_is_not_dropped(log: Log) -> None:
    # As in a copy of a database made with its old OID in the configuration.
    await copy_slot(log.connection, log.slot, "walden_999_room", temporary=False)
    with pytest.raises(ForeignSlot):
        await drop_slot(log.connection, "walden_999_room")


@pytest.mark.postgres
async def test_dropping_says_whether_there_was_a_slot(log: Log) -> None:
    assert await drop_slot(log.connection, log.slot) is True
    assert await drop_slot(log.connection, log.slot) is False


@pytest.mark.postgres
async def test_a_slot_in_use_is_not_dropped(log: Log) -> None:
    async with log.subscriber():
        with pytest.raises(psycopg.errors.ObjectInUse):
            await drop_slot(log.connection, log.slot)


@pytest.mark.postgres
async def test_health_tells_lag_owner_and_status(log: Log) -> None:
    await log.append_filler(100)
    async with log.subscriber():
        (health,) = await slot_health(log.connection)
    assert health.slot_name == str(log.slot)
    assert health.active_pid is not None
    assert health.wal_status == "reserved"
    assert not health.lost
    assert health.confirmed_lag is not None and health.restart_lag is not None
    assert 100_000 < health.confirmed_lag <= health.restart_lag
    assert health.catalog_xmin_age is not None and health.catalog_xmin_age >= 1


@pytest.mark.postgres
async def test_slots_are_managed_outside_transactions_only(log: Log) -> None:
    async with await AsyncConnection.connect(log.dsn) as connection:
        with pytest.raises(ValueError, match="autocommit"):
            await create_slot(connection, SlotName(log.slot.database_oid, "late"))


@pytest.mark.postgres
async def test_a_failover_slot_is_made_where_the_server_has_them(running: Callable[[int], Cluster], log: Log) -> None:
    name = SlotName(log.slot.database_oid, "kept")
    await create_slot(log.connection, name, failover=True)
    (health,) = await slot_health(log.connection, str(name))
    assert health.failover is (log.cluster.version >= 17)

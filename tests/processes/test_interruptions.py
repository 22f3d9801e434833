"""Slots that vanish, transactions of other people, connections that break, WAL that is taken away: nothing is lost by any."""

import asyncio
import contextlib
import os
import random
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from clusters import Cluster
from load import Load, compare
from people import Person, segment
from projections import differences
from proxy import Proxy
from whole_server import WholeServer, running

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

HOLD_SECONDS = float(os.environ.get("WALDEN_HOLD_SECONDS", "4"))
"""How long other people's transactions stay open; a minute when it is tried by hand."""
RECOVERY_SECONDS = 60.0
SMALL = {"max_connections": "60", "max_replication_slots": "40", "max_wal_senders": "40"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeServer]:
    """A server on the embedded database, for tests that leave it as it was."""
    with WholeServer(tmp_path_factory.mktemp("whole") / "d") as one:
        yield one


@contextlib.asynccontextmanager
async def conversation(server: WholeServer) -> AsyncIterator[Load]:
    """Three people talk in two rooms while the block runs; afterwards one who listened has everything, in order."""
    load = await Load.prepare(server.url, 3, 2, random.Random(4))
    try:
        async with Person(server.url) as observer, Person(server.url) as late:
            for person in (observer, late):
                await person.register()
                for room_id in load.rooms:
                    await person.join(room_id)
            observer.listen()
            load.begin()
            await load.recovered(time.monotonic(), RECOVERY_SECONDS)
            yield load
            await load.end()
            last = [await load.senders[0].send(room_id, "the last") for room_id in load.rooms]
            for room_id, event_id in zip(load.rooms, last, strict=True):
                await observer.until_seen(room_id, event_id)
            await late.sync()
            compare(load, [observer, late])
        await asyncio.to_thread(server.rest)
        assert await asyncio.to_thread(differences, server.settings.dsn()) == {}
    finally:
        await load.close()


@pytest.mark.parametrize("ended", [False, True], ids=["goes on", "is ended"])
async def test_what_a_client_was_told_had_failed_does_not_come_after_what_it_did_next(
    tmp_path: Path, ended: bool
) -> None:
    """The session that was to make it hung for a while, until its writer had given it up; then it goes on, or is ended."""
    server = WholeServer(tmp_path / "d", WALDEN_LOG_VERDICT_TIMEOUT="2")
    async with running(server), Person(server.url) as person:
        await person.register()
        room_id = await person.create_room()
        path = f"user/{segment(person.user_id)}/account_data/test.counter"
        await person.call("PUT", path, {"value": 0})
        await person.send(room_id, "before")
        with psycopg.connect(server.settings.dsn(), autocommit=True) as connection:
            found = "select pid from pg_stat_activity where application_name = 'walden appends'"
            appending = [row[0] for row in connection.execute(found)]
            assert appending
            for pid in appending:
                os.kill(pid, signal.SIGSTOP)
            try:
                message = f"rooms/{segment(room_id)}/send/m.room.message/lost", {"msgtype": "m.text", "body": "lost"}
                asked = [person.once("PUT", *message), *(person.once("PUT", path, {"value": n}) for n in range(1, 4))]
                assert {status for status, _ in await asyncio.gather(*asked)} == {503}
                if ended:
                    connection.execute("select pg_terminate_backend(pid) from unnest(%s::int[]) as pid", [appending])
            finally:
                for pid in appending:
                    os.kill(pid, signal.SIGCONT)
            await person.call("PUT", path, {"value": 4})
            await person.send(room_id, "after")
            await asyncio.sleep(1)
            assert await person.call("GET", path) == {"value": 4}
            made = connection.execute(
                "select count(*) from eventlog.events where json like '%test.counter%'"
            ).fetchone()
            assert made == (2,)


async def test_a_database_that_is_back_costs_no_request_its_answer(server: WholeServer) -> None:
    """Every idle connection ended with it, of which a quiet server finds the last one hours later."""
    back = "the database is back: idle connections were looked through"
    api = server.data_dir / "logs" / "api.log"
    async with Person(server.url) as person:
        await person.register()
        room_id = await person.create_room()

        async def ask(number: int) -> list[int]:
            path = f"rooms/{segment(room_id)}"
            message = {"msgtype": "m.text", "body": f"{number}"}
            asked = (
                person.once("PUT", f"{path}/send/m.room.message/{number}", message),
                person.once("GET", f"{path}/messages", dir="b", limit="5"),
                person.once("GET", f"user/{segment(person.user_id)}/account_data/none"),
                person.once("GET", "sync"),
            )
            return [status for status, _ in await asyncio.gather(*asked)]

        async def ask_at_once(first: int) -> list[int]:
            return [status for found in await asyncio.gather(*map(ask, range(first, first + 20))) for status in found]

        # All connections that the pools may have are opened.
        before = await ask_at_once(0)
        assert set(before) == {200, 404}
        known = api.read_text(encoding="utf-8").count(back)
        await asyncio.to_thread(server.kill, "postgres")
        end = time.monotonic() + RECOVERY_SECONDS
        while api.read_text(encoding="utf-8").count(back) == known:
            assert time.monotonic() < end, server.logs()
            await asyncio.sleep(0.05)
        await person.send(room_id, "until the room server is back as well")
        assert await ask_at_once(20) == before


def drop_slot(dsn: str, part: str, seconds: float = 20.0) -> str:
    """Drop the durable slot with this part in its name, from under whoever streams from it; its name."""
    end = time.monotonic() + seconds
    with psycopg.connect(dsn, autocommit=True) as connection:
        while time.monotonic() < end:
            row = connection.execute(
                "select slot_name, active_pid from pg_replication_slots "
                "where database = current_database() and not temporary and strpos(slot_name, %s) > 0",
                [part],
            ).fetchone()
            if row is None:
                continue
            # Whoever streamed is back in milliseconds: once in a while the drop comes first.
            with contextlib.suppress(psycopg.errors.ObjectInUse):
                connection.execute("select pg_terminate_backend(%s)", [row[1]])
                connection.execute("select pg_drop_replication_slot(%s)", [row[0]])
                return str(row[0])
    raise AssertionError(f"the slot {part} could not be dropped")


def durable_slots(dsn: str) -> set[str]:
    """Durable slots that are finished: one that waits for a transaction to end is listed too, but confirms nothing."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select slot_name from pg_replication_slots where not temporary and confirmed_flush_lsn is not null"
        ).fetchall()
    return {str(row[0]) for row in rows}


def until_there(dsn: str, names: set[str]) -> None:
    """Wait until these durable slots exist."""
    end = time.monotonic() + RECOVERY_SECONDS
    while names - durable_slots(dsn):
        assert time.monotonic() < end, names - durable_slots(dsn)
        time.sleep(0.2)


@contextlib.contextmanager
def open_write_transaction(dsn: str) -> Iterator[None]:
    """Somebody in another database of the cluster who has written and does not commit."""
    with psycopg.connect(dsn) as other:
        other.execute("create table if not exists of_somebody_else (n integer)")
        other.commit()
        other.execute("insert into of_somebody_else values (1)")
        yield
        other.rollback()


@pytest.mark.parametrize("part", ["_roomserver_", "_outputs"])
async def test_a_durable_slot_dropped_while_running_is_made_again_and_nothing_is_lost(
    server: WholeServer, part: str
) -> None:
    dsn = server.settings.dsn()
    before = durable_slots(dsn)
    async with conversation(server) as load:
        dropped = await asyncio.to_thread(drop_slot, dsn, part)
        await load.recovered(time.monotonic(), RECOVERY_SECONDS)
        await asyncio.to_thread(until_there, dsn, {dropped})
    assert durable_slots(dsn) == before


async def test_a_sync_process_that_loses_its_copy_of_the_slot_goes_on_without_a_gap(server: WholeServer) -> None:
    async with conversation(server) as load:
        for _ in range(3):
            rows = server.rows(
                "select pg_terminate_backend(active_pid) from pg_replication_slots "
                "where temporary and strpos(slot_name, '_sync_') > 0"
            )
            assert rows
            await load.recovered(time.monotonic(), RECOVERY_SECONDS)
            await asyncio.sleep(1)


async def test_a_database_that_restarts_in_order_is_waited_for(server: WholeServer) -> None:
    async with conversation(server) as load:
        psutil.Process(server.pids()["postgres"]).send_signal(signal.SIGINT)
        await load.recovered(time.monotonic(), RECOVERY_SECONDS)


async def test_a_write_transaction_of_somebody_else_delays_the_start_and_no_more(tmp_path: Path) -> None:
    with Cluster(18, SMALL) as cluster:
        cluster.execute("create database walden")
        server = WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))
        with open_write_transaction(cluster.dsn()):
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            await asyncio.sleep(HOLD_SECONDS)
            assert not starting.done()
        await starting
        try:
            async with conversation(server):
                await asyncio.sleep(0.5)
            # With its slots in place a server starts at once, whoever holds what open.
            server.stop()
            with open_write_transaction(cluster.dsn()):
                await asyncio.to_thread(server.start)
                async with conversation(server):
                    await asyncio.sleep(0.5)
        finally:
            await asyncio.to_thread(server.__exit__, None, None, None)


async def test_slots_dropped_while_somebody_holds_a_transaction_open_hold_up_nobody(tmp_path: Path) -> None:
    with Cluster(18, SMALL) as cluster:
        cluster.execute("create database walden")
        async with running(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))) as server:
            before = durable_slots(cluster.dsn())
            async with conversation(server) as load:
                with open_write_transaction(cluster.dsn()):
                    for part in ("_roomserver_", "_outputs"):
                        await asyncio.to_thread(drop_slot, cluster.dsn("walden"), part)
                    end = time.monotonic() + HOLD_SECONDS
                    while time.monotonic() < end:
                        await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    assert durable_slots(cluster.dsn()) == set()
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                await asyncio.to_thread(until_there, cluster.dsn(), before)


async def test_a_slot_that_a_hung_session_keeps_is_done_without(tmp_path: Path) -> None:
    with Cluster(18, {**SMALL, "wal_sender_timeout": "3s"}) as cluster:
        cluster.execute("create database walden")
        async with (
            running(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))) as server,
            conversation(server) as load,
        ):
            with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
                found = "select active_pid from pg_replication_slots where slot_name like '%roomserver%' and active"
                row = connection.execute(found).fetchone()
                assert row is not None
                os.kill(row[0], signal.SIGSTOP)
                try:
                    await asyncio.sleep(5)
                    for _ in range(3):
                        await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                    assert connection.execute(found).fetchone() == row
                finally:
                    os.kill(row[0], signal.SIGCONT)
            await load.recovered(time.monotonic(), RECOVERY_SECONDS)


async def test_connections_that_break_or_go_silent_cost_a_pause_and_no_event(tmp_path: Path) -> None:
    with Cluster(18, SMALL) as cluster:
        cluster.execute("create database walden")
        async with Proxy(cluster.socket_path) as proxy:
            dsn = cluster.dsn("walden", host="127.0.0.1", port=str(proxy.port))
            async with (
                running(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=dsn)) as server,
                conversation(server) as load,
            ):
                for _ in range(3):
                    proxy.blink()
                    await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                proxy.cut()
                await asyncio.sleep(3)
                proxy.mend()
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                proxy.stall()
                await asyncio.sleep(5)
                proxy.mend()
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
                # Silent, then broken: what was on its way is in nobody's hands.
                proxy.stall()
                await asyncio.sleep(1)
                proxy.blink()
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)


async def test_slots_that_the_server_took_away_for_their_wal_are_made_again_and_nothing_is_lost(tmp_path: Path) -> None:
    conf = {**SMALL, "max_slot_wal_keep_size": "32MB", "max_wal_size": "64MB"}
    with Cluster(18, conf) as cluster:
        cluster.execute("create database walden")
        async with running(WholeServer(tmp_path / "d", WALDEN_DATABASE_DSN=cluster.dsn("walden"))) as server:
            before = durable_slots(cluster.dsn())
            async with conversation(server) as load:
                # Consumers that hang, and somebody who writes a lot.
                hanging = [psutil.Process(server.pids()["roomserver-0"])]
                hanging += psutil.Process(server.pids()["api"]).children()
                for process in hanging:
                    process.suspend()
                try:
                    lost = await asyncio.to_thread(_use_up_the_allowance, cluster)
                finally:
                    for process in hanging:
                        process.resume()
                assert any("_roomserver_" in name for name in lost)
                assert any("_outputs" in name for name in lost)
                await load.recovered(time.monotonic(), RECOVERY_SECONDS)
            assert durable_slots(cluster.dsn()) == before


def _use_up_the_allowance(cluster: Cluster) -> set[str]:
    """Write WAL until the slots are lost; their names."""
    end = time.monotonic() + 60
    while True:
        for _ in range(4):
            cluster.execute("select pg_logical_emit_message(true, 'noise', 'x'), pg_switch_wal()")
        cluster.execute("checkpoint")
        rows = cluster.execute("select slot_name, wal_status from pg_replication_slots where not temporary")
        lost = {str(name) for name, status in rows if status == "lost"}
        if len(lost) == 2:
            return lost
        assert time.monotonic() < end, rows

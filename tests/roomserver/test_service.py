"""The room server's loop: exactly once, whatever happens to its slot, its connection and its entries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from itertools import count as count_up
from pathlib import Path

import psycopg
import pytest
from local_rooms import Talk, talk
from running_roomserver import judged, receive, running, settings_for
from structlog.testing import capture_logs

from matrix.errors import MatrixError
from matrix.events import Event
from roomserver import judge, service
from roomserver.entries import Entry
from roomserver.service import RoomServer
from tests.matrix.room_dag import RoomDag
from writer.drafts import Draft

pytestmark = pytest.mark.postgres


def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        return connection.execute(query).fetchall()


def assert_dense_and_once(dsn: str) -> None:
    """Positions are dense, and every entry has exactly one verdict."""
    (found,) = rows(
        dsn, "select count(*), max(position), count(distinct position), count(distinct entry) from eventlog.outputs"
    )
    assert len(set(found)) == 1, found
    assert (
        rows(
            dsn,
            "select e.id from eventlog.events e where not exists (select from eventlog.outputs o where o.entry = e.id)",
        )
        == []
    )


async def test_an_accepted_message_is_in_the_outputs_at_the_position_that_its_sender_is_told(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        (sent,) = await t.writer.send([t.message(room, "hello")])
    assert rows(
        provisioned,
        "select e.event_id, o.verdict from eventlog.outputs o join eventlog.events e on e.id = o.entry"
        f" where o.position = {sent.position}",
    ) == [(sent.event_id, "a")]


async def test_one_transaction_id_is_one_event_also_when_it_is_sent_twice_at_once(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        same = [t.message(room, "once", txn="x") for _ in range(8)]
        sent = await asyncio.gather(*(t.writer.send([draft]) for draft in same))
    assert len({s[0].event_id for s in sent}) == 1


async def test_a_message_of_a_stranger_is_refused_with_the_rules_reason(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        with pytest.raises(MatrixError, match="not joined") as refused:
            await t.writer.send([t.message(room, "hello", sender="@stranger:test.example")])
    assert (refused.value.status, refused.value.errcode) == (403, "M_FORBIDDEN")


async def test_thirty_two_senders_leave_one_forward_extremity(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()

        async def sender(number: int) -> None:
            for i in range(10):
                await t.writer.send([t.message(room, f"{number} {i}")])

        await asyncio.gather(*(sender(n) for n in range(32)))
    assert rows(provisioned, "select cardinality(extremities), judged_seq from roomserver.heads") == [(1, 324)]
    assert_dense_and_once(provisioned)


async def test_two_writers_in_one_room_chain_on_each_other_and_a_ban_in_the_middle_refuses_only_the_banned(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as one, talk(settings) as two:
        room = await one.room()
        users = [f"@u{n}:test.example" for n in range(8)]
        for user in users:
            await one.writer.send([Draft(room, user, "m.room.member", {"membership": "join"}, user)])
        banned: list[MatrixError] = []

        async def sender(t: Talk, user: str) -> None:
            for i in range(15):
                try:
                    await t.writer.send([t.message(room, f"{user} {i}", sender=user)])
                except MatrixError as error:
                    assert user == users[3] and error.status == 403, (user, error)
                    banned.append(error)

        async def ban() -> None:
            await asyncio.sleep(0.2)
            await two.writer.send([Draft(room, one.user, "m.room.member", {"membership": "ban"}, users[3])])

        await asyncio.gather(ban(), *(sender(one if n % 2 else two, user) for n, user in enumerate(users)))
        with pytest.raises(MatrixError):
            await one.writer.send([one.message(room, "again", sender=users[3])])
    verdicts = dict(rows(provisioned, "select verdict, count(*) from eventlog.outputs group by verdict"))
    accepted = 4 + 8 + 1 + 8 * 15 - len(banned)
    assert verdicts["a"] == accepted
    assert (
        rows(
            provisioned,
            "select e.event_id from eventlog.outputs o join eventlog.events e on e.id = o.entry,"
            " json_array_elements_text(e.json::json -> 'prev_events') p"
            " join eventlog.event_keys i on i.key = eventlog.event_key(p) join eventlog.outputs b on b.entry = i.id"
            " where o.verdict = 'a' and b.verdict <> 'a'",
        )
        == []
    )
    assert_dense_and_once(provisioned)


async def test_dropping_the_slot_while_running_loses_nothing(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        for i in range(3):
            await t.writer.send([t.message(room, f"before {i}")])
            with psycopg.connect(provisioned, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
                    " where database = current_database() and active and slot_name like '%%roomserver%%'"
                )
                connection.execute(
                    "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
                    " where database = current_database() and not active and slot_name like '%%roomserver%%'"
                )
            await asyncio.wait_for(t.writer.send([t.message(room, f"after {i}")]), 30)
    assert_dense_and_once(provisioned)


async def test_entries_appended_while_no_room_server_ran_are_judged_from_the_tables(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with talk(settings) as t:
        async with running(settings):
            room = await t.room()
        sending = [asyncio.create_task(t.writer.send([t.message(room, str(i))])) for i in range(5)]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in sending)
        async with running(settings):
            await asyncio.gather(*sending)
    assert_dense_and_once(provisioned)


@pytest.mark.slow
async def test_a_broken_entry_is_quarantined_after_three_attempts_and_its_room_goes_on(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(provisioned, tmp_path)
    real = judge.relate

    def poisoned(room: object, event: Event, *more: object) -> None:
        if event.content.get("body") == "poison":
            raise RuntimeError("cannot digest this")
        real(room, event, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(judge, "relate", poisoned)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        results = await asyncio.gather(
            *(t.writer.send([t.message(room, body)]) for body in ("one", "poison", "two", "three")),
            return_exceptions=True,
        )
        await t.writer.send([t.message(room, "four")])
    failed = [r for r in results if isinstance(r, BaseException)]
    assert [(r.status, r.errcode) for r in failed if isinstance(r, MatrixError)] == [(500, "M_UNKNOWN")]
    assert rows(provisioned, "select attempts, error from roomserver.quarantine") == [
        (3, "RuntimeError: cannot digest this")
    ]
    assert rows(provisioned, "select count(*) from roomserver.attempts") == [(0,)]
    assert_dense_and_once(provisioned)


async def test_what_ails_the_database_is_no_entrys_fault_and_is_overcome_once_it_is_mended(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roomserver.service.STOPPED_PAUSE", 0.05)
    settings = settings_for(provisioned, tmp_path)
    async with talk(settings) as t:
        async with running(settings):
            room = await t.room()
        sending = [asyncio.create_task(t.writer.send([t.message(room, str(i))])) for i in range(5)]
        while rows(provisioned, "select count(*) from eventlog.events where kind = 'm'") != [(5,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        with psycopg.connect(provisioned, autocommit=True) as connection, capture_logs() as logs:
            connection.execute("alter table roomserver.state rename to mislaid")
            # As after a kill, when entries are tried singly and every attempt counts.
            connection.execute("update eventlog.positions set clean = false where component = 'roomserver'")
            async with running(settings):
                while sum(one["event"] == "the room server cannot work" for one in logs) < 5:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
                connection.execute("alter table roomserver.mislaid rename to state")
                await asyncio.gather(*sending)
    assert rows(provisioned, "select * from roomserver.quarantine") == []
    assert rows(provisioned, "select * from roomserver.attempts") == []
    assert_dense_and_once(provisioned)


async def test_a_second_room_server_stands_by_until_the_first_is_gone(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with talk(settings) as t:
        async with running(settings) as first, running(settings) as second:
            room = await t.room()
            ((owner,),) = rows(provisioned, "select owner::text from eventlog.positions where component = 'roomserver'")
            assert owner in (first.owner, second.owner)
            assert min(first.decisions.position, second.decisions.position) == 0
        async with running(settings):
            await t.writer.send([t.message(room, "still here")])
    assert_dense_and_once(provisioned)


async def test_a_restart_after_a_kill_tries_what_was_open_singly(provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag("11", 5, servers=2, users_per_server=2).grow(20)
    count = receive(provisioned, dag.events.values())
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute("update eventlog.positions set clean = false where component = 'roomserver'")
    async with running(settings_for(provisioned, tmp_path)):
        await judged(provisioned, count)
    assert rows(provisioned, "select count(*) from roomserver.attempts") == [(0,)]
    assert rows(provisioned, "select clean from eventlog.positions where component = 'roomserver'") == [(True,)]
    assert_dense_and_once(provisioned)


async def test_who_ends_in_the_middle_of_catching_up_leaves_nothing_too_old_to_be_found(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dag = RoomDag("11", 5, servers=2, users_per_server=2).grow(20)
    count = receive(provisioned, dag.events.values())
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where database = current_database() and slot_name like '%%roomserver%%'"
        )
    monkeypatch.setattr(service, "MARGIN", timedelta(0))
    monkeypatch.setattr(service, "CHUNK", 5)
    settings = settings_for(provisioned, tmp_path)
    first = RoomServer(settings, 0)
    process, times = first.decisions.process, count_up()

    async def break_off(entries: Sequence[Entry], lsn: int | None) -> None:
        if next(times) == 2:
            raise RuntimeError("broken off")
        await process(entries, lsn)

    monkeypatch.setattr(first.decisions, "process", break_off)
    with pytest.raises(RuntimeError, match="broken off"):
        await first.run()
    first.decisions.close()
    assert 0 < first.decisions.position < count
    async with running(settings):
        await judged(provisioned, count)
    assert_dense_and_once(provisioned)


async def test_a_cut_connection_in_the_middle_is_made_again(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()

        async def cut() -> None:
            for _ in range(5):
                await asyncio.sleep(0.1)
                with psycopg.connect(provisioned, autocommit=True) as connection:
                    connection.execute(
                        "select pg_terminate_backend(pid) from pg_stat_activity"
                        " where datname = current_database() and application_name like 'walden roomserver%%'"
                    )

        async def sender(number: int) -> None:
            for i in range(20):
                await t.writer.send([t.message(room, f"{number} {i}")])

        await asyncio.gather(cut(), *(sender(n) for n in range(4)))
    assert_dense_and_once(provisioned)


async def test_a_new_timeline_begins_an_epoch_that_forks_from_the_one_before(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with talk(settings) as t:
        async with running(settings):
            room = await t.room()
        with psycopg.connect(provisioned, autocommit=True) as connection:
            connection.execute("update eventlog.epochs set timeline = timeline - 1")
        async with running(settings):
            await t.writer.send([t.message(room, "on the new timeline")])
    ((parent, fork, why),) = rows(
        provisioned, "select parent, forked_at, reason from eventlog.epochs order by ordinal offset 1"
    )
    assert parent in {row[0] for row in rows(provisioned, "select epoch from eventlog.epochs")}
    assert (fork, why) == ([4], "failover")
    assert_dense_and_once(provisioned)


async def test_a_group_of_large_events_is_appended_in_pieces_of_about_a_megabyte(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        await asyncio.gather(*(t.writer.send([t.message(room, "x" * 60_000)]) for _ in range(40)))
    sizes = rows(provisioned, "select sum(length(json)) from eventlog.events group by xmin")
    assert len(sizes) >= 3 and max(size for (size,) in sizes) < 1_100_000  # type: ignore[type-var]
    assert_dense_and_once(provisioned)


async def test_a_request_that_cannot_be_built_fails_alone(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as t:
        room = await t.room()
        bad = Draft(room, t.user, "m.room.create", {"room_version": "12"}, "")
        worse = Draft(room, t.user, "m.room.message", {"body": object()})
        results = await asyncio.gather(
            *(t.writer.send([draft]) for draft in (t.message(room, "1"), bad, worse, t.message(room, "2"))),
            return_exceptions=True,
        )
    assert [getattr(result, "status", "sent") for result in results] == ["sent", 403, 400, "sent"]
    assert_dense_and_once(provisioned)


async def test_load_is_shed_while_the_room_server_is_behind(
    provisioned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("writer.log_writer.MAX_UNJUDGED", 3)
    settings = settings_for(provisioned, tmp_path)
    async with talk(settings) as t:
        async with running(settings):
            room = await t.room()
        waiting = [asyncio.create_task(t.writer.send([t.message(room, str(i))])) for i in range(3)]
        for _ in range(1000):
            if t.writer._head.unjudged >= 3:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(MatrixError) as refused:
            await t.writer.send([t.message(room, "too much")])
        async with running(settings):
            await asyncio.gather(*waiting)
    assert refused.value.status == 503

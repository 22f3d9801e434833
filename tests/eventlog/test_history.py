"""Whether a database is the one it was: what shows a restore, and that a failover and a crash show none."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection

from eventlog.history import Finding, Standing, Switch, begin_epoch, examine, parse_history
from eventlog.seen import Seen, lineage, read_seen, write_seen

PROMOTED = "1\t0/3000000\tno recovery target specified\n"


def execute(dsn: str, statement: str, *values: object) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode(), values)
        return cursor.fetchall() if cursor.description else []


async def look(dsn: str, *seen: Seen) -> Finding:
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        return await examine(connection, [dsn], seen)


def present(dsn: str) -> str:
    ((epoch,),) = execute(dsn, "select epoch from eventlog.epochs order by ordinal desc limit 1")
    return str(epoch)


def at(dsn: str, position: int) -> None:
    """Says that the room server has come so far."""
    execute(dsn, "update eventlog.positions set position = %s where component = 'roomserver'", position)


@pytest.mark.postgres
async def test_a_fresh_database_is_anybodys_whatever_the_data_directory_remembers(provisioned: str) -> None:
    found = await look(provisioned, Seen(0, "ofanother", 500))
    assert found.standing is Standing.CURRENT and not found.lost and not found.abandoned


@pytest.mark.postgres
async def test_a_database_taken_back_to_before_anything_was_said_was_restored(provisioned: str) -> None:
    found = await look(provisioned, Seen(0, present(provisioned), 16))
    assert found.standing is Standing.RESTORED and found.lost == {0: 16}


@pytest.mark.postgres
async def test_a_database_that_was_never_initialised_is_empty(database: str) -> None:
    found = await look(database, Seen(0, "ofanother", 500))
    assert found.standing is Standing.EMPTY and not found.refused


@pytest.mark.postgres
async def test_behind_what_was_seen_in_its_own_epoch_it_was_restored_until_an_epoch_says_so(provisioned: str) -> None:
    at(provisioned, 40)
    seen = Seen(0, present(provisioned), 41)
    assert (await look(provisioned, Seen(0, present(provisioned), 40))).standing is Standing.CURRENT
    found = await look(provisioned, seen)
    assert found.standing is Standing.RESTORED and found.refused and found.lost == {0: 1}
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        await begin_epoch(connection, found, "recover", at_once=False)
    assert (await look(provisioned, seen)).standing is Standing.UNFINISHED
    execute(provisioned, "update eventlog.epochs set ready_at = now() where ready_at is null")
    assert (await look(provisioned, seen)).standing is Standing.CURRENT
    ((fork, lsn),) = execute(
        provisioned,
        "select e.forked_at, p.lsn::text from eventlog.epochs e join eventlog.positions p on p.epoch = e.epoch",
    )
    assert (fork, lsn) == ([40], "0/0")


@pytest.mark.postgres
async def test_an_epoch_that_only_the_data_directory_knows_is_noted_when_the_next_begins(provisioned: str) -> None:
    at(provisioned, 40)
    first = present(provisioned)
    seen = Seen(0, "lost2", 70, (("lost2", "lost1", (60,)), ("lost1", first, (50,)), (first, None, ())))
    found = await look(provisioned, seen)
    assert found.standing is Standing.RESTORED
    assert [epoch for epoch, _, _ in found.abandoned] == ["lost1", "lost2"]
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        begun = await begin_epoch(connection, found, "recover")
        # Whoever looked at the same time finds it begun.
        assert await begin_epoch(connection, found, "recover") == begun
    rows = execute(provisioned, "select epoch, parent, forked_at, reason from eventlog.epochs order by ordinal")
    assert rows[1:] == [
        ("lost1", first, [50], "abandoned"),
        ("lost2", "lost1", [60], "abandoned"),
        (begun, first, [40], "recover"),
    ]
    assert (await look(provisioned, seen)).standing is Standing.CURRENT


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update eventlog.epochs set system_identifier = '7'", "a dump restored elsewhere"),
        ("update eventlog.epochs set database_oid = database_oid - 1", "it is a copy"),
    ],
)
async def test_in_another_system_or_database_it_was_moved(provisioned: str, change: str, why: str) -> None:
    at(provisioned, 3)
    execute(provisioned, change)
    found = await look(provisioned, Seen(0, present(provisioned), 3))
    assert found.standing is Standing.MOVED and why in found.why and not found.lost


@pytest.mark.postgres
async def test_a_timeline_whose_history_nobody_can_read_is_a_failover_whatever_was_lost(provisioned: str) -> None:
    at(provisioned, 3)
    execute(provisioned, "update eventlog.epochs set timeline = 0")
    found = await look(provisioned, Seen(0, present(provisioned), 9))
    assert found.standing is Standing.FAILOVER and not found.refused and found.lost == {0: 6}


@pytest.mark.postgres
async def test_without_its_slots_it_is_a_base_backup_only_where_it_was_never_seen(provisioned: str) -> None:
    at(provisioned, 3)
    execute(
        provisioned,
        "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()",
    )
    assert (await look(provisioned)).standing is Standing.RESTORED
    # A slot that somebody dropped is made again: that is all.
    assert (await look(provisioned, Seen(0, present(provisioned), 3))).standing is Standing.CURRENT


def test_a_history_file_is_read_line_by_line() -> None:
    text = PROMOTED + '\n# a comment\n2\t0/5000000\tbefore 2026-11-25 19:00:00+00\n3\t1/0\tat restore point "x"\n'
    assert parse_history(text) == [
        Switch(1, "0/3000000", "no recovery target specified"),
        Switch(2, "0/5000000", "before 2026-11-25 19:00:00+00"),
        Switch(3, "1/0", 'at restore point "x"'),
    ]


def test_what_was_seen_is_read_as_it_was_written_and_rubbish_is_not_there(tmp_path: Path) -> None:
    one = Seen(0, "b", 12, (("b", "a", (7, 9)), ("a", None, ())))
    other = Seen(1, "b", 9)
    for seen in (one, other):
        write_seen(tmp_path, seen)
    assert read_seen(tmp_path) == [one, other]
    for rubbish in ("", "{", "[]", json.dumps({"shard": 1}), json.dumps({"shard": 1, "epoch": "b", "position": "x"})):
        (tmp_path / "seen" / "shard-1.json").write_text(rubbish)
        assert read_seen(tmp_path) == [one]
    assert read_seen(tmp_path / "nowhere") == []


def test_a_lineage_ends_at_the_first_epoch_whatever_the_rows_say() -> None:
    epochs = {"c": ("b", (3,)), "b": ("a", (2,)), "a": (None, ())}
    assert [epoch for epoch, _, _ in lineage("c", epochs)] == ["c", "b", "a"]
    assert [epoch for epoch, _, _ in lineage("c", {**epochs, "a": ("c", ())})] == ["c", "b", "a"]
    assert lineage("nobody", epochs) == ()

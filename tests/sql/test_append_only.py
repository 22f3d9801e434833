"""The log cannot be edited, and no component can write what is another's: everything forbidden is tried, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from judged_rooms import Log, Room
from psycopg import errors, sql

pytestmark = pytest.mark.postgres

LOG_TABLES = ("eventlog.events", "eventlog.outputs", "eventlog.event_keys")
ROLES = ("walden_writer", "walden_roomserver", "walden_reader", "walden_maintenance", "walden_history")
KEYS = {"eventlog.events": "shard", "eventlog.outputs": "shard", "eventlog.event_keys": "id"}
OF_THE_ROOM_SERVER = [
    "account_data",
    "aliases",
    "deferred",
    "directory",
    "early_redactions",
    "heads",
    "lines",
    "memberships",
    "profiles",
    "quarantine",
    "receipts",
    "redactions",
    "relations",
    "reports",
    "resolutions",
    "rooms",
    "state",
]


@pytest.fixture
def owner(database: str) -> Iterator[psycopg.Connection[Any]]:
    """The database's owner, with a room of a few events in it."""
    with Log(database) as log:
        room = Room(log, "@alice:test.example")
        room.message("@alice:test.example", "for ever")
        log.commit()
    with psycopg.connect(database, autocommit=True) as connection:
        yield connection


def statements(table: str, key: str) -> list[sql.Composed]:
    name = sql.Identifier(*table.split("."))
    column = sql.Identifier(key)
    return [
        sql.SQL("update {} set {} = {}").format(name, column, column),
        sql.SQL("delete from {}").format(name),
        sql.SQL("truncate {}").format(name),
    ]


@pytest.mark.parametrize("table", LOG_TABLES)
def test_not_even_the_owner_edits_the_log(owner: psycopg.Connection[Any], table: str) -> None:
    for statement in statements(table, KEYS[table]):
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            owner.execute(statement)


def test_not_even_the_owner_edits_a_partition_by_its_own_name(owner: psycopg.Connection[Any]) -> None:
    rows = owner.execute(
        "select distinct tableoid::regclass::text from eventlog.events"
        " union select distinct tableoid::regclass::text from eventlog.outputs"
    ).fetchall()
    partitions = [row[0] for row in rows]
    assert len(partitions) >= 4
    for partition in partitions:
        for statement in statements(partition, "shard"):
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
                owner.execute(statement)


def test_every_partition_refuses_to_be_truncated(owner: psycopg.Connection[Any]) -> None:
    rows = owner.execute(
        "select i.relid::regclass::text"
        " from (select * from pg_partition_tree('eventlog.events') union all select * from pg_partition_tree('eventlog.outputs')) i"
        " where i.isleaf"
    ).fetchall()
    assert len(rows) > 15
    for (partition,) in rows:
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            owner.execute(statements(partition, "shard")[2])


@pytest.mark.parametrize("role", ROLES)
def test_no_role_writes_into_the_log_past_its_functions(owner: psycopg.Connection[Any], role: str) -> None:
    owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    for table in LOG_TABLES:
        name = sql.Identifier(*table.split("."))
        insert = sql.SQL("insert into {} default values").format(name)
        for statement in [*statements(table, KEYS[table]), insert]:
            with pytest.raises(errors.InsufficientPrivilege):
                owner.execute(statement)


@pytest.mark.parametrize("role", ROLES)
def test_no_role_writes_the_room_servers_tables_past_its_function(owner: psycopg.Connection[Any], role: str) -> None:
    owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    for table in OF_THE_ROOM_SERVER:
        name = sql.Identifier("roomserver", table)
        for statement in (
            sql.SQL("insert into {} default values").format(name),
            sql.SQL("delete from {}").format(name),
            sql.SQL("truncate {}").format(name),
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                owner.execute(statement)


@pytest.mark.parametrize("role", [role for role in ROLES if role != "walden_writer"])
def test_only_writers_append(owner: psycopg.Connection[Any], role: str) -> None:
    owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    with pytest.raises(errors.InsufficientPrivilege):
        owner.execute("""select o from eventlog.append_v1('{"rooms": [], "entries": []}')""")


@pytest.mark.parametrize("role", [role for role in ROLES if role != "walden_roomserver"])
def test_only_the_room_server_commits_verdicts(owner: psycopg.Connection[Any], role: str) -> None:
    owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    with pytest.raises(errors.InsufficientPrivilege):
        owner.execute("select roomserver.commit_v1('{}')")


@pytest.mark.parametrize("role", ["walden_roomserver", "walden_history"])
def test_who_has_no_business_with_secrets_cannot_read_them(owner: psycopg.Connection[Any], role: str) -> None:
    owner.execute(sql.SQL("set role {}").format(sql.Identifier(role)))
    for table in ("accounts", "devices", "sessions", "filters", "uia_sessions", "registration_tokens"):
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute(sql.SQL("select count(*) from {}").format(sql.Identifier("writer", table)))


def test_people_read_history_and_nothing_else(owner: psycopg.Connection[Any]) -> None:
    owner.execute("set role walden_history")
    row = owner.execute("select count(*) from history.messages").fetchone()
    assert row == (1,)
    for table in ("eventlog.events", "eventlog.outputs", "roomserver.state", "roomserver.rooms", "eventlog.positions"):
        with pytest.raises(errors.InsufficientPrivilege):
            owner.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(*table.split("."))))
    for view in ("rooms", "messages", "memberships"):
        for verb in ("update {} set room_id = room_id", "delete from {}"):
            with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
                owner.execute(sql.SQL(verb).format(sql.Identifier("history", view)))
    with pytest.raises(errors.InsufficientPrivilege):
        owner.execute("create table history.mine (n integer)")


def test_a_writer_that_is_not_the_owner_appends_and_sees_it(owner: psycopg.Connection[Any]) -> None:
    owner.execute("set role walden_writer")
    entry = (
        '{"o": 0, "kind": "u", "shard": 0, "type": "profile", "sender": "@alice:test.example",'
        ' "json": "{\\"field\\":\\"displayname\\",\\"value\\":\\"Alice\\"}"}'
    )
    row = owner.execute(
        "select status, entry from eventlog.append_v1(%s)", [f'{{"rooms": [], "entries": [{entry}]}}']
    ).fetchone()
    assert row is not None
    assert row[0] == "appended"
    assert owner.execute("select sender from eventlog.events where id = %s", [row[1]]).fetchone() == (
        "@alice:test.example",
    )

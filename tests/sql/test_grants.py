"""docs/grants.md is what the catalogue says, and what is not on it is refused to whoever tries it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict

from bin.grants import KINDS, page, table_rights
from bin.logins import GROUPS

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).resolve().parents[2] / "docs" / "grants.md"
LOGS = ("eventlog.events", "eventlog.outputs")


@contextlib.contextmanager
def session_of(database: str, role: str) -> Iterator[psycopg.Connection]:
    """A session that is this role's from the ground up: it cannot go back to the superuser who opened it, nor to another."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(sql.SQL("set session authorization {}").format(sql.Identifier(role)))
        connection.execute("set statement_timeout = '20s'")
        yield connection


def attempt(connection: psycopg.Connection, statement: sql.Composed | str) -> str:
    """Try a statement and undo it: `refused`, `allowed`, or another error's name."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode() if isinstance(statement, str) else statement)
    except errors.InsufficientPrivilege:
        return "refused"
    except psycopg.Error as error:
        return type(error).__name__
    return "allowed"


def statement_for(kind: str, table: str, column: str) -> sql.Composed:
    """A statement that needs the right and changes nothing if it is given."""
    forms = {
        "select": "select {column} from {table} limit 0",
        "insert": "insert into {table} ({column}) overriding system value select {column} from {table} where false",
        "update": "update {table} set {column} = default where false",
        "delete": "delete from {table} where false",
        "truncate": "truncate {table}",
    }
    return sql.SQL(forms[kind]).format(  # type: ignore[arg-type]
        table=sql.Identifier(*table.split(".")), column=sql.Identifier(column)
    )


async def test_the_page_is_what_the_catalogue_says(database: str) -> None:
    said = await page(database)
    if said != PAGE.read_text(encoding="utf-8"):
        with tempfile.NamedTemporaryFile("w", suffix=".md", prefix="grants-", delete=False, encoding="utf-8") as file:
            file.write(said)
        pytest.fail(f"rights have changed: read them, then `walden grants > docs/grants.md` (or copy {file.name})")


@pytest.mark.parametrize("role", GROUPS.values())
async def test_every_right_that_a_role_does_not_have_is_refused_when_it_is_tried(database: str, role: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        tables, rights = await table_rights(connection)
        columns: dict[str, list[str]] = {}
        for table in tables:
            cursor = await connection.execute(
                "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
                [table],
            )
            columns[table] = [row[0] for row in await cursor.fetchall()]
    given = {(right.table, right.kind): right.columns for right in rights if right.role == role}
    allowed, tried = [], 0
    with session_of(database, role) as connection:
        for table in tables:
            for kind in KINDS:
                some = given.get((table, kind))
                if some == ():
                    continue
                # Where a role has some columns, every other one is tried.
                for column in columns[table] if some else columns[table][:1]:
                    if column in (some or ()):
                        continue
                    tried += 1
                    if (outcome := attempt(connection, statement_for(kind, table, column))) != "refused":
                        allowed.append((table, kind, column, outcome))
    assert tried > 100
    # A view that cannot be written to says so before it asks who is asking.
    assert [
        one
        for one in allowed
        if one[3] not in ("ObjectNotInPrerequisiteState", "WrongObjectType", "FeatureNotSupported")
    ] == []


@pytest.mark.parametrize("role", GROUPS.values())
def test_no_function_that_a_role_was_not_given_runs_for_it(database: str, role: str) -> None:
    with psycopg.connect(database) as owner:
        functions: list[tuple[Any, ...]] = owner.execute(
            "select n.nspname, p.proname, array(select format_type(a, null) from unnest(p.proargtypes) as a),"
            " has_function_privilege(%s, p.oid, 'execute') from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
            " where n.nspname in ('eventlog', 'roomserver', 'writer') and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype",
            [role],
        ).fetchall()
    assert len(functions) > 10
    with session_of(database, role) as connection:
        for schema, name, types, given in functions:
            if not given:
                arguments = sql.SQL(", ").join(sql.SQL("null::" + one) for one in types)
                call = sql.SQL("select {}({})").format(sql.Identifier(schema, name), arguments)
                assert attempt(connection, call) == "refused", (schema, name)


FORBIDDEN = (
    "create table eventlog.mine (n integer)",
    "create table history.mine (n integer)",
    "create schema mine",
    "create role mine login",
    "create database mine",
    "create extension pg_trgm",
    "create publication mine for all tables",
    "alter system set fsync = off",
    "set session_replication_role = replica",
    "alter table eventlog.events disable trigger all",
    "drop table eventlog.events",
    "drop trigger append_only on eventlog.events",
    "drop publication walden_outputs",
    "copy eventlog.events to program 'true'",
    "copy (select 1) to '/tmp/mine'",
    "select pg_read_file('postgresql.conf')",
    "select rolpassword from pg_authid",
    "select lo_import('/etc/passwd')",
    "select pg_drop_replication_slot('none')",
    "select pg_create_logical_replication_slot('mine', 'pgoutput')",
    "select pg_switch_wal()",
    "vacuum full eventlog.events",
    "set role walden_owner",
)


@pytest.mark.parametrize("role", GROUPS.values())
def test_no_component_may_do_what_is_an_administrators(database: str, role: str) -> None:
    outcomes = {}
    with session_of(database, role) as connection:
        others = [f"set role {other}" for other in GROUPS.values() if other != role]
        for statement in (*FORBIDDEN, *others):
            with contextlib.suppress(psycopg.Error):
                connection.execute(statement.encode())
                outcomes[statement] = "allowed"
    # VACUUM only warns, and leaves the table alone.
    assert set(outcomes) <= {"vacuum full eventlog.events"}


@pytest.mark.parametrize(
    "statement",
    [
        "update eventlog.positions set position = 0 where component = 'roomserver'",
        "update eventlog.positions set position = 7 where component = 'activity'",
        "update eventlog.positions set component = 'mine' where component = 'roomserver'",
        "insert into eventlog.positions (component, shard, position, lsn, epoch) values ('roomserver', 9, 0, '0/0', 'e')",
    ],
)
def test_a_reader_cannot_move_the_room_server(provisioned: str, statement: str) -> None:
    move = "update eventlog.positions set position = 1 where component = 'search'"
    with psycopg.connect(provisioned, autocommit=True) as owner:
        owner.execute(
            "insert into eventlog.positions (component, shard, position, lsn, epoch)"
            " values ('activity', 0, 0, '0/0', 'e'), ('search', 0, 0, '0/0', 'e')"
        )
        with session_of(provisioned, "walden_reader") as connection:
            assert connection.execute(move.encode()).rowcount == 1
            with pytest.raises(errors.InsufficientPrivilege, match="a reader moves its own position alone"):
                connection.execute(statement.encode())
        assert owner.execute(
            "select component, position from eventlog.positions where component <> 'search' order by component"
        ).fetchall() == [("activity", 0), ("roomserver", 0)]


async def test_the_hard_rules_hold_whatever_the_page_says(database: str) -> None:
    async with await psycopg.AsyncConnection.connect(database) as connection:
        _, rights = await table_rights(connection)
    writing = {(right.role, right.table) for right in rights if right.kind != "select"}
    assert [one for one in writing if one[1] in LOGS] == [], "nobody writes to the logs but through functions"
    assert {table.partition(".")[0] for role, table in writing if role == "walden_writer"} == {"writer", "media"}
    assert [one for one in writing if one[0] == "walden_history"] == []
    secrets = {"password_hash", "token_hash", "refresh_hash"}
    for right in rights:
        if right.role == "walden_history":
            assert right.table.startswith("history."), right
        if right.role in ("walden_reader", "walden_roomserver", "walden_history") and right.table.startswith("writer."):
            assert right.columns or right.table == "writer.filters", right
            assert not secrets & set(right.columns), right
        if right.role == "walden_maintenance" and right.table.startswith("writer.") and right.kind == "select":
            # By a token's hash its session is removed.
            assert right.columns and not (secrets - {"token_hash"}) & set(right.columns), right


def test_a_walsenders_login_selects_nothing_and_decodes_everything(provisioned: str) -> None:
    name = f"walden_test_walsender_{conninfo_to_dict(provisioned)['dbname']}"
    login = sql.Identifier(name)
    with psycopg.connect(provisioned, autocommit=True) as owner:
        owner.execute(sql.SQL("create role {} login noinherit replication password 'p'").format(login))
        try:
            owner.execute("create table public.anything (secret text)")
            with psycopg.connect(provisioned, user=name, password="p", autocommit=True) as connection:
                for table in ("public.anything", "eventlog.events", "writer.accounts", "history.messages"):
                    assert attempt(connection, f"select from {table}") == "refused"
                assert attempt(connection, "insert into public.anything values ('x')") == "refused"
                # What the documentation says of it: test_decoding, which every PostgreSQL has, shows any table's rows.
                connection.execute("select pg_create_logical_replication_slot(%s, 'test_decoding', true)", [name])
                owner.execute("insert into public.anything values ('in the open')")
                rows = connection.execute(
                    "select data from pg_logical_slot_get_changes(%s, null, null)", [name]
                ).fetchall()
            assert any("in the open" in row[0] for row in rows)
        finally:
            owner.execute(sql.SQL("drop role {}").format(login))


def test_nothing_of_walden_needs_an_extension(database: str) -> None:
    with psycopg.connect(database) as owner:
        found = {row[0] for row in owner.execute("select extname from pg_extension").fetchall()}
    # Where an administrator has installed one that helps, it may be used; none is asked for.
    assert found == {"plpgsql"}

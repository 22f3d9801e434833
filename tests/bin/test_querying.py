"""`walden query` and `walden sql`: what they run as, what they print, and how they end."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from judged_rooms import Log, Room

from bin.query_guard import QueryRefused
from bin.querying import Answer, QueryFailed, as_csv, as_json, as_table, ask

pytestmark = pytest.mark.postgres

ALICE = "@alice:test.example"


@pytest.fixture
def room(database: str) -> Iterator[Room]:
    with Log(database) as log:
        room = Room(log, ALICE, name="Pond")
        for number in range(5):
            room.message(ALICE, f"duck {number}")
        log.commit()
        yield room


def test_rows_come_as_asked_for(database: str, room: Room) -> None:
    answer = ask(database, f"select place, body from history.messages_of('{room.room_id}') order by place desc")
    assert answer.columns == ("place", "body")
    assert [body for _, body in answer.rows] == [f"duck {number}" for number in (4, 3, 2, 1, 0)]
    assert not answer.more


def test_no_more_rows_come_than_the_limit_and_it_is_said(database: str, room: Room) -> None:
    statement = f"select body from history.messages_of('{room.room_id}') order by place"
    answer = ask(database, statement, rows=2)
    assert ([body for (body,) in answer.rows], answer.more) == (["duck 0", "duck 1"], True)
    assert not ask(database, statement, rows=5).more


def test_a_statement_that_takes_too_long_is_ended(database: str) -> None:
    letters = "unnest(regexp_split_to_array('" + "a" * 2000 + "', ''))"
    with pytest.raises(QueryFailed, match=r"longer than 0\.2 s"):
        ask(database, f"select count(*) from {letters} a, {letters} b, {letters} c", seconds=0.2)
    # Whatever of it takes so long.
    with pytest.raises(QueryFailed, match=r"longer than 0\.001 s"):
        ask(database, f"select count(*) from {letters} a, {letters} b, {letters} c", seconds=0.001)


def test_what_is_unknown_is_said_so(database: str, room: Room) -> None:
    with pytest.raises(QueryFailed, match=r"unknown: the room !nowhere:test\.example is not known here"):
        ask(database, "select * from history.messages_of('!nowhere:test.example')")
    with pytest.raises(QueryFailed, match=r"unknown: what .* is unknown: the room is known here since"):
        ask(database, f"select * from history.state_at('{room.room_id}', '2001-01-01')")


def test_what_the_guard_refuses_is_not_run(database: str) -> None:
    with pytest.raises(QueryRefused):
        ask(database, "select pg_sleep(30)")


def test_a_mistake_is_the_databases_sentence(database: str) -> None:
    with pytest.raises(QueryFailed, match='column "nothing" does not exist'):
        ask(database, "select nothing from history.rooms")
    with pytest.raises(QueryFailed, match="division by zero"):
        ask(database, "select 1 / 0")
    # No connection broke, though PostgreSQL's code for it is among those of operators.
    with pytest.raises(QueryFailed, match="null character not permitted"):
        ask(database, "select chr(0)")


@pytest.mark.parametrize(
    "statement",
    [
        "select json from eventlog.events",
        "select password_hash from writer.accounts",
        "select * from roomserver.rooms",
        "select * from activity.users",
        "select rolpassword from pg_authid",
        "select eventlog.next_id()",
        "select activity.fold_v1(1)",
        "delete from history.room_numbers",
        "select pg_read_file('/etc/passwd')",
        "create table x (y int)",
    ],
)
def test_the_role_may_do_no_more_than_the_guard(database: str, room: Room, statement: str) -> None:
    with psycopg.connect(database) as connection:
        connection.read_only = True
        connection.execute("set local role walden_history")
        with pytest.raises((psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction)):
            connection.execute(statement)


def test_redacted_words_cannot_be_had_from_any_function_of_the_schema(database: str, room: Room) -> None:
    secret = room.message(ALICE, "the secret word")
    room.edit(ALICE, secret, "another secret word")
    room.redact(ALICE, secret)
    room.log.commit()
    for statement in (
        "select * from history.messages",
        "select * from history.edits",
        f"select * from history.redaction_of('{secret.event_id}')",
        f"select * from history.latest_edit('{secret.event_id}', {room.nid}, '{ALICE}', 'm.room.message')",
        f"select * from history.who_could_see('{secret.event_id}')",
    ):
        assert "secret" not in as_json(ask(database, statement))


ANSWER = Answer(
    ("who", "what", "n"),
    [("@a:x", "two\nlines\x1b[31m", 1), ("@b:x", None, 2), ('"quoted", b', "日本", 3)],
    False,
)


def test_a_table_lines_up_and_what_people_wrote_cannot_speak_to_the_terminal() -> None:
    assert as_table(ANSWER).splitlines() == [
        "who         | what               | n",
        "------------+--------------------+--",
        "@a:x        | two\\nlines\\x1b[31m | 1",
        "@b:x        |                    | 2",
        '"quoted", b | 日本               | 3',
        "(3 rows)",
    ]
    assert as_table(Answer(("a",), [], False)).endswith("(0 rows)\n")


def test_csv_is_read_back_as_it_was() -> None:
    read = list(csv.reader(io.StringIO(as_csv(ANSWER), newline="")))
    assert read[0] == ["who", "what", "n"]
    assert read[1] == ["@a:x", "two\nlines\x1b[31m", "1"]
    assert read[2][1] == ""


def test_json_has_numbers_and_objects_as_such(database: str, room: Room) -> None:
    answer = ask(
        database,
        "select count(*) as n, sum(1.5) as s, null as nothing, jsonb_build_object('a', array[1]) as o, true as t,"
        " 'infinity'::timestamptz as forever, array[1.0, 2.5] as many, 'NaN'::float8 as nan from history.messages",
    )
    assert json.loads(as_json(answer)) == [
        {
            "n": 5,
            "s": 7.5,
            "nothing": None,
            "o": {"a": [1]},
            "t": True,
            "forever": "infinity",
            "many": [1, 2.5],
            "nan": "nan",
        }
    ]


def run(database: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bin.command", *arguments],
        env={"WALDEN_DATABASE_DSN": database, "WALDEN_DATA_DIR": str(folder), "WALDEN_CONFIG": str(folder / "walden.toml"),
             "WALDEN_SERVER_NAME": "test.example", "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
    )  # fmt: skip


@pytest.mark.slow
def test_the_command_prints_rows_and_ends_with_0_1_or_2(database: str, room: Room, tmp_path: Path) -> None:
    asked = run(database, tmp_path, "query", "--format", "json", "--limit", "1", "select name from history.rooms")
    assert (asked.returncode, json.loads(asked.stdout)) == (0, [{"name": "Pond"}]), asked.stderr
    more = run(
        database,
        tmp_path,
        "query",
        "--format",
        "csv",
        "--limit",
        "2",
        "select body from history.messages order by place",
    )
    assert (more.returncode, more.stdout.split()) == (0, ["body", "duck", "0", "duck", "1"])
    assert "more than 2 rows" in more.stderr
    refused = run(database, tmp_path, "query", "select * from pg_authid")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.strip() == "walden: pg_authid is not in the schema history"
    unknown = run(database, tmp_path, "query", "select * from history.messages_of('!no')")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "unknown" in unknown.stderr


def test_sql_opens_psql_in_the_schema_and_cannot_write(database: str, room: Room, tmp_path: Path) -> None:
    shown = run(database, tmp_path, "sql", "-At", "-c", "select name from rooms")
    assert (shown.returncode, shown.stdout.strip()) == (0, "Pond"), shown.stderr
    refused = run(database, tmp_path, "sql", "-c", "create table x (y int)")
    assert refused.returncode != 0
    assert "read-only" in refused.stderr

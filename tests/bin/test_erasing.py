"""`walden purge`, `walden erase`, `walden retention`: shown first, refused where it must be, recorded with a name."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from judged_rooms import Log, Room

pytestmark = pytest.mark.postgres

ALICE = "@alice:test.example"


def _walden(dsn: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WALDEN_", "PG", "SUDO_"))}
    own = {
        "WALDEN_DATA_DIR": str(folder),
        "WALDEN_DATABASE_DSN": dsn,
        "WALDEN_SERVER_NAME": "test.example",
        "LOGNAME": "dba",
    }
    return subprocess.run(
        [sys.executable, "-m", "bin.command", *arguments],
        env=inherited | own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _messages(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("select count(*) from eventlog.events where kind = 'm'").fetchone()
    assert row is not None
    return int(row[0])


@pytest.fixture
def room(provisioned: str) -> Room:
    with Log(provisioned) as log:
        made = Room(log, ALICE)
        made.messages([ALICE], 7)
        log.commit()
    return made


@pytest.mark.slow
def test_history_is_purged_after_it_was_shown_and_recorded(provisioned: str, room: Room, tmp_path: Path) -> None:
    shown = _walden(provisioned, tmp_path, "purge", "history", room.room_id, "--before", "2026-06-01", "--dry-run")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("6 messages of ") and "1 more have to stay" in shown.stdout
    assert _messages(provisioned) == 7
    # Nobody is there to answer the question.
    assert _walden(provisioned, tmp_path, "purge", "history", room.room_id, "--before", "2026-06-01").returncode != 0
    assert _messages(provisioned) == 7
    done = _walden(provisioned, tmp_path, "purge", "history", room.room_id, "--before", "2026-06-01", "--yes")
    assert done.returncode == 0 and "removed 6 messages" in done.stdout
    assert _messages(provisioned) == 1
    records = _walden(provisioned, tmp_path, "retention", "--records").stdout
    assert f"history {room.room_id} by dba: 6 entries, kept 1" in records
    with psycopg.connect(provisioned) as connection:
        told = connection.execute("select json from eventlog.events where type = 'scrub'").fetchall()
    assert told == [(f'{{"room_id":"{room.room_id}"}}',)]


def test_a_room_with_members_and_an_account_in_use_are_refused(provisioned: str, room: Room, tmp_path: Path) -> None:
    refused = _walden(provisioned, tmp_path, "purge", "room", room.room_id, "--yes")
    assert refused.returncode == 1 and "let them leave first" in refused.stderr
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute("insert into writer.accounts (user_id) values (%s)", [ALICE])
    in_use = _walden(provisioned, tmp_path, "erase", "alice", "--yes")
    assert in_use.returncode == 1 and "deactivate it first" in in_use.stderr
    assert _messages(provisioned) == 7
    forced = _walden(provisioned, tmp_path, "purge", "room", room.room_id, "--force", "--yes")
    assert forced.returncode == 0, forced.stderr
    assert _messages(provisioned) == 0


def test_a_time_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    wrong = _walden("dbname=x", tmp_path, "purge", "history", "!a:b", "--before", "yesterday")
    assert wrong.returncode == 2 and "no date or time" in wrong.stderr


def test_retention_says_what_it_would_do_and_does_it(provisioned: str, room: Room, tmp_path: Path) -> None:
    with Log(provisioned) as log:
        log.clock = 1_770_000_000_000
        room.log = log
        sent = room.message(ALICE, "to be redacted")
        room.redact(ALICE, sent)
        log.commit()
    shown = _walden(provisioned, tmp_path, "retention", "--dry-run")
    assert shown.returncode == 0 and "1 redacted events still have their content" in shown.stdout, shown
    done = _walden(provisioned, tmp_path, "retention")
    assert done.returncode == 0 and "scrubbed 1 redacted events" in done.stdout, done
    assert "0 redacted events" in _walden(provisioned, tmp_path, "retention", "--dry-run").stdout

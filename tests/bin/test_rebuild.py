"""`walden rebuild` finds and mends what is not what the log says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

pytestmark = pytest.mark.postgres


def _rebuild(dsn: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WALDEN_", "PG"))}
    return subprocess.run(
        [sys.executable, "-m", "bin.command", "rebuild", *arguments],
        env=inherited | {"WALDEN_DATA_DIR": str(folder), "WALDEN_DATABASE_DSN": dsn},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.slow
def test_a_difference_is_shown_with_exit_code_1_then_mended_and_gone(provisioned: str, tmp_path: Path) -> None:
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute("insert into roomserver.rooms values (7, '!nowhere:test.example', '12', 0, now())")
    checked = _rebuild(provisioned, tmp_path, "all", "--check")
    assert (checked.returncode, checked.stderr) == (1, "")
    assert checked.stdout.splitlines()[0] == "rooms: should not be there: nid 7"
    shown = _rebuild(provisioned, tmp_path, "rooms", "--check", "--json")
    (one,) = json.loads(shown.stdout)
    assert (shown.returncode, one["projection"], one["key"], one["rebuilt"]) == (1, "rooms", {"nid": 7}, None)
    mended = _rebuild(provisioned, tmp_path, "all", "--json")
    assert mended.returncode == 0 and json.loads(mended.stdout)["rooms"] == 1
    after = _rebuild(provisioned, tmp_path, "all", "--check")
    assert (after.returncode, after.stdout) == (0, "no differences\n")


def test_nothing_is_touched_while_a_room_server_holds_its_shard(provisioned: str, tmp_path: Path) -> None:
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(1466004580, 0)")
        refused = _rebuild(provisioned, tmp_path, "all")
        assert refused.returncode == 1 and "stop Walden" in refused.stderr
        assert _rebuild(provisioned, tmp_path, "all", "--check").returncode == 0


def test_the_projections_are_listed_and_an_unknown_one_is_a_mistake(tmp_path: Path) -> None:
    assert "memberships" in _rebuild("dbname=x", tmp_path, "list").stdout.split()
    unknown = _rebuild("dbname=x", tmp_path, "nonsense")
    assert unknown.returncode == 2 and "memberships" in unknown.stderr

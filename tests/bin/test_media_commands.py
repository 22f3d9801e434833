"""`walden media` and `walden erase`: shown first, held back, deleted, with files as without."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from eventlog.blobs import Blobs
from eventlog.pools import Pool

pytestmark = pytest.mark.postgres

ALICE, BOB = "@alice:test.example", "@bob:test.example"


def walden(dsn: str, folder: Path, *arguments: str) -> str:
    """Runs a command that succeeds; what it says."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WALDEN_", "PG", "SUDO_"))}
    own = {
        "WALDEN_DATA_DIR": str(folder),
        "WALDEN_DATABASE_DSN": dsn,
        "WALDEN_SERVER_NAME": "test.example",
        "LOGNAME": "dba",
    }
    done = subprocess.run(
        [sys.executable, "-m", "bin.command", *arguments],
        env=inherited | own,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def put(dsn: str, folder: Path, media_id: str, user_id: str, content: bytes, *, into_files: bool) -> None:
    async def work() -> None:
        pool: Pool = Pool(dsn, open=False, min_size=1, max_size=1, kwargs={"autocommit": True})
        async with pool:
            writer = Blobs(pool, folder / "media", into_files=into_files).writer()
            await writer.begin()
            await writer.add(content)
            values = [media_id, user_id, writer.blob, await writer.finish(), writer.bytes]
            async with pool.connection() as connection:
                await connection.execute(
                    "select media.store_v1(%s, %s, %s, %s, %s, 'image/png', 'a.png', false, false, 9, 999)", values
                )

    asyncio.run(work())


def left(dsn: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        return [row[0] for row in connection.execute("select media_id from media.uploads order by 1").fetchall()]


def files(folder: Path) -> int:
    return sum(path.is_file() for path in (folder / "media").rglob("*"))


@pytest.mark.slow
def test_uploads_are_shown_held_back_and_deleted(provisioned: str, tmp_path: Path) -> None:
    for media_id, user_id, content in (("one", ALICE, b"1"), ("two", BOB, b"1"), ("three", BOB, b"333")):
        put(provisioned, tmp_path, media_id, user_id, content, into_files=True)
    run = lambda *arguments: walden(provisioned, tmp_path, "media", *arguments)  # noqa: E731
    assert "3 uploads, 0 in quarantine" in run("usage") and f"{BOB} 2 uploads, 4 bytes" in run("usage")
    assert "the same content as 1 others" in run("show", "mxc://test.example/one")
    assert run("quarantine", "one") == "put 2 uploads into quarantine\n"
    assert "by dba" in run("show", "two")
    assert run("release", "two") == "took 2 uploads out of quarantine\n"
    assert run("delete", "--user", "bob", "--dry-run").endswith("2 uploads\n")
    assert left(provisioned) == ["one", "three", "two"]
    assert run("delete", "--user", "bob", "--yes").endswith("deleted 2 uploads and 1 contents\n")
    # What the other user has stays.
    assert left(provisioned) == ["one"]
    assert "took away 0 uploads" in run("prune")
    assert "1 files, of them 0 missing; 0 that" in run("files")


def test_an_erased_user_has_no_uploads(provisioned: str, tmp_path: Path) -> None:
    with psycopg.connect(provisioned, autocommit=True) as connection:
        connection.execute(
            "insert into writer.accounts (user_id, password_hash, deactivated_at) values (%s, 'x', now())", [ALICE]
        )
    put(provisioned, tmp_path, "hers", ALICE, b"1", into_files=False)
    put(provisioned, tmp_path, "his", BOB, b"2", into_files=True)
    assert f"deleted 1 uploads of {ALICE}" in walden(provisioned, tmp_path, "erase", ALICE, "--yes")
    assert left(provisioned) == ["his"] and files(tmp_path) == 1

"""A restore to an earlier moment where uploads are files: what it leaves, who says so, and how it is mended."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from pathlib import Path

import aiohttp
import pytest
from people import Person
from restores import ArchivedCluster
from whole_server import SERVER_NAME, WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

SIZE = 300_000


async def upload(person: Person) -> tuple[str, bytes]:
    """Uploads something; its URI and what it is."""
    content = os.urandom(SIZE)
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {person.token}"}) as http,
        http.post(f"{person.url}/_matrix/media/v3/upload", data=content) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return (await answer.json())["content_uri"], content


async def download(person: Person, uri: str) -> tuple[int, bytes]:
    """Status and body of a download."""
    path = f"/_matrix/client/v1/media/download/{SERVER_NAME}/{uri.rpartition('/')[2]}"
    async with (
        aiohttp.ClientSession(headers={"authorization": f"Bearer {person.token}"}) as http,
        http.get(f"{person.url}{path}") as answer,
    ):
        return answer.status, await answer.read()


def said(server: WholeServer, *words: str, fails: bool = False) -> str:
    """What a command prints."""
    done = server.walden(*words)
    assert (done.returncode != 0) is fails, done.stdout + done.stderr
    return done.stdout + done.stderr


async def test_files_of_an_earlier_moment_are_missed_found_again_and_those_of_the_lost_time_removed(
    tmp_path: Path,
) -> None:
    folder, copy = tmp_path / "files", tmp_path / "copy"
    with ArchivedCluster(18) as cluster:
        cluster.execute("create database walden")
        with WholeServer(
            tmp_path / "d",
            WALDEN_DATABASE_DSN=cluster.dsn("walden"),
            WALDEN_MEDIA_STORE="directory",
            WALDEN_MEDIA_DIRECTORY=str(folder),
        ) as server:
            async with Person(server.url) as person:
                await person.register()
                kept, removed = await upload(person), await upload(person)
                backup, moment = await asyncio.to_thread(cluster.base_backup), cluster.now()
                # As the page on backups has it: the directory after the database.
                shutil.copytree(folder, copy)
                lost = await upload(person)
                await asyncio.to_thread(said, server, "media", "delete", "--yes", removed[0])
                assert (await download(person, removed[0]))[0] == 404
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(cluster.archive_all)
                cluster.stop()
                await asyncio.to_thread(cluster.restore, backup, recovery_target_time=f"'{moment}'")
                recovered = await asyncio.to_thread(said, server, "recover")
                assert f"1 of 2 uploads that are files are not in {folder}" in recovered
                found = (await asyncio.to_thread(server.walden, "doctor")).stdout
                assert re.search(f"^ERROR +media: 1 of 2 uploads that are files are not in {folder}$", found, re.M), (
                    found
                )
                await asyncio.to_thread(server.start)
                person.url = server.url
                assert await download(person, kept[0]) == (200, kept[1])
                assert (await download(person, removed[0]))[0] == 404
                assert (await download(person, lost[0]))[0] == 404
                files = await asyncio.to_thread(said, server, "media", "files", "--days", "0", fails=True)
                assert "2 files, of them 1 missing; 1 that the database does not know" in files

                # Whatever copies files that are not there brings it back.
                shutil.copytree(copy, folder, dirs_exist_ok=True)
                assert await download(person, removed[0]) == (200, removed[1])
                files = await asyncio.to_thread(said, server, "media", "files", "--days", "0", "--remove")
                assert "2 files, of them 0 missing; 1 removed" in files
                assert len([path for path in folder.rglob("*") if path.is_file()]) == 2
                found = (await asyncio.to_thread(server.walden, "doctor")).stdout
                assert re.search(f"^ok +media: all 2 uploads that are files are in {folder}$", found, re.M), found

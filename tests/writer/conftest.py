"""One server for all tests of the writers: they make users and rooms of their own, so they do not meet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio
import structlog
from api_server import Api, serving, settings_for
from click.testing import CliRunner, Result
from commands import Run
from fixtures_postgres import IDENTITY
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_postgresql.executors import NoopExecutor

from bin.command import main
from eventlog.provision import provision
from eventlog.settings import Settings
from roomserver.service import RoomServer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The server lives on the session's event loop, and so do those who ask it."""
    for item in items:
        if HERE in item.path.parents and item.get_closest_marker("asyncio"):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.fixture(scope="session")
def writers_database(postgresql_server: NoopExecutor) -> Iterator[str]:
    """DSN of a provisioned database for the whole session."""
    server = postgresql_server
    login = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    name = f"{server.dbname}_writers"
    with psycopg.connect(**login, dbname="postgres", autocommit=True) as owner:
        owner.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(server.template_dbname)
            )
        )
        dsn = make_conninfo(**login, dbname=name)
        try:
            asyncio.run(provision(dsn, dsn, IDENTITY, lock_timeout=60))
            yield dsn
        finally:
            owner.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()",
                [name],
            )
            owner.execute(
                "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = %s", [name]
            )
            owner.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def writers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("writers")


@pytest.fixture(scope="session")
def writers_settings(writers_database: str, writers_folder: Path) -> Settings:
    return settings_for(writers_database, writers_folder)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api(writers_settings: Settings) -> AsyncIterator[Api]:
    """A running API process with a room server beside it."""
    room_server = asyncio.create_task(RoomServer(writers_settings, 0).run())
    try:
        async with serving(writers_settings) as api:
            yield api
    finally:
        room_server.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await room_server


@pytest.fixture
def run(writers_database: str, writers_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a `walden` command in a thread of its own: it has an event loop of its own."""
    for name, value in {
        "WALDEN_DATA_DIR": str(writers_folder),
        "WALDEN_DATABASE_DSN": writers_database,
        "WALDEN_SERVER_NAME": "test.example",
    }.items():
        monkeypatch.setenv(name, value)

    def invoke(arguments: tuple[str, ...]) -> Result:
        # What the server in this process logs meanwhile is not the command's to say; and a command sets logs up for itself.
        before = structlog.get_config()
        try:
            with structlog.testing.capture_logs():
                return CliRunner().invoke(main, arguments)
        finally:
            structlog.configure(**before)

    async def one(*arguments: str) -> Result:
        return await asyncio.to_thread(invoke, arguments)

    return one

"""What sessions are asked for with: settings of their own past a pooler, none through it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from eventlog.configuration import load_settings
from eventlog.pools import SESSION, component_dsn, make_pool
from eventlog.settings import Settings
from eventlog.statement import Statement

DIRECT = {"WALDEN_DATABASE_DIRECT_DSN": "host=db dbname=w"}


def settings(folder: Path, **environ: str) -> Settings:
    dsn = "host=pooler dbname=w options='-c work_mem=8MB'"
    return load_settings({"WALDEN_DATA_DIR": str(folder), "WALDEN_DATABASE_DSN": dsn, **environ})


def options(dsn: str) -> str:
    return str(conninfo_to_dict(dsn).get("options", ""))


def test_a_session_has_its_settings_beside_those_of_the_dsn(tmp_path: Path) -> None:
    asked = options(component_dsn(settings(tmp_path), "writer"))
    assert asked.startswith("-c work_mem=8MB ")
    assert all(f"-c {name}={value}" in asked for name, value in SESSION.items())


def test_a_pooler_is_asked_for_nothing_that_it_would_refuse(tmp_path: Path) -> None:
    pooled = settings(tmp_path, **DIRECT)
    assert options(component_dsn(pooled, "writer")) == "-c work_mem=8MB"
    assert "statement_timeout" in options(component_dsn(pooled, "writer", direct=True))


def test_a_stream_has_no_limits(tmp_path: Path) -> None:
    assert options(component_dsn(settings(tmp_path, **DIRECT), "replication")) == ""


@pytest.mark.parametrize(("prepare", "threshold"), [("on", 1), ("off", None)])
async def test_statements_are_prepared_unless_the_setting_says_no(
    prepare: str, threshold: int | None, tmp_path: Path
) -> None:
    pool = make_pool(settings(tmp_path, WALDEN_DATABASE_PREPARE=prepare), "writer")
    assert isinstance(pool.kwargs, dict) and pool.kwargs["prepare_threshold"] == threshold


@pytest.mark.postgres
async def test_a_statement_notices_that_its_session_was_ended_before_it_is_run(database: str) -> None:
    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        statement = Statement(connection, "select 1")
        assert await statement.run() == [(b"1",)] and statement.usable
        async with await AsyncConnection.connect(database, autocommit=True) as other:
            # What a server says unasked is no reason to give it up.
            await connection.execute("listen something")
            await other.execute("notify something")
            assert statement.usable
            await other.execute("select pg_terminate_backend(%s, 20000)", [connection.info.backend_pid])
        end = time.monotonic() + 30
        while statement.usable:
            assert time.monotonic() < end
            await asyncio.sleep(0.01)

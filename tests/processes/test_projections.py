"""kill -9 of what keeps the projections, and of the database under it, leaves them as a rebuild would make them."""

import asyncio
import random
from pathlib import Path

import psycopg
import pytest
from load import Load
from projected_tables import rows
from whole_server import WholeServer

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

KILLS = ("projections", "postgres", "projections")


async def test_projections_that_were_killed_under_load_equal_rebuilt_ones(tmp_path: Path) -> None:
    chance = random.Random(1)
    with WholeServer(tmp_path / "d") as server:
        load = await Load.prepare(server.url, 4, 2, chance)
        try:
            load.begin()
            for name in KILLS:
                await asyncio.sleep(chance.uniform(0.5, 1.5))
                await asyncio.to_thread(server.kill, name, chance)
            await load.end()
        finally:
            await load.close()
        await asyncio.to_thread(server.rest)
        dsn = server.settings.dsn()
        kept = rows(dsn)
        with psycopg.connect(dsn) as connection:
            count = connection.execute("select count(*) from search.documents").fetchone()
        assert count is not None and count[0] > 50
        for name in ("search", "userdirectory", "notifications"):
            done = await asyncio.to_thread(server.walden, "rebuild", name)
            assert done.returncode == 0 and f"{name}: " in done.stderr, done.stderr
        assert rows(dsn) == kept

"""`walden status` shows what waits, and zero when nothing does."""

import asyncio
from pathlib import Path

import psycopg
import pytest

from bin.status import Component, Status, as_text, read_status
from eventlog.configuration import load_settings
from eventlog.presence import name, parse, show

pytestmark = pytest.mark.postgres


async def _status(dsn: str, tmp_path: Path) -> Status:
    return await read_status(load_settings({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": dsn}))


def _component(status: Status, wanted: str) -> Component:
    return next(one for one in status.components if one.name == wanted)


async def test_a_fresh_installation_is_behind_by_nothing(provisioned: str, tmp_path: Path) -> None:
    status = await _status(provisioned, tmp_path)
    roomserver = _component(status, "roomserver-0")
    assert (roomserver.position, roomserver.lag_bytes, roomserver.lag_seconds) == (0, 0, 0)
    assert [slot["state"] for slot in status.slots] == ["idle", "idle"]
    assert status.quarantine == []
    assert "roomserver-0" in as_text(status)


async def test_an_entry_without_a_verdict_is_a_lag_in_bytes_and_seconds(provisioned: str, tmp_path: Path) -> None:
    async with await psycopg.AsyncConnection.connect(provisioned, autocommit=True) as connection:
        await connection.execute(
            "insert into eventlog.events (id, kind, shard, sender, type, json) values"
            " (eventlog.id_at(now() - interval '3 seconds'), 'u', 0, '@a:b', 'x', '{}')"
        )
    roomserver = _component(await _status(provisioned, tmp_path), "roomserver-0")
    assert roomserver.lag_bytes
    assert roomserver.lag_seconds is not None
    assert 3 <= roomserver.lag_seconds < 60


async def test_quarantined_entries_are_listed_until_somebody_deals_with_them(provisioned: str, tmp_path: Path) -> None:
    async with await psycopg.AsyncConnection.connect(provisioned, autocommit=True) as connection:
        await connection.execute(
            "insert into roomserver.quarantine (entry, event_id, error, attempts, position) values"
            " (7, '$e', E'broken\\nat line 1', 3, 1)"
        )
        status = await _status(provisioned, tmp_path)
        (row,) = status.quarantine
        assert (row["entry"], row["event_id"], row["error"]) == (7, "$e", "broken\nat line 1")
        assert "entry 7 $e: broken\n" in as_text(status) and "at line 1" not in as_text(status)
        await connection.execute("update roomserver.quarantine set resolved_at = now(), resolution = 'dismissed'")
    assert (await _status(provisioned, tmp_path)).quarantine == []


async def test_a_process_that_shows_its_position_is_listed_with_it(provisioned: str, tmp_path: Path) -> None:
    showing = asyncio.create_task(show(provisioned, "api", lambda: [0]))
    try:
        for _ in range(200):
            status = await _status(provisioned, tmp_path)
            if any(one.name == "api" for one in status.components):
                break
            await asyncio.sleep(0.05)
        api = _component(status, "api")
        assert (api.position, api.lag_bytes, api.lag_seconds) == (0, 0, 0)
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


def test_a_shown_position_reads_back() -> None:
    shown = parse(name("api", 12, [3, 40]))
    assert shown is not None
    assert (shown.component, shown.pid, shown.positions) == ("api", 12, (3, 40))
    assert parse("walden api") is None


def test_a_shown_position_of_many_shards_is_cut_to_whole_numbers() -> None:
    positions = [10**9 + shard for shard in range(20)]
    text = name("api", 12345, positions)
    assert len(text) <= 63
    shown = parse(text)
    assert shown is not None
    assert list(shown.positions) == positions[: len(shown.positions)]
    assert len(shown.positions) >= 2

"""Notices say what a batch decided; whatever is not said in order is the reason to look."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from eventlog.notices import MOST_BYTES, Listener, Notice, accepted_list, parse_notice


@given(st.lists(st.integers(0, (1 << 63) - 1), min_size=1, max_size=300))
def test_the_entries_of_a_notice_are_read_as_they_were_written(entries: list[int]) -> None:
    text = accepted_list(entries)
    if text is None:
        assert sum(len(f"{entry:x}") for entry in entries) + len(entries) > MOST_BYTES / 2
        return
    notice = parse_notice(f"3 10 {10 + len(entries)} abc {text}")
    assert notice == Notice(3, 10, 10 + len(entries), "abc", entries)


def test_a_list_that_is_too_long_for_a_payload_is_left_out() -> None:
    assert accepted_list([n << 40 for n in range(1, 2_000)]) is None


@pytest.mark.parametrize("payload", ["", "0", "0 1", "0 1 2", "x 1 2 e", "0 1 2 e 5,6", "0 1 2 e 5 6", "0 1 2 e zz"])
def test_what_is_no_notice_is_none(payload: str) -> None:
    assert parse_notice(payload) is None


@pytest.mark.postgres
async def test_a_listener_hears_in_order_and_says_when_its_connection_is_lost(database: str, tmp_path: Path) -> None:
    heard: list[str] = []
    news = asyncio.Event()

    def hear(payload: str) -> None:
        heard.append(payload)
        news.set()

    async with await AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute("listen a_channel")
        pid = connection.info.backend_pid
        with Listener(connection, hear) as listener, psycopg.connect(database, autocommit=True) as other:
            for n in range(50):
                other.execute("select pg_notify('a_channel', %s)", [str(n)])
            async with asyncio.timeout(10):
                while len(heard) < 50:
                    news.clear()
                    await news.wait()
            listener.check()
            assert heard == [str(n) for n in range(50)]
            other.execute("select pg_terminate_backend(%s)", [pid])
            async with asyncio.timeout(10):
                while len(heard) < 51:
                    news.clear()
                    await news.wait()
            with pytest.raises(psycopg.OperationalError):
                listener.check()

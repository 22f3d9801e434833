"""Notices say what a batch decided; whatever is not said in order is the reason to look."""

from __future__ import annotations

import asyncio
import random
import secrets
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from eventlog.head import Head
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


def test_a_notice_without_its_list_says_how_far_all_the_same() -> None:
    assert parse_notice("0 1 2 e") == Notice(0, 1, 2, "e", None)


@pytest.mark.parametrize("payload", ["", "0", "0 1", "0 1 2", "x 1 2 e", "0 1 2 e 5,6", "0 1 2 e 5 6", "0 1 2 e zz"])
def test_what_is_no_notice_is_none(payload: str) -> None:
    assert parse_notice(payload) is None


@pytest.mark.postgres
async def test_a_listener_hears_in_order_and_says_when_its_connection_is_lost(database: str, tmp_path: Path) -> None:
    heard: list[tuple[str, int]] = []
    news = asyncio.Event()

    def hear(payload: str, sender: int) -> None:
        heard.append((payload, sender))
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
            assert heard == [(str(n), other.info.backend_pid) for n in range(50)]
            other.execute("select pg_terminate_backend(%s)", [pid])
            async with asyncio.timeout(10):
                while len(heard) < 51:
                    news.clear()
                    await news.wait()
            with pytest.raises(psycopg.OperationalError):
                listener.check()


@pytest.mark.postgres
async def test_a_notice_counts_from_a_session_of_the_room_server_and_from_nobody_else(provisioned: str) -> None:
    """Every session may notify, and whoever may connect can listen to what true notices look like."""
    decider, stranger = (f"{kind}_{secrets.token_hex(4)}" for kind in ("decider", "stranger"))
    with psycopg.connect(provisioned, autocommit=True) as owner:
        for name in (decider, stranger):
            owner.execute(sql.SQL("create role {} login password 'p'").format(sql.Identifier(name)))
            owner.execute(
                sql.SQL("grant connect on database {} to {}").format(
                    sql.Identifier(owner.info.dbname), sql.Identifier(name)
                )
            )
        owner.execute(sql.SQL("grant walden_roomserver to {}").format(sql.Identifier(decider)))
        try:
            async with Head(provisioned) as head:
                assert head.positions == [0]
                entry = random.getrandbits(50)
                verdict = head.expect(entry)
                async with await _session(provisioned, stranger) as session:
                    for _ in range(3):
                        await _notify(head, session, entry)
                assert not verdict.done()
                async with await _session(provisioned, decider) as session, asyncio.timeout(60):
                    # The first one is the reason to look whose session that is.
                    while not verdict.done():
                        await _notify(head, session, entry)
                assert verdict.result().verdict == "a"
        finally:
            for name in (decider, stranger):
                owner.execute(sql.SQL("drop owned by {}").format(sql.Identifier(name)))
                owner.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


async def _session(dsn: str, user: str) -> AsyncConnection:
    return await AsyncConnection.connect(make_conninfo(dsn, user=user, password="p"), autocommit=True)


async def _notify(head: Head, session: AsyncConnection, entry: int) -> None:
    """Say that an entry was accepted, and give the head a moment to do something about it."""
    await session.execute("select pg_notify('walden_outputs', %s)", [f"0 0 1 {head.epoch} {entry:x}"])
    await asyncio.sleep(0.2)

"""An output is never there before its entry: a batch whose entries others cannot see yet is put off."""

from __future__ import annotations

import json

import psycopg
import pytest

pytestmark = pytest.mark.postgres

OWNER = "00000000-0000-0000-0000-000000000001"


def test_a_batch_waits_until_the_transactions_of_its_entries_are_visible(database: str) -> None:
    with (
        psycopg.connect(database, autocommit=True) as roomserver,
        psycopg.connect(database) as writer,
    ):
        roomserver.execute(
            "insert into eventlog.epochs (epoch, system_identifier, timeline, reason) values ('e', '1', 1, 'init')"
        )
        roomserver.execute(
            "insert into eventlog.positions (component, shard, position, lsn, epoch, owner)"
            " values ('roomserver', 0, 0, '0/0', 'e', %s)",
            [OWNER],
        )
        (xid,) = writer.execute("select pg_current_xact_id()::text::bigint").fetchone() or (0,)
        entry = {"p": 1, "k": "m", "e": 5, "v": "a"}
        # As the stream tells it: 32 bits of the number.
        batch = {
            "shard": 0,
            "owner": OWNER,
            "from": 0,
            "to": 1,
            "lsn": None,
            "xids": [xid & 0xFFFFFFFF],
            "outputs": [entry],
        }

        def commit() -> object:
            row = roomserver.execute("select roomserver.commit_v1(%s::jsonb)", [json.dumps(batch)]).fetchone()
            return row and row[0]

        def position() -> object:
            row = roomserver.execute(
                "select position from eventlog.positions where component = 'roomserver'"
            ).fetchone()
            return row and row[0]

        assert commit() is False
        assert position() == 0
        assert roomserver.execute("select count(*) from eventlog.outputs").fetchone() == (0,)
        writer.commit()
        assert commit() is True
        assert position() == 1
        assert roomserver.execute("select count(*) from eventlog.outputs").fetchone() == (1,)

"""A lone event is appended by a shorter way, with the same outcome as in a group."""

from __future__ import annotations

import json
import time
from typing import Any

import psycopg
import pytest

pytestmark = pytest.mark.postgres

ROOM = "!r:x"
Json = dict[str, Any]


@pytest.fixture
def log(database: str) -> Any:
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "insert into roomserver.rooms (nid, room_id, room_version, shard) values (1, %s, '12', 0)", [ROOM]
        )
        connection.execute(
            "insert into roomserver.heads (room, extremities, depth, position, state_position, judged_seq, generation)"
            " values (1, '{$0}', 1, 1, 1, 0, 0)"
        )
        yield connection


def event(number: int, **more: Any) -> Json:
    return {
        "kind": "m",
        "shard": 0,
        "event_id": f"${number}",
        "room_id": ROOM,
        "type": "m.room.message",
        "sender": "@a:x",
        "device_id": "D",
        "txn_id": f"t{number}",
        "key": f"{number:032x}",
        "depth": number,
        "json": json.dumps({"n": number}),
        **more,
    }


def append(log: psycopg.Connection[Any], tip: str | None, *events: Json, **seen: Any) -> list[str]:
    """Appends to the room as it was seen; what became of each."""
    rooms = [{"room_id": ROOM, "tip": tip, "state_position": 1, "generation": 0, **seen}]
    entries = [{"o": o, **one} for o, one in enumerate(events)]
    rows = log.execute(
        "select o, status, entry, event_id from eventlog.append_v1(%s::jsonb) order by o",
        [json.dumps({"rooms": rooms, "entries": entries})],
    ).fetchall()
    assert [row[0] for row in rows] == list(range(len(events)))
    for (_, status, entry, event_id), one in zip(rows, events, strict=True):
        assert (entry is None) is (status == "moved")
        assert event_id == (None if status == "moved" else one["event_id"])
    return [row[1] for row in rows]


def content(log: psycopg.Connection[Any]) -> list[Any]:
    """Everything that an append writes, but for ids and moments."""
    return [
        log.execute(query).fetchall()
        for query in (
            "select kind, shard, local, seq, event_id, room_id, type, state_key, sender, device_id, txn_id, json"
            " from eventlog.events order by seq",
            "select room_id, event_id, depth, seq, state_seq, generation from eventlog.tips",
            "select e.event_id, encode(c.key, 'hex') from eventlog.txns c join eventlog.events e on e.id = c.entry order by 1",
            "select e.event_id from eventlog.event_keys k join eventlog.events e on e.id = k.id"
            " where k.key = eventlog.event_key(e.event_id) order by 1",
        )
    ]


STATE = {"kind": "s", "type": "m.room.name", "state_key": "", "key": None, "txn_id": None}
EVENTS = [event(1), event(2), event(3, key=None, txn_id=None, device_id=None), event(4, kind="s"), event(5, **STATE)]


def test_events_appended_one_by_one_leave_what_a_group_of_them_leaves(log: psycopg.Connection[Any]) -> None:
    for before, one in zip([None, *EVENTS], EVENTS, strict=False):
        assert append(log, before and before["event_id"], one) == ["appended"]
    singly = content(log)
    log.execute("set session_replication_role = replica")
    log.execute("truncate eventlog.events, eventlog.tips, eventlog.txns, eventlog.event_keys")
    log.execute("set session_replication_role = origin")
    assert append(log, None, *EVENTS) == ["appended"] * len(EVENTS)
    assert content(log) == singly


def test_a_lone_event_takes_the_short_way(log: psycopg.Connection[Any]) -> None:
    append(log, None, event(1))
    seen = {"room_id": ROOM, "tip": "$1", "state_position": 1, "generation": 0}
    row = log.execute("select eventlog.append_one(%s, %s)", [json.dumps(seen), json.dumps(event(2))]).fetchone()
    assert row is not None and row[0] is not None


@pytest.mark.parametrize(
    "tip, seen", [("$0", {}), (None, {}), ("$1", {"state_position": 2}), ("$1", {"generation": 1})], ids=str
)
def test_a_lone_event_of_a_room_that_has_moved_on_is_to_be_built_again(
    log: psycopg.Connection[Any], tip: str | None, seen: Json
) -> None:
    append(log, None, event(1))
    before = content(log)
    assert append(log, tip, event(2), **seen) == ["moved"]
    assert content(log) == before


def test_a_lone_event_does_not_follow_an_unjudged_state_event(log: psycopg.Connection[Any]) -> None:
    append(log, None, event(1))
    assert append(log, "$1", event(2, **STATE)) == ["appended"]
    assert append(log, "$2", event(3)) == ["moved"]
    log.execute("update roomserver.heads set judged_seq = 2")
    assert append(log, "$2", event(3)) == ["appended"]


def test_a_transaction_id_that_was_used_gets_the_earlier_event(log: psycopg.Connection[Any]) -> None:
    append(log, None, event(1))
    append(log, "$1", event(2))
    before = content(log)
    rows = log.execute(
        "select status, event_id from eventlog.append_v1(%s::jsonb)",
        [
            json.dumps(
                {
                    "rooms": [{"room_id": ROOM, "tip": "$2", "state_position": 1, "generation": 0}],
                    "entries": [{"o": 0, **event(3, key=f"{1:032x}")}],
                }
            )
        ],
    ).fetchall()
    assert rows == [("duplicate", "$1")]
    assert content(log) == before


@pytest.mark.parametrize("events", [EVENTS[:1], EVENTS], ids=len)
def test_what_comes_after_its_time_is_not_appended(log: psycopg.Connection[Any], events: list[Json]) -> None:
    rooms = [{"room_id": ROOM, "tip": None, "state_position": 1, "generation": 0}]
    batch = {"rooms": rooms, "entries": [{"o": o, **one} for o, one in enumerate(events)]}
    before = content(log)
    for until, statuses in ((time.time() - 60, {"late"}), (time.time() + 60, {"appended"})):
        rows = log.execute(
            "select status, entry from eventlog.append_v1(%s::jsonb)", [json.dumps({**batch, "until": until})]
        ).fetchall()
        assert len(rows) == len(events)
        assert {row[0] for row in rows} == statuses
        assert (content(log) == before) is ("late" in statuses)

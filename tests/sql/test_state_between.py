"""What changed in a room between two moments: everything that did, what stood before, and "unknown" where nobody here was there."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import psycopg
import pytest
from judged_rooms import Log, Room, moment

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:elsewhere.example"


def between(
    log: Log, room: Room, since: datetime, until: datetime, columns: str = "event_id, event_id_before"
) -> list[tuple[Any, ...]]:
    with psycopg.connect(log.connection.info.dsn, password=log.connection.info.password) as connection:
        connection.execute("set role walden_history")
        query = f"select {columns} from history.state_between(%s, %s, %s) order by place"
        return connection.execute(query, [room.room_id, since, until]).fetchall()  # type: ignore[arg-type]


def test_changes_are_told_with_what_stood_before(log: Log) -> None:
    room = Room(log, ALICE, name="zero")
    zero = room.state["m.room.name", ""]
    sent = []
    for number in range(4):
        log.clock += 60_000
        sent.append(room.send(ALICE, "m.room.name", {"name": f"{number}"}, state_key=""))
        room.message(ALICE, "meanwhile")
    log.commit()
    found = between(
        log, room, moment(sent[0], -1), moment(sent[1]), "changed_at, sender, content, content_before, event_id_before"
    )
    assert found == [
        (moment(sent[0]), ALICE, {"name": "0"}, {"name": "zero"}, zero.event_id),
        (moment(sent[1]), ALICE, {"name": "1"}, {"name": "0"}, sent[0].event_id),
    ]
    # The first moment is excluded, the second is not; spans that meet tell every change once.
    assert between(log, room, moment(sent[0]), moment(sent[2])) == [
        (sent[1].event_id, sent[0].event_id),
        (sent[2].event_id, sent[1].event_id),
    ]
    assert between(log, room, moment(sent[1]), moment(sent[1])) == []
    with pytest.raises(psycopg.errors.InvalidDatetimeFormat, match="ends before it begins"):
        between(log, room, moment(sent[1]), moment(sent[0]))


def test_what_a_resolution_took_away_is_told_too(log: Log) -> None:
    room = Room(log, ALICE)
    topic = room.send(ALICE, "m.room.topic", {"topic": "gone"}, state_key="")
    log.commit()
    log.clock += 60_000
    merge = room.message(ALICE, "joins the branches")
    log.add("closed", room=room.nid, line=0, type="m.room.topic", state_key="", at=merge.position)
    log.add(
        "resolutions", room=room.nid, position=merge.position, purpose="current", algorithm="v2",
        inputs='{"branches":[],"conflicts":[{"type":"m.room.topic","state_key":"","candidates":["$x"],"winner":null}]}',
        outcome='{"refused":{"$x":"no"}}',
    )  # fmt: skip
    log.commit()
    columns = "changed_at, type, event_id, content, event_id_before, content_before"
    assert between(log, room, moment(topic), moment(merge), columns) == [
        (moment(merge), "m.room.topic", None, None, topic.event_id, {"topic": "gone"})
    ]


def test_a_span_in_which_nobody_of_this_server_was_there_is_unknown(log: Log) -> None:
    room = Room(log, ALICE)
    room.member(EVE, "join")
    log.clock += 60_000
    left = room.member(ALICE, "leave")
    log.clock += 60_000
    back = room.member(BOB, "join")
    log.clock += 60_000
    name = room.send(ALICE, "m.room.name", {"name": "later"}, state_key="")
    log.commit()
    assert between(log, room, moment(back), moment(name)) == [(name.event_id, None)]
    assert between(log, room, moment(room.create), moment(left, -1))
    with pytest.raises(
        psycopg.errors.NoDataFound, match="unknown in part: nobody of this server was in the room all the time"
    ):
        between(log, room, moment(left, -1), moment(name))


def test_one_after_another_is_enough_and_a_room_that_was_empty_meanwhile_did_not_change(log: Log) -> None:
    room = Room(log, ALICE)
    room.member(EVE, "join")
    room.member(BOB, "join")
    log.clock += 60_000
    room.member(ALICE, "leave")
    log.clock += 60_000
    room.member(ALICE, "join")
    log.clock += 60_000
    bob_left = room.member(BOB, "leave")
    log.clock += 60_000
    room.member(EVE, "leave")
    room.member(ALICE, "leave")
    log.clock += 60_000
    back = room.member(ALICE, "join")
    log.commit()
    assert len(between(log, room, moment(room.create), moment(bob_left, 1))) == 8
    assert len(between(log, room, moment(room.create), moment(back))) == 11

"""Edits, reactions, threads, receipts and places: what the views say of what people did to messages, and when it is unknown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from judged_rooms import History, Log, Room, Sent, moment

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:elsewhere.example"


def rows(history: History, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in history.execute(query, values).fetchall()]


def test_valid_edits_are_told_and_others_are_not(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    room.member(BOB, "join")
    sent = room.message(ALICE, "frist")
    first = room.edit(ALICE, sent, "first?")
    last = room.edit(ALICE, sent, "first")
    room.edit(BOB, sent, "not his to edit")
    room.edit(ALICE, last, "an edit cannot be edited")
    room.relate(ALICE, sent, "m.replace", kind="m.room.message")
    refused = room.send(ALICE, "m.room.message", {"body": "refused"}, verdict="r")
    room.edit(ALICE, refused, "an edit of what was refused")
    log.commit()
    found = rows(
        history,
        "select event_id, edit_event_id, original_body, body, sender, edited_at, redacted, encrypted, place"
        " from history.edits_of(%s) order by place",
        room.room_id,
    )
    assert found == [
        (sent.event_id, one.event_id, "frist", body, ALICE, moment(one), False, False, one.position)
        for one, body in ((first, "first?"), (last, "first"))
    ]


def test_a_redacted_edit_is_told_without_its_words_and_so_are_all_of_a_redacted_message(
    log: Log, history: History
) -> None:
    room = Room(log, ALICE)
    sent, other = room.message(ALICE, "one"), room.message(ALICE, "secret")
    kept, gone = room.edit(ALICE, sent, "two"), room.edit(ALICE, sent, "secret")
    room.edit(ALICE, other, "secret")
    room.redact(ALICE, gone)
    room.redact(ALICE, other)
    log.commit()
    found = rows(
        history,
        "select edit_event_id, original_body, body, redacted from history.edits_of(%s) order by place",
        room.room_id,
    )
    assert found[:2] == [(kept.event_id, "one", "two", False), (gone.event_id, "one", None, True)]
    assert found[2][1:] == (None, None, True)


def test_edits_of_encrypted_messages_are_named_as_such(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.send(
        ALICE, "m.room.encrypted", {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "body": "bait"}
    )
    room.relate(ALICE, sent, "m.replace", kind="m.room.encrypted")
    log.commit()
    assert rows(history, "select encrypted, original_body, body from history.edits_of(%s)", room.room_id) == [
        (True, None, None)
    ]


def test_reactions_that_stand_are_told(log: Log, history: History) -> None:
    room, other = Room(log, ALICE), Room(log, BOB)
    sent, gone = room.message(ALICE, "x"), room.message(ALICE, "y")
    liked = room.relate(BOB, sent, "m.annotation", key="+\0")
    taken_back = room.relate(BOB, sent, "m.annotation", key="-")
    room.relate(BOB, gone, "m.annotation", key="+")
    room.relate(BOB, sent, "m.annotation", kind="m.room.message", key="no reaction")
    other.relate(BOB, other.message(BOB, "z"), "m.annotation", key="elsewhere")
    room.redact(BOB, taken_back)
    room.redact(ALICE, gone)
    log.commit()
    assert rows(
        history,
        "select event_id, sender, key, reacted_at, reaction_event_id, place from history.reactions_of(%s)",
        room.room_id,
    ) == [(sent.event_id, BOB, "+\U0010ffff0", moment(liked), liked.event_id, liked.position)]


def test_threads_are_told_with_how_many_replies_stand(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.message(ALICE, "root")
    room.edit(ALICE, sent, "the root")
    first, gone, last = (room.relate(BOB, sent, "m.thread", kind="m.room.message", body=f"{n}") for n in range(3))
    room.redact(BOB, gone)
    room.relate(BOB, Sent("$nowhere", 0, 0, sent.event), "m.thread", kind="m.room.message")
    hidden = room.message(ALICE, "hidden")
    room.relate(BOB, hidden, "m.thread", kind="m.room.encrypted")
    room.redact(ALICE, hidden)
    log.commit()
    found = rows(
        history,
        "select event_id, sender, body, replies, began_at, last_reply_at, last_reply from history.threads_of(%s) order by place",
        room.room_id,
    )
    assert found[0] == (sent.event_id, ALICE, "the root", 2, moment(first), moment(last), last.event_id)
    assert found[1][:4] == ("$nowhere", None, None, 1)
    assert found[2][:4] == (hidden.event_id, ALICE, None, 1)
    assert rows(history, "select event_id from history.replies_in(%s) order by place", sent.event_id) == [
        (first.event_id,),
        (gone.event_id,),
        (last.event_id,),
    ]


def test_receipts_say_how_far_everyone_has_read(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.message(ALICE, "x")
    for user, thread in ((ALICE, ""), (BOB, "main")):
        log.position += 1
        log.add(
            "receipts", room=room.nid, user_id=user, receipt_type="m.read", thread_id=thread, event_id=sent.event_id,
            event_position=sent.position, ts=log.clock, position=log.position,
        )  # fmt: skip
    log.commit()
    assert rows(
        history,
        "select user_id, receipt_type, thread, event_id, place, read_at from history.receipts_of(%s) order by change",
        room.room_id,
    ) == [
        (ALICE, "m.read", None, sent.event_id, sent.position, moment(sent)),
        (BOB, "m.read", "main", sent.event_id, sent.position, moment(sent)),
    ]


def test_a_place_divides_what_had_happened_from_what_came_later(log: Log, history: History) -> None:
    room, other = Room(log, ALICE), Room(log, BOB)
    sent = []
    for number in range(20):
        log.clock += 60_000
        sent.append(room.message(ALICE, f"{number}"))
        other.message(BOB, "meanwhile")
    log.commit()
    for number, one in enumerate(sent):
        for seconds in (0, 30):
            bodies = rows(
                history,
                "select body from history.messages_of(%s) where place <= (select history.place_at(%s, %s)) order by place",
                room.room_id, room.room_id, moment(one, seconds),
            )  # fmt: skip
            assert bodies == [(f"{n}",) for n in range(number + 1)]


FUNCTIONS_OF_ROOMS = [
    "messages_of('!no')", "edits_of('!no')", "reactions_of('!no')", "threads_of('!no')", "memberships_of('!no')",
    "state_changes_of('!no')", "receipts_of('!no')", "activity_of('!no')", "state_at('!no', now())", "place_at('!no', now())",
    "state_between('!no', now() - interval '1 day', now())", "why_state('!no', 'm.room.name', '')", "who_could_see('$no')",
]  # fmt: skip


@pytest.mark.parametrize("call", FUNCTIONS_OF_ROOMS)
def test_a_room_or_event_that_is_not_known_here_has_no_empty_answer(history: History, call: str) -> None:
    with pytest.raises(psycopg.errors.NoDataFound, match="is not known here"):
        history.execute("select * from history." + call)  # type: ignore[arg-type]


BEFORE_THE_EDGE = [
    "place_at(%(room)s, %(at)s)", "state_at(%(room)s, %(at)s)", "state_between(%(room)s, %(at)s, now())",
    "why_state(%(room)s, 'm.room.name', '', %(at)s)",
]  # fmt: skip


@pytest.mark.parametrize("call", BEFORE_THE_EDGE)
def test_before_the_room_was_known_everything_is_unknown(log: Log, history: History, call: str) -> None:
    log.clock += 3_600_000
    room = Room(log, ALICE)
    log.commit()
    values = {"room": room.room_id, "at": moment(room.create, -1)}
    with pytest.raises(psycopg.errors.NoDataFound, match="unknown: the room is known here since"):
        history.execute("select * from history." + call, values)  # type: ignore[arg-type]
    values["at"] = moment(room.create)
    history.execute("select * from history." + call, values)  # type: ignore[arg-type]


def test_days_before_the_room_was_known_are_unknown_and_later_ones_without_anything_are_zero(
    log: Log, history: History
) -> None:
    log.clock = int(datetime.now(UTC).timestamp() * 1000) - 3 * 86_400_000
    room = Room(log, ALICE)
    room.message(ALICE, "x")
    log.commit()
    log.connection.execute("select activity.fold_v1()")
    found = rows(history, "select messages, changes, senders from history.activity_of(%s, 6)", room.room_id)
    assert found == [(0, 0, 0)] * 3 + [(1, 4, 1)] + [(None, None, None)] * 2
    assert rows(history, "select history.counted_until() > now() - interval '1 minute'") == [(True,)]


def test_what_a_room_held_when_it_became_known_began_at_an_unknown_time(log: Log, history: History) -> None:
    """As after a join through another server: the state's events are no part of the timeline, and the join is."""
    room = Room(log, ALICE)
    log.commit()
    join = room.member(BOB, "join")
    log.commit()
    with psycopg.connect(log.connection.info.dsn, password=log.connection.info.password, autocommit=True) as owner:
        owner.execute(
            "update roomserver.state set valid_from = %s where room = %s and state_key <> %s",
            [join.position, room.nid, BOB],
        )
    found = dict(
        rows(history, "select type, began_at from history.state_changes_of(%s) where state_key = ''", room.room_id)
    )
    assert set(found.values()) == {None}
    ((began,),) = rows(history, "select began_at from history.memberships_of(%s) where user_id = %s", room.room_id, BOB)
    assert began == moment(join)

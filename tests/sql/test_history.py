"""The schema for people: what the views say of a room's life, and what they refuse to guess."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged_rooms import FIRST_MILLISECOND, History, Log, Room, Sent, moment

from eventlog.safe_text import safe
from matrix.redaction import redact_content
from matrix.room_versions import ROOM_VERSIONS

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:elsewhere.example"


def messages(history: History, room: Room) -> dict[str, dict[str, Any]]:
    rows = history.execute("select * from history.messages_of(%s)", [room.room_id]).fetchall()
    found = {row["event_id"]: row for row in rows}
    assert found == {
        row["event_id"]: row
        for row in history.execute("select * from history.messages where room_id = %s", [room.room_id]).fetchall()
    }
    return found


def test_a_message_is_read_with_who_where_and_when(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.message(ALICE, "good morning")
    log.commit()
    row = messages(history, room)[sent.event_id]
    assert (row["room_id"], row["sender"], row["type"], row["msgtype"], row["body"]) == (
        room.room_id,
        ALICE,
        "m.room.message",
        "m.text",
        "good morning",
    )
    assert row["sent_at"] == row["received_at"] == moment(sent)
    assert not (row["encrypted"] or row["redacted"] or row["edit_event_id"])


def test_the_latest_valid_edit_stands_in_the_place_of_the_message(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    room.member(BOB, "join")
    sent = room.message(ALICE, "frist")
    other = room.message(BOB, "untouched")
    room.edit(ALICE, sent, "first?")
    last = room.edit(ALICE, sent, "first")
    room.edit(BOB, sent, "not his to edit")
    room.edit(ALICE, last, "an edit cannot be edited")
    # The most recent one is the one with the greatest timestamp, not the one that came last.
    late = room.send(
        ALICE,
        "m.room.message",
        {
            "msgtype": "m.text",
            "body": "* older",
            "m.new_content": {"msgtype": "m.text", "body": "older"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": sent.event_id},
        },
        origin_server_ts=FIRST_MILLISECOND,
    )
    # Without m.new_content it is none.
    room.relate(ALICE, sent, "m.replace", kind="m.room.message")
    log.commit()
    found = messages(history, room)
    assert set(found) == {sent.event_id, other.event_id}
    assert found[sent.event_id]["body"] == "first"
    assert found[sent.event_id]["edit_event_id"] == last.event_id != late.event_id
    assert found[sent.event_id]["edited_at"] == moment(last)
    assert found[other.event_id]["body"] == "untouched"


def test_a_redacted_edit_gives_way_to_the_one_before(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.message(ALICE, "one")
    room.edit(ALICE, sent, "two")
    regretted = room.edit(ALICE, sent, "three")
    room.redact(ALICE, regretted)
    log.commit()
    assert messages(history, room)[sent.event_id]["body"] == "two"


def test_a_redacted_message_has_no_words_and_says_who_took_them(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    room.member(BOB, "join")
    sent = room.message(BOB, "slander")
    room.edit(BOB, sent, "worse slander")
    room.redact(ALICE, sent, "slander\0")
    log.commit()
    row = messages(history, room)[sent.event_id]
    assert (row["body"], row["msgtype"], row["edit_event_id"], row["redacted"]) == (None, None, None, True)
    assert (row["redacted_by"], row["redaction_reason"]) == (ALICE, "slander" + safe("\0"))
    assert "slander" not in str({**row, "redaction_reason": ""})


def test_the_reason_of_a_redaction_can_be_redacted_too(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.message(ALICE, "slander")
    redaction = room.redact(ALICE, sent, "it said: slander")
    room.redact(ALICE, redaction)
    log.commit()
    row = messages(history, room)[sent.event_id]
    assert (row["body"], row["redacted_by"], row["redaction_reason"]) == (None, ALICE, None)


def test_encrypted_messages_are_named_as_such(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    sent = room.send(
        ALICE, "m.room.encrypted", {"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "x", "body": "bait"}
    )
    edit = room.relate(ALICE, sent, "m.replace", kind="m.room.encrypted")
    log.commit()
    found = messages(history, room)
    assert set(found) == {sent.event_id}
    row = found[sent.event_id]
    assert (row["encrypted"], row["body"], row["edit_event_id"]) == (True, None, edit.event_id)


def test_replies_and_threads_are_told(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    root = room.message(ALICE, "root")
    answer = room.message(
        ALICE,
        "answer",
        **{
            "m.relates_to": {
                "rel_type": "m.thread",
                "event_id": root.event_id,
                "m.in_reply_to": {"event_id": root.event_id},
            }
        },
    )
    log.commit()
    row = messages(history, room)[answer.event_id]
    assert (row["thread"], row["in_reply_to"]) == (root.event_id, root.event_id)


def test_refused_events_are_no_messages(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    for verdict in "osrtq":
        room.send(ALICE, "m.room.message", {"msgtype": "m.text", "body": verdict}, verdict=verdict)
    log.commit()
    assert messages(history, room) == {}


@pytest.mark.parametrize("timestamp", [-(2**53) + 1, -1, 0, 2**53 - 1])
def test_no_timestamp_makes_the_view_fail(log: Log, history: History, timestamp: int) -> None:
    room = Room(log, ALICE)
    sent = room.send(ALICE, "m.room.message", {"body": 7}, origin_server_ts=timestamp)
    log.commit()
    # psycopg cannot read every date, PostgreSQL can.
    row = history.execute("select sent_at::text, body from history.messages_of(%s)", [room.room_id]).fetchone()
    assert row is not None
    assert row["body"] == "7"
    assert sent.event.origin_server_ts == timestamp


def test_a_page_of_one_room_reads_the_index_and_stops(log: Log, database: str) -> None:
    rooms = [Room(log, ALICE) for _ in range(3)]
    for _ in range(400):
        for room in rooms:
            room.messages([ALICE], 5)
    log.commit()
    with psycopg.connect(database, autocommit=True) as owner:
        owner.execute("analyze")
        owner.execute("set role walden_history")
        (plan,) = owner.execute(
            "explain (analyze, format json) select sent_at, sender, body from history.messages_of(%s) order by place desc limit 50",
            [rooms[1].room_id],
        ).fetchone() or ([],)

    nodes: list[dict[str, Any]] = []

    def walk(node: dict[str, Any]) -> None:
        nodes.append(node)
        for inner in node.get("Plans", []):
            walk(inner)

    walk(plan[0]["Plan"])
    on_outputs = [node for node in nodes if node.get("Relation Name", "").startswith("outputs_m")]
    assert on_outputs
    assert all("room_timeline" in node["Index Name"] for node in on_outputs if node["Plan Rows"] > 1)
    assert max(node["Actual Rows"] * node["Actual Loops"] for node in nodes) <= 60
    # The one sort there may be is of a message's edits.
    assert all(node["Actual Rows"] == 0 for node in nodes if node["Node Type"] == "Sort")


def test_rooms_are_told_as_they_are_now(log: Log, history: History) -> None:
    room = Room(log, ALICE, name="first", visibility="invited")
    room.send(ALICE, "m.room.name", {"name": "sec\0nd"}, state_key="")
    topic = room.send(ALICE, "m.room.topic", {"topic": "slander"}, state_key="")
    room.redact(ALICE, topic)
    room.send(ALICE, "m.room.canonical_alias", {"alias": "#room:test.example"}, state_key="")
    room.send(ALICE, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"}, state_key="")
    room.member(BOB, "invite", by=ALICE)
    bare = Room(log, BOB, version="12")
    log.commit()
    found = {row["room_id"]: row for row in history.execute("select * from history.rooms").fetchall()}
    row = found[room.room_id]
    assert (row["name"], row["topic"], row["canonical_alias"]) == (
        "sec" + safe("\0") + "nd",
        None,
        "#room:test.example",
    )
    assert (row["join_rule"], row["history_visibility"], row["encrypted"]) == ("public", "invited", True)
    assert (row["creator"], row["created_at"]) == (ALICE, moment(room.create))
    assert (row["joined_members"], row["invited_members"], row["room_version"]) == (1, 1, "11")
    row = found[bare.room_id]
    assert (row["name"], row["history_visibility"], row["encrypted"], row["creator"]) == (None, "shared", False, BOB)


def test_memberships_are_told_over_time(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    invited = room.member(BOB, "invite", by=ALICE)
    joined = room.member(BOB, "join", displayname="Bob")
    kicked = room.member(BOB, "leave", by=ALICE, reason="enough")
    log.commit()
    rows = history.execute(
        "select membership, began_at, ended_at, changed_by, reason, display_name, event_id from history.memberships"
        " where room_id = %s and user_id = %s order by began_at",
        [room.room_id, BOB],
    ).fetchall()
    assert [tuple(row.values()) for row in rows] == [
        ("invite", moment(invited), moment(joined), ALICE, None, None, invited.event_id),
        ("join", moment(joined), moment(kicked), BOB, None, "Bob", joined.event_id),
        ("leave", moment(kicked), None, ALICE, "enough", None, kicked.event_id),
    ]


def test_a_change_by_a_resolution_counts_from_the_event_that_caused_it(log: Log, history: History) -> None:
    """Bob's join loses in a resolution: nothing follows it, and it ends with the message that joined the branches."""
    room = Room(log, ALICE)
    joined = room.member(BOB, "join")
    log.commit()
    merge = room.message(ALICE, "joins the branches")
    log.add("closed", room=room.nid, line=0, type="m.room.member", state_key=BOB, at=merge.position)
    log.commit()
    row = history.execute("select * from history.memberships where user_id = %s", [BOB]).fetchone()
    assert row is not None
    assert (row["began_at"], row["ended_at"]) == (moment(joined), moment(merge))


def state_at(history: History, room: Room, at: datetime) -> dict[tuple[str, str], dict[str, Any]]:
    rows = history.execute("select * from history.state_at(%s, %s)", [room.room_id, at]).fetchall()
    return {(row["type"], row["state_key"]): row for row in rows}


def test_the_state_of_a_room_at_a_moment_is_what_it_was_then(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    names: list[Sent] = []
    for number in range(3):
        log.clock += 60_000
        names.append(room.send(ALICE, "m.room.name", {"name": f"{number}"}, state_key=""))
        log.clock += 60_000
        room.message(ALICE, "meanwhile")
    log.commit()
    key = ("m.room.name", "")
    assert key not in state_at(history, room, moment(names[0], -1))
    for number, sent in enumerate(names):
        for seconds in (0, 1, 59, 61):
            row = state_at(history, room, moment(sent, seconds))[key]
            assert (row["content"], row["event_id"]) == ({"name": f"{number}"}, sent.event_id)
            assert (row["sender"], row["since"], row["redacted"]) == (ALICE, moment(sent), False)
    now = state_at(history, room, datetime.now(UTC))
    assert {key: row["event_id"] for key, row in now.items()} == {
        key: sent.event_id for key, sent in room.state.items()
    }


def test_redacted_state_keeps_what_redaction_leaves(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    member = room.member(ALICE, "join", displayname="slanderer")
    room.redact(ALICE, member)
    log.commit()
    row = state_at(history, room, datetime.now(UTC))["m.room.member", ALICE]
    assert (row["content"], row["redacted"]) == ({"membership": "join"}, True)


def test_before_the_room_was_known_its_state_is_unknown_and_not_empty(log: Log, history: History) -> None:
    log.clock += 3_600_000
    room = Room(log, ALICE)
    log.commit()
    with pytest.raises(psycopg.errors.NoDataFound, match="unknown: the room is known here since"):
        state_at(history, room, moment(room.create, -1))
    assert state_at(history, room, moment(room.create))


def test_a_room_that_is_not_known_and_a_moment_to_come_have_no_state(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    log.commit()
    with pytest.raises(psycopg.errors.NoDataFound, match="is not known here"):
        history.execute("select * from history.state_at('!nowhere:test.example', now())")
    with pytest.raises(psycopg.errors.NoDataFound, match="not known yet"):
        state_at(history, room, datetime.now(UTC) + timedelta(hours=1))


def test_while_only_others_are_in_the_room_its_state_is_unknown(log: Log, history: History) -> None:
    room = Room(log, ALICE)
    room.member(EVE, "join")
    log.clock += 60_000
    left = room.member(ALICE, "leave")
    log.clock += 60_000
    back = room.member(ALICE, "join")
    log.commit()
    assert state_at(history, room, moment(left, -1))
    with pytest.raises(psycopg.errors.NoDataFound, match="nobody of this server was in the room then"):
        state_at(history, room, moment(left, 30))
    assert state_at(history, room, moment(back))


def test_a_room_that_everybody_left_does_not_change_any_more(log: Log, history: History) -> None:
    room = Room(log, ALICE, name="empty")
    left = room.member(ALICE, "leave")
    log.commit()
    assert state_at(history, room, moment(left, 3600))["m.room.name", ""]["content"] == {"name": "empty"}


def test_what_was_judged_after_the_moment_had_no_effect_then(log: Log, history: History) -> None:
    """An entry that waited long counts from the verdict, which came after what was appended later."""
    room = Room(log, ALICE, name="old")
    log.commit()
    waiting = log.next_entry()
    log.clock += 60_000
    after = room.message(ALICE, "was judged first")
    log.clock += 60_000
    late = room.send(ALICE, "m.room.name", {"name": "new"}, state_key="")
    for row in log.batch["outputs"] + log.batch["state"]:
        for name in ("e", "entry"):
            if row.get(name) == late.entry:
                row[name] = waiting
    log.rows = [(waiting, *row[1:]) if row[0] == late.entry else row for row in log.rows]
    log.commit()
    at = datetime.fromtimestamp((waiting >> 20) / 1000, UTC) + timedelta(seconds=1)
    assert state_at(history, room, at)["m.room.name", ""]["content"] == {"name": "old"}
    assert state_at(history, room, moment(after, 1))["m.room.name", ""]["content"] == {"name": "new"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TEXTS = st.text() | st.text(alphabet='\0\\u0\U0010ffff1"a', max_size=12)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=TEXTS, other=JSON, key=st.text(max_size=5))
def test_every_text_can_be_read_out_of_json_and_none_becomes_another(
    history: History, value: str, other: Any, key: str
) -> None:
    document = orjson.dumps({"content": {f"_{key}": other, "body": value}}, option=orjson.OPT_SORT_KEYS).decode()
    row = history.execute("select history.json_text(%s, 'content', 'body') as read", [document]).fetchone()
    assert row is not None
    assert row["read"] == safe(value)


CONTENT_KEYS = st.sampled_from(
    [
        "membership",
        "creator",
        "join_rule",
        "allow",
        "ban",
        "events",
        "events_default",
        "kick",
        "redact",
        "state_default",
        "users",
        "users_default",
        "invite",
        "aliases",
        "history_visibility",
        "redacts",
        "third_party_invite",
        "join_authorised_via_users_server",
        "body",
    ]
)
TYPES = st.sampled_from(
    [
        "m.room.member",
        "m.room.create",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.history_visibility",
        "m.room.aliases",
        "m.room.redaction",
        "m.room.name",
    ]
)
VALUES: st.SearchStrategy[Any] = (
    st.none()
    | st.integers(0, 9)
    | st.just({"signed": {"token": "x"}, "display_name": "y"})
    | st.just({})
    | st.just("text")
)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=TYPES, content=st.dictionaries(CONTENT_KEYS, VALUES), version=st.sampled_from(sorted(ROOM_VERSIONS)))
def test_redaction_in_sql_is_redaction_in_python(
    history: History, kind: str, content: dict[str, Any], version: str
) -> None:
    row = history.execute(
        "select history.redacted_content(%s, %s::jsonb, %s) as kept", [kind, orjson.dumps(content).decode(), version]
    ).fetchone()
    assert row is not None
    assert row["kept"] == redact_content(kind, content, ROOM_VERSIONS[version])

"""Redactions that come before what they redact."""

from __future__ import annotations

from pathlib import Path

import orjson
import psycopg
import pytest
from local_rooms import Talk, talk
from psycopg import AsyncConnection
from running_roomserver import judged, receive, running, settings_for

from matrix.events import Event, build_event
from matrix.room_versions import ROOM_VERSIONS
from matrix.signatures import SigningKey
from roomserver.projections import differences
from writer.drafts import Draft

pytestmark = pytest.mark.postgres

EVE, MALLORY = "@eve:other.example", "@mallory:third.example"
KEY = SigningKey.generate("other")


def state_of(dsn: str, room_id: str) -> tuple[dict[tuple[str, str], str], list[str], int]:
    """The room's current state, its forward extremities and its depth."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select s.type, s.state_key, e.event_id from roomserver.state s join roomserver.rooms n on n.nid = s.room"
            " join eventlog.events e on e.id = s.entry"
            " where n.room_id = %s and s.line = 0 and s.valid_to = 9223372036854775807",
            [room_id],
        ).fetchall()
        head = connection.execute(
            "select h.extremities, h.depth from roomserver.heads h join roomserver.rooms n on n.nid = h.room"
            " where n.room_id = %s",
            [room_id],
        ).fetchone()
    assert head is not None
    return {(row[0], row[1]): row[2] for row in rows}, head[0], head[1]


def foreign(dsn: str, room_id: str, sender: str, kind: str, content: dict[str, object], **more: str) -> Event:
    """An event of another server, built on the room as it is."""
    state, extremities, depth = state_of(dsn, room_id)
    keys = [("m.room.power_levels", ""), ("m.room.member", sender), ("m.room.join_rules", "")]
    if kind != "m.room.member":
        keys.pop()
    return build_event(
        room_version=ROOM_VERSIONS["11"],
        room_id=room_id,
        sender=sender,
        type=kind,
        state_key=more.get("state_key"),
        content=content,
        prev_events=extremities,
        auth_events=[state["m.room.create", ""], *[state[key] for key in keys if key in state]],
        depth=depth + 1,
        origin_server_ts=1_800_000_000_000,
        server_name=sender.partition(":")[2],
        signing_key=KEY,
        redacts=more.get("redacts"),
    )[0]


async def with_strangers(dsn: str, here: Talk) -> str:
    """A room that users of other servers are in."""
    room_id = await here.room("11")
    count = 4
    for user_id in (EVE, MALLORY):
        join = foreign(dsn, room_id, user_id, "m.room.member", {"membership": "join"}, state_key=user_id)
        receive(dsn, [join])
        count += 1
        await judged(dsn, count)
    return room_id


def redactions(dsn: str) -> dict[str, str]:
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute("select target, redaction from roomserver.redactions").fetchall())


async def test_an_event_is_redacted_as_it_arrives_by_what_was_allowed_to(provisioned: str, tmp_path: Path) -> None:
    settings = settings_for(provisioned, tmp_path)
    async with running(settings), talk(settings) as here:
        room_id = await with_strangers(provisioned, here)
        late = foreign(provisioned, room_id, EVE, "m.room.message", {"body": "late", "msgtype": "m.text"})
        other = foreign(provisioned, room_id, EVE, "m.room.message", {"body": "other", "msgtype": "m.text"})
        # Somebody without the level, of another server than the sender, first.
        receive(provisioned, [foreign(provisioned, room_id, MALLORY, "m.room.redaction", {}, redacts=late.event_id)])
        receive(provisioned, [foreign(provisioned, room_id, MALLORY, "m.room.redaction", {}, redacts=other.event_id)])
        await judged(provisioned, 8)
        (redaction,) = await here.writer.send(
            [Draft(room_id, here.user, "m.room.redaction", {"reason": "early"}, redacts=late.event_id)]
        )
        assert redactions(provisioned) == {}
        receive(provisioned, [late, other])
        verdicts = await judged(provisioned, 11)
        assert {verdicts[event.event_id][0] for event in (late, other)} == {"a"}
        assert redactions(provisioned) == {late.event_id: redaction.event_id}
    with psycopg.connect(provisioned) as connection:
        row = connection.execute(
            "select o.annotation from eventlog.outputs o join eventlog.events e on e.id = o.entry where e.event_id = %s",
            [late.event_id],
        ).fetchone()
    assert row is not None
    assert orjson.loads(row[0]) == {
        "redacts": late.event_id,
        "redaction": [redaction.event_id, redaction.entry],
    }
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        assert await differences(connection) == []


def shown(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "select e.event_id from eventlog.outputs o join eventlog.events e on e.id = o.entry where o.timeline is not null"
        ).fetchall()
    return {row[0] for row in rows}


async def test_a_redaction_that_does_not_apply_or_names_nothing_known_has_no_place_in_the_timeline(
    provisioned: str, tmp_path: Path
) -> None:
    settings = settings_for(provisioned, tmp_path)
    relation = {"m.relates_to": {"rel_type": "m.reference", "event_id": "$somewhere"}}
    async with running(settings), talk(settings) as here:
        room_id = await with_strangers(provisioned, here)
        (message,) = await here.writer.send([here.message(room_id, "mine")])
        redactions_sent = {}
        for n, (sender, named) in enumerate(
            [(MALLORY, message.event_id), (MALLORY, "$unknown"), (MALLORY, "$a\0b"), (MALLORY, "x" * 300)]
        ):
            event = foreign(provisioned, room_id, sender, "m.room.redaction", relation, redacts=named)
            receive(provisioned, [event])
            verdicts = await judged(provisioned, 8 + n)
            assert verdicts[event.event_id][0] == "a"
            redactions_sent[event.event_id] = named
        assert shown(provisioned).isdisjoint(redactions_sent)
        (allowed,) = await here.writer.send(
            [Draft(room_id, here.user, "m.room.redaction", {}, redacts=message.event_id)]
        )
        assert {message.event_id, allowed.event_id} <= shown(provisioned)
        assert redactions(provisioned) == {message.event_id: allowed.event_id}
    async with await AsyncConnection.connect(provisioned, autocommit=True) as connection:
        assert await differences(connection) == []

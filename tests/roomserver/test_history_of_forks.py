"""History of rooms with forks, as the room server judged them: why a state is what it is, who could see what off the main line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest
from running_roomserver import judged, receive, running, settings_for

from matrix.state_resolution import resolve
from matrix.visibility import history_visibility_of, user_may_see
from tests.matrix.room_dag import RoomDag

pytestmark = pytest.mark.postgres


def closure(dag: RoomDag, event_id: str) -> dict[str, int]:
    """The auth chain of an event with how far away each event of it is."""
    chain, frontier, level = {event_id: 0}, [event_id], 0
    while frontier:
        level += 1
        frontier = sorted({a for e in frontier for a in dag.events[e].auth_events} - chain.keys())
        chain |= dict.fromkeys(frontier, level)
    return chain


def visible_to(dag: RoomDag, event_id: str, history: psycopg.Connection[Any]) -> set[str]:
    """Who may see an event, from the state that the DAG has before it and the stays that the main line has after it."""
    event = dag.events[event_id]
    before = resolve(dag.room_version, [dag.state_after[p] for p in event.prev_events], dag.events).state
    stays = history.execute(
        "select m.user_id, exists (select from history.state_spans s where s.room = m.room and s.line = 0 and s.type = 'm.room.member'"
        " and s.state_key = m.user_id and s.until_place > (select place from history.sight_of(%s))"
        " and exists (select from history.memberships x where x.event_id = s.event_id and x.membership = 'join'))"
        " from history.members m where m.room_id = %s",
        [event_id, dag.room_id],
    ).fetchall()
    found = before.get(("m.room.history_visibility", ""))
    seen = set()
    for user, joined_since in stays:
        member = before.get(("m.room.member", user))
        if user_may_see(
            event,
            user,
            visibility=history_visibility_of(None if found is None else dag.events[found]),
            membership="leave" if member is None else str(dag.events[member].content["membership"]),
            joined_since=joined_since,
        ):
            seen.add(user)
    return seen


@pytest.mark.parametrize("version", ["1", "11", "12"])
async def test_forked_rooms_are_explained(version: str, provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag(version, 7, servers=3, users_per_server=3).grow(80)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    with psycopg.connect(provisioned, autocommit=True) as history, psycopg.connect(provisioned) as owner:
        # Nobody of this server is in it: what is asked of such a room by time is unknown, so it is somebody's here.
        servers = {
            user.partition(":")[2]
            for (user,) in owner.execute("select user_id from roomserver.memberships where membership = 'j'")
        }
        owner.execute("update eventlog.installation set server_name = %s", [sorted(servers)[0]])
        owner.commit()
        history.execute("set role walden_history")
        chains(dag, history)
        told = {
            (row[0], row[1])
            for row in history.execute(
                "select distinct w.event_id, w.detail ->> 'algorithm' from history.state_changes s"
                " cross join lateral history.why_state(s.room_id, s.type, s.state_key) w"
                " where w.kind = 'resolution' and s.until_place = 9223372036854775807"
            ).fetchall()
        }
        assert {algorithm for _, algorithm in told} == {{"1": "1", "11": "2", "12": "2.1"}[version]}
        for event_id, (verdict, line, *_) in verdicts.items():
            if verdict == "a" and dag.events[event_id].prev_events and (line or count % 3):
                rows = history.execute("select user_id from history.who_could_see(%s)", [event_id]).fetchall()
                assert {user for (user,) in rows if user is not None} == visible_to(dag, event_id, history), event_id


def chains(dag: RoomDag, history: psycopg.Connection[Any]) -> None:
    state = history.execute(
        "select type, state_key, event_id from history.state_at(%s, now())", [dag.room_id]
    ).fetchall()
    assert state
    for kind, key, event_id in state:
        rows = history.execute(
            "select step, kind, event_id from history.why_state(%s, %s, %s, now(), 1000) where kind <> 'resolution'",
            [dag.room_id, kind, key],
        ).fetchall()
        assert {found: step for step, _, found in rows} == closure(dag, event_id)
        assert [kind for step, kind, _ in rows if step == 0] == ["state"]
    few = history.execute(
        "select kind from history.why_state(%s, 'm.room.power_levels', '', now(), 2)", [dag.room_id]
    ).fetchall()
    assert few[-1] == ("more",)
    absent = history.execute(
        "select step, kind, event_id from history.why_state(%s, 'm.room.nothing', '')", [dag.room_id]
    ).fetchall()
    assert absent == [(0, "absent", None)]

"""History of rooms with forks, as the room server judged them: why a state is what it is, and who was shown what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from running_roomserver import judged, receive, running, settings_for

from eventlog.queries import Queries
from matrix.events import Event
from matrix.room_versions import RoomVersion
from readers.rooms.access import Access
from tests.matrix.room_dag import RoomDag

pytestmark = pytest.mark.postgres

ROOMS = Queries("readers.rooms", "rooms.sql")


@dataclass
class Placed:
    """An event where the outputs have it, as the reader looks at it."""

    timeline: int
    position: int
    line: int
    parsed: Event

    @property
    def type(self) -> str:
        return self.parsed.type

    @property
    def state_key(self) -> str | None:
        return self.parsed.state_key

    @property
    def sender(self) -> str:
        return self.parsed.sender

    def event(self, version: RoomVersion) -> Event:
        return self.parsed


def closure(dag: RoomDag, event_id: str) -> dict[str, int]:
    """The auth chain of an event with how far away each event of it is."""
    chain, frontier, level = {event_id: 0}, [event_id], 0
    while frontier:
        level += 1
        frontier = sorted({a for e in frontier for a in dag.events[e].auth_events} - chain.keys())
        chain |= dict.fromkeys(frontier, level)
    return chain


def readers_of(dag: RoomDag, owner: psycopg.Connection[Any]) -> dict[str, Access]:
    """What decides, in the reader of rooms, on what each user is shown."""
    users = [user for (user,) in owner.execute("select user_id from roomserver.memberships").fetchall()]
    lines = owner.execute("select line, base_position from roomserver.lines").fetchall()
    found = {}
    for user in users:
        rows = owner.execute(ROOMS["access"], {"room_id": dag.room_id, "user_id": user}).fetchall()
        found[user] = Access(user, dag.room_id, rows)
        found[user].bases.update(dict(lines))
    return found


@pytest.mark.parametrize("version", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("1", "11")), "12"])
async def test_forked_rooms_are_explained(version: str, provisioned: str, tmp_path: Path) -> None:
    dag = RoomDag(version, 7, servers=3, users_per_server=3).grow(80)
    count = receive(provisioned, dag.events.values())
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    with psycopg.connect(provisioned, autocommit=True) as history, psycopg.connect(provisioned) as owner:
        # Of a room without anybody of this server most is unknown: let one of those in it be ours.
        members = owner.execute("select user_id from roomserver.memberships where membership = 'j'").fetchall()
        owner.execute("update eventlog.installation set server_name = %s", [members[0][0].partition(":")[2]])
        owner.commit()
        history.execute("set role walden_history")
        check_chains(dag, history)
        algorithms = history.execute(
            "select distinct w.detail ->> 'algorithm' from history.state_changes s"
            " cross join lateral history.why_state(s.room_id, s.type, s.state_key) w"
            " where w.kind = 'resolution' and s.until_place = 9223372036854775807"
        ).fetchall()
        assert algorithms == [({"1": "1", "11": "2", "12": "2.1"}[version],)]
        readers = readers_of(dag, owner)
        off_line = 0
        for event_id, (verdict, line, position, _) in verdicts.items():
            if verdict == "a":
                placed = Placed(position, position, line, dag.events[event_id])
                off_line += line > 0
                rows = history.execute("select user_id from history.who_could_see(%s)", [event_id]).fetchall()
                seen = {user for (user,) in rows if user is not None}
                assert seen == {user for user, access in readers.items() if access.sees(placed)}, event_id
        assert off_line > 3


def check_chains(dag: RoomDag, history: psycopg.Connection[Any]) -> None:
    why = "select step, kind, event_id from history.why_state(%s, %s, %s, now(), %s) where kind <> 'resolution'"
    state = history.execute(
        "select type, state_key, event_id from history.state_at(%s, now())", [dag.room_id]
    ).fetchall()
    assert state
    for kind, key, event_id in state:
        rows = history.execute(why, [dag.room_id, kind, key, 1000]).fetchall()
        assert {found: step for step, _, found in rows} == closure(dag, event_id)
        assert [kind for step, kind, _ in rows if step == 0] == ["state"]
    few = history.execute(why, [dag.room_id, "m.room.power_levels", "", 2]).fetchall()
    assert few[-1][1] == "more"
    assert history.execute(why, [dag.room_id, "m.room.nothing", "", 10]).fetchall() == [(0, "absent", None)]

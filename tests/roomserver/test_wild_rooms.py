"""What the room server makes of a room's events is what a plain recomputation makes of them."""

from __future__ import annotations

import random
from pathlib import Path

import psycopg
import pytest
from psycopg import AsyncConnection
from running_roomserver import judged, receive, running, settings_for
from wild_dag import Judgement, WildDag

from roomserver.projections import differences

pytestmark = pytest.mark.postgres


def stored_state(connection: psycopg.Connection, line: int, position: int) -> dict[tuple[str, str], str]:
    """The state after a position on a line of the only room."""
    rows = connection.execute(
        "select s.type, s.state_key, e.event_id from roomserver.rooms n, roomserver.state_at_v2(n.nid, %s, %s) s"
        " join eventlog.events e on e.id = s.entry",
        [line, position],
    ).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


@pytest.mark.parametrize("version", [*(pytest.param(one, marks=pytest.mark.slow) for one in ("1", "6", "11")), "12"])
async def test_verdicts_states_and_extremities_are_those_of_a_plain_recomputation(
    version: str, provisioned: str, tmp_path: Path
) -> None:
    dag = WildDag(version, int(version), servers=3, users_per_server=3).grow(150)
    events = list(dag.events.values())
    if version in ("6", "12"):
        # What comes before the events that it rests on waits for them.
        events[1:] = random.Random(version).sample(events[1:], len(events) - 1)
    count = receive(provisioned, events)
    async with running(settings_for(provisioned, tmp_path)):
        verdicts = await judged(provisioned, count)
    in_order = sorted(events, key=lambda event: verdicts[event.event_id][2])
    expected = Judgement(dag, in_order)
    assert {"a", "s", "r"} == set(expected.verdicts.values()) and expected.followed_behind
    with psycopg.connect(provisioned) as connection:
        for event in in_order:
            verdict, line, position, reason = verdicts[event.event_id]
            assert verdict == expected.verdicts[event.event_id], (event, reason)
            assert stored_state(connection, line, position) == dag.state_after[event.event_id], event
            assert stored_state(connection, 0, position) == expected.current_after[event.event_id], event
        assert connection.execute(
            "select array(select unnest(extremities) order by 1) from roomserver.heads"
        ).fetchone() == (sorted(expected.extremities),)
    async with await AsyncConnection.connect(provisioned, autocommit=True) as checking:
        assert await differences(checking) == []

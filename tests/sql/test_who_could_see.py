"""Who could see an event: the answer of SQL is that of matrix/visibility.py, in any life of a room."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from judged_rooms import Log, Room, Sent

from matrix.visibility import history_visibility_of, user_may_see

pytestmark = pytest.mark.postgres

ALICE, BOB, EVE = "@alice:test.example", "@bob:test.example", "@eve:elsewhere.example"


@pytest.fixture(scope="module")
def visible(module_database: str) -> Iterator[tuple[Log, psycopg.Connection[Any]]]:
    with Log(module_database) as log, psycopg.connect(module_database, autocommit=True) as history:
        history.execute("set role walden_history")
        yield log, history


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("see"), st.sampled_from(["world_readable", "shared", "invited", "joined", "nonsense", 7])),
        st.tuples(st.sampled_from(["join", "invite", "leave", "ban"]), st.sampled_from([BOB, EVE])),
        st.tuples(st.just("say"), st.sampled_from([ALICE, BOB])),
    ),
    min_size=3,
    max_size=12,
)


class Watched:
    """A room with what its state was before each event."""

    def __init__(self, log: Log) -> None:
        self.room = Room(log, ALICE)
        self.before: list[tuple[Sent, dict[tuple[str, str], Sent]]] = []

    def step(self, what: str, value: Any) -> None:
        before = dict(self.room.state)
        if what == "see":
            sent = self.room.send(ALICE, "m.room.history_visibility", {"history_visibility": value}, state_key="")
        elif what == "say":
            sent = self.room.message(value, "words")
        else:
            sent = self.room.member(value, what)
        self.before.append((sent, before))

    def expected(self, number: int) -> set[str]:
        """The users who could see an event."""
        sent, before = self.before[number]
        visibility = before.get(("m.room.history_visibility", ""))
        seen = set()
        for user in {key for kind, key in self.room.state if kind == "m.room.member"}:
            member = before.get(("m.room.member", user))
            later = [state for _, state in self.before[number + 1 :]] + [self.room.state]
            if user_may_see(
                sent.event,
                user,
                visibility=history_visibility_of(None if visibility is None else visibility.event),
                membership="leave" if member is None else member.event.content["membership"],
                joined_since=any(
                    state["m.room.member", user].event.content["membership"] == "join"
                    for state in later
                    if ("m.room.member", user) in state
                ),
            ):
                seen.add(user)
        return seen


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_it_is_who_may_see_it(visible: tuple[Log, psycopg.Connection[Any]], steps: list[tuple[str, Any]]) -> None:
    log, history = visible
    watched = Watched(log)
    for what, value in steps:
        watched.step(what, value)
    log.commit()
    for number, (sent, before) in enumerate(watched.before):
        rows = history.execute(
            "select user_id, how, membership from history.who_could_see(%s)", [sent.event_id]
        ).fetchall()
        users = {user for user, _, _ in rows if user is not None}
        assert users == watched.expected(number)
        assert len(rows) == len({user for user, _, _ in rows})
        for user, how, membership in rows:
            assert how in ("member", "joined later", "invited", "world_readable")
            if user is not None:
                member = before.get(("m.room.member", user))
                assert membership == ("leave" if member is None else member.event.content["membership"])
        anybody = any(user is None for user, _, _ in rows)
        states = [before, {**before, (sent.event.type, sent.event.state_key): sent}]
        open_to_all = [s.get(("m.room.history_visibility", "")) for s in states]
        assert anybody == any(
            one is not None and history_visibility_of(one.event) == "world_readable" for one in open_to_all
        )


def test_what_an_erased_user_said_is_withheld_from_those_who_came_later(
    visible: tuple[Log, psycopg.Connection[Any]],
) -> None:
    log, history = visible
    room = Room(log, ALICE)
    room.member("@gone:test.example", "join")
    sent = room.message("@gone:test.example", "regrets")
    room.member(BOB, "join")
    log.add("erased", user_id="@gone:test.example", position=log.position)
    log.commit()
    rows = history.execute(
        "select user_id, content_withheld from history.who_could_see(%s)", [sent.event_id]
    ).fetchall()
    assert set(rows) == {(ALICE, False), ("@gone:test.example", False), (BOB, True)}


def test_of_an_event_outside_the_timeline_it_is_unknown(visible: tuple[Log, psycopg.Connection[Any]]) -> None:
    log, history = visible
    room = Room(log, ALICE)
    for verdict in "osr":
        sent = room.send(ALICE, "m.room.message", {"body": "x"}, verdict=verdict)
        log.commit()
        with pytest.raises(psycopg.errors.NoDataFound, match="unknown: it is not part of the timeline"):
            history.execute("select * from history.who_could_see(%s)", [sent.event_id])

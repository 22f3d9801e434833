"""Judging on the main line: what a room remembers spares checks, and lets nothing through that they would refuse."""

from __future__ import annotations

import pytest
from auth_rooms import ALICE, CREATOR, AuthRoom

from matrix.auth_rules import auth_event_keys
from matrix.events import Event
from roomserver.effects import Effects
from roomserver.entries import Entry
from roomserver.judge import judge_event
from roomserver.rooms import Known, Room, Rooms, StateEvent
from roomserver.store import CREATE, Item, Store


class Judged:
    """A public room in memory, its events judged one after another."""

    def __init__(self, version: str) -> None:
        self.room = AuthRoom(version)
        self.room.power(users={ALICE: 50})
        self.room.join_rule("public")
        self.room.member(ALICE, "join")
        state = {key: StateEvent(number, event) for number, (key, event) in enumerate(self.room.state.items(), 1)}
        known = Known(9, "a", 0, 9, None)
        heads = {
            "depth": 9,
            "position": 9,
            "state_position": 9,
            "judged_seq": 0,
            "generation": 0,
            "joined": 2,
            "invited": 0,
        }
        self.of = Room(1, self.room.room_id, self.room.version, {"$before:x"}, **heads, is_new=True, state=dict(state))
        self.of.known["$before:x"] = known
        for held in state.values():
            self.of.known[held.event.event_id] = Known(held.entry, "a", 0, held.entry, held.event)
        self.store = Store(Rooms())
        self.store.rooms.put(self.of)
        self.effects = Effects(9)
        self.last = "$before:x"

    def judge(self, event: Event) -> str:
        entry = Entry(
            9, "m", False, None, event.event_id, event.room_id, event.type, event.state_key, event.sender, "{}"
        )
        keys = auth_event_keys(event.type, event.sender, event.state_key, event.content, self.room.version)
        item = Item(entry, self.of, event, [*dict.fromkeys((*keys, CREATE))])
        verdict = judge_event(item, self.store, self.effects)
        if verdict == "a":
            self.last = event.event_id
        return verdict

    def message(self, **chosen: list[str]) -> Event:
        return self.room.event("m.room.message", ALICE, None, {"body": "x"}, prev_events=[self.last], **chosen)


@pytest.mark.parametrize("version", ["10", "12"])
@pytest.mark.parametrize("remembered", [False, True])
def test_auth_events_are_those_of_the_state_each_named_once(version: str, remembered: bool) -> None:
    judged = Judged(version)
    if remembered:
        assert judged.judge(judged.message()) == "a"
    selected = list(judged.message().auth_events)
    creators = judged.room.state["m.room.member", CREATOR].event_id
    for named in (
        [*selected, selected[0]],
        [selected[0], *selected[:-1]],
        [*selected[:-1], creators],
        [*selected, creators],
        selected[:-1],
    ):
        assert judged.judge(judged.message(auth_events=named)) == "r", named
    assert judged.judge(judged.message(auth_events=selected[::-1])) == "a"

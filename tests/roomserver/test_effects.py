"""Effects within one batch: what comes later wins, whatever the order in which a commit writes its tables."""

from __future__ import annotations

import orjson
import pytest

from matrix.events import Event
from matrix.room_versions import ROOM_VERSIONS
from roomserver.effects import Effects
from roomserver.entries import Entry
from roomserver.judge import change_member
from roomserver.rooms import Room, Rooms
from roomserver.store import Item, Store
from roomserver.user_entries import judge_user_entry

USER = "@u:test.example"


def room() -> Room:
    heads = dict.fromkeys(("depth", "position", "state_position", "judged_seq", "generation", "joined", "invited"), 1)
    return Room(nid=7, room_id="!r:test.example", version=ROOM_VERSIONS["11"], extremities=set(), **heads)


def member(membership: str) -> Event:
    pdu = {"type": "m.room.member", "state_key": USER, "sender": USER, "content": {"membership": membership}}
    more = {"depth": 1, "origin_server_ts": 1, "prev_events": [], "auth_events": [], "room_id": "!r:test.example"}
    return Event.from_pdu(pdu | more, ROOM_VERSIONS["11"], "$e")


class Batch:
    """One user's doings in one room, gathered as one batch."""

    def __init__(self, standing: str) -> None:
        self.room = room()
        self.store = Store(Rooms())
        self.store.standing[7, USER] = standing
        self.effects = Effects(0)
        self.old = member({"j": "join", "l": "leave"}[standing])

    def becomes(self, membership: str) -> None:
        new = member(membership)
        change_member(self.room, new, self.old, 1, self.effects.next_position(), self.effects)
        self.old = new

    def forgets(self) -> str:
        entry = Entry(2, "u", True, None, None, self.room.room_id, "forget", None, USER, "{}")
        return judge_user_entry(Item(entry, room=self.room, body={}), self.store, self.effects)

    @property
    def forgotten(self) -> list[dict[str, object]]:
        found: list[dict[str, object]] = orjson.loads(self.effects.encode(shard=0, owner="o", lsn=None)).get(
            "forgotten", []
        )
        return found


def test_a_room_that_is_left_and_forgotten_in_one_batch_is_forgotten() -> None:
    batch = Batch("j")
    batch.becomes("leave")
    assert batch.forgets() == "a"
    assert batch.forgotten == [{"user_id": USER, "room": 7}]


@pytest.mark.parametrize("memberships", [["invite"], ["invite", "leave"], ["join", "leave"]])
def test_what_follows_in_the_same_batch_undoes_that_a_room_was_forgotten(memberships: list[str]) -> None:
    batch = Batch("l")
    assert batch.forgets() == "a"
    for membership in memberships:
        batch.becomes(membership)
    assert batch.forgotten == []


def test_a_room_that_is_joined_in_the_same_batch_cannot_be_forgotten() -> None:
    batch = Batch("l")
    batch.becomes("join")
    assert batch.forgets() == "r"

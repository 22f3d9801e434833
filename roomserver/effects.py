"""The effects of one batch, gathered in memory and committed by one call of roomserver.commit_v1.

Invariant: positions are given here, densely, and nothing that was gathered is visible anywhere before the commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import Any, Final

import orjson

from eventlog.notices import accepted_list
from eventlog.safe_text import safe
from matrix.events import Event
from roomserver.rooms import Room

Json = dict[str, Any]

_position: Final = itemgetter("p")

LETTERS = {"join": "j", "invite": "i", "leave": "l", "ban": "b", "knock": "k"}


def letter(event: Event | None) -> str | None:
    """The membership of a member event as one letter; None when it is no member event or says nothing known."""
    if event is None or event.type != "m.room.member":
        return None
    membership = event.content.get("membership")
    return LETTERS.get(membership) if isinstance(membership, str) else None


class Effects:
    """What a batch will do. `position` is the last one given out."""

    def __init__(self, position: int) -> None:
        self.start = position
        self.position = position
        self.lists: dict[str, list[Json]] = {}
        self.finished: list[int] = []
        self.touched: dict[int, Room] = {}
        self._open: dict[tuple[int, int, str, str], Json] = {}
        self._last: dict[tuple[Any, ...], Json] = {}

    def __bool__(self) -> bool:
        return self.position != self.start or bool(self.finished) or bool(self.lists)

    def next_position(self) -> int:
        """Gives out the next position."""
        self.position += 1
        return self.position

    def add(self, name: str, **row: Any) -> None:
        """Adds a row to one of commit_v1's lists."""
        rows = self.lists.get(name)
        if rows is None:
            rows = self.lists[name] = []
        rows.append(row)

    def put(self, name: str, key: tuple[str, ...], /, **row: Any) -> None:
        """Adds a row, or changes the batch's earlier one with the same key: an upsert may not touch a row twice."""
        where = (name, *(row[part] for part in key))
        earlier = self._last.get(where)
        if earlier is None:
            self._last[where] = row
            self.lists.setdefault(name, []).append(row)
        else:
            earlier.update(row)

    def pending(self, name: str, *key: Any) -> Json | None:
        """What this batch does so far to a row that `put` was given."""
        return self._last.get((name, *key))

    def withdraw(self, name: str, *key: Any) -> None:
        """Takes a row of `put` back, if there is one: something later in the batch undoes it."""
        row = self._last.pop((name, *key), None)
        if row is not None:
            self.lists[name].remove(row)

    def output(
        self,
        position: int,
        kind: str,
        entry: int,
        verdict: str,
        *,
        room: int | None = None,
        timeline: int | None = None,
        line: int = 0,
        reason: str | None = None,
        annotation: Json | None = None,
    ) -> None:
        """Adds the output of an entry."""
        row: Json = {"p": position, "k": kind, "e": entry, "v": verdict}
        if room is not None:
            row["r"] = room
        if timeline is not None:
            row["t"] = timeline
        if line:
            row["l"] = line
        if reason is not None:
            row["w"] = safe(reason)
        if annotation:
            row["a"] = orjson.dumps(annotation).decode()
        self.add("outputs", **row)

    def set_state(
        self,
        room: Room,
        line: int,
        key: tuple[str, str],
        position: int,
        value: tuple[int, Event] | None,
        *,
        existed: bool,
    ) -> None:
        """State of a line changes at a position: the row that stood ends, and another begins unless value is None.

        `existed` says whether a row for the key stands on that line.
        """
        kind, state_key = safe(key[0]), safe(key[1])
        where = (room.nid, line, kind, state_key)
        row = self._open.pop(where, None)
        if row is not None:
            row["t"] = position
        elif existed:
            self.add("closed", room=room.nid, line=line, type=kind, state_key=state_key, at=position)
        if value is None and line == 0:
            return
        row = {
            "room": room.nid,
            "line": line,
            "type": kind,
            "state_key": state_key,
            "f": position,
            "entry": None if value is None else value[0],
            "membership": None if value is None else letter(value[1]),
        }
        self.add("state", **row)
        self._open[where] = self.lists["state"][-1]

    def accepted(self) -> str | None:
        """The entries as the batch's notice says them; None when that is for the table to say."""
        rows = self.lists.get("outputs", ())
        if len(rows) != self.position - self.start or any(row["v"] != "a" for row in rows):
            return None
        return accepted_list([row["e"] for row in sorted(rows, key=_position)])

    def encode(self, *, shard: int, owner: str, lsn: str | None, xids: Sequence[int] = ()) -> bytes:
        """The batch as commit_v1 takes it. `xids` are the transactions of its entries that may not be visible yet."""
        batch: Json = {
            "shard": shard,
            "owner": owner,
            "from": self.start,
            "to": self.position,
            "lsn": lsn,
            **self.lists,
        }
        if xids:
            batch["xids"] = xids
        if (accepted := self.accepted()) is not None:
            batch["accepted"] = accepted
        if self.touched:
            batch["heads"] = [
                {
                    "room": room.nid,
                    "extremities": sorted(room.extremities),
                    "depth": room.depth,
                    "position": room.position,
                    "state_position": room.state_position,
                    "judged_seq": room.judged_seq,
                    "generation": room.generation,
                    "joined": room.joined,
                    "invited": room.invited,
                }
                for room in self.touched.values()
            ]
        if self.finished:
            batch["finished"] = [str(entry) for entry in self.finished]
        return orjson.dumps(batch)

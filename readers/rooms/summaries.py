"""Rooms as those are told of them who may come in: summaries, and the hierarchy of spaces.

Invariant: a room is told of if the user is in it or could be, by its state as it now is; any other does not exist, and neither does
what lies beyond it. Rooms are read many at a time, a query for each level of a hierarchy.
Source: client-server API, "GET …/rooms/{roomId}/hierarchy", "GET …/room_summary/{roomIdOrAlias}".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from psycopg import AsyncConnection

from eventlog.safe_text import unsafe
from matrix.identifiers import is_room_id
from matrix.redaction import redact_content
from matrix.room_description import DESCRIBING_TYPES, allowed_rooms, summarise
from matrix.room_versions import ROOM_VERSIONS
from readers.rendering import MEMBERSHIPS
from readers.rooms.rows import SQL

SPACE: Final = "m.space"
MOST_CHILDREN: Final = 1_000
"""Children of a space that are looked at."""

Json = dict[str, Any]


@dataclass(slots=True)
class Summary:
    """A room as it now is. `membership` is the user's, a word, None without one; `children` are stripped m.space.child events."""

    room: Json
    membership: str | None
    join_rules: Json
    version: str
    children: list[Json] = field(default_factory=list)
    allowed: bool = False

    @property
    def is_space(self) -> bool:
        """Whether the room is a space."""
        return self.room.get("room_type") == SPACE

    def is_open(self, joined: frozenset[str]) -> bool:
        """Whether the user may know of the room. `joined` are those rooms that they are in among those which it allows."""
        if self.membership in ("join", "invite"):
            return True
        if self.membership == "ban":
            # They may not join, by whatever rule; but may read what everybody may.
            return bool(self.room["world_readable"])
        version, rule = ROOM_VERSIONS[self.version], self.join_rules.get("join_rule")
        if rule == "public" or self.room["world_readable"]:
            return True
        if (rule == "knock" and version.knocking) or (
            rule == "knock_restricted" and version.knock_restricted_join_rule
        ):
            return True
        return (
            rule == "restricted"
            and version.restricted_join_rule
            and not joined.isdisjoint(self.room["allowed_room_ids"])
        )


async def read_summaries(
    connection: AsyncConnection, user_id: str, room_ids: Iterable[str], *, children: bool
) -> dict[str, Summary]:
    """Those of some rooms that the user may know of, with their children if wanted."""
    cursor = await connection.execute(
        SQL["summaries"],
        {
            "room_ids": list(room_ids),
            "user_id": user_id,
            "types": list(DESCRIBING_TYPES),
            "children": children,
            "most_children": MOST_CHILDREN,
        },
    )
    found: dict[str, Summary] = {}
    asked: set[str] = set()
    for room_id, version, joined, letter, state, links in await cursor.fetchall():
        contents = {
            kind: redact_content(kind, event["content"], ROOM_VERSIONS[version]) if redacted else event["content"]
            for kind, event, redacted in (orjson.loads(state) if state else ())
        }
        summary = Summary(
            summarise(room_id, joined, contents, version),
            None if letter is None else MEMBERSHIPS[letter],
            contents.get("m.room.join_rules", {}),
            version,
        )
        if summary.is_space:
            summary.children = _children(orjson.loads(links) if links else ())
        found[room_id] = summary
        asked.update(allowed_rooms(summary.join_rules))
    mine: frozenset[str] = frozenset()
    if asked:
        cursor = await connection.execute(SQL["joined_among"], {"user_id": user_id, "room_ids": list(asked)})
        mine = frozenset(room_id for (room_id,) in await cursor.fetchall())
    return {room_id: summary for room_id, summary in found.items() if summary.is_open(mine)}


def _children(links: Iterable[list[Any]]) -> list[Json]:
    """Valid m.space.child events in the order in which clients show the children."""
    children = []
    for state_key, pdu in links:
        content, child = pdu["content"], unsafe(state_key)
        via = content.get("via")
        # "Child rooms can be removed from a space by omitting the via key".
        if is_room_id(child) and isinstance(via, list) and via:
            children.append(
                {
                    "content": content,
                    "origin_server_ts": pdu["origin_server_ts"],
                    "sender": pdu["sender"],
                    "state_key": child,
                    "type": "m.space.child",
                }
            )
    return sorted(children, key=_place)


def _place(child: Json) -> tuple[bool, str, int, str]:
    order = child["content"].get("order")
    # "Strings which consist of … \\x20 to \\x7E … and must not exceed 50 characters": others are as good as none.
    valid = isinstance(order, str) and len(order) <= 50 and all(" " <= letter <= "~" for letter in order)
    return (not valid, order if valid else "", child["origin_server_ts"], child["state_key"])

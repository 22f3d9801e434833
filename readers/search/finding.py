"""What a user finds: pages of documents that match, as far as the user may see the events.

Invariant: an event is found only by who may see it now, in its own words; what was redacted, or comes from a user who asked to be
forgotten and whom the searcher did not meet there, is not found. The work of a request is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any, Final

from psycopg import AsyncConnection

from eventlog.safe_text import like, safe
from readers.rooms.access import Access
from readers.rooms.chosen import Chosen
from readers.rooms.rows import Row
from readers.rooms.timeline import Timelines, takes
from readers.search.projection import SQL
from readers.search.request import Criteria, Place

MOST_MATCHES: Final = 10_000
"""Documents ranked and counted: the newest that match."""
MOST_ROUNDS: Final = 5
"""Pages looked through for one request before it is answered with what there is, and where to go on."""
SPARE: Final = 20
"""Documents read beyond a page, for some may be hidden."""
MOST_NAMED_ROOMS: Final = 100
"""Rooms that are looked up in the index themselves; beyond, what matches anywhere is filtered."""


@dataclass(frozen=True, slots=True)
class Hit:
    """An event that was found."""

    row: Row
    access: Access
    rank: float
    sent_at: int
    entry: int

    def place(self, by_rank: bool, count: int, group: str = "", of: str = "") -> Place:
        """The place after it, among so many results."""
        return Place(by_rank, self.rank if by_rank else self.sent_at, self.entry, count, group, of)


@dataclass(slots=True)
class Found:
    """One page. `count` is about how many results there are, `end` where the next page begins, if any.

    Matches are counted to `MOST_MATCHES`, whoever may see them. Of those that the first page looked at it is known: the others are
    taken to be visible in the same proportion, so that a word which only hidden events have is found nowhere.
    """

    hits: list[Hit] = field(default_factory=list)
    count: int = 0
    end: Place | None = None


class Finder:
    """Finds for users. `language` is that of the index."""

    def __init__(self, timelines: Timelines, language: str) -> None:
        self._timelines = timelines
        self._language = language

    async def find(self, connection: AsyncConnection, user_id: str, criteria: Criteria) -> Found:
        """The next page of what a user finds."""
        found = Found()
        wanted = criteria.wanted
        if wanted.takes_nothing:
            return found
        cursor = await connection.execute(
            SQL["rooms"],
            {
                "user_id": user_id,
                "rooms": criteria.rooms,
                "not_rooms": [safe(room_id) for room_id in wanted.not_rooms or ()],
            },
        )
        rooms = [room for (room,) in await cursor.fetchall()]
        if not rooms:
            return found
        place, chosen = criteria.place, Chosen(self._timelines, user_id)
        page = criteria.limit + SPARE
        looked_at = visible = 0
        if place is not None:
            found.count = place.count
        for _ in range(MOST_ROUNDS):
            cursor = await connection.execute(SQL["matches"], self._matches(criteria, rooms, place, page))
            rows = await cursor.fetchall()
            matches = [row[1:] for row in rows if row[1] is not None]
            hits = await self._visible(connection, criteria, matches, chosen)
            looked_at, visible = looked_at + len(matches), visible + len(hits)
            if criteria.place is None and looked_at:
                found.count = ceil(rows[0][0] * visible / looked_at)
            for hit in hits:
                found.hits.append(hit)
                if len(found.hits) == criteria.limit:
                    found.end = self._after(criteria, hit.place(criteria.by_rank, found.count))
                    return found
            if len(matches) < page:
                return found
            entry, _, sent_at, rank = matches[-1]
            value = rank if criteria.by_rank else sent_at
            place = self._after(criteria, Place(criteria.by_rank, value, entry, found.count))
        found.end = place
        return found

    @staticmethod
    def _after(criteria: Criteria, place: Place) -> Place:
        """A place of the same group as the request's."""
        if criteria.place is None:
            return place
        return replace(place, group=criteria.place.group, of=criteria.place.of)

    def _matches(self, criteria: Criteria, rooms: list[int], place: Place | None, page: int) -> dict[str, Any]:
        wanted = criteria.wanted
        named = rooms if len(rooms) <= MOST_NAMED_ROOMS else []
        return {
            "language": self._language,
            "term": criteria.term,
            "narrow": " | ".join(f"'!{room}'" for room in named),
            "rooms": rooms,
            "keys": list(criteria.keys),
            "types": None if wanted.types is None else [like(kind) for kind in wanted.types],
            "not_types": [like(kind) for kind in wanted.not_types or ()],
            "senders": None if wanted.senders is None else [safe(sender) for sender in wanted.senders],
            "not_senders": [safe(sender) for sender in wanted.not_senders or ()],
            "most": MOST_MATCHES,
            "page": page,
            "by_rank": criteria.by_rank,
            "after_rank": place.value if place is not None and criteria.by_rank else None,
            "after_sent": place.value if place is not None and not criteria.by_rank else None,
            "after_entry": None if place is None else place.entry,
            "group_room": safe(place.of) if place is not None and place.group == "room_id" else None,
            "group_sender": safe(place.of) if place is not None and place.group == "sender" else None,
        }

    async def _visible(
        self,
        connection: AsyncConnection,
        criteria: Criteria,
        matches: list[tuple[int, str, int, float]],
        chosen: Chosen,
    ) -> list[Hit]:
        seen = await chosen.see(connection, {entry: room_id for entry, room_id, *_ in matches})
        return [
            Hit(*seen[entry], rank, sent_at, entry)
            for entry, _, sent_at, rank in matches
            if entry in seen and takes(seen[entry][1], criteria.wanted, seen[entry][0])
        ]

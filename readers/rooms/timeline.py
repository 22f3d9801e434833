"""Pages of a room's timeline as one user may see them.

Invariant: events come in timeline order, none twice and none left out that the user may see and the filter takes; every page is
bounded, and so is the work for one request. A page is one round trip to the database unless all of it was hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.safe_text import like, safe
from matrix.filters import RoomEventFilter
from matrix.visibility import is_content_withheld
from readers.bundles import Bundles, Parent, Reader, is_edit, read_bundles
from readers.rooms.access import Access, Span, lines_of
from readers.rooms.rows import SQL, Forms, Row
from readers.sync.event_bytes import client_event, members_of

MOST_ROUNDS: Final = 10
"""Pages read for one request before it is answered with what there is, and where to go on."""
STEP: Final = 128
"""Events read at once, so that what is read at once is bounded: an event has up to 64 KiB."""
ENOUGH_BYTES: Final = 4 << 20
"""A page that has so much is answered, however few events it is: with the last step it is 12 MiB at most."""
SCAN: Final = 1_000
"""Events looked through per round when a filter chooses by type or sender."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the timeline, `after < order <= upto`, and the direction to read it in."""

    after: int
    upto: int
    backwards: bool

    def end_at(self, order: int) -> int:
        """The place beyond the event of that order, in the direction read."""
        return order - 1 if self.backwards else order

    def rest(self, place: int) -> Stretch:
        """What lies beyond a place."""
        if self.backwards:
            return Stretch(self.after, min(place, self.upto), True)
        return Stretch(max(place, self.after), self.upto, False)

    @property
    def near_end(self) -> int:
        """The place that reading begins at."""
        return self.upto if self.backwards else self.after

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it."""
        return self.after >= self.upto


@dataclass(frozen=True, slots=True)
class Page:
    """Events in the order read, and the place to go on from: None when the user can see nothing more."""

    rows: list[Row]
    end: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Events as read, the order of the last one looked at (None: none), and whether there may be more."""

    rows: list[Row]
    last: int | None
    more: bool


class Timelines:
    """Reads pages of timelines and renders them."""

    def __init__(self, pool: Pool, forms: Forms) -> None:
        self.pool = pool
        self.forms = forms

    async def access(self, connection: AsyncConnection, user_id: str, room_id: str) -> Access:
        """What the user may read of the room; M_FORBIDDEN when there is no such room."""
        cursor = await connection.execute(SQL["access"], {"user_id": user_id, "room_id": room_id})
        return Access(user_id, room_id, await cursor.fetchall())

    async def access_with(
        self, connection: AsyncConnection, user_id: str, room_id: str, query: str, parameters: dict[str, Any]
    ) -> tuple[Access, list[tuple[Any, ...]]]:
        """Access, and the rows of a query, in one round trip.

        The query comes first: an access that is read later knows of every change before the query's events.
        """
        async with connection.pipeline():
            wanted = await connection.execute(SQL[query], parameters)
            access = await connection.execute(SQL["access"], {"user_id": user_id, "room_id": room_id})
            rows = await wanted.fetchall()
            return Access(user_id, room_id, await access.fetchall()), rows

    async def read(
        self,
        connection: AsyncConnection,
        access: Access,
        stretch: Stretch,
        limit: int,
        wanted: RoomEventFilter,
        first: Batch | None = None,
    ) -> Page:
        """Up to `limit` visible events of a stretch, fewer of large ones. `first` is its first batch, if that was read already."""
        if wanted.takes_nothing or not wanted.takes_room(access.room_id):
            return Page([], None)
        rows: list[Row] = []
        size = 0
        for _ in range(MOST_ROUNDS):
            if stretch.is_empty:
                return Page(rows, None)
            batch = first or await self.fetch(connection, access.room_id, stretch, limit - len(rows) + 1, wanted)
            first = None
            if batch.last is None:
                return Page(rows, None)
            await self.learn_lines(connection, access, batch.rows)
            seen = visible(access, batch.rows)
            taken = seen if wanted.takes_all else [row for row in seen if takes(access, wanted, row)]
            rows += taken
            if len(rows) > limit:
                return Page(rows[:limit], stretch.end_at(rows[limit - 1].timeline))
            if not batch.more:
                # Clients of a filter that has left something out expect to be able to ask once more (Complement's
                # TestRoomImageRoundtrip); they are then told that there is nothing.
                left_out = wanted.contains_url is not None and rows and len(rows) < len(seen)
                return Page(rows, stretch.end_at(batch.last) if left_out else None)
            place = access.next_open(stretch.end_at(batch.last), backwards=stretch.backwards)
            if place is None:
                return Page(rows, None)
            stretch = stretch.rest(place)
            size += sum(len(row.json.encode()) for row in taken)
            if size > ENOUGH_BYTES:
                break
        return Page(rows, stretch.near_end)

    async def fetch(
        self, connection: AsyncConnection, room_id: str, stretch: Stretch, most: int, wanted: RoomEventFilter
    ) -> Batch:
        """The next events of a stretch, at most `most` and a step, hidden ones among them."""
        query, parameters, read = self.query(room_id, stretch, most, wanted)
        return read(await (await connection.execute(SQL[query], parameters)).fetchall())

    def query(
        self, room_id: str, stretch: Stretch, most: int, wanted: RoomEventFilter
    ) -> tuple[str, dict[str, Any], Callable[[list[tuple[Any, ...]]], Batch]]:
        """The query for the next events of a stretch, its parameters, and what makes a batch of its rows."""
        most = min(most, STEP)
        way = "backwards" if stretch.backwards else "forwards"
        parameters: dict[str, Any] = {
            "room_id": room_id,
            "upto": stretch.upto,
            "after": stretch.after,
            "most": most,
        }
        if wanted.takes_all_events:

            def plain(found: list[tuple[Any, ...]]) -> Batch:
                rows = [Row(columns) for columns in found]
                return Batch(rows, rows[-1].timeline if rows else None, len(rows) == most)

            return f"page_{way}", parameters, plain
        parameters |= {
            "scan": SCAN,
            "types": None if wanted.types is None else [like(pattern) for pattern in wanted.types],
            "not_types": [like(pattern) for pattern in wanted.not_types or ()],
            "senders": None if wanted.senders is None else [safe(sender) for sender in wanted.senders],
            "not_senders": [safe(sender) for sender in wanted.not_senders or ()],
        }

        def chosen(found: list[tuple[Any, ...]]) -> Batch:
            rows = [Row(columns[:12]) for columns in found if columns[0] is not None]
            scanned, last = found[0][12:]
            if len(rows) == most:
                return Batch(rows, rows[-1].timeline, True)
            return Batch(rows, last, scanned == SCAN)

        return f"chosen_{way}", parameters, chosen

    async def learn_lines(self, connection: AsyncConnection, access: Access, rows: Sequence[Row]) -> None:
        """Makes the access know where the state lines of some events forked."""
        lines = lines_of(rows, access)
        if lines:
            cursor = await connection.execute(SQL["lines"], {"room": access.nid, "lines": lines})
            access.bases.update(await cursor.fetchall())

    async def render(
        self,
        connection: AsyncConnection,
        access: Access,
        rows: Sequence[Row],
        device_id: str | None,
        pruned: Collection[str] = (),
    ) -> list[bytes]:
        """The client forms of events, in order; those of messages with what is told about events that relate to them.

        `pruned` are those of which the user is shown what a redaction would leave.
        """
        await self.learn_lines(connection, access, rows)
        bundles = await self._bundles(connection, access, rows, device_id)
        pieces = await self.forms.pieces_of(connection, rows, access.version, access.room_id)
        hidden = [*await withheld(connection, access, rows), *(row for row in rows if row.event_id in pruned)]
        for row in hidden:
            # Not kept: what one reader gets redacted, another one was there to see.
            pieces[row.event_id] = (members_of(row.json.encode(), row.event_id, access.version), b"")
        user_id = access.user_id
        endings: dict[str, bytes] = {}
        rendered = []
        for row in rows:
            members, unsigned = pieces[row.event_id]
            membership = access.membership_after(row)
            if bundles and (relations := bundles.relations(row.event_id, access.room_id)):
                unsigned = b"%b,%b" % (unsigned, relations) if unsigned else relations
            if unsigned or (row.txn_id is not None and row.sender == user_id):
                rendered.append(
                    client_event(
                        members,
                        unsigned,
                        room_id=access.room_id,
                        membership=membership,
                        transaction_id=row.transaction_of(user_id, device_id),
                    )
                )
                continue
            # What most events of a page end in is the same.
            ending = endings.get(membership)
            if ending is None:
                ending = endings[membership] = client_event(b"", room_id=access.room_id, membership=membership)[1:]
            rendered.append(b"{%b%b" % (members, ending))
        return rendered

    async def _bundles(
        self, connection: AsyncConnection, access: Access, rows: Sequence[Row], device_id: str | None
    ) -> Bundles | None:
        parents = [
            Parent(access.nid, row.event_id, row.sender, row.type, row.redaction is None and not is_edit(row.json))
            for row in rows
            if row.state_key is None
        ]
        if not parents:
            return None
        spans = access.spans(min(row.timeline for row in rows if row.state_key is None))
        reader = Reader(
            access.user_id,
            device_id,
            [Span(access.nid)] if spans is None else spans,
            access.ignored,
            [] if spans is None else [access.nid],
        )
        return await read_bundles(connection, reader, parents)

    async def members_of_senders(
        self, connection: AsyncConnection, access: Access, rows: Sequence[Row], position: int
    ) -> list[Row]:
        """The membership events of those who sent some events, in the state after a position."""
        senders = {safe(row.sender) for row in rows}
        if not senders:
            return []
        cursor = await connection.execute(
            SQL["members_at"], {"room": access.nid, "user_ids": list(senders), "position": position}
        )
        return [Row(columns) for columns in await cursor.fetchall()]


def visible(access: Access, rows: Sequence[Row]) -> list[Row]:
    """Those of some successive events that the user may see; who is ignored is heard in state alone."""
    plain = bool(rows) and not any(row.line or row.timeline != row.position for row in rows)
    if not plain or not access.sees_all(*sorted((rows[0].position, rows[-1].position))):
        rows = [row for row in rows if access.sees(row)]
    if access.ignored:
        # "Once ignored, the client will no longer receive events sent by that user, with the exception of state events."
        rows = [row for row in rows if row.state_key is not None or row.sender not in access.ignored]
    return list(rows)


async def withheld(connection: AsyncConnection, access: Access, rows: Sequence[Row]) -> list[Row]:
    """Those of some events that are served redacted, for their sender is erased and the user was not there.

    Only events from outside the user's stay can be, so that a page from within it asks nothing.
    """
    outside = [row for row in rows if access.membership_after(row) != "join"]
    if not outside:
        return []
    cursor = await connection.execute(SQL["erased"], {"user_ids": list({row.sender for row in outside})})
    erased = {user_id for (user_id,) in await cursor.fetchall()}
    return [
        row
        for row in outside
        if is_content_withheld(sender_is_erased=row.sender in erased, membership=access.membership_after(row))
    ]


def within_bytes(rows: Sequence[Row]) -> Sequence[Row]:
    """As many of the first rows as one page may have."""
    size = 0
    for number, row in enumerate(rows, 1):
        size += len(row.json.encode())
        if size > ENOUGH_BYTES:
            return rows[:number]
    return rows


def takes(access: Access, wanted: RoomEventFilter, row: Row) -> bool:
    """Whether a filter takes an event that its types and senders took already."""
    if wanted.takes_all:
        return True
    if not wanted.takes_room(access.room_id):
        return False
    # Redaction takes the url away.
    return wanted.takes_url(lambda: row.redaction is None and "url" in row.content)

"""Bundled aggregations: what is told with an event about the events that relate to it.

Invariant: one query for all events of a response, and a second one if others relate to any of them, which is rare: it is asked of
these alone. What the reader may not see, what is redacted and what ignored users sent takes no part. State events get none, and
neither do redacted ones an edit.
Source: client-server API, "Aggregations of child events", and the "Server-side aggregation" of threads, replacements, references.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson
from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from readers.rooms.access import Span
from readers.sync.event_bytes import client_event, members_of

SQL: Final = Queries("readers", "bundles.sql")

MOST_REPLIES: Final = 10_000
"""Replies counted in a thread: "the approximate number of events in the thread"."""
MOST_EDITS: Final = 100
"""Edits of an event among which the most recent one is sought, from the one that came last."""
MOST_REFERENCES: Final = 100
"""Referring events listed."""


class Parent(NamedTuple):
    """An event that others may relate to. `editable`: not redacted, and no edit itself."""

    room: int
    event_id: str
    sender: str
    type: str
    editable: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads: what of the rooms they see, whom they ignore, and the rooms they were not always in.

    In rooms that are `strange` to them, what erased users said takes no part.
    """

    user_id: str
    device_id: str | None
    spans: Sequence[Span]
    ignored: Iterable[str] = ()
    strange: Sequence[int] = ()


class Child(NamedTuple):
    """An event that relates to another one."""

    event_id: str
    type: str
    sender: str
    device_id: str | None
    txn_id: str | None
    json: str

    def render(self, reader: Reader, room_id: str, relations: bytes) -> bytes:
        """Its client form; `relations` are its own bundle, or empty."""
        own = self.txn_id is not None and self.sender == reader.user_id and self.device_id == reader.device_id
        return client_event(
            members_of(self.json.encode(), self.event_id),
            relations,
            room_id=room_id,
            transaction_id=unsafe(self.txn_id) if own and self.txn_id is not None else None,
        )


@dataclass(slots=True)
class _Bundle:
    """What relates to one event."""

    edit: Child | None = None
    references: list[str] = field(default_factory=list)
    latest: Child | None = None
    replies: int = 0
    took_part: bool = False


class Bundles:
    """The aggregations of some events."""

    def __init__(self, reader: Reader, parents: Mapping[str, Parent], rows: Iterable[Sequence[Any]]) -> None:
        self._reader = reader
        self._parents = parents
        self._bundles: dict[str, _Bundle] = {}
        for kind, parent, event_id, *child, replies, took_part in rows:
            bundle = self._bundles.setdefault(parent, _Bundle())
            if kind == "m.reference":
                bundle.references.append(event_id)
            elif kind == "m.replace":
                bundle.edit = Child(event_id, *child)
            else:
                bundle.latest = Child(event_id, *child)
                bundle.replies = replies
                # "The sender of the thread root event", or of an event in the thread.
                bundle.took_part = took_part or parents[parent].sender == reader.user_id

    def __bool__(self) -> bool:
        return bool(self._bundles)

    def relations(self, event_id: str, room_id: str) -> bytes:
        """The member `m.relations` of the event's `unsigned`; empty bytes when nothing relates to it."""
        bundle = self._bundles.get(event_id)
        if bundle is None:
            return b""
        parts = self._plain(bundle, room_id)
        if bundle.latest is not None:
            # "Child events of the latest_event should themselves be aggregated"; a thread has none below it.
            own = self._bundles.get(bundle.latest.event_id)
            below = b"" if own is None else _member(self._plain(own, room_id))
            parts.append(
                b'"m.thread":{"latest_event":%b,"count":%d,"current_user_participated":%b}'
                % (
                    bundle.latest.render(self._reader, room_id, below),
                    bundle.replies,
                    b"true" if bundle.took_part else b"false",
                )
            )
        return _member(parts)

    def _plain(self, bundle: _Bundle, room_id: str) -> list[bytes]:
        parts: list[bytes] = []
        if bundle.edit is not None:
            parts.append(b'"m.replace":' + bundle.edit.render(self._reader, room_id, b""))
        if bundle.references:
            chunk = [{"event_id": event_id} for event_id in bundle.references]
            parts.append(b'"m.reference":{"chunk":%b}' % orjson.dumps(chunk))
        return parts


def _member(parts: list[bytes]) -> bytes:
    return b'"m.relations":{%b}' % b",".join(parts) if parts else b""


def is_edit(json: str | bytes) -> bool:
    """Whether an event, as logged, replaces another one."""
    if not (b'"m.replace"' in json if isinstance(json, bytes) else '"m.replace"' in json):
        return False
    relation = orjson.loads(json)["content"].get("m.relates_to")
    return isinstance(relation, dict) and relation.get("rel_type") == "m.replace"


async def read_bundles(connection: AsyncConnection, reader: Reader, parents: Iterable[Parent]) -> Bundles:
    """The aggregations of events of any rooms."""
    asked = {parent.event_id: parent for parent in parents}
    if not asked:
        return Bundles(reader, asked, ())
    # As JSON: psycopg takes longer to write an array of hundreds of texts than PostgreSQL to look them up.
    found = await connection.execute(SQL["related"], {"events": orjson.dumps(list(asked)).decode()})
    wanted = {event_id: asked[event_id] for (event_id,) in await found.fetchall()}
    if not wanted:
        return Bundles(reader, wanted, ())
    cursor = await connection.execute(
        SQL["bundles"],
        {
            "rooms": [parent.room for parent in wanted.values()],
            "events": list(wanted),
            "senders": [parent.sender for parent in wanted.values()],
            "types": [safe(parent.type) for parent in wanted.values()],
            "editable": [parent.editable for parent in wanted.values()],
            "user_id": reader.user_id,
            "ignored": list(reader.ignored),
            "span_rooms": [span.room for span in reader.spans],
            "after": [span.after for span in reader.spans],
            "upto": [span.upto for span in reader.spans],
            "strange": list(reader.strange),
            "most_replies": MOST_REPLIES,
            "most_edits": MOST_EDITS,
            "most_references": MOST_REFERENCES,
        },
    )
    return Bundles(reader, wanted, await cursor.fetchall())

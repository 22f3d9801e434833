"""An output with its entry: what the sync reader keeps of the log, and the client bytes made of it.

Invariant: an output's members are rendered at most once in this process, and anew only when a redaction takes effect; what one
request puts around them is not kept.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Final

import orjson

from eventlog.pgoutput import Column, Table, Wanted, raw
from eventlog.safe_text import unsafe
from matrix.room_versions import RoomVersion
from readers.sync.event_bytes import client_event, federation_event, members_of, unsigned_members

EVENTS: Final[Table] = ("eventlog", "events")
OUTPUTS: Final[Table] = ("eventlog", "outputs")
WANTED: Final[Wanted] = {
    EVENTS: (
        "id",
        "event_id",
        "room_id",
        "type",
        "state_key",
        "sender",
        "device_id",
        "txn_id",
        Column("json", raw),
    ),
    OUTPUTS: (
        "shard",
        "position",
        Column("kind"),
        "entry",
        "room",
        Column("verdict"),
        "timeline",
        "line",
        Column("annotation", raw),
    ),
}

Entry = tuple[int, str | None, str | None, str, str | None, str, str | None, str | None, bytes]
"""A row of eventlog.events in the order of WANTED."""


class Output:
    """One output joined with its entry. `entry_of` tells whether the entry has been joined yet."""

    __slots__ = (
        "_members",
        "_notes",
        "_unsigned",
        "annotation",
        "device_id",
        "entry",
        "event_id",
        "json",
        "kind",
        "line",
        "position",
        "redaction",
        "replaced_redacted",
        "room",
        "room_id",
        "sender",
        "shard",
        "state_key",
        "timeline",
        "txn_id",
        "type",
        "unchecked",
        "verdict",
    )

    def __init__(
        self,
        shard: int,
        position: int,
        kind: str,
        entry: int,
        room: int | None,
        verdict: str,
        timeline: int | None,
        line: int,
        annotation: bytes | None,
    ) -> None:
        self.shard = shard
        self.position = position
        self.kind = kind
        self.entry = entry
        self.room = room
        self.verdict = verdict
        self.timeline = timeline
        self.line = line
        self.annotation = annotation
        self.event_id: str = ""
        self.room_id: str | None = None
        self.type: str = ""
        self.state_key: str | None = None
        self.sender: str = ""
        self.device_id: str | None = None
        self.txn_id: str | None = None
        self.json = b""
        self.redaction: tuple[bytes, RoomVersion] | None = None
        """The client form of the redaction that took the content away, and the version that says what stays."""
        self.replaced_redacted = False
        """Whether the state event it replaced has been redacted: what is noted of that content is not told then."""
        self.unchecked = False
        """Whether it may have replaced an event that was redacted before, so that this has to be looked up."""
        self._members: bytes | None = None
        self._unsigned: bytes | None = None
        self._notes: dict[str, Any] | None = None

    @classmethod
    def of_row(cls, row: tuple[Any, ...]) -> Output:
        """The output of a queried row: the columns of WANTED's outputs, then those of its entry, whose id may be null."""
        shard, position, kind, entry, room, verdict, timeline, line, annotation = row[:9]
        notes = None if annotation is None else annotation.encode()
        self = cls(shard, position, kind, entry, room, verdict, timeline, line, notes)
        if row[9] is not None:
            self.join((*row[9:17], row[17].encode()))
        return self

    def join(self, entry: Entry) -> None:
        """Takes the columns of the entry."""
        _, event_id, self.room_id, kind, state_key, self.sender, self.device_id, txn_id, self.json = entry
        self.event_id = event_id or ""
        self.type = unsafe(kind)
        self.state_key = None if state_key is None else unsafe(state_key)
        self.txn_id = None if txn_id is None else unsafe(txn_id)

    @property
    def size(self) -> int:
        """Bytes it keeps in memory, about: the log's and the rendered form's, and the object."""
        return 2 * len(self.json) + len(self.annotation or b"") + 1_100

    @property
    def notes(self) -> dict[str, Any]:
        """The annotation as an object; empty when there is none."""
        if self._notes is None:
            self._notes = orjson.loads(self.annotation) if self.annotation else {}
        return self._notes

    def has_url(self) -> bool:
        """Whether its content has a `url`, which redaction takes away."""
        return self.redaction is None and b'"url"' in self.json and "url" in orjson.loads(self.json)["content"]

    def redact(self, because: bytes, version: RoomVersion) -> None:
        """A redaction has taken effect: what was rendered before is wrong now."""
        self.redaction = (because, version)
        self._members = self._unsigned = None

    def withheld(self, version: RoomVersion) -> Output:
        """The event as somebody gets it who was not there, once its sender has asked to be forgotten."""
        other = copy(self)
        other.redaction = (b"", version)
        other._members, other._unsigned = None, b""
        return other

    def redact_replaced(self) -> None:
        """The redaction of the state event it replaced has taken effect."""
        self.replaced_redacted = True
        self._unsigned = None

    @property
    def members(self) -> bytes:
        """The members of the client form, see `event_bytes.members_of`."""
        if self._members is None:
            version = None if self.redaction is None else self.redaction[1]
            self._members = members_of(self.json, self.event_id, version)
        return self._members

    @property
    def unsigned(self) -> bytes:
        """The members of `unsigned` that are everybody's."""
        if self._unsigned is None:
            because = None if self.redaction is None else self.redaction[0]
            notes = self.notes if self.state_key is not None else None
            if notes and (self.replaced_redacted or because is not None):
                notes = {name: value for name, value in notes.items() if name != "prev_content"}
            self._unsigned = unsigned_members(notes, because)
        return self._unsigned

    def client(self, membership: str | None, transaction_id: str | None = None, relations: bytes = b"") -> bytes:
        """The client form for one user; `membership` is a word, `relations` what relates to the event."""
        unsigned = self.unsigned
        if relations:
            unsigned = b"%b,%b" % (unsigned, relations) if unsigned else relations
        return client_event(self.members, unsigned, membership=membership, transaction_id=transaction_id)

    def federation(self) -> bytes:
        """The raw form."""
        return federation_event(self.json, None if self.redaction is None else self.redaction[1])

    def transaction_of(self, user_id: str, device_id: str) -> str | None:
        """The transaction id, if this device sent the event."""
        return self.txn_id if self.sender == user_id and self.device_id == device_id else None

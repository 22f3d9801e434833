"""The client form of events as this reader keeps it: bytes that are cut out of the log's and spliced, hardly ever parsed.

Invariant: an event's members are rendered once per process; what differs by request (membership, transaction id, room id) is
put beside them, so nobody's bytes are built from another's. An event is `{` members `,` room id `,` unsigned `}`.
Source: client-server API, "Room event format" and "Stripped state"; MSC4115 for `unsigned.membership`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from matrix.redaction import redact
from matrix.room_versions import RoomVersion
from readers.rendering import client_form

__all__ = [
    "client_event",
    "federation_event",
    "members_of",
    "pick_fields",
    "quoted",
    "stripped_event",
    "unsigned_members",
]

# The canonical form of the events this server builds, in the room versions whose ids are hashes: the members a client gets lie
# between others that are strictly shaped, so that they can be cut out. Content is whatever lies between; that the rest matches to
# the end of the event means that it was found where it is. What does not match is parsed.
_HEAD = re.compile(rb'\{"auth_events":\[[^\]"]*(?:"[^"\\]*"[^\]"]*)*\],"content":')
_TAIL = re.compile(
    rb',"depth":[0-9]+,"hashes":\{"sha256":"[^"\\]*"\}(,"origin_server_ts":[0-9]+),"prev_events":\[[^\]"]*(?:"[^"\\]*"[^\]"]*)*\]'
    rb'(?:,"room_id":"[^"\\]*")?(,"sender":"[^"\\]*"),"signatures":\{"[^"\\]*":\{"[^"\\]*":"[^"\\]*"\}\}'
    rb'((?:,"state_key":"[^"\\]*")?,"type":"[^"\\]*")\}'
)


def quoted(text: str) -> bytes:
    """A string as JSON."""
    return orjson.dumps(text)


def members_of(pdu: bytes, event_id: str, redacted_under: RoomVersion | None = None) -> bytes:
    """The members of the client form without braces, room id and unsigned.

    `pdu` is the PDU as logged. With `redacted_under` what its redaction under that room version leaves.
    """
    if redacted_under is None:
        cut = _cut(pdu, event_id)
        if cut is not None:
            return cut
        event = orjson.loads(pdu)
    else:
        event = redact(orjson.loads(pdu), redacted_under)
    return client_form(event, event_id, "").body[1:]


def _cut(pdu: bytes, event_id: str) -> bytes | None:
    head = _HEAD.match(pdu)
    if head is None:
        return None
    tail = _TAIL.fullmatch(pdu, pdu.rfind(b',"depth":'))
    if tail is None or tail[3] == b',"type":"m.room.redaction"':
        return None
    return b'"content":%b,"event_id":%b%b%b%b' % (
        pdu[head.end() : tail.start()],
        orjson.dumps(event_id),
        tail[1],
        tail[2],
        tail[3],
    )


def unsigned_members(annotation: Mapping[str, Any] | None, redacted_because: bytes | None = None) -> bytes:
    """The members of `unsigned` that are the same for everybody; empty bytes when there are none.

    `annotation` is the output's; `redacted_because` the client form of the redaction that took the content away.
    """
    parts = []
    if annotation is not None:
        if "prev_content" in annotation:
            parts.append(b'"prev_content":' + orjson.dumps(annotation["prev_content"]))
        if "prev_sender" in annotation:
            parts.append(b'"prev_sender":' + orjson.dumps(annotation["prev_sender"]))
        if "replaces" in annotation:
            parts.append(b'"replaces_state":' + orjson.dumps(annotation["replaces"]))
    if redacted_because is not None:
        parts.append(b'"redacted_because":' + redacted_because)
    return b",".join(parts)


def client_event(
    members: bytes,
    unsigned: bytes = b"",
    *,
    room_id: str | None = None,
    membership: str | None = None,
    transaction_id: str | None = None,
) -> bytes:
    """The client form put together. `membership` is the requesting user's at the event, as a word.

    `transaction_id` is for the device that sent the event alone.
    """
    parts = [unsigned] if unsigned else []
    if membership is not None:
        parts.append(b'"membership":"%b"' % membership.encode())
    if transaction_id is not None:
        parts.append(b'"transaction_id":' + orjson.dumps(transaction_id))
    room = b"" if room_id is None else b',"room_id":' + orjson.dumps(room_id)
    if not parts:
        return b"{%b%b}" % (members, room)
    return b'{%b%b,"unsigned":{%b}}' % (members, room, b",".join(parts))


def federation_event(pdu: bytes, redacted_under: RoomVersion | None = None) -> bytes:
    """The raw event, for clients whose filter asks for the event format `federation`."""
    if redacted_under is None:
        return pdu
    return orjson.dumps(redact(orjson.loads(pdu), redacted_under))


def stripped_event(members: bytes) -> bytes:
    """Stripped state: "only the sender, type, state_key and content properties present"."""
    event = orjson.loads(b"{%b}" % members)
    return orjson.dumps({key: event[key] for key in ("content", "sender", "state_key", "type") if key in event})


def pick_fields(event: bytes, fields: Sequence[Sequence[str]]) -> bytes:
    """An event reduced to the fields of a filter's `event_fields`, each a path of names."""
    whole = orjson.loads(event)
    picked: dict[str, Any] = {}
    for path in fields:
        source, target = whole, picked
        for name in path[:-1]:
            source = source.get(name) if isinstance(source, dict) else None
            if not isinstance(source, dict):
                break
            target = target.setdefault(name, {})
        if isinstance(source, dict) and path[-1] in source and isinstance(target, dict):
            target[path[-1]] = source[path[-1]]
    return orjson.dumps(picked)

"""The client form of events, as bytes that are built once and spliced into every response that carries the event.

Invariant: what everybody sees of an event is in `ClientForm`, and may be cached for as long as `(event id, redaction)` stands;
what depends on who asks, and when (age, transaction id, own membership), is added by `ClientForm.write` and is never cached.
Source: client-server API, "Room event format" (ClientEvent, UnsignedData); room version 11, "Moving the redacts property".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import orjson

__all__ = ["ABSENT", "MEMBERSHIPS", "ClientForm", "client_form", "render"]

MEMBERSHIPS: Final = {"j": "join", "i": "invite", "l": "leave", "b": "ban", "k": "knock"}
"""The memberships behind the letters that the database keeps."""

ABSENT: Final[Any] = object()
"""Stands for a member that is left out, where None is a JSON null."""

_MEMBERSHIP_JSON = {word: b'"membership":"%b"' % word.encode() for word in MEMBERSHIPS.values()}


@dataclass(frozen=True, slots=True)
class ClientForm:
    """One event's client form in pieces.

    `body` is the object without `room_id` and `unsigned` and without its closing brace; `room` is the member `room_id` with
    a leading comma; `unsigned` are those members of `unsigned` that are the same for everybody, perhaps none.
    """

    body: bytes
    room: bytes
    unsigned: bytes
    origin_server_ts: int

    def write(
        self,
        *,
        now: int | None = None,
        membership: str | None = None,
        txn_id: str | None = None,
        with_room: bool = True,
    ) -> bytes:
        """The whole object. `now` (milliseconds since 1970) gives `age`, `membership` is the asking user's at the event.

        `txn_id` only for the device that sent the event. `with_room=False` is the form that /sync uses.
        """
        members = [self.unsigned] if self.unsigned else []
        if now is not None:
            members.append(b'"age":%d' % (now - self.origin_server_ts))
        if membership is not None:
            members.append(_MEMBERSHIP_JSON.get(membership) or b'"membership":' + orjson.dumps(membership))
        if txn_id is not None:
            members.append(b'"transaction_id":' + orjson.dumps(txn_id))
        room = self.room if with_room else b""
        if not members:
            return b"%b%b}" % (self.body, room)
        return b'%b%b,"unsigned":{%b}}' % (self.body, room, b",".join(members))


def client_form(
    pdu: dict[str, Any],
    event_id: str,
    room_id: str,
    *,
    prev_content: Any = ABSENT,
    prev_sender: str | None = None,
    replaces_state: str | None = None,
    redacted_because: bytes | None = None,
) -> ClientForm:
    """The pieces of an event's client form. A redacted event is given pruned, with its redaction rendered.

    `room_id` is the caller's, because the create event of room version 12 has none.
    """
    content = pdu["content"]
    event_type = pdu["type"]
    ts = pdu["origin_server_ts"]
    members: dict[str, Any] = {"content": content, "event_id": event_id, "origin_server_ts": ts}
    if event_type == "m.room.redaction":
        # "servers should add a redacts property to the top level of m.room.redaction events … when serving such events
        # over the Client-Server API", and to the content "of older room versions", whichever the event has not.
        if "redacts" in pdu:
            members["redacts"] = pdu["redacts"]
            members["content"] = {"redacts": pdu["redacts"], **content}
        elif "redacts" in content:
            members["redacts"] = content["redacts"]
    members["sender"] = pdu["sender"]
    if "state_key" in pdu:
        members["state_key"] = pdu["state_key"]
    members["type"] = event_type
    shared = []
    if prev_content is not ABSENT:
        shared.append(b'"prev_content":' + orjson.dumps(prev_content))
    if prev_sender is not None:
        shared.append(b'"prev_sender":' + orjson.dumps(prev_sender))
    if replaces_state is not None:
        shared.append(b'"replaces_state":' + orjson.dumps(replaces_state))
    if redacted_because is not None:
        shared.append(b'"redacted_because":' + redacted_because)
    return ClientForm(
        orjson.dumps(members)[:-1],
        b',"room_id":' + orjson.dumps(room_id),
        b",".join(shared),
        ts if isinstance(ts, int) else 0,
    )


def render(
    pdu: dict[str, Any],
    event_id: str,
    room_id: str,
    *,
    txn_id: str | None = None,
    membership: str | None = None,
    prev_content: Any = ABSENT,
    prev_sender: str | None = None,
    replaces_state: str | None = None,
    redacted_because: bytes | None = None,
    now: int | None = None,
) -> bytes:
    """The client form of one event in one go, where nothing of it is worth keeping."""
    form = client_form(
        pdu,
        event_id,
        room_id,
        prev_content=prev_content,
        prev_sender=prev_sender,
        replaces_state=replaces_state,
        redacted_because=redacted_because,
    )
    return form.write(now=now, membership=membership, txn_id=txn_id)

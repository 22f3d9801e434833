"""Events: the persistent data unit, what is read from it, its format, and how a new one is built.

An `Event` is immutable by convention: nothing changes its PDU after construction, and only the room server's verdict
sets `rejected`. Source: "Event format" of each room version; client-server API, "Size limits".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import orjson

from matrix.canonical import MAX_CANONICAL_INTEGER, check_canonical, encode_canonical
from matrix.errors import bad_json, too_large
from matrix.hashes import event_id_of
from matrix.identifiers import fits, is_event_id, is_user_id, new_opaque_id
from matrix.redaction import redact_content
from matrix.room_versions import EventIdFormat, RoomVersion
from matrix.signatures import SigningKey
from matrix.unpadded_base64 import encode, encode_url_safe

__all__ = [
    "MAX_AUTH_EVENTS",
    "MAX_EVENT_BYTES",
    "MAX_PREV_EVENTS",
    "Event",
    "build_event",
    "check_format",
]

MAX_EVENT_BYTES = 65_536
MAX_PREV_EVENTS = 20
MAX_AUTH_EVENTS = 10
_MAX_DEPTH_OF_OLD_VERSIONS = 2**63 - 1


class Event:
    """One event of a room, with the members of its PDU that code asks for."""

    __slots__ = (
        "auth_events",
        "content",
        "depth",
        "event_id",
        "is_state",
        "origin_server_ts",
        "pdu",
        "prev_events",
        "redacts",
        "rejected",
        "room_id",
        "room_version",
        "sender",
        "state_key",
        "type",
    )

    pdu: dict[str, Any]
    """The event as federated: without `event_id` from version 3 on, without `room_id` in a create event of 12."""
    event_id: str
    room_id: str
    """Derived from the event id in a create event of version 12."""
    type: str
    sender: str
    state_key: str | None
    """None in a message event."""
    content: dict[str, Any]
    depth: int
    prev_events: tuple[str, ...]
    """Ids alone, also where the PDU has pairs of id and hash."""
    auth_events: tuple[str, ...]
    """Ids alone, likewise."""
    origin_server_ts: int
    """Milliseconds since 1970, as its sender claims."""
    redacts: str | None
    """The event id that a redaction names, wherever the room version keeps it; None if it is no string."""
    room_version: RoomVersion
    is_state: bool
    rejected: bool
    """Whether the auth rules refused the event; False until somebody says otherwise."""

    @classmethod
    def from_pdu(cls, pdu: dict[str, Any], room_version: RoomVersion, event_id: str | None = None) -> Event:
        """The event of a PDU that has passed `check_format`; computes the id if it is not given."""
        self = cls.__new__(cls)
        if event_id is None:
            event_id = event_id_of(pdu, room_version)
        self.pdu = pdu
        self.event_id = event_id
        self.room_version = room_version
        self.type = event_type = pdu["type"]
        self.sender = pdu["sender"]
        self.content = content = pdu["content"]
        self.depth = pdu["depth"]
        self.origin_server_ts = pdu["origin_server_ts"]
        self.state_key = state_key = pdu.get("state_key")
        self.is_state = state_key is not None
        if room_version.references_carry_hashes:
            self.prev_events = tuple([reference[0] for reference in pdu["prev_events"]])
            self.auth_events = tuple([reference[0] for reference in pdu["auth_events"]])
        else:
            self.prev_events = tuple(pdu["prev_events"])
            self.auth_events = tuple(pdu["auth_events"])
        if room_version.room_id_is_create_event_id and event_type == "m.room.create":
            self.room_id = "!" + event_id[1:]
        else:
            self.room_id = pdu["room_id"]
        if event_type == "m.room.redaction":
            redacts = (content if room_version.redacts_in_content else pdu).get("redacts")
            self.redacts = redacts if isinstance(redacts, str) else None
        else:
            self.redacts = None
        self.rejected = False
        return self

    @property
    def sender_server(self) -> str:
        """The server name of the sender."""
        return self.sender.partition(":")[2]

    def __repr__(self) -> str:
        key = "" if self.state_key is None else f" {self.state_key!r}"
        return f"<Event {self.event_id} {self.type}{key} by {self.sender}>"


def check_format(pdu: Any, room_version: RoomVersion, canonical: bytes | None = None) -> None:
    """Refuse a PDU that does not comply with the event format of its room version, or is too large.

    `canonical` is the canonical form, if the caller has it. Raises M_BAD_JSON, or M_TOO_LARGE (413) for sizes.
    """
    if not isinstance(pdu, dict):
        raise bad_json("An event is an object.")
    is_create = pdu.get("type") == "m.room.create"
    _check_string(pdu, "type")
    _check_string(pdu, "sender")
    if not is_user_id(pdu["sender"]):
        raise bad_json("sender is not a user ID.")
    if not (is_create and room_version.room_id_is_create_event_id):
        _check_string(pdu, "room_id")
        if not pdu["room_id"].startswith("!"):
            raise bad_json("room_id is not a room ID.")
    if "state_key" in pdu:
        _check_string(pdu, "state_key")
    if room_version.event_id_format is EventIdFormat.OPAQUE_WITH_DOMAIN:
        _check_string(pdu, "event_id")
        if not is_event_id(pdu["event_id"]) or ":" not in pdu["event_id"]:
            raise bad_json("event_id is not an event ID of this room version.")
    elif "event_id" in pdu:
        # It would be part of the hash that the id is made of, or not, as servers see fit.
        raise bad_json("Events of this room version do not carry an event ID.")
    _check_integer(pdu, "origin_server_ts")
    _check_integer(pdu, "depth")
    if not 0 <= pdu["depth"] <= _max_depth(room_version):
        raise bad_json("depth is out of range.")
    for name in ("content", "hashes", "signatures"):
        if not isinstance(pdu.get(name), dict):
            raise bad_json(f"{name} must be an object.")
    if not isinstance(pdu["hashes"].get("sha256"), str):
        raise bad_json("hashes must hold a sha256.")
    for of_server in pdu["signatures"].values():
        if not isinstance(of_server, dict) or not all(isinstance(signature, str) for signature in of_server.values()):
            raise bad_json("signatures must hold strings by server and key.")
    if not isinstance(pdu.get("unsigned", {}), dict):
        raise bad_json("unsigned must be an object.")
    _check_references(pdu, "prev_events", MAX_PREV_EVENTS, room_version)
    _check_references(pdu, "auth_events", MAX_AUTH_EVENTS, room_version)
    if canonical is None:
        canonical = encode_canonical(pdu, strict=room_version.enforce_canonical_json)
    if len(canonical) > MAX_EVENT_BYTES:
        raise too_large("The event is larger than 65536 bytes.")


def _max_depth(room_version: RoomVersion) -> int:
    return MAX_CANONICAL_INTEGER if room_version.enforce_canonical_json else _MAX_DEPTH_OF_OLD_VERSIONS


def _check_string(pdu: dict[str, Any], name: str) -> None:
    value = pdu.get(name)
    if not isinstance(value, str):
        raise bad_json(f"{name} must be a string.")
    if not fits(value):
        raise too_large(f"{name} is longer than 255 bytes.")


def _check_integer(pdu: dict[str, Any], name: str) -> None:
    if type(pdu.get(name)) is not int:
        raise bad_json(f"{name} must be an integer.")


def _check_references(pdu: dict[str, Any], name: str, limit: int, room_version: RoomVersion) -> None:
    references = pdu.get(name)
    if not isinstance(references, list):
        raise bad_json(f"{name} must be a list.")
    if len(references) > limit:
        raise bad_json(f"{name} has more than {limit} entries.")
    for reference in references:
        event_id = reference
        if room_version.references_carry_hashes:
            # Old versions name an event with its reference hash.
            if not isinstance(reference, list) or len(reference) != 2 or not isinstance(reference[1], dict):
                raise bad_json(f"{name} must hold pairs of event ID and hash.")
            event_id = reference[0]
        if not is_event_id(event_id):
            raise bad_json(f"{name} must hold event IDs.")


def build_event(
    *,
    room_version: RoomVersion,
    room_id: str | None,
    sender: str,
    type: str,
    state_key: str | None,
    content: dict[str, Any],
    prev_events: Sequence[str],
    auth_events: Sequence[str],
    depth: int,
    origin_server_ts: int,
    server_name: str,
    signing_key: SigningKey,
    redacts: str | None = None,
    event_id: str | None = None,
    reference_hashes: Mapping[str, str] | None = None,
) -> tuple[Event, bytes]:
    """A new event, hashed and signed, and the canonical JSON of its PDU.

    `room_id` is None for a create event of a version whose room ids are hashes. `event_id` is for versions 1 and 2
    alone (made up if absent), as is `reference_hashes`: the unpadded base64 reference hash of every event that
    `prev_events` and `auth_events` name. `redacts` is written where the version keeps it.
    Raises M_BAD_JSON for a content that is not canonical and M_TOO_LARGE (413) for one of the size limits.
    """
    strict = room_version.enforce_canonical_json
    if strict:
        check_canonical(content)
    if not (fits(type) and fits(sender) and (state_key is None or fits(state_key))):
        raise too_large("type, sender and state_key may have 255 bytes each.")
    if len(prev_events) > MAX_PREV_EVENTS or len(auth_events) > MAX_AUTH_EVENTS:
        raise bad_json("An event has at most 20 previous and 10 auth events.")
    if redacts is not None and room_version.redacts_in_content:
        content = {**content, "redacts": redacts}
        redacts = None

    # The keys of a PDU in canonical order are: auth_events, content, depth, event_id | hashes | origin_server_ts,
    # prev_events, redacts, room_id, sender | signatures | state_key, type. Three pieces between which hashes and
    # signatures go: each is serialised once, whatever is hashed, signed and returned is put together from them.
    # "If the room's depth is already at the limit, the depth must be set to the limit."
    depth = min(depth, _max_depth(room_version))
    first: dict[str, Any] = {"auth_events": list(auth_events), "content": content, "depth": depth}
    middle: dict[str, Any] = {"origin_server_ts": origin_server_ts, "prev_events": list(prev_events)}
    last: dict[str, Any] = {"type": type} if state_key is None else {"state_key": state_key, "type": type}
    if room_version.references_carry_hashes:
        hashes_by_id = reference_hashes or {}
        first["auth_events"] = [[known, {"sha256": hashes_by_id[known]}] for known in auth_events]
        middle["prev_events"] = [[known, {"sha256": hashes_by_id[known]}] for known in prev_events]
    if room_version.event_id_format is EventIdFormat.OPAQUE_WITH_DOMAIN:
        first["event_id"] = event_id = event_id or f"${new_opaque_id()}:{server_name}"
    essential_middle = middle
    if redacts is not None:
        # `redacts` at the top level is not essential: redaction drops it.
        middle = {**middle, "redacts": redacts}
    if room_id is not None:
        middle["room_id"] = essential_middle["room_id"] = room_id
    middle["sender"] = essential_middle["sender"] = sender

    first_json, middle_json, last_json = _piece(first, strict), _piece(middle, strict), _piece(last, strict)
    content_hash = encode(sha256(b"{%b,%b,%b}" % (first_json, middle_json, last_json)).digest())
    hashes_json = b'"hashes":{"sha256":"%b"}' % content_hash.encode("ascii")

    kept = redact_content(type, content, room_version)
    essential_first_json = first_json if kept is content else _piece({**first, "content": kept}, strict)
    essential_middle_json = middle_json if essential_middle is middle else _piece(essential_middle, strict)
    essential = b"{%b,%b,%b,%b}" % (essential_first_json, hashes_json, essential_middle_json, last_json)
    signature = signing_key.sign(essential)
    if room_version.event_id_format is EventIdFormat.URL_SAFE_REFERENCE_HASH:
        event_id = "$" + encode_url_safe(sha256(essential).digest())
    elif room_version.event_id_format is EventIdFormat.REFERENCE_HASH:
        event_id = "$" + encode(sha256(essential).digest())

    signatures = {server_name: {signing_key.key_id: signature}}
    signatures_json = b'"signatures":' + orjson.dumps(signatures)
    canonical = b"{%b,%b,%b,%b,%b}" % (first_json, hashes_json, middle_json, signatures_json, last_json)
    if len(canonical) > MAX_EVENT_BYTES:
        raise too_large("The event is larger than 65536 bytes.")
    pdu = {**first, "hashes": {"sha256": content_hash}, **middle, "signatures": signatures, **last}
    return Event.from_pdu(pdu, room_version, event_id), canonical


def _piece(members: dict[str, Any], strict: bool) -> bytes:
    """The members of a canonical object without its braces; the values have been checked."""
    if not strict:
        return encode_canonical(members, strict=False)[1:-1]
    try:
        return orjson.dumps(members, option=orjson.OPT_SORT_KEYS)[1:-1]
    except orjson.JSONEncodeError as error:
        raise bad_json(f"Not JSON: {error}.") from error

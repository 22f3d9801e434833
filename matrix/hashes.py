"""The two hashes of an event.

The content hash covers the whole event and travels in it; the reference hash covers what redaction leaves (and so the
content hash), and is the event's identity. Source: server-server API, "Signing Events".
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from matrix.canonical import encode_canonical
from matrix.errors import invalid_param
from matrix.redaction import redact
from matrix.room_versions import EventIdFormat, RoomVersion
from matrix.unpadded_base64 import decode, encode, encode_url_safe

__all__ = ["content_hash", "content_hash_matches", "event_id_of", "reference_hash"]


def content_hash(pdu: dict[str, Any], room_version: RoomVersion) -> str:
    """SHA-256 of the event without `unsigned`, `signatures` and `hashes`, in unpadded base64."""
    hashed = {key: value for key, value in pdu.items() if key not in ("unsigned", "signatures", "hashes")}
    return encode(sha256(encode_canonical(hashed, strict=room_version.enforce_canonical_json)).digest())


def content_hash_matches(pdu: dict[str, Any], room_version: RoomVersion) -> bool:
    """Whether the event carries its own content hash; if not, the caller goes on with the redacted event."""
    hashes = pdu.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    if not isinstance(claimed, str):
        return False
    # The comparison is of the decoded hashes: padding is tolerated.
    try:
        return decode(claimed) == decode(content_hash(pdu, room_version))
    except ValueError:
        return False


def reference_hash(pdu: dict[str, Any], room_version: RoomVersion) -> bytes:
    """SHA-256 of the redacted event without `signatures` and `unsigned`: 32 bytes."""
    essential = redact(pdu, room_version)
    essential.pop("signatures", None)
    if room_version.event_id_format is not EventIdFormat.OPAQUE_WITH_DOMAIN:
        # The id is made from this hash, so it cannot be in it.
        essential.pop("event_id", None)
    return sha256(encode_canonical(essential, strict=room_version.enforce_canonical_json)).digest()


def event_id_of(pdu: dict[str, Any], room_version: RoomVersion) -> str:
    """The event's id: what it carries in versions 1 and 2, `$` and its reference hash afterwards."""
    if room_version.event_id_format is EventIdFormat.URL_SAFE_REFERENCE_HASH:
        return "$" + encode_url_safe(reference_hash(pdu, room_version))
    if room_version.event_id_format is EventIdFormat.REFERENCE_HASH:
        return "$" + encode(reference_hash(pdu, room_version))
    event_id = pdu.get("event_id")
    if not isinstance(event_id, str):
        raise invalid_param("The event has no event_id.")
    return event_id

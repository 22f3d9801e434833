"""Ed25519 signatures on JSON objects and on events.

A signature covers the canonical form of an object without `signatures` and `unsigned`; an event is redacted first, so
that its signatures outlive a redaction. Whose key it is, and until when, is the caller's knowledge.
Source: appendices, "Signing JSON"; server-server API, "Signing Events".
"""

from __future__ import annotations

import os
from typing import Any

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from matrix.canonical import encode_canonical
from matrix.errors import MatrixError
from matrix.identifiers import server_name_of
from matrix.redaction import redact
from matrix.room_versions import RoomVersion
from matrix.unpadded_base64 import decode, encode

__all__ = [
    "SigningKey",
    "servers_that_must_sign",
    "sign_event",
    "sign_json",
    "signature_is_valid",
    "signed_by",
    "verify_event_signature",
    "verify_json_signature",
]

_SIGNATURE_BYTES = 64
_KEY_BYTES = 32


class SigningKey:
    """A secret key and its id `ed25519:version`."""

    __slots__ = ("_secret", "key_id", "seed", "verify_key")

    def __init__(self, key_id: str, seed: bytes) -> None:
        """`seed` is 32 bytes; ValueError if not, or if the id is not an ed25519 one."""
        if not key_id.startswith("ed25519:") or len(seed) != _KEY_BYTES:
            raise ValueError("a signing key needs an id ed25519:… and a seed of 32 bytes")
        self.key_id = key_id
        self.seed = seed
        self.verify_key, self._secret = crypto_sign_seed_keypair(seed)

    @classmethod
    def generate(cls, version: str) -> SigningKey:
        """A new key `ed25519:<version>` from the system's randomness."""
        return cls(f"ed25519:{version}", os.urandom(_KEY_BYTES))

    @property
    def verify_key_base64(self) -> str:
        """The public key as it is published under `verify_keys`."""
        return encode(self.verify_key)

    def sign(self, message: bytes) -> str:
        """The detached signature in unpadded base64."""
        return encode(crypto_sign(message, self._secret)[:_SIGNATURE_BYTES])

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id!r})"


def signature_is_valid(message: bytes, signature: str, verify_key: bytes) -> bool:
    """Whether `signature` (unpadded base64) is that of `message` under a public key of 32 bytes."""
    try:
        raw = decode(signature)
        if len(raw) != _SIGNATURE_BYTES or len(verify_key) != _KEY_BYTES:
            return False
        crypto_sign_open(raw + message, verify_key)
    except (ValueError, BadSignatureError):
        return False
    return True


def _signed_bytes(value: dict[str, Any], *, strict: bool) -> bytes:
    covered = {key: item for key, item in value.items() if key not in ("signatures", "unsigned")}
    return encode_canonical(covered, strict=strict)


def sign_json(value: dict[str, Any], server_name: str, key: SigningKey, *, strict: bool = True) -> dict[str, Any]:
    """A copy of the object with our signature added to those it has."""
    signature = key.sign(_signed_bytes(value, strict=strict))
    signatures = dict(value.get("signatures") or {})
    signatures[server_name] = {**signatures.get(server_name, {}), key.key_id: signature}
    return {**value, "signatures": signatures}


def sign_event(pdu: dict[str, Any], room_version: RoomVersion, server_name: str, key: SigningKey) -> dict[str, Any]:
    """A copy of the event with our signature added; its `hashes` must be in place."""
    redacted = redact(pdu, room_version)
    signed = sign_json(redacted, server_name, key, strict=room_version.enforce_canonical_json)
    return {**pdu, "signatures": signed["signatures"]}


def signed_by(value: dict[str, Any], entity: str) -> dict[str, str]:
    """The ed25519 signatures that an object carries of one entity, by key id; empty if none or malformed."""
    signatures = value.get("signatures")
    of_entity = signatures.get(entity) if isinstance(signatures, dict) else None
    if not isinstance(of_entity, dict):
        return {}
    return {k: s for k, s in of_entity.items() if k.startswith("ed25519:") and isinstance(s, str)}


def verify_json_signature(
    value: dict[str, Any], entity: str, key_id: str, verify_key: bytes, *, strict: bool = True
) -> bool:
    """Whether the object carries a valid signature of `entity` under this key."""
    signature = signed_by(value, entity).get(key_id)
    if signature is None:
        return False
    try:
        message = _signed_bytes(value, strict=strict)
    except MatrixError:
        return False
    return signature_is_valid(message, signature, verify_key)


def verify_event_signature(
    pdu: dict[str, Any], room_version: RoomVersion, server_name: str, key_id: str, verify_key: bytes
) -> bool:
    """Whether the event, full or redacted, carries a valid signature of `server_name` under this key."""
    return verify_json_signature(
        redact(pdu, room_version), server_name, key_id, verify_key, strict=room_version.enforce_canonical_json
    )


def servers_that_must_sign(pdu: dict[str, Any], room_version: RoomVersion) -> frozenset[str]:
    """The servers without whose valid signatures an event of the right format is dropped.

    Source: server-server API, "Validating hashes and signatures on received events"; rule 5.2 of the auth rules.
    """
    servers = set()
    content = pdu["content"]
    is_member = pdu["type"] == "m.room.member"
    # The sender's server, except that a third-party invite may be completed by another one, …
    if not (is_member and content.get("membership") == "invite" and "third_party_invite" in content):
        servers.add(server_name_of(pdu["sender"]))
    # … in old versions the server that the event id names, …
    if room_version.event_id_server_must_sign:
        servers.add(server_name_of(pdu["event_id"]))
    # … and the server of the user who authorises a join.
    if is_member and room_version.restricted_join_rule:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str):
            servers.add(server_name_of(authoriser))
    return frozenset(servers)

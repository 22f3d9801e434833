"""Invitations of somebody whose user id nobody knew: which key of one signs what an identity server says of the invitee.

Pure. Source: client-server API, "Third-party invites", "m.room.third_party_invite"; "Authorisation rules", rule 5.4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from matrix.signatures import verify_json_signature
from matrix.unpadded_base64 import decode

__all__ = ["THIRD_PARTY_INVITE", "TooManySignatures", "validity_urls", "verifying_key"]

THIRD_PARTY_INVITE: Final = "m.room.third_party_invite"

# Signatures times keys that one third-party invite may make us verify: half a second of work at worst would be a way
# to stop a server with a few events, and real ones have one signature and two keys.
_MOST_VERIFICATIONS: Final = 100

# Identity servers write keys in either alphabet (specification, "m.room.third_party_invite": public_key).
_FROM_URL_SAFE: Final = str.maketrans("-_", "+/")


class TooManySignatures(ValueError):
    """An invite would keep the server busy."""


def verifying_key(signed: dict[str, Any], invitation: dict[str, Any], *, strict: bool) -> str | None:
    """The public key, as it is written in the invitation's content, that verifies one of the signatures; None if none does.

    `strict` is whether the room version enforces canonical JSON. Raises TooManySignatures.
    """
    verifications = 0
    for written, verify_key in _public_keys(invitation):
        for server_name, key_id in _signature_names(signed):
            verifications += 1
            if verifications > _MOST_VERIFICATIONS:
                raise TooManySignatures
            if verify_json_signature(signed, server_name, key_id, verify_key, strict=strict):
                return written
    return None


def validity_urls(invitation: dict[str, Any], public_key: str) -> list[Any]:
    """Where one is told whether a key still holds; "if this URL is absent, the key must be considered valid indefinitely"."""
    found = [entry.get("key_validity_url") for entry in _entries(invitation) if entry.get("public_key") == public_key]
    return [url for url in dict.fromkeys(map(_hashable, found)) if url is not None]


def _hashable(url: Any) -> Any:
    return url if url is None or isinstance(url, str) else ""


def _entries(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What says a key: the content itself, and the members of `public_keys`."""
    yield content
    listed = content.get("public_keys")
    if isinstance(listed, list):
        yield from (entry for entry in listed if isinstance(entry, dict))


def _public_keys(content: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """The keys that are well formed, as they are written and decoded."""
    candidates = (entry.get("public_key") for entry in _entries(content))
    for candidate in dict.fromkeys(candidate for candidate in candidates if isinstance(candidate, str)):
        try:
            yield candidate, decode(candidate.translate(_FROM_URL_SAFE))
        except ValueError:
            continue


def _signature_names(signed: dict[str, Any]) -> Iterator[tuple[str, str]]:
    signatures = signed.get("signatures")
    if isinstance(signatures, dict):
        for server_name, by_key in signatures.items():
            if isinstance(by_key, dict):
                for key_id in by_key:
                    yield server_name, key_id

"""Policy servers: which one a room asks about its events, and whether it has recommended one.

Pure. A room of this server's users alone asks none: the one that its state names has to have somebody in the room. Whoever speaks
to other servers asks for the signature before an event is appended, and holds what comes from them against `recommends`.
Source: client-server API, "Policy Servers"; server-server API, "Determining if a Policy Server is enabled in a room",
"Validating Policy Server signatures".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from matrix.room_versions import RoomVersion
from matrix.signatures import verify_event_signature
from matrix.unpadded_base64 import decode

__all__ = ["POLICY", "PolicyServer", "policy_server_of"]

POLICY: Final = ("m.room.policy", "")
"""The state key that names a room's policy server."""

KEY_ID: Final = "ed25519:policy_server"
""" "The Key ID for the ed25519 key in m.room.policy is always ed25519:policy_server"."""

_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class PolicyServer:
    """A room's policy server and its public key, in unpadded base64 and decoded; the latter None if it is no key."""

    server_name: str
    public_key: str
    verify_key: bytes | None

    def recommends(self, pdu: dict[str, Any], room_version: RoomVersion) -> bool:
        """Whether an event may be in the room: it bears the policy server's signature, or sets the policy server itself."""
        if pdu.get("type") == POLICY[0] and pdu.get("state_key") == POLICY[1]:
            return True
        if self.verify_key is None:
            return False
        return verify_event_signature(pdu, room_version, self.server_name, KEY_ID, self.verify_key)


def policy_server_of(content: Any, has_member_of: Callable[[str], bool]) -> PolicyServer | None:
    """The policy server of a room with this content of m.room.policy, None if it uses none.

    `has_member_of` says whether a server has a joined user in the room; it is asked once at most.
    """
    if not isinstance(content, dict):
        return None
    via, keys = content.get("via"), content.get("public_keys")
    key = keys.get("ed25519") if isinstance(keys, dict) else None
    if not isinstance(via, str) or not isinstance(key, str) or not has_member_of(via):
        return None
    try:
        verify_key = decode(key)
    except ValueError:
        return PolicyServer(via, key, None)
    return PolicyServer(via, key, verify_key if len(verify_key) == _KEY_BYTES else None)

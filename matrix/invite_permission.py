"""Whose invitations a user takes: the account data `m.invite_permission_config`, and what MSC4155 adds to it.

Pure. Invariant: what is not understood lets invitations in. Source: client-server API, "Invite permission"; MSC4155 for lists of
users and servers, under its unstable name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from matrix.globs import Glob
from matrix.identifiers import server_name_of

__all__ = [
    "INVITE_PERMISSION",
    "INVITE_PERMISSION_TYPES",
    "INVITE_PERMISSION_UNSTABLE",
    "InvitePermission",
    "Permission",
]

INVITE_PERMISSION: Final = "m.invite_permission_config"
INVITE_PERMISSION_UNSTABLE: Final = "org.matrix.msc4155.invite_permission_config"
INVITE_PERMISSION_TYPES: Final = (INVITE_PERMISSION, INVITE_PERMISSION_UNSTABLE)
"""The types of global account data that `InvitePermission` is made of."""

MOST_PATTERNS: Final = 1_000
"""Patterns of a list that are looked at."""


class Permission(Enum):
    """What becomes of an invitation."""

    ALLOW = "allow"
    IGNORE = "ignore"
    """It is sent, and the invited user is not told."""
    BLOCK = "block"
    """It is refused."""


_LISTS: Final = (
    ("allowed_users", False, Permission.ALLOW),
    ("ignored_users", False, Permission.IGNORE),
    ("blocked_users", False, Permission.BLOCK),
    ("allowed_servers", True, Permission.ALLOW),
    ("ignored_servers", True, Permission.IGNORE),
    ("blocked_servers", True, Permission.BLOCK),
)


@dataclass(frozen=True, slots=True)
class InvitePermission:
    """One user's settings. `rules` are in the order in which they are asked: whether about servers, patterns, what they say."""

    blocks_all: bool = False
    rules: tuple[tuple[bool, tuple[Glob, ...], Permission], ...] = ()

    def of(self, inviter: str) -> Permission:
        """What becomes of an invitation by a user."""
        server = server_name_of(inviter)
        for about_servers, patterns, permission in self.rules:
            subject = server if about_servers else inviter
            if any(pattern.matches(subject) for pattern in patterns):
                return permission
        return Permission.BLOCK if self.blocks_all else Permission.ALLOW

    @classmethod
    def parse(cls, contents: Mapping[str, Any]) -> InvitePermission:
        """The settings of account data contents by type."""
        stable, lists = contents.get(INVITE_PERMISSION), contents.get(INVITE_PERMISSION_UNSTABLE)
        rules = []
        for name, about_servers, permission in _LISTS if isinstance(lists, dict) else ():
            patterns = lists.get(name) if isinstance(lists, dict) else None
            if isinstance(patterns, list) and patterns:
                globs = tuple(Glob(one) for one in patterns[:MOST_PATTERNS] if isinstance(one, str))
                rules.append((about_servers, globs, permission))
        return cls(isinstance(stable, dict) and stable.get("default_action") == "block", tuple(rules))

"""Whom a user ignores: the account data `m.ignored_user_list`.

Pure. Invariant: what is not understood ignores nobody. Source: client-server API, "Ignoring Users".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["IGNORED_USERS", "ignored_users"]

IGNORED_USERS: Final = "m.ignored_user_list"


def ignored_users(content: Any) -> frozenset[str]:
    """The users that an m.ignored_user_list names."""
    users = content.get("ignored_users") if isinstance(content, Mapping) else None
    return frozenset(users) if isinstance(users, Mapping) else frozenset()

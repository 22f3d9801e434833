"""Whether users of this server take an invitation. Source: client-server API, "Invite permission"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from matrix.errors import MatrixError
from matrix.invite_permission import INVITE_PERMISSION_TYPES, InvitePermission, Permission

SQL = Queries("writer", "invite_permissions.sql")


class InvitePermissions:
    """Asks what the invited have set."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def check(self, inviter: str, invited: Sequence[str]) -> None:
        """M_INVITE_BLOCKED if one of some users of this server does not want to be invited by a user."""
        if not invited:
            return
        async with self._pool.connection() as connection:
            cursor = await connection.execute(
                SQL["permissions"], {"user_ids": list(invited), "types": list(INVITE_PERMISSION_TYPES)}
            )
            rows = await cursor.fetchall()
        contents: dict[str, dict[str, Any]] = {}
        for user_id, kind, content in rows:
            contents.setdefault(user_id, {})[kind] = orjson.loads(content)
        for user_id, settings in contents.items():
            if InvitePermission.parse(settings).of(inviter) is Permission.BLOCK:
                raise MatrixError(403, "M_INVITE_BLOCKED", f"{user_id} does not accept this invitation.")

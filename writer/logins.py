"""Beginning and ending sessions of devices.

Invariant: a device has one session, or two while a refreshed token has not been used yet. A session begins only if the account
is active and its password still the one that was checked, decided in the statement that makes its device.
"""

from __future__ import annotations

from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe
from eventlog.sessions import SessionCache, new_token, token_hash
from matrix.errors import forbidden, unknown_token
from matrix.identifiers import new_device_id
from writer.accounts import logout_others

SQL = Queries("writer", "logins.sql")
NOTIFY = Queries("writer", "accounts.sql")["notify_sessions"]

# How long an access token lives that can be refreshed. One that cannot lives until its device is logged out.
REFRESHABLE_SECONDS = 3600.0


class Logins:
    """Gives out tokens and takes them back; what it ends is forgotten by every process."""

    def __init__(self, pool: Pool, sessions: SessionCache) -> None:
        self._pool = pool
        self._sessions = sessions

    async def begin(
        self,
        connection: AsyncConnection,
        user_id: str,
        *,
        password_hash: str | None,
        device_id: str | None,
        display_name: str | None,
        refreshable: bool,
        address: str | None,
    ) -> dict[str, object]:
        """Logs a device in, in a transaction of the caller's or its own; the members of a login's response.

        `password_hash` is the one that the password was checked against. M_FORBIDDEN when it is no longer the account's.
        """
        device_id = device_id or new_device_id()
        key = {"user_id": user_id, "device_id": safe(device_id)}
        async with connection.transaction():
            more = {"password_hash": password_hash, "address": address}
            more["display_name"] = None if display_name is None else safe(display_name)
            if await (await connection.execute(SQL["put_device"], {**key, **more})).fetchone() is None:
                raise forbidden("Invalid username or password.")
            # "the server must invalidate any access token previously associated with that device"
            await connection.execute(SQL["end_sessions_of_device"], key)
            tokens = await _begin_session(connection, user_id, device_id, refreshable)
            await connection.execute(NOTIFY, {"user_id": user_id})
        self._sessions.forget(user_id)
        return {"user_id": user_id, "device_id": device_id, **tokens}

    async def refresh(self, refresh_token: str) -> dict[str, object]:
        """New tokens for a refresh token, which stays valid until one of them is used. M_UNKNOWN_TOKEN."""
        async with self._pool.connection() as connection, connection.transaction():
            cursor = await connection.execute(SQL["session_to_refresh"], {"refresh_hash": token_hash(refresh_token)})
            row = await cursor.fetchone()
            if row is None:
                raise unknown_token("Unrecognised refresh token.")
            key, user_id, device_id = row
            # "The old refresh token remains valid until the new access token or refresh token is used, at which point the
            # old refresh token is revoked": this one is in use, so those before it are revoked; and what was given out for
            # it before has not been used, or it would be gone itself.
            await connection.execute(SQL["end_older"], {"token_hash": key})
            await connection.execute(SQL["end_younger"], {"token_hash": key})
            tokens = await _begin_session(connection, user_id, device_id, True)
            await connection.execute(NOTIFY, {"user_id": user_id})
        self._sessions.forget(user_id)
        return tokens

    async def end(self, user_id: str, device_ids: list[str]) -> None:
        """Deletes devices of a user and logs them out; those that do not exist are no error."""
        async with self._pool.connection() as connection, connection.transaction():
            await connection.execute(
                SQL["drop_devices"], {"user_id": user_id, "device_ids": [safe(device_id) for device_id in device_ids]}
            )
            await connection.execute(NOTIFY, {"user_id": user_id})
        self._sessions.forget(user_id)

    async def end_all(self, user_id: str) -> None:
        """Deletes all devices of a user and logs them out."""
        async with self._pool.connection() as connection, connection.transaction():
            await logout_others(connection, user_id, None)
        self._sessions.forget(user_id)


async def _begin_session(
    connection: AsyncConnection, user_id: str, device_id: str, refreshable: bool
) -> dict[str, object]:
    access, refresh = new_token(), new_token() if refreshable else None
    values = {
        "token_hash": token_hash(access),
        "user_id": user_id,
        "device_id": safe(device_id),
        "seconds": REFRESHABLE_SECONDS if refreshable else None,
        "refresh_hash": None if refresh is None else token_hash(refresh),
    }
    await connection.execute(SQL["put_session"], values)
    if refresh is None:
        return {"access_token": access}
    return {
        "access_token": access,
        "refresh_token": refresh,
        "expires_in_ms": round(REFRESHABLE_SECONDS * 1000),
    }

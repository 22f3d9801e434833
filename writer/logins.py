"""Beginning and ending sessions of devices.

Invariant: a device has one session, or two while a refreshed token has not been used yet. A session begins only if the account
is active and its password still the one that was checked, decided in the statement that makes its device. A refresh token that the
database does not know counts only if it was given out in a time that a restore or a failover has lost. Whoever asks for a
user's keys after a device of theirs was logged out does not find it.
"""

from __future__ import annotations

import secrets

from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from eventlog.sessions import SessionCache, new_token, token_hash
from eventlog.settings import Sessions
from matrix.errors import forbidden, unknown_token, user_locked
from matrix.identifiers import new_device_id
from writer.accounts import gone_devices, logout_others
from writer.log_writer import LogWriter
from writer.refresh_tokens import Issued, RefreshTokens

SQL = Queries("writer", "logins.sql")
NOTIFY = Queries("writer", "accounts.sql")["notify_sessions"]


class Logins:
    """Gives out tokens and takes them back; what it ends is forgotten by every process."""

    def __init__(
        self, pool: Pool, log: LogWriter, sessions: SessionCache, refresh_tokens: RefreshTokens, lives: Sessions
    ) -> None:
        self._pool = pool
        self._log = log
        self._sessions = sessions
        self._refresh_tokens = refresh_tokens
        self._lives = lives

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
            tokens = await self._begin_session(connection, user_id, device_id, refreshable)
            await connection.execute(NOTIFY, {"user_id": user_id})
        self._sessions.forget(user_id)
        return {"user_id": user_id, "device_id": device_id, **tokens}

    async def refresh(self, refresh_token: str) -> dict[str, object]:
        """New tokens for a refresh token, which stays valid until one of them is used. M_UNKNOWN_TOKEN."""
        async with self._pool.connection() as connection, connection.transaction():
            named = {"refresh_hash": token_hash(refresh_token)}
            row = await (await connection.execute(SQL["session_to_refresh"], named)).fetchone()
            if row is None and await self._readmit(connection, refresh_token):
                row = await (await connection.execute(SQL["session_to_refresh"], named)).fetchone()
            if row is None:
                raise unknown_token("Unrecognised refresh token.")
            key, user_id, device_id, locked = row[0], row[1], unsafe(row[2]), row[3]
            if locked:
                raise user_locked()
            # "The old refresh token remains valid until the new access token or refresh token is used, at which point the
            # old refresh token is revoked": this one is in use, so those before it are revoked; and what was given out for
            # it before has not been used, or it would be gone itself.
            await connection.execute(SQL["end_older"], {"token_hash": key})
            await connection.execute(SQL["end_younger"], {"token_hash": key})
            tokens = await self._begin_session(connection, user_id, device_id, True)
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
            gone = await gone_devices(connection, user_id)
        self._sessions.forget(user_id)
        await self._log.settled(gone)

    async def end_all(self, user_id: str) -> None:
        """Deletes all devices of a user and logs them out."""
        async with self._pool.connection() as connection, connection.transaction():
            await logout_others(connection, user_id, None)
            gone = await gone_devices(connection, user_id)
        self._sessions.forget(user_id)
        await self._log.settled(gone)

    async def _readmit(self, connection: AsyncConnection, refresh_token: str) -> bool:
        """Knows again a session that was given out in a time that was lost; False for any other token."""
        issued = self._refresh_tokens.read(refresh_token)
        if issued is None:
            return False
        values = {
            # Its access token is known to nobody here, and has expired.
            "token_hash": secrets.token_bytes(32),
            "user_id": issued.user_id,
            "device_id": safe(issued.device_id),
            "at": issued.at,
            "refresh_hash": token_hash(refresh_token),
        }
        return (await connection.execute(SQL["readmit_session"], values)).rowcount > 0

    async def _begin_session(
        self, connection: AsyncConnection, user_id: str, device_id: str, refreshable: bool
    ) -> dict[str, object]:
        access, refresh = new_token(), None
        if refreshable:
            row = await (await connection.execute(SQL["now"])).fetchone()
            assert row is not None
            refresh = self._refresh_tokens.make(Issued(user_id, device_id, row[0]))
        seconds = self._lives.access_token_seconds if refreshable else self._lives.unrefreshable_seconds
        values = {
            "token_hash": token_hash(access),
            "user_id": user_id,
            "device_id": safe(device_id),
            "seconds": seconds or None,
            "refresh_hash": None if refresh is None else token_hash(refresh),
        }
        await connection.execute(SQL["put_session"], values)
        tokens: dict[str, object] = {"access_token": access}
        if refresh is not None:
            tokens["refresh_token"] = refresh
        if seconds:
            tokens["expires_in_ms"] = round(seconds * 1000)
        return tokens

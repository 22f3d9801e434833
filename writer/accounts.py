"""Local accounts: made, given a new password, made administrator, locked, suspended, deactivated, listed.

Invariant: whatever ends a session tells every process so, in the same transaction (NOTIFY walden_sessions), and a name that was
ever registered stays taken. The functions need a connection of the role walden_writer (or the owner's).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from psycopg import AsyncConnection

from eventlog.queries import Queries
from eventlog.safe_text import safe
from matrix.errors import forbidden, not_found, user_in_use
from writer.passwords import Passwords

SQL = Queries("writer", "accounts.sql")

# For the command line, which has no service to share one with.
_PASSWORDS = Passwords()


@dataclass(frozen=True, slots=True)
class Account:
    """A local account. `password_hash` is None when there is none or when it was not asked for; `devices` likewise."""

    user_id: str
    password_hash: str | None
    admin: bool
    guest: bool
    deactivated_at: datetime | None
    created_at: datetime
    locked: bool = False
    suspended: bool = False
    devices: int | None = None


async def create_account(
    connection: AsyncConnection,
    user_id: str,
    password: str | None,
    admin: bool = False,
    *,
    guest: bool = False,
    passwords: Passwords = _PASSWORDS,
) -> None:
    """Makes an account; `user_id` has passed `matrix.identifiers.check_local_user_id`. M_USER_IN_USE if it was ever taken."""
    hashed = None if password is None else await passwords.hash(password)
    await insert_account(connection, user_id, hashed, admin=admin, guest=guest)


async def insert_account(
    connection: AsyncConnection, user_id: str, password_hash: str | None, *, admin: bool = False, guest: bool = False
) -> None:
    """Like `create_account`, with a password that is hashed already, so that no transaction waits for argon2."""
    cursor = await connection.execute(
        SQL["create_account"], {"user_id": user_id, "password_hash": password_hash, "admin": admin, "guest": guest}
    )
    if await cursor.fetchone() is None:
        raise user_in_use()


async def upgrade_guest(connection: AsyncConnection, user_id: str, password_hash: str | None) -> None:
    """Makes a guest a user, in the caller's transaction. M_FORBIDDEN if there is no such guest any more."""
    cursor = await connection.execute(SQL["upgrade_guest"], {"user_id": user_id, "password_hash": password_hash})
    if await cursor.fetchone() is None:
        raise forbidden("That is no guest.")
    await connection.execute(SQL["notify_sessions"], {"user_id": user_id})


async def find_account(connection: AsyncConnection, user_id: str) -> Account | None:
    """The account, deactivated or not; None if there never was one."""
    if "\0" in user_id:
        return None
    row = await (await connection.execute(SQL["account"], {"user_id": user_id})).fetchone()
    return None if row is None else Account(*row)


async def owner_of(connection: AsyncConnection, medium: str, address: str) -> str | None:
    """The user id of the account that has a third-party identifier, in its canonical form."""
    if "\0" in medium or "\0" in address:
        return None
    cursor = await connection.execute(SQL["owner"], {"medium": medium, "address": address})
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def list_accounts(connection: AsyncConnection, after: str = "", most: int = 100) -> list[Account]:
    """A page of accounts in order of user id, with the number of devices; the next page is after the last one's id."""
    cursor = await connection.execute(SQL["accounts"], {"after": after, "most": most})
    return [Account(*row) for row in await cursor.fetchall()]


async def set_password(
    connection: AsyncConnection,
    user_id: str,
    password: str,
    *,
    logout_devices: bool = True,
    kept_device: str | None = None,
    passwords: Passwords = _PASSWORDS,
) -> None:
    """Replaces the password and, unless told otherwise, logs out every device but `kept_device`. M_NOT_FOUND if not active."""
    hashed = await passwords.hash(password)
    await replace_password(connection, user_id, hashed, logout_devices=logout_devices, kept_device=kept_device)


async def replace_password(
    connection: AsyncConnection,
    user_id: str,
    password_hash: str,
    *,
    logout_devices: bool = True,
    kept_device: str | None = None,
) -> int | None:
    """Like `set_password`, with a password that is hashed already, so that no connection waits for argon2.

    The last entry that says which devices are gone, if any are.
    """
    async with connection.transaction():
        values = {"user_id": user_id, "password_hash": password_hash}
        if await (await connection.execute(SQL["set_password"], values)).fetchone() is None:
            raise not_found("No such active account.")
        if not logout_devices:
            return None
        await logout_others(connection, user_id, kept_device)
        return await gone_devices(connection, user_id)


async def set_admin(connection: AsyncConnection, user_id: str, admin: bool) -> None:
    """Makes an account a server administrator, or no longer. M_NOT_FOUND if there is no active one."""
    async with connection.transaction():
        cursor = await connection.execute(SQL["set_admin"], {"user_id": user_id, "admin": admin})
        if await cursor.fetchone() is None:
            raise not_found("No such active account.")
        await connection.execute(SQL["notify_sessions"], {"user_id": user_id})


async def set_locked(connection: AsyncConnection, user_id: str, locked: bool) -> None:
    """Locks an account, or unlocks it; every process knows at once. M_NOT_FOUND if there is no active one."""
    await _mark(connection, "set_locked", user_id, locked)


async def set_suspended(connection: AsyncConnection, user_id: str, suspended: bool) -> None:
    """Suspends an account, or no longer; every process knows at once. M_NOT_FOUND if there is no active one."""
    await _mark(connection, "set_suspended", user_id, suspended)


async def _mark(connection: AsyncConnection, query: str, user_id: str, wanted: bool) -> None:
    async with connection.transaction():
        cursor = await connection.execute(SQL[query], {"user_id": user_id, "wanted": wanted})
        if await cursor.fetchone() is None:
            raise not_found("No such active account.")
        await connection.execute(SQL["notify_sessions"], {"user_id": user_id})


async def deactivate_account(
    connection: AsyncConnection, user_id: str, *, erase: bool = False, grace_seconds: float = 0.0
) -> None:
    """Ends an account: no password, devices, sessions, tokens, third-party identifiers. M_NOT_FOUND if there is no active one.

    Its rooms are left, and what it said is erased, by `writer.departures`, of whichever process is the first to look after
    `grace_seconds`.
    """
    async with connection.transaction():
        if await (await connection.execute(SQL["deactivate"], {"user_id": user_id})).fetchone() is None:
            raise not_found("No such active account.")
        await connection.execute(SQL["drop_belongings"], {"user_id": user_id})
        await connection.execute(SQL["depart"], {"user_id": user_id, "erase": erase, "grace_seconds": grace_seconds})
        await logout_others(connection, user_id, None)


async def has_departed(connection: AsyncConnection, user_id: str) -> bool:
    """Whether all is done that follows the deactivation of an account."""
    return await (await connection.execute(SQL["departing"], {"user_id": user_id})).fetchone() is None


async def logout_others(connection: AsyncConnection, user_id: str, kept_device: str | None) -> list[str]:
    """Deletes all devices of a user but one (None: all) with their tokens, in the caller's transaction; returns their ids."""
    kept = None if kept_device is None else safe(kept_device)
    cursor = await connection.execute(SQL["drop_other_devices"], {"user_id": user_id, "kept": kept})
    dropped = [row[0] for row in await cursor.fetchall()]
    await connection.execute(SQL["notify_sessions"], {"user_id": user_id})
    return dropped


async def gone_devices(connection: AsyncConnection, user_id: str) -> int | None:
    """The last entry by which the caller's transaction has said that devices are gone. None: none were deleted."""
    row = await (await connection.execute(SQL["gone_devices"], {"user_id": user_id})).fetchone()
    return None if row is None else row[0]

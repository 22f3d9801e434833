"""Whose account a name and a password open.

Invariant: a wrong password and an unknown name are one answer, after the same time, and failures are limited per account.
Source: client-server API, "Identifier types", "Login", "Account locking".
"""

from __future__ import annotations

from dataclasses import dataclass

from eventlog.pools import Pool
from matrix.errors import MatrixError, forbidden, missing_param, unknown, user_locked
from matrix.identifiers import server_name_of
from writer.accounts import Account, find_account, owner_of
from writer.email_addresses import fold_address
from writer.passwords import Passwords
from writer.rate_limits import RateLimits
from writer.requests import Body, json_object, required_text, text


@dataclass(frozen=True, slots=True)
class Identifier:
    """How somebody says who they are: a user id or its localpart, or with `is_email` an e-mail address."""

    name: str
    is_email: bool = False


def identifier_of(body: Body) -> Identifier:
    """What `identifier` says, or the members that came before it. M_FORBIDDEN for what no account here is known by."""
    identifier = json_object(body, "identifier")
    if identifier is None:
        user = text(body, "user")
        if user is not None:
            return Identifier(user)
        if text(body, "medium") is None and text(body, "address") is None:
            raise missing_param("identifier is missing.")
        return _third_party(body)
    kind = text(identifier, "type")
    if kind == "m.id.thirdparty" or (kind is None and "medium" in identifier):
        return _third_party(identifier)
    if kind is None:
        raise missing_param("type is missing.")
    if kind == "m.id.phone":
        raise forbidden("This server knows no telephone numbers.")
    if kind != "m.id.user":
        raise unknown(400, "Unknown type of identifier.")
    return Identifier(required_text(identifier, "user"))


def _third_party(members: Body) -> Identifier:
    medium, address = text(members, "medium"), text(members, "address") or ""
    if medium != "email":
        raise forbidden("This server knows no such third-party identifiers.")
    return Identifier(fold_address(address), is_email=True)


class PasswordCheck:
    """Finds the account that a name and a password open."""

    def __init__(self, pool: Pool, passwords: Passwords, limits: RateLimits, server_name: str) -> None:
        self._pool = pool
        self._passwords = passwords
        self._limits = limits
        self._server_name = server_name

    async def account(self, identifier: Identifier, password: str) -> Account:
        """The account that somebody says is theirs.

        M_FORBIDDEN, M_USER_DEACTIVATED, M_USER_LOCKED, M_LIMIT_EXCEEDED after many failures.
        """
        name = identifier.name
        if not identifier.is_email and not name.startswith("@"):
            name = f"@{name}:{self._server_name}"
        # A name in capitals opens the same account. An address is counted apart from its account's name: who is refused for
        # the one because of failures with the other would learn that they belong together.
        counted = f"account {name.lower()}"
        self._limits.check("login", counted)
        account = await self._find(name, identifier.is_email)
        matches = await self._passwords.matches(password, account.password_hash if account else None)
        if account is not None and account.deactivated_at is not None:
            raise MatrixError(403, "M_USER_DEACTIVATED", "This account has been deactivated.")
        if account is None or not matches:
            self._limits.charge("login", counted)
            raise forbidden("Invalid username or password.")
        if account.locked:
            raise user_locked()
        return account

    async def _find(self, name: str, is_email: bool) -> Account | None:
        async with self._pool.connection() as connection:
            if is_email:
                user_id = await owner_of(connection, "email", name)
                return None if user_id is None else await find_account(connection, user_id)
            account = await find_account(connection, name)
            if account is None and server_name_of(name) == self._server_name:
                # People write their names with a capital; accounts have none.
                account = await find_account(connection, name.lower())
            return account

"""Registration tokens, as the server's administrators make and end them.

Invariant: a token can be presented as the specification has it. What a registration does with one is in `writer/registration.py`.
Source: client-server API, "Token-authenticated registration".
"""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import NamedTuple

from psycopg import AsyncConnection

from eventlog.queries import Queries
from matrix.errors import invalid_param, not_found
from matrix.identifiers import is_opaque_identifier

SQL = Queries("writer", "registration_tokens.sql")
MOST_CHARACTERS = 64


class RegistrationToken(NamedTuple):
    """One token: how often it may be used (None: any number), how often it was, when it ends (None: never), whether it is good."""

    token: str
    uses_allowed: int | None
    completed: int
    expires_at: datetime | None
    valid: bool


async def make_token(
    connection: AsyncConnection,
    token: str | None = None,
    *,
    uses_allowed: int | None = None,
    seconds: float | None = None,
) -> str:
    """Makes a token, of a random text unless one is given. M_INVALID_PARAM if it is taken or cannot be a token."""
    token = token or secrets.token_urlsafe(12)
    if not is_opaque_identifier(token) or len(token) > MOST_CHARACTERS:
        raise invalid_param(f"A token has 1 to {MOST_CHARACTERS} characters of 0-9, a-z, A-Z, '.', '_', '~' and '-'.")
    values = {"token": token, "uses_allowed": uses_allowed, "seconds": seconds}
    if await (await connection.execute(SQL["make"], values)).fetchone() is None:
        raise invalid_param("There is such a token already.")
    return token


async def list_tokens(connection: AsyncConnection, after: str = "", most: int = 500) -> list[RegistrationToken]:
    """A page of tokens in order of their text; the next page is after the last one's."""
    cursor = await connection.execute(SQL["all"], {"after": after, "most": most})
    return [RegistrationToken(*row) for row in await cursor.fetchall()]


async def end_token(connection: AsyncConnection, token: str) -> None:
    """Ends a token. M_NOT_FOUND if there is none."""
    if "\0" in token or await (await connection.execute(SQL["end"], {"token": token})).fetchone() is None:
        raise not_found("There is no such token.")

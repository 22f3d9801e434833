"""Refresh tokens: whose they are and when they were given out, under a code that only this server can make.

Invariant: the database decides on a token that it knows by its hash; the code counts only for what a restored database cannot know.
A token is `wr1.` and a JSON list [user id, device id, microseconds since 1970, chance], then the code, each in URL-safe base64.
"""

from __future__ import annotations

import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple

import orjson

PREFIX: Final = "wr1."
CODE_BYTES: Final = 24


class Issued(NamedTuple):
    """Whose token it is, and when it was given out (microseconds since 1970, by the database's clock)."""

    user_id: str
    device_id: str
    at: int


class RefreshTokens:
    """Makes and reads tokens with a key made from the content of the signing key's file."""

    def __init__(self, signing_key_file: bytes) -> None:
        self._key = hmac.digest(signing_key_file, b"walden refresh", sha256)

    def make(self, issued: Issued) -> str:
        """A token that nobody has had yet."""
        body = orjson.dumps([*issued, secrets.token_urlsafe(16)])
        return f"{PREFIX}{_text(body)}.{_text(self._code(body))}"

    def read(self, token: str) -> Issued | None:
        """What a token says; None for what this server did not make."""
        if not token.startswith(PREFIX):
            return None
        try:
            body, code = map(_bytes, token.removeprefix(PREFIX).split("."))
            if not hmac.compare_digest(code, self._code(body)):
                return None
            user_id, device_id, at, _ = orjson.loads(body)
            return Issued(user_id, device_id, at)
        except (ValueError, TypeError):
            return None

    def _code(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, sha256)[:CODE_BYTES]


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    data = text.encode("ascii")
    return urlsafe_b64decode(data + b"=" * (-len(data) % 4))

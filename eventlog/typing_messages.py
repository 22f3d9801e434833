"""Typing notifications as logical messages, the one thing in the log that has no table.

Invariant: a payload counts only with the code made from the server's signing key: any session of the database, a reading one
too, can emit logical messages.
"""

from __future__ import annotations

import hmac
from hashlib import sha256
from typing import NamedTuple

import orjson

PREFIX = "walden.typing"


class TypingMessage(NamedTuple):
    """Who types where, for how long (ms), said when (ms since 1970)."""

    room_id: str
    user_id: str
    typing: bool
    timeout: int
    ts: int


def message_key(signing_key_file: bytes) -> bytes:
    """The key of the codes, made from the content of the signing key's file."""
    return hmac.digest(signing_key_file, b"walden typing", sha256)


def encode(message: TypingMessage, key: bytes) -> bytes:
    """The payload of a message."""
    body = message._asdict()
    code = hmac.digest(key, orjson.dumps(body, option=orjson.OPT_SORT_KEYS), sha256).hex()
    return orjson.dumps({**body, "mac": code})


def decode(payload: bytes, key: bytes) -> TypingMessage | None:
    """The message of a payload; None for what this server did not make."""
    try:
        body = orjson.loads(payload)
        code = body.pop("mac")
        wanted = hmac.digest(key, orjson.dumps(body, option=orjson.OPT_SORT_KEYS), sha256).hex()
        if not hmac.compare_digest(code, wanted):
            return None
        return TypingMessage(**body)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None

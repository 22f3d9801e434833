"""The public keys of users as the log has them: of devices, of cross-signing, and what one user signed of another.

Invariant: what is changed is read and written under the user's claim, so that two uploads do not undo each other's signatures.
Whoever asks sees everybody's own signatures, and of those on other users' keys only what they made themselves.
Source: client-server API, "Cross-signing".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import orjson

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.errors import too_large
from writer.claims import Claims
from writer.log_writer import LogWriter

SQL: Final = Queries("writer", "keys.sql")
DEVICE: Final = "device"
SIGNED: Final = "signed"
CROSS_SIGNING: Final = ("master", "self_signing", "user_signing")
CLAIM: Final = "keys"
MOST_SIGNATURES_BYTES: Final = 65_536
"""Bytes of a key with all signatures on it."""

Json = dict[str, Any]
Slot = tuple[str, str]
"""Usage, and the id of the device or of the user who was signed; empty for cross-signing keys."""


class KeyDirectory:
    """Reads and changes the keys of local users."""

    def __init__(self, pool: Pool, log: LogWriter, claims: Claims) -> None:
        self._pool = pool
        self._log = log
        self._claims = claims

    async def read(self, user_ids: Iterable[str]) -> dict[str, dict[Slot, Json]]:
        """By user, all keys; those of devices with the device's name in `unsigned`."""
        found: dict[str, dict[Slot, Json]] = {}
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["keys_of_users"], {"users": list(user_ids)})
            for user_id, usage, key_id, key, name in await cursor.fetchall():
                value = orjson.loads(key)
                if name is not None:
                    value["unsigned"] = {"device_display_name": unsafe(name)}
                found.setdefault(user_id, {})[usage, unsafe(key_id)] = value
        return found

    async def signed(self, user_id: str, others: Iterable[str]) -> dict[str, Json]:
        """By other user, the master key that a user signed, and the signatures."""
        async with self._pool.connection() as connection:
            cursor = await connection.execute(SQL["signed"], {"user_id": user_id, "users": list(others)})
            return {other: orjson.loads(key) for other, key in await cursor.fetchall()}

    async def put(self, user_id: str, keys: dict[Slot, Json | None]) -> None:
        """Replaces keys of a user, None removes; a device that is not there has none. The caller holds the claim. M_TOO_LARGE."""
        entries = [
            {"usage": usage, "id": safe(key_id), "key": None if key is None else without_unsigned(key)}
            for (usage, key_id), key in keys.items()
        ]
        if any(len(orjson.dumps(entry)) > MOST_SIGNATURES_BYTES + 1024 for entry in entries):
            raise too_large(f"A key with its signatures has at most {MOST_SIGNATURES_BYTES} bytes.")
        await self._log.append_entry(type="keys", user_id=user_id, content={"keys": entries})
        devices = [key_id for (usage, key_id), key in keys.items() if usage == DEVICE and key is not None]
        if devices and (gone := await self._gone(user_id, devices)):
            # Logged out meanwhile: what says that it is gone may stand in the log before its keys.
            await self.put(user_id, {(DEVICE, device_id): None for device_id in gone})

    def hold(self, user_id: str) -> Any:
        """Nobody else changes a user's keys meanwhile."""
        return self._claims.hold(CLAIM, user_id)

    async def put_device(self, user_id: str, device_id: str, keys: Json) -> None:
        """Replaces the identity keys of a device, if it is still there; signatures that others made on the same keys stay."""
        async with self.hold(user_id):
            before = (await self.read([user_id])).get(user_id, {}).get((DEVICE, device_id))
            if before is not None and same_key(before, keys) and await self._stands(user_id, device_id):
                keys = with_signatures(keys, before.get("signatures"))
                if without_unsigned(keys) == without_unsigned(before):
                    return
            await self.put(user_id, {(DEVICE, device_id): keys})

    async def _stands(self, user_id: str, device_id: str) -> bool:
        key = {"user_id": user_id, "device_id": safe(device_id)}
        async with self._pool.connection() as connection:
            return await (await connection.execute(SQL["stands"], key)).fetchone() is not None

    async def _gone(self, user_id: str, device_ids: list[str]) -> list[str]:
        key = {"user_id": user_id, "device_ids": [safe(one) for one in device_ids]}
        async with self._pool.connection() as connection:
            return [unsafe(one) for (one,) in await (await connection.execute(SQL["gone"], key)).fetchall()]


def without_unsigned(key: Json) -> Json:
    """A key as it is stored: what is unsigned is the server's to say."""
    return {name: value for name, value in key.items() if name != "unsigned"}


def same_key(one: Json, other: Json) -> bool:
    """Whether two say the same but for their signatures."""
    left, right = ({n: v for n, v in key.items() if n not in ("signatures", "unsigned")} for key in (one, other))
    return left == right


def with_signatures(key: Json, signatures: object) -> Json:
    """A key with more signatures; its own ones win."""
    merged: dict[str, dict[str, str]] = {}
    for given in (signatures, key.get("signatures")):
        if isinstance(given, dict):
            for user_id, of_user in given.items():
                merged[user_id] = {**merged.get(user_id, {}), **of_user}
    return {**key, "signatures": merged} if merged else key

"""Keys that devices upload.

Invariant: what was claimed is known for a week and not taken back when it is uploaded again (writer/key_claims.py hands keys out).
Identity keys go through the log. Source: client-server API, "End-to-End Encryption: Key management API".
"""

from __future__ import annotations

from typing import Any, Final

import orjson
from falcon.asgi import Request, Response
from psycopg import AsyncConnection

from eventlog.pools import Pool
from eventlog.queries import Queries
from eventlog.safe_text import safe, unsafe
from matrix.canonical import check_canonical, encode_canonical
from matrix.errors import bad_json, invalid_param, too_large
from matrix.identifiers import fits
from writer.key_directory import DEVICE, KeyDirectory
from writer.log_writer import LogWriter
from writer.requests import Body, json_object, read_body, session_of

SQL: Final = Queries("writer", "keys.sql")
MOST_KEYS: Final = 1_000
"""One-time keys that a device may have, and that one request may bring."""
MOST_FALLBACK: Final = 5
MOST_KEY_BYTES: Final = 8_192
"""Bytes of one key as JSON: keys that withstand quantum computers have two thousand."""
MOST_DEVICE_BYTES: Final = 65_536

Keys = list[tuple[str, str, str]]
"""Algorithm and id, both NUL-safe, and the key as JSON."""


class DeviceKeys:
    """/keys/upload."""

    def __init__(self, pool: Pool, log: LogWriter, directory: KeyDirectory) -> None:
        self._pool = pool
        self._log = log
        self._directory = directory

    async def on_post(self, req: Request, resp: Response) -> None:
        """Takes identity keys, one-time keys and fallback keys of the requester's device; says how many one-time keys it has."""
        session, body = session_of(req), await read_body(req)
        device_keys = json_object(body, "device_keys")
        one_time = keys_of(body, "one_time_keys", MOST_KEYS)
        fallback = keys_of(body, "fallback_keys", MOST_FALLBACK)
        if not body.get("fallback_keys"):
            fallback = keys_of(body, "org.matrix.msc2732.fallback_keys", MOST_FALLBACK)
        if len({algorithm for algorithm, _, _ in fallback}) < len(fallback):
            raise invalid_param("There is one fallback key of each algorithm.")
        if device_keys:
            check_device_keys(device_keys, session.user_id, session.device_id)
        async with self._pool.connection() as connection, connection.transaction():
            counts, entry = await put_keys(connection, session.user_id, session.device_id, one_time, fallback)
        if device_keys:
            # Last: who finds the device begins a session at once, and finds one of those keys for it.
            await self._directory.put_device(session.user_id, session.device_id, device_keys)
        await self._log.settled(entry)
        resp.media = {"one_time_key_counts": counts}


async def put_keys(
    connection: AsyncConnection, user_id: str, device_id: str, one_time: Keys, fallback: Keys
) -> tuple[dict[str, int], int | None]:
    """Adds to a device's keys in the caller's transaction.

    How many one-time keys it then has, by algorithm, and the entry that says that this has changed.

    M_INVALID_PARAM for another key under an id that can still be handed out; M_TOO_LARGE.
    """
    device = {"user_id": user_id, "device_id": safe(device_id)}
    locked = await (await connection.execute(SQL["lock_device"], device)).fetchone()
    if locked is None:
        # The device has logged out meanwhile.
        return {}, None
    row = await (await connection.execute(SQL["epoch"])).fetchone()
    assert row is not None
    key = {**device, "epoch": row[0]}
    if one_time:
        named = {"algorithms": [k[0] for k in one_time], "key_ids": [k[1] for k in one_time]}
        known = {
            (a, i): k for a, i, k in await (await connection.execute(SQL["known_keys"], {**key, **named})).fetchall()
        }
        for algorithm, key_id, value in one_time:
            before = known.get((algorithm, key_id))
            if before is not None and orjson.loads(before) != orjson.loads(value):
                raise invalid_param(f"There is another one-time key {unsafe(algorithm)}:{unsafe(key_id)} already.")
        await connection.execute(SQL["forget_keys"], key)
        await connection.execute(SQL["put_keys"], {**key, **named, "keys": [k[2] for k in one_time]})
    if fallback:
        named = {"algorithms": [k[0] for k in fallback], "key_ids": [k[1] for k in fallback]}
        await connection.execute(SQL["put_fallback_keys"], {**key, **named, "keys": [k[2] for k in fallback]})
    counts = {unsafe(a): n for a, n in await (await connection.execute(SQL["counts"], key)).fetchall()}
    if sum(counts.values()) > MOST_KEYS and one_time:
        raise too_large(f"A device has at most {MOST_KEYS} one-time keys.")
    if not (one_time or fallback):
        return counts, None
    told = await (await connection.execute(SQL["tell_stock"], device)).fetchone()
    return counts, None if told is None else told[0]


def keys_of(body: Body, name: str, most: int) -> Keys:
    """The keys of a member of the body. M_BAD_JSON, M_INVALID_PARAM, M_TOO_LARGE."""
    found: Keys = []
    keys = json_object(body, name) or {}
    if len(keys) > most:
        raise too_large(f"{name} may have {most} keys.")
    for full_id, key in keys.items():
        algorithm, colon, key_id = full_id.partition(":")
        if not (algorithm and colon and key_id and fits(full_id)):
            raise invalid_param(f"{name} must be named <algorithm>:<id>.")
        if not isinstance(key, str | dict):
            raise bad_json(f"{name} must be strings or objects.")
        if isinstance(key, dict) and not (isinstance(key.get("key"), str) and is_signed(key)):
            raise bad_json(f"{name} that are objects have a key and signatures.")
        encoded = orjson.dumps(key).decode()
        if len(encoded) > MOST_KEY_BYTES:
            raise too_large(f"A key has at most {MOST_KEY_BYTES} bytes.")
        found.append((safe(algorithm), safe(key_id), encoded))
    return found


def is_signed(key: dict[str, Any]) -> bool:
    """Whether an object has signatures by user and key, right or wrong."""
    signatures = key.get("signatures")
    return isinstance(signatures, dict) and all(
        isinstance(of_user, dict) and all(isinstance(one, str) for one in of_user.values())
        for of_user in signatures.values()
    )


def check_device_keys(keys: dict[str, Any], user_id: str, device_id: str) -> None:
    """M_BAD_JSON, M_INVALID_PARAM or M_TOO_LARGE unless these are identity keys of that device."""
    for name, kind in (("algorithms", list), ("keys", dict)):
        if not isinstance(keys.get(name), kind):
            raise bad_json(f"device_keys.{name} is missing, or of another type.")
    if keys.get("user_id") != user_id or keys.get(DEVICE + "_id") != device_id:
        raise invalid_param("device_keys are of another user or device.")
    if not all(isinstance(one, str) for one in keys["algorithms"]):
        raise bad_json("device_keys.algorithms must be strings.")
    if not all(isinstance(key, str) for key in keys["keys"].values()):
        raise bad_json("device_keys.keys must be strings.")
    if not is_signed(keys):
        raise bad_json("device_keys.signatures must be signatures by user.")
    check_canonical(keys)
    if len(encode_canonical(keys)) > MOST_DEVICE_BYTES:
        raise too_large(f"device_keys have at most {MOST_DEVICE_BYTES} bytes.")

"""Cross-signing keys, and signatures by which users and devices vouch for each other.

Invariant: keys that replace others need the password; a signature is stored only if it is one, of the object that is stored.
Source: client-server API, "Cross-signing".
"""

from __future__ import annotations

from typing import Any, Final

from falcon.asgi import Request, Response

from matrix.canonical import check_canonical
from matrix.errors import MatrixError, forbidden, invalid_param, not_found, too_large
from matrix.identifiers import is_user_id
from matrix.signatures import signed_by, verify_json_signature
from matrix.unpadded_base64 import decode
from writer.authentication import PasswordAuthentication
from writer.key_directory import (
    CROSS_SIGNING,
    DEVICE,
    SIGNED,
    Json,
    KeyDirectory,
    Slot,
    same_key,
    with_signatures,
    without_unsigned,
)
from writer.requests import Body, json_object, read_body, session_of

MOST_SIGNED: Final = 1_000
"""Objects whose signatures one request may bring."""
ED25519_BYTES: Final = 32


class CrossSigning:
    """/keys/device_signing/upload, /keys/signatures/upload."""

    def __init__(self, directory: KeyDirectory, authentication: PasswordAuthentication) -> None:
        self._directory = directory
        self._authentication = authentication

    async def on_post_keys(self, req: Request, resp: Response) -> None:
        """Publishes cross-signing keys. The first ones, and the same ones again, need no password."""
        user_id, body = session_of(req).user_id, await read_body(req)
        given = {
            usage: _checked(key, usage, user_id)
            for usage in CROSS_SIGNING
            if (key := json_object(body, f"{usage}_key")) is not None
        }
        standing = await self._standing(user_id)
        _check_signed(given, standing, user_id)
        session_id = None
        if standing.get("master") is not None and _is_new(given, standing):
            session_id = await self._authentication.require(req, body, "/keys/device_signing/upload")
        async with self._directory.hold(user_id):
            standing = await self._standing(user_id)
            _check_signed(given, standing, user_id)
            if session_id is None and standing.get("master") is not None and _is_new(given, standing):
                raise MatrixError(409, "M_UNKNOWN", "Keys were uploaded in the same moment. Try again.")
            changed: dict[Slot, Json | None] = {}
            for usage, key in given.items():
                before = standing.get(usage)
                if before is not None and same_key(before, key):
                    key = with_signatures(key, before.get("signatures"))
                    if without_unsigned(key) == without_unsigned(before):
                        continue
                changed[usage, ""] = key
            if changed:
                await self._directory.put(user_id, changed)
        if session_id is not None:
            await self._authentication.end(session_id)
        resp.media = {}

    async def on_post_signatures(self, req: Request, resp: Response) -> None:
        """Stores signatures on devices and master keys; says which cannot be."""
        user_id, body = session_of(req).user_id, await read_body(req)
        if not all(map(is_user_id, body)):
            raise invalid_param("Signatures must be objects by user and key.")
        if sum(len(of_user) for of_user in body.values() if isinstance(of_user, dict)) > MOST_SIGNED:
            raise too_large(f"At most {MOST_SIGNED} objects can be signed at once.")
        failures: dict[str, dict[str, object]] = {}
        async with self._directory.hold(user_id):
            found = await self._directory.read([user_id, *body])
            signed = await self._directory.signed(user_id, body)
            mine = found.get(user_id, {})
            changed: dict[Slot, Json | None] = {}
            for other, of_other in body.items():
                if not isinstance(of_other, dict):
                    raise invalid_param("Signatures must be objects by user and key.")
                for key_id, value in of_other.items():
                    try:
                        if not isinstance(value, dict):
                            raise invalid_param("What is signed must be an object.")
                        if other == user_id:
                            slot, key = _own(user_id, key_id, value, {**mine, **_present(changed)})
                        else:
                            slot, key = _others(
                                user_id, other, key_id, value, mine, found.get(other, {}), signed.get(other)
                            )
                        changed[slot] = key
                    except MatrixError as error:
                        failures.setdefault(other, {})[key_id] = {"errcode": error.errcode, "error": error.error}
            if changed:
                await self._directory.put(user_id, changed)
        resp.media = {"failures": failures}

    async def _standing(self, user_id: str) -> dict[str, Json]:
        keys = (await self._directory.read([user_id])).get(user_id, {})
        devices = {key_id: key for (usage, key_id), key in keys.items() if usage == DEVICE}
        return {usage: key for (usage, key_id), key in keys.items() if not key_id} | {DEVICE: devices}


def _present(changed: dict[Slot, Json | None]) -> dict[Slot, Json]:
    return {slot: key for slot, key in changed.items() if key is not None}


def _checked(key: Body, usage: str, user_id: str) -> Json:
    """The key, if it is one of that usage. M_INVALID_PARAM, M_BAD_JSON."""
    public = key.get("keys")
    if key.get("user_id") != user_id:
        raise invalid_param(f"{usage}_key is of another user.")
    if not isinstance(key.get("usage"), list) or usage not in key["usage"]:
        raise invalid_param(f"{usage}_key is for another usage.")
    if not isinstance(public, dict) or len(public) != 1 or not all(map(_is_named_key, public.items())):
        # Whoever signs or verifies takes the key from its name, or from its value.
        raise invalid_param(f"{usage}_key must have one public key, named <algorithm>:<unpadded base64>.")
    signatures = key.get("signatures")
    if signatures is not None and (
        not isinstance(signatures, dict)
        or not all(isinstance(s, dict) and all(isinstance(v, str) for v in s.values()) for s in signatures.values())
    ):
        raise invalid_param(f"{usage}_key.signatures must be signatures by user.")
    check_canonical(key)
    return key


def _is_named_key(item: tuple[str, Any]) -> bool:
    """Whether a public key is unpadded base64, of an Ed25519 key as long as those are, and has itself as its name."""
    name, public = item
    algorithm, colon, named = name.partition(":")
    if not (algorithm and colon and isinstance(public, str) and public and named == public):
        return False
    try:
        return len(decode(public)) == ED25519_BYTES or algorithm != "ed25519"
    except ValueError:
        return False


def _check_signed(given: dict[str, Json], standing: dict[str, Json], user_id: str) -> None:
    """M_INVALID_PARAM without a master key, M_INVALID_SIGNATURE without its signature, M_FORBIDDEN for a device's name."""
    master = given.get("master") or standing.get("master")
    for usage, key in given.items():
        if next(iter(key["keys"].values())) in standing[DEVICE]:
            raise forbidden("A device has the name of that key.")
        if usage == "master":
            continue
        if master is None:
            raise invalid_param("There is no master key to sign that one.")
        name, public = next(iter(master["keys"].items()))
        if not _verified(key, user_id, name, public):
            raise MatrixError(400, "M_INVALID_SIGNATURE", f"{usage}_key is not signed by the master key.")


def _is_new(given: dict[str, Json], standing: dict[str, Json]) -> bool:
    return any(usage not in standing or not same_key(standing[usage], key) for usage, key in given.items())


def _verified(value: Json, user_id: str, key_id: str, public: str) -> bool:
    try:
        return verify_json_signature(value, user_id, key_id, decode(public))
    except ValueError:
        return False


def _accepted(user_id: str, value: Json, keys: dict[str, str]) -> dict[str, dict[str, str]]:
    """The signatures of a user on an object by some keys. M_INVALID_SIGNATURE unless there is one, and all are right."""
    signatures = {name: s for name, s in signed_by(value, user_id).items() if name in keys}
    if not signatures or not all(_verified(value, user_id, name, keys[name]) for name in signatures):
        raise MatrixError(400, "M_INVALID_SIGNATURE", "That is not signed by a key that may sign it.")
    return {user_id: signatures}


def _own(user_id: str, key_id: str, value: Json, mine: dict[Slot, Json]) -> tuple[Slot, Json]:
    """A device of the user, signed by the self-signing key, or the master key, signed by devices."""
    master = mine.get(("master", ""))
    if master is not None and key_id in master["keys"].values():
        slot, stored = ("master", ""), master
        signers = {
            name: public
            for (usage, _), device in mine.items()
            if usage == DEVICE
            for name, public in device["keys"].items()
            if name.startswith("ed25519:")
        }
    elif (device_keys := mine.get((DEVICE, key_id))) is not None:
        slot, stored = (DEVICE, key_id), device_keys
        signers = mine.get(("self_signing", ""), {"keys": {}})["keys"]
    else:
        raise not_found("There is no such key.")
    if not same_key(stored, value):
        raise MatrixError(400, "M_INVALID_SIGNATURE", "What is signed is not the key that is stored.")
    return slot, with_signatures(stored, _accepted(user_id, value, signers))


def _others(
    user_id: str,
    other: str,
    key_id: str,
    value: Json,
    mine: dict[Slot, Json],
    theirs: dict[Slot, Json],
    before: Json | None,
) -> tuple[Slot, Json]:
    """The master key of another user, signed by the user-signing key."""
    master: dict[str, Any] | None = theirs.get(("master", ""))
    if master is None or key_id not in master["keys"].values():
        raise not_found("There is no such master key.")
    if not same_key(master, value):
        raise MatrixError(400, "M_INVALID_SIGNATURE", "What is signed is not the key that is stored.")
    signatures = _accepted(user_id, value, mine.get(("user_signing", ""), {"keys": {}})["keys"])
    if before is not None and before["key"] == key_id:
        signatures = {user_id: {**before["signatures"].get(user_id, {}), **signatures[user_id]}}
    return (SIGNED, other), {"key": key_id, "signatures": signatures}

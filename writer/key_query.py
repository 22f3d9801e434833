"""The keys of users, for whoever wants to encrypt for them.

Invariant: a user's user-signing key is shown to nobody else, nor is what others than the requester signed of somebody's key.
Source: client-server API, "POST /_matrix/client/v3/keys/query".
"""

from __future__ import annotations

from typing import Any, Final

from falcon.asgi import Request, Response

from matrix.errors import bad_json, invalid_param, too_large
from matrix.identifiers import is_user_id, server_name_of
from writer.key_directory import DEVICE, KeyDirectory, with_signatures
from writer.requests import json_object, read_body, session_of

MOST_USERS: Final = 5_000
MOST_DEVICES: Final = 10_000


class KeyQuery:
    """/keys/query."""

    def __init__(self, directory: KeyDirectory, server_name: str) -> None:
        self._directory = directory
        self._server_name = server_name

    async def on_post(self, req: Request, resp: Response) -> None:
        """The devices and cross-signing keys of users."""
        requester, body = session_of(req).user_id, await read_body(req)
        wanted = json_object(body, "device_keys")
        if wanted is None:
            raise bad_json("device_keys must be an object.")
        if len(wanted) > MOST_USERS or sum(len(d) for d in wanted.values() if isinstance(d, list)) > MOST_DEVICES:
            raise too_large(f"At most {MOST_USERS} users and {MOST_DEVICES} devices can be asked for.")
        failures: dict[str, object] = {}
        local: dict[str, frozenset[str]] = {}
        for user_id, devices in wanted.items():
            if not isinstance(devices, list) or not all(isinstance(one, str) for one in devices):
                raise bad_json("device_keys must have a list of device ids for each user.")
            if not is_user_id(user_id):
                raise invalid_param("device_keys names somebody who is no user.")
            if (server_name := server_name_of(user_id)) == self._server_name:
                local[user_id] = frozenset(devices)
            else:
                failures[server_name] = {"errcode": "M_UNKNOWN", "error": "This server does not reach others."}
        answer: dict[str, Any] = {"device_keys": {}, "failures": failures, "master_keys": {}, "self_signing_keys": {}}
        if local:
            answer["user_signing_keys"] = {}
            found = await self._directory.read(local)
            signed = await self._directory.signed(requester, [u for u in local if u != requester])
            for user_id, chosen in local.items():
                keys = found.get(user_id, {})
                answer["device_keys"][user_id] = {
                    key_id: key
                    for (usage, key_id), key in keys.items()
                    if usage == DEVICE and (not chosen or key_id in chosen)
                }
                if (master := keys.get(("master", ""))) is not None:
                    mine = signed.get(user_id)
                    if mine is not None and mine["key"] in master["keys"].values():
                        master = with_signatures(master, mine["signatures"])
                    answer["master_keys"][user_id] = master
                if (self_signing := keys.get(("self_signing", ""))) is not None:
                    answer["self_signing_keys"][user_id] = self_signing
                if user_id == requester and (user_signing := keys.get(("user_signing", ""))) is not None:
                    answer["user_signing_keys"][user_id] = user_signing
        resp.media = answer

"""An identity server that knows some bindings and stores invitations, and a homeserver that trusts it."""

from __future__ import annotations

import contextlib
import hashlib
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from aiohttp import web
from api_server import Api, Json, serving, settings_for

from matrix.signatures import SigningKey, sign_json

NAME = "id.example"
PEPPER = "a pepper"
TOKEN = "the.users.token"


class IdentityServer:
    """What it was told. `bindings` are user ids by address; `valid` is whether its keys still hold, `broken` what fails."""

    def __init__(self) -> None:
        self.address = ""
        self.bindings: dict[str, str] = {}
        self.invitations: list[Json] = []
        self.valid = True
        self.broken: frozenset[str] = frozenset()
        self.key = SigningKey("ed25519:0", bytes(range(32)))

    def signed(self, token: str, sender: str, mxid: str, key: SigningKey | None = None) -> Json:
        """What it signs for who has shown to have an address."""
        return sign_json({"mxid": mxid, "sender": sender, "token": token}, NAME, key or self.key)

    def application(self) -> web.Application:
        """Its endpoints."""
        app = web.Application()
        base = "/_matrix/identity/v2"
        app.router.add_get(base + "/hash_details", self._hash_details)
        app.router.add_post(base + "/lookup", self._lookup)
        app.router.add_post(base + "/store-invite", self._store)
        app.router.add_get(base + "/pubkey/isvalid", self._is_valid)
        return app

    async def _hash_details(self, request: web.Request) -> web.Response:
        if refused := _refused(request):
            return refused
        return web.json_response({"lookup_pepper": PEPPER, "algorithms": ["none", "sha256"]})

    async def _lookup(self, request: web.Request) -> web.Response:
        if refused := _refused(request):
            return refused
        if "lookup" in self.broken:
            return web.Response(status=500)
        body = await request.json()
        assert (body["algorithm"], body["pepper"]) == ("sha256", PEPPER)
        known = {_hashed(address): user_id for address, user_id in self.bindings.items()}
        return web.json_response({"mappings": {one: known[one] for one in body["addresses"] if one in known}})

    async def _store(self, request: web.Request) -> web.Response:
        if refused := _refused(request):
            return refused
        if "store-invite" in self.broken:
            return web.Response(status=500)
        self.invitations.append(await request.json())
        url = f"http://{self.address}/_matrix/identity/v2/pubkey/isvalid"
        key = {"public_key": self.key.verify_key_base64, "key_validity_url": url}
        token = f"token{len(self.invitations)}"
        return web.json_response({"token": token, "public_keys": [key], "display_name": "c...@p..."})

    async def _is_valid(self, request: web.Request) -> web.Response:
        known = request.query["public_key"] == self.key.verify_key_base64
        return web.json_response({"valid": self.valid and known})


def _refused(request: web.Request) -> web.Response | None:
    if request.headers.get("authorization") == f"Bearer {TOKEN}":
        return None
    return web.json_response({"errcode": "M_UNAUTHORIZED", "error": "who are you?"}, status=401)


def _hashed(address: str) -> str:
    return urlsafe_b64encode(hashlib.sha256(f"{address} email {PEPPER}".encode()).digest()).decode().rstrip("=")


@contextlib.asynccontextmanager
async def identifying(dsn: str, folder: Path, **environ: str) -> AsyncIterator[tuple[Api, IdentityServer]]:
    """A homeserver and the identity server that it trusts."""
    there = IdentityServer()
    runner = web.AppRunner(there.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    try:
        await site.start()
        host, port, *_ = runner.addresses[0]
        there.address = f"{host}:{port}"
        chosen = {
            "WALDEN_IDENTITY_TRUSTED_SERVERS": there.address,
            "WALDEN_IDENTITY_ALLOWED_NETWORKS": "127.0.0.0/8",
        }
        async with serving(settings_for(dsn, folder, **chosen, **environ)) as api:
            yield api, there
    finally:
        await runner.cleanup()


def by_address(there: IdentityServer, invitee: str, **change: Any) -> Json:
    """The body of an invitation."""
    body = {"id_server": there.address, "id_access_token": TOKEN, "medium": "email", "address": invitee, **change}
    return {name: value for name, value in body.items() if value is not None}

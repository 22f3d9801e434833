"""Identity servers, which know users by their e-mail addresses: asked on behalf of who invites by an address.

Invariant: only servers that the settings name are asked for anything, with the token that the user has there; whether a key still
holds is asked of whom the invitation names. Each connection goes to an address that `eventlog.outgoing` has checked; plain HTTP is
spoken to `identity.allowed_networks` alone. Source: identity service API, "Association lookup", "Invitation storage",
"Key management".
"""

from __future__ import annotations

import hashlib
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import orjson
import structlog

from eventlog.outgoing import Guard, GuardedClient, body_of
from eventlog.settings import Identity
from matrix.errors import MatrixError, forbidden, unknown
from matrix.identifiers import is_opaque_identifier, is_user_id
from matrix.unpadded_base64 import encode_url_safe

log = structlog.get_logger(__name__)

BASE: Final = "/_matrix/identity/v2"
MOST_SECONDS: Final = 10.0
MOST_ANSWER_BYTES: Final = 65_536
MOST_KEYS: Final = 10
AT_ONCE: Final = 8


class StoredInvite(NamedTuple):
    """What an identity server made of an invitation: its token, the keys that it will sign with, and what to call the invitee."""

    token: str
    public_keys: list[dict[str, str]]
    display_name: str


class IdentityServers(GuardedClient):
    """Asks identity servers; an async context manager."""

    def __init__(self, settings: Identity) -> None:
        self._trusted = frozenset(settings.trusted_servers)
        timeout = aiohttp.ClientTimeout(total=MOST_SECONDS)
        guard = Guard(settings.allowed_networks)
        super().__init__(guard, agent="Walden", at_once=AT_ONCE, timeout=timeout, reuse=False)

    def check_trusted(self, server: str) -> None:
        """M_SERVER_NOT_TRUSTED unless the settings name the server."""
        if server not in self._trusted:
            raise MatrixError(403, "M_SERVER_NOT_TRUSTED", "This server does not use that identity server.")

    async def user_of(self, server: str, access_token: str, medium: str, address: str) -> str | None:
        """The user who has an identifier, as far as the identity server knows one. Raises like `store_invite`."""
        details = await self._call("GET", server, "/hash_details", access_token)
        pepper, algorithms = details.get("lookup_pepper"), details.get("algorithms")
        if not isinstance(pepper, str) or not isinstance(algorithms, list) or "sha256" not in algorithms:
            raise _not_understood(server)
        hashed = encode_url_safe(hashlib.sha256(f"{address} {medium} {pepper}".encode()).digest())
        asked = {"addresses": [hashed], "algorithm": "sha256", "pepper": pepper}
        mappings = (await self._call("POST", server, "/lookup", access_token, asked)).get("mappings")
        found = mappings.get(hashed) if isinstance(mappings, dict) else None
        return found if is_user_id(found) else None

    async def store_invite(self, server: str, access_token: str, details: dict[str, str]) -> StoredInvite:
        """Lets an identity server tell who has an address of an invitation.

        M_SERVER_NOT_TRUSTED, M_FORBIDDEN when the identity server refuses, 502 when it cannot be reached or understood.
        """
        said = await self._call("POST", server, "/store-invite", access_token, details)
        token, keys, name = said.get("token"), said.get("public_keys"), said.get("display_name")
        if not isinstance(token, str) or not is_opaque_identifier(token) or not isinstance(name, str):
            raise _not_understood(server)
        if not isinstance(keys, list) or not 0 < len(keys) <= MOST_KEYS:
            raise _not_understood(server)
        return StoredInvite(token, [_key(server, one) for one in keys], name)

    async def is_valid_key(self, url: str, public_key: str) -> bool:
        """Whether a key still holds, by the word of whom its URL names. 502 when that cannot be reached."""
        try:
            said = await self._ask("GET", url, params={"public_key": public_key})
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.info("a key could not be checked", url=url, error=str(error) or repr(error))
            raise unknown(502, "The identity server could not be asked about the invitation's key.") from error
        return said[0] == 200 and said[1].get("valid") is True

    async def _call(
        self, method: str, server: str, path: str, access_token: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        self.check_trusted(server)
        host = urlsplit(f"//{server}").hostname or ""
        scheme = "http" if self._guard.is_allowed(host) else "https"
        try:
            status, said = await self._ask(method, f"{scheme}://{server}{BASE}{path}", token=access_token, body=body)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            log.warning("an identity server could not be asked", server=server, error=str(error) or repr(error))
            raise unknown(502, f"The identity server {server} could not be asked.") from error
        if 400 <= status < 500:
            raise forbidden(f"The identity server refuses: {said.get('error') or status!s:.200}")
        if status != 200:
            raise _not_understood(server)
        return said

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        params: dict[str, str] | None = None,
        token: str | None = None,
        body: dict[str, Any] | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Status and object of an answer. ValueError for a URL that is none, or an answer that is no object."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("not a URL of the web")
        if not await self.is_private(url):
            raise ValueError("plain HTTP is for the networks in identity.allowed_networks")
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        async with self.request(method, url, params=params, json=body, headers=headers) as answer:
            said = orjson.loads(await body_of(answer, MOST_ANSWER_BYTES))
        if not isinstance(said, dict):
            raise ValueError("the answer is no object")
        return answer.status, said


def _key(server: str, said: Any) -> dict[str, str]:
    """A key as the invitation names it."""
    key = said.get("public_key") if isinstance(said, dict) else None
    url = said.get("key_validity_url") if isinstance(said, dict) else None
    if not isinstance(key, str) or not isinstance(url, str):
        raise _not_understood(server)
    return {"public_key": key, "key_validity_url": url}


def _not_understood(server: str) -> MatrixError:
    return unknown(502, f"The identity server {server} answers what this server does not understand.")

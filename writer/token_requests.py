"""Asking for a message that validates a third-party identifier: for a registration, a new password, or an account.

Invariant: requests are limited per address of the client and per e-mail address, so that nobody's mailbox is filled from here.
Source: client-server API, "POST /register/email/requestToken" and the like.
"""

from __future__ import annotations

from typing import ClassVar
from urllib.parse import urlsplit

from falcon.asgi import Request, Response

from eventlog.settings import Settings
from matrix.errors import MatrixError, bad_json, invalid_param, missing_param
from matrix.identifiers import is_validation_secret
from writer.email_addresses import check_address
from writer.login import caller_of
from writer.rate_limits import RateLimits
from writer.requests import Body, integer, read_body, required_text, text
from writer.validations import Purpose, Validations

MOST_LINK_CHARACTERS = 2000
MOST_ATTEMPT = 2**53 - 1


class TokenRequests:
    """…/email/requestToken and …/msisdn/requestToken below /register, /account/password and /account/3pid."""

    public_methods: ClassVar = frozenset({"POST"})

    def __init__(self, settings: Settings, validations: Validations, limits: RateLimits) -> None:
        self._registration = settings.registration
        self._validations = validations
        self._limits = limits
        own = urlsplit(settings.base_url).hostname
        self._hosts = frozenset((*settings.email.next_link_hosts, *([own] if own else [])))

    async def on_post_register(self, req: Request, resp: Response) -> None:
        """A message to who wants to register with an address."""
        body = await read_body(req)
        if self._registration.mode not in ("open", "token"):
            raise MatrixError(403, "M_THREEPID_DENIED", "Registration is disabled.")
        if self._registration.email == "off":
            raise MatrixError(403, "M_THREEPID_DENIED", "This server registers without e-mail addresses.")
        await self._request(req, resp, body, "register")

    async def on_post_password(self, req: Request, resp: Response) -> None:
        """A message to who has lost a password."""
        await self._request(req, resp, await read_body(req), "password")

    async def on_post_add(self, req: Request, resp: Response) -> None:
        """A message to who wants to add an address to an account."""
        await self._request(req, resp, await read_body(req), "add")

    async def on_post_msisdn(self, req: Request, resp: Response) -> None:
        """Telephone numbers are not known here."""
        body = await read_body(req)
        _client_secret(body)
        _send_attempt(body)
        required_text(body, "country")
        required_text(body, "phone_number")
        raise _not_supported("This server knows no telephone numbers.")

    async def _request(self, req: Request, resp: Response, body: Body, purpose: Purpose) -> None:
        client_secret, send_attempt = _client_secret(body), _send_attempt(body)
        address = check_address(required_text(body, "email"))
        next_link = self._next_link(text(body, "next_link"))
        # "This parameter is ignored when the homeserver handles 3PID verification."
        text(body, "id_server")
        text(body, "id_access_token")
        if not self._validations.enabled:
            raise _not_supported("This server knows no e-mail addresses.")
        self._limits.take("email", f"client {caller_of(req)}")
        self._limits.take("email", f"mailbox {address}")
        resp.media = {"sid": await self._validations.begin(purpose, address, client_secret, send_attempt, next_link)}

    def _next_link(self, link: str | None) -> str | None:
        """Where to send the browser on to; None for hosts that nobody has allowed: the page then says to go back."""
        if link is None:
            return None
        if len(link) > MOST_LINK_CHARACTERS or not link.isprintable():
            raise invalid_param("next_link is not a URL.")
        try:
            parts = urlsplit(link)
            host, _ = parts.hostname, parts.port
        except ValueError:
            raise invalid_param("next_link is not a URL.") from None
        if parts.scheme not in ("https", "http") or not host:
            raise invalid_param("next_link is not a URL of the web.")
        return link if host in self._hosts else None


def _client_secret(body: Body) -> str:
    secret = required_text(body, "client_secret")
    if not is_validation_secret(secret):
        raise invalid_param("client_secret must have 1 to 255 characters of 0-9, a-z, A-Z, '.', '=', '_' and '-'.")
    return secret


def _send_attempt(body: Body) -> int:
    if body.get("send_attempt") is None:
        raise missing_param("send_attempt is missing.")
    attempt = integer(body, "send_attempt", 0)
    if not 0 <= attempt <= MOST_ATTEMPT:
        raise bad_json("send_attempt is out of range.")
    return attempt


def _not_supported(error: str) -> MatrixError:
    return MatrixError(400, "M_THREEPID_MEDIUM_NOT_SUPPORTED", error)

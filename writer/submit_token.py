"""The page that the link in a message leads to.

Invariant: opening the link changes nothing, for mail programs and their scanners open links too; the button on the page does.
Source: client-server API, "POST …/email/requestToken"; identity service API, "POST …/validate/email/submitToken".
"""

from __future__ import annotations

from typing import ClassVar

from falcon.asgi import Request, Response

from matrix.errors import MatrixError
from writer.pages import form, paragraph, read_form, refuse, show
from writer.requests import read_body, required_text
from writer.validations import Pending, Validations

_FIELDS = ("sid", "client_secret", "token")


class SubmitToken:
    """GET and POST /_walden/client/email/submit_token."""

    public_methods: ClassVar = frozenset({"GET", "POST"})

    def __init__(self, validations: Validations) -> None:
        self._validations = validations

    async def on_get(self, req: Request, resp: Response) -> None:
        """Asks whether it is so."""
        given = {name: req.get_param(name) or "" for name in _FIELDS}
        try:
            pending = await self._validations.pending(given["sid"], given["client_secret"], given["token"])
        except MatrixError as error:
            refuse(req, resp, error)
            return
        question = {
            "register": "register an account with",
            "password": "set a new password by way of",
            "add": "add to your account",
        }[pending.purpose]
        show(
            resp,
            "Confirm your address",
            paragraph(f"Do you want to {question} the address {pending.address}?") + form(given, "Confirm"),
            onward=pending.next_link,
        )

    async def on_post(self, req: Request, resp: Response) -> None:
        """Takes the address as validated: by the page's form, or by JSON like an identity server's endpoint."""
        if (req.content_type or "").startswith("application/json"):
            body = await read_body(req)
            await self._validations.complete(*(required_text(body, name) for name in _FIELDS))
            resp.media = {"success": True}
            return
        try:
            given = await read_form(req)
            found: Pending = await self._validations.complete(*(given.get(name, "") for name in _FIELDS))
        except MatrixError as error:
            refuse(req, resp, error)
            return
        if found.next_link is not None:
            resp.set_header("location", found.next_link)
        show(
            resp,
            "Your address is confirmed",
            paragraph("You can go back to your client and continue there."),
            status=200 if found.next_link is None else 303,
        )

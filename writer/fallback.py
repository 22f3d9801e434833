"""The pages on which stages of a registration can be completed in a browser, for clients that do not know them.

Invariant: what a page completes is a stage of the one session it names, in the flow's order, like the client's own request would.
Source: client-server API, "Fallback".
"""

from __future__ import annotations

from html import escape
from typing import ClassVar

from falcon.asgi import Request, Response

from matrix.errors import MatrixError, forbidden, not_found
from matrix.identifiers import is_opaque_identifier
from writer.interactive import Interactive, hash_of
from writer.login import caller_of
from writer.pages import form, paragraph, read_form, refuse, show
from writer.rate_limits import RateLimits
from writer.registration import DUMMY_STAGE, REQUEST, TERMS_STAGE, TOKEN_STAGE, RegistrationStages

_DONE = """if (window.onAuthDone) {
    window.onAuthDone();
} else if (window.opener && window.opener.postMessage) {
    window.opener.postMessage("authDone", "*");
}"""


class Fallback:
    """GET and POST /auth/{stage}/fallback/web."""

    public_methods: ClassVar = frozenset({"GET", "POST"})

    def __init__(self, stages: RegistrationStages, interactive: Interactive, limits: RateLimits) -> None:
        self._stages = stages
        self._interactive = interactive
        self._limits = limits

    async def on_get(self, req: Request, resp: Response, stage: str) -> None:
        """Asks for what the stage needs."""
        try:
            session_id = self._checked(stage, req.get_param("session") or "")
        except MatrixError as error:
            refuse(req, resp, error)
            return
        name, url = self._stages.terms
        inner, button = {
            DUMMY_STAGE: (paragraph("Nothing is asked of you here."), "Go on"),
            TERMS_STAGE: (f'<p>Do you agree to: <a href="{escape(url)}">{escape(name)}</a></p>', "I agree"),
            TOKEN_STAGE: ("<p>The registration token you were given:</p>", "Go on"),
        }[stage]
        field = '<p><input name="token" autocomplete="off" required></p>' if stage == TOKEN_STAGE else ""
        show(resp, "Registration", inner + form({"session": session_id}, button, field))

    async def on_post(self, req: Request, resp: Response, stage: str) -> None:
        """Completes the stage."""
        try:
            given = await read_form(req)
            session_id = self._checked(stage, given.get("session", ""))
            self._limits.take("registration", caller_of(req))
            left = await self._stages.stages[stage]({"token": given.get("token", "")})
            await self._complete(session_id, stage, left)
        except MatrixError as error:
            refuse(req, resp, error)
            return
        show(resp, "Thank you", paragraph("You can go back to your client."), script=_DONE)

    def _checked(self, stage: str, session_id: str) -> str:
        if stage not in (DUMMY_STAGE, TERMS_STAGE, TOKEN_STAGE) or not any(stage in f for f in self._stages.flows):
            raise not_found("There is no page for this kind of authentication.")
        if not self._stages.open or not is_opaque_identifier(session_id):
            raise forbidden("There is no such authentication session.")
        return session_id

    async def _complete(self, session_id: str, stage: str, left: dict[str, str]) -> None:
        completed = await self._interactive.completed(session_id, REQUEST)
        if stage in completed:
            return
        if not any(flow[: len(completed) + 1] == [*completed, stage] for flow in self._stages.flows):
            raise forbidden("Another stage has to be completed first.")
        await self._interactive.complete(session_id, hash_of(REQUEST), stage, left)

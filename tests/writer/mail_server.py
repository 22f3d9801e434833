"""A real SMTP server that keeps what it is sent, and a homeserver that sends there."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from api_server import Answer, Api, Client, serving, settings_for

PATH = "/_walden/client/email/submit_token"
_LINK = re.compile(r"http\S+" + re.escape(PATH) + r"\?\S+")


class Mailboxes:
    """What has arrived, by address. Refuses every address at refused.example, and for now those at later.example."""

    def __init__(self) -> None:
        self.letters: dict[str, list[EmailMessage]] = {}

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address.endswith("@refused.example"):
            return "550 no such mailbox"
        if address.endswith("@later.example"):
            return "451 come again in a while"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        assert isinstance(envelope.content, bytes)
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        for address in envelope.rcpt_tos:
            self.letters.setdefault(address, []).append(message)
        return "250 OK"

    def text(self, address: str) -> str:
        """The text of the newest letter to an address."""
        content: str = self.letters[address][-1].get_content()
        return content

    def link(self, address: str) -> str | None:
        """Path and query of the link in the newest letter to an address."""
        found = _LINK.search(self.text(address))
        if found is None:
            return None
        parts = urlsplit(found[0])
        return f"{parts.path}?{parts.query}"

    def answers(self, address: str) -> dict[str, str]:
        """What the form of the page behind the link sends."""
        link = self.link(address)
        assert link is not None
        return {name: values[0] for name, values in parse_qs(urlsplit(link).query).items()}


def _login(server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: Any) -> AuthResult:
    good = isinstance(login, LoginPassword) and (login.login, login.password) == (b"walden", b"smtp secret")
    return AuthResult(success=good)


@contextlib.asynccontextmanager
async def mailing(dsn: str, folder: Path, **environ: str) -> AsyncIterator[tuple[Api, Mailboxes]]:
    """A homeserver with a mail server, which wants a login."""
    boxes = Mailboxes()

    def connected() -> SMTP:
        return SMTP(boxes, authenticator=_login, auth_required=True, auth_require_tls=False, loop=loop)

    loop = asyncio.get_running_loop()
    server = await loop.create_server(connected, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        chosen = {
            "WALDEN_EMAIL_SMTP_HOST": "127.0.0.1",
            "WALDEN_EMAIL_SMTP_PORT": str(port),
            "WALDEN_EMAIL_SMTP_SECURITY": "none",
            "WALDEN_EMAIL_SMTP_USER": "walden",
            "WALDEN_EMAIL_SMTP_PASSWORD": "smtp secret",
            "WALDEN_SERVER_PUBLIC_BASE_URL": "https://matrix.test.example",
            "WALDEN_EMAIL_NEXT_LINK_HOSTS": "app.test.example",
        }
        async with serving(settings_for(dsn, folder, **{**chosen, **environ})) as api:
            yield api, boxes
    finally:
        server.close()


async def ask(client: Client, path: str, email: str, attempt: int = 1, **more: Any) -> Answer:
    """Asks for a message."""
    body = {"client_secret": "a=secret", "email": email, "send_attempt": attempt, **more}
    return await client.post(f"{path}/email/requestToken", body)


async def confirm(api: Api, boxes: Mailboxes, address: str) -> None:
    """Opens the newest link, as a browser does, and presses its button."""
    link = boxes.link(address)
    assert link is not None
    browser = {"Accept": "text/html,*/*;q=0.8"}
    page = await api.http.get(link, headers=browser)
    assert page.status_code == 200 and address in page.text, page.text
    done = await api.http.post(link, data=boxes.answers(address), headers=browser)
    assert done.status_code == 200 and "confirmed" in done.text, done.text

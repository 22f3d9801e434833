"""Messages by e-mail, through the one SMTP server of the settings.

Invariant: nothing is sent anywhere else, and no more than `AT_ONCE` messages are sent and `WAITING` wait at once. A message is
handed over when the request that caused it is answered, so that a failure is told to who asked.
"""

from __future__ import annotations

import asyncio
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid

import aiosmtplib
import structlog

from eventlog.settings import Email
from matrix.errors import MatrixError, invalid_param, limit_exceeded, unknown
from writer.mail_texts import Letter

log = structlog.get_logger(__name__)

AT_ONCE = 4
WAITING = 100


class Mailer:
    """Sends letters. `enabled` is whether there is a mail server."""

    def __init__(self, settings: Email, server_name: str) -> None:
        self._settings = settings
        self._server_name = server_name
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._under_way = 0
        self.enabled = bool(settings.smtp_host)

    async def send(self, address: str, letter: Letter) -> None:
        """Hands a letter over. M_INVALID_PARAM if the mail server refuses the address, 503 if it does not take it now."""
        if self._under_way >= WAITING:
            raise limit_exceeded(5000)
        self._under_way += 1
        try:
            async with asyncio.timeout(self._settings.timeout):
                async with self._slots:
                    await self._hand_over(address, letter)
        except aiosmtplib.SMTPRecipientsRefused as error:
            # Whose address it was is nothing for a log.
            log.info("the mail server refused an address", codes=[refusal.code for refusal in error.recipients])
            # 4yz is "not now" (RFC 5321, 4.2.1), as who greylists says it.
            if all(refusal.code < 500 for refusal in error.recipients):
                raise unknown(503, "The mail server does not take the message now. Try again later.") from error
            raise invalid_param("The mail server refuses this address.") from error
        except (aiosmtplib.SMTPException, OSError, TimeoutError) as error:
            log.warning("a message could not be sent", host=self._settings.smtp_host, error=str(error) or repr(error))
            raise unknown(503, "The message could not be sent. Try again later.") from error
        finally:
            self._under_way -= 1

    async def _hand_over(self, address: str, letter: Letter) -> None:
        settings = self._settings
        context = ssl.create_default_context(cafile=settings.smtp_ca_file)
        await aiosmtplib.send(
            self._message(address, letter),
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            username=settings.smtp_user or None,
            password=settings.smtp_password or None,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            tls_context=None if settings.smtp_security == "none" else context,
            timeout=settings.timeout,
        )

    def _message(self, address: str, letter: Letter) -> EmailMessage:
        message = EmailMessage()
        try:
            message["From"] = self._settings.from_address or f"noreply@{self._server_name.partition(':')[0]}"
            message["To"] = address
        except ValueError as error:
            raise MatrixError(400, "M_INVALID_PARAM", "That is not an e-mail address.") from error
        message["Subject"] = letter.subject
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain=self._server_name.partition(":")[0])
        # What answers by itself should not answer this (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        return message

"""The accounts' part of `walden doctor`: what the settings say of e-mail, calls and terms, and what will not come of it.

Invariant: the settings alone are looked at; no mail server is asked.
"""

import os
from collections.abc import Iterator

from bin.findings import Finding, error, warning
from eventlog.settings import Settings
from matrix.identifiers import is_opaque_identifier

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def check_accounts(settings: Settings) -> Iterator[Finding]:
    """What is configured in part."""
    email, voip, registration = settings.email, settings.voip, settings.registration
    if email.smtp_host:
        if not settings.server.public_base_url:
            text = f"server.public_base_url is empty: links in messages lead to {settings.base_url}"
            yield warning("email", text, "set server.public_base_url to what clients reach the server at")
        if email.smtp_security == "none" and email.smtp_host not in _LOOPBACK:
            text = f"messages and the login go to {email.smtp_host} unencrypted (email.smtp_security is none)"
            yield warning("email", text, "use starttls or tls")
    if email.smtp_ca_file is not None and not os.access(email.smtp_ca_file, os.R_OK):
        text = f"email.smtp_ca_file: {email.smtp_ca_file} cannot be read"
        yield error("email", text, "correct the path, or the file's permissions")
    if voip.turn_uris and not voip.turn_shared_secret and not voip.turn_username:
        text = "voip.turn_uris is set, and there are no credentials: clients are told of no TURN server"
        yield warning("voip", text, "set voip.turn_shared_secret, or turn_username and turn_password")
    if registration.terms_url and not is_opaque_identifier(registration.terms_version):
        text = f"registration.terms_version is {registration.terms_version!r}, which clients may refuse"
        yield warning("registration", text, "use letters, digits, '.', '_', '~' and '-' alone")

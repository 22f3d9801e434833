"""The TLS certificates of the listeners, looked at before anything is started with them.

Invariant: whatever would keep a listener from opening is one sentence that names the setting; nothing is asked at a terminal.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

from bin.findings import Finding, error, fine, warning
from eventlog.configuration import ConfigurationError, Settings

NOT_YET_VALID, EXPIRED = 9, 10
"""Of OpenSSL's codes of verification, those that are about time (X509_V_ERR_CERT_...)."""
REMEDY = (
    "correct the paths or the files; new files are read by processes that start, or after `kill -HUP` of the component"
)


def check_certificates(settings: Settings) -> None:
    """Raises ConfigurationError for a listener that could not open with its certificate and key."""
    for name, certificate, key in _pairs(settings):
        _context(name, certificate, key)


def certificate_findings(settings: Settings) -> Iterator[Finding]:
    """What the doctor says of each listener's certificate."""
    for name, certificate, key in _pairs(settings):
        try:
            code = _verdict(_context(name, certificate, key), certificate)
        except ConfigurationError as problem:
            yield error("certificates", str(problem), REMEDY)
            continue
        if code in (NOT_YET_VALID, EXPIRED):
            when = "has expired" if code == EXPIRED else "is not valid yet"
            remedy = "renew it, then `kill -HUP` the listener's component (`walden status` has the pid)"
            yield warning("certificates", f"{name}.tls_certificate: {certificate} {when}", remedy)
        else:
            yield fine("certificates", f"{name}.tls_certificate: {certificate} and its key fit")


def _pairs(settings: Settings) -> Iterator[tuple[str, Path, Path]]:
    for name, one in (("client", settings.client), ("federation", settings.federation)):
        if one.listen is not None and one.tls_certificate is not None and one.tls_key is not None:
            yield name, one.tls_certificate, one.tls_key


def _context(name: str, certificate: Path, key: Path) -> ssl.SSLContext:
    for setting, path in (("tls_certificate", certificate), ("tls_key", key)):
        try:
            path.open("rb").close()
        except OSError as problem:
            raise ConfigurationError(f"{name}.{setting}: {path} cannot be read: {problem.strerror}") from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except ssl.SSLError as problem:
        if problem.reason == "KEY_VALUES_MISMATCH":
            text = f"{name}.tls_key: {key} is not the key of {certificate}"
        else:
            text = f"{name}: no certificate chain and key in PEM can be read from {certificate} and {key}"
            text += f" ({problem.reason})" if problem.reason else ""
        raise ConfigurationError(text) from None
    except ValueError:
        raise ConfigurationError(f"{name}.tls_key: {key} wants a passphrase, and nobody is there to give it") from None
    return context


def _no_passphrase() -> str:
    raise ValueError("a passphrase is wanted")


def _verdict(server: ssl.SSLContext, certificate: Path) -> int:
    """OpenSSL's code of what a client that trusts this very certificate thinks of it; 0 for nothing wrong."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.load_verify_locations(certificate)
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLCertVerificationError as problem:
                return problem.verify_code
    return 0

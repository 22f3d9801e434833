"""A listener's certificate that cannot serve is one sentence before anything is started, and the doctor looks at its time."""

import shutil
import subprocess
from pathlib import Path

import pytest

from bin.certificates import certificate_findings, check_certificates
from eventlog.configuration import ConfigurationError, Settings, load_settings

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl to make certificates with")


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, one of them without time left, a key with a passphrase, and half a file."""
    made = tmp_path_factory.mktemp("certificates")
    for name, days in (("good", "30"), ("old", "-1")):
        _openssl(made, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.key")
        _openssl(made, "req", "-new", "-key", f"{name}.key", "-subj", f"/CN={name}", "-out", f"{name}.csr")
        files = ("-in", f"{name}.csr", "-signkey", f"{name}.key", "-out", f"{name}.crt")
        _openssl(made, "x509", "-req", *files, "-days", days)
    _openssl(made, "ec", "-in", "good.key", "-aes128", "-passout", "pass:secret", "-out", "locked.key")
    (made / "half.crt").write_text((made / "good.crt").read_text()[:200])
    return made


def _settings(folder: Path, certificate: str, key: str, listener: str = "CLIENT") -> Settings:
    paths = {"CERTIFICATE": certificate, "KEY": key}
    return load_settings(
        {"WALDEN_DATA_DIR": str(folder)} | {f"WALDEN_{listener}_TLS_{end}": str(folder / paths[end]) for end in paths}
    )


@pytest.mark.parametrize("listener", ["CLIENT", "FEDERATION"])
@pytest.mark.parametrize(
    ("certificate", "key", "why"),
    [
        ("good.crt", "old.key", r"tls_key: \S+old\.key is not the key of \S+good\.crt"),
        ("good.crt", "none.key", r"tls_key: \S+none\.key cannot be read"),
        ("none.crt", "good.key", r"tls_certificate: \S+none\.crt cannot be read"),
        ("half.crt", "good.key", "no certificate chain and key in PEM"),
        ("good.crt", "locked.key", "wants a passphrase"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused_by_name(
    folder: Path, listener: str, certificate: str, key: str, why: str
) -> None:
    settings = _settings(folder, certificate, key, listener)
    with pytest.raises(ConfigurationError, match=f"^{listener.lower()}.*{why}"):
        check_certificates(settings)
    (finding,) = certificate_findings(settings)
    assert finding.level == "error"


@pytest.mark.parametrize(("name", "level"), [("good", "ok"), ("old", "warning")])
def test_one_that_has_expired_serves_and_is_found(folder: Path, name: str, level: str) -> None:
    settings = _settings(folder, f"{name}.crt", f"{name}.key")
    check_certificates(settings)
    (finding,) = certificate_findings(settings)
    assert (finding.level, "expired" in finding.text) == (level, name == "old")


def test_a_listener_that_is_closed_needs_no_certificate(folder: Path) -> None:
    settings = load_settings(
        {
            "WALDEN_DATA_DIR": str(folder),
            "WALDEN_FEDERATION_LISTEN": "",
            "WALDEN_FEDERATION_TLS_CERTIFICATE": "/nowhere/a.crt",
            "WALDEN_FEDERATION_TLS_KEY": "/nowhere/a.key",
        }
    )
    check_certificates(settings)
    assert list(certificate_findings(settings)) == []

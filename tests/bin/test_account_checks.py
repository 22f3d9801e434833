from pathlib import Path

import pytest

from bin.account_checks import check_accounts
from eventlog.configuration import load_settings

MAIL = {"WALDEN_EMAIL_SMTP_HOST": "mail.example", "WALDEN_SERVER_PUBLIC_BASE_URL": "https://matrix.example"}


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, []),
        (MAIL, []),
        ({**MAIL, "WALDEN_SERVER_PUBLIC_BASE_URL": ""}, ["links in messages lead to http://127.0.0.1:8008"]),
        ({**MAIL, "WALDEN_EMAIL_SMTP_SECURITY": "none"}, ["unencrypted"]),
        ({**MAIL, "WALDEN_EMAIL_SMTP_SECURITY": "none", "WALDEN_EMAIL_SMTP_HOST": "localhost"}, []),
        ({**MAIL, "WALDEN_EMAIL_SMTP_CA_FILE": "/nonexistent"}, ["cannot be read"]),
        ({"WALDEN_VOIP_TURN_URIS": "turn:x"}, ["no credentials"]),
        ({"WALDEN_VOIP_TURN_URIS": "turn:x", "WALDEN_VOIP_TURN_SHARED_SECRET": "s"}, []),
        (
            {"WALDEN_REGISTRATION_TERMS_URL": "https://x.example", "WALDEN_REGISTRATION_TERMS_VERSION": "1 / 2"},
            ["terms_version"],
        ),
    ],
)
def test_what_is_configured_in_part_is_found_with_its_remedy(
    environ: dict[str, str], found: list[str], tmp_path: Path
) -> None:
    findings = list(check_accounts(load_settings(environ, tmp_path / "absent.toml")))
    assert len(findings) == len(found)
    for finding, text in zip(findings, found, strict=True):
        assert text in finding.text and finding.remedy

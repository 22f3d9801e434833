"""The written walden.toml and the reference page say what the settings are, all of them."""

import re
from pathlib import Path

import pytest

from bin.configuration_file import configuration_text, ensure_configuration, reference
from eventlog.configuration import ConfigurationError, described, load_settings

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_reference_page_is_the_one_made_from_the_settings() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run: bin/walden config reference > docs/configuration.md"


def test_the_reference_page_documents_every_setting_with_its_variables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for one in described():
        section = page.split(f"\n## [{one.section}]\n", 1)[1].split("\n## ", 1)[0]
        row = re.search(rf"^\| `{one.key}` \|.*$", section, re.MULTILINE)
        assert row, one.name
        assert one.doc in row[0]
        assert all(f"`{variable}`" in row[0] for variable in one.variables)


def test_a_written_file_with_nothing_chosen_means_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "walden.toml"
    file.write_text(configuration_text({}))
    assert load_settings({}, file) == load_settings({}, tmp_path / "walden.toml")
    uncommented = re.sub(r"^# (\w+ = )", r"\1", file.read_text(), flags=re.MULTILINE)
    before = load_settings({}, tmp_path / "absent.toml")
    file.write_text(uncommented)
    after = load_settings({}, file)
    for section in {one.section for one in described()}:
        assert getattr(after, section) == getattr(before, section)


def test_what_the_environment_said_at_first_holds_without_it_later(tmp_path: Path) -> None:
    environ = {
        "WALDEN_DATA_DIR": str(tmp_path / "d"),
        "WALDEN_SERVER_NAME": "example.org",
        "WALDEN_CLIENT_LISTEN": "127.0.0.1:9",
        "WALDEN_RATE_LIMITS": "off",
        "WALDEN_REGISTRATION": "shared-secret",
        "WALDEN_APPSERVICES_FILES": f"{tmp_path}/a.yaml,{tmp_path}/b.yaml",
    }
    first, written = ensure_configuration(environ)
    assert written
    later, written = ensure_configuration({"WALDEN_DATA_DIR": str(tmp_path / "d")})
    assert not written
    assert later == first
    assert first.registration.shared_secret
    assert first.path == tmp_path / "d" / "walden.toml"
    assert first.path.stat().st_mode & 0o777 == 0o600


def test_a_wrong_environment_leaves_no_file_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="WALDEN_REGISTRATION"):
        ensure_configuration({"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_REGISTRATION": "closed"})
    assert list(tmp_path.iterdir()) == []

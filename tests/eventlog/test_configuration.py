"""walden.toml and the environment: one place per setting, no key misread in silence."""

from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from eventlog.configuration import (
    ConfigurationError,
    Described,
    Listen,
    Settings,
    configuration_path,
    described,
    load_settings,
)


def _load(tmp_path: Path, text: str = "", **environ: str) -> Settings:
    file = tmp_path / "walden.toml"
    file.write_text(text)
    return load_settings(environ, file)


def test_an_empty_file_gives_every_default(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert settings.server.name == "localhost"
    assert settings.server.data_dir == tmp_path / "data"
    assert settings.server.signing_key == tmp_path / "data" / "signing.key"
    assert settings.client.listen == Listen("127.0.0.1", 8008)
    assert settings.base_url == "http://127.0.0.1:8008"
    assert settings.registration.mode == "off"
    assert settings.rate_limits.enabled is True
    assert settings.embedded


def test_the_fixed_environment_variables_win_over_the_file(tmp_path: Path) -> None:
    text = '[server]\nname = "a.example"\n[registration]\nmode = "off"\n[client]\nlisten = "127.0.0.1:1"\n'
    settings = _load(
        tmp_path,
        text,
        WALDEN_SERVER_NAME="b.example",
        WALDEN_DATA_DIR=str(tmp_path / "elsewhere"),
        WALDEN_CLIENT_LISTEN="[::1]:9000",
        WALDEN_FEDERATION_LISTEN="0.0.0.0:9001",
        WALDEN_REGISTRATION="open",
        WALDEN_RATE_LIMITS="off",
        WALDEN_DATABASE_DSN="host=db.example dbname=w",
    )
    assert settings.server.name == "b.example"
    assert settings.server.signing_key == tmp_path / "elsewhere" / "signing.key"
    assert settings.client.listen == Listen("::1", 9000)
    assert settings.local_url == "http://[::1]:9000"
    assert settings.federation.listen == Listen("0.0.0.0", 9001)
    assert settings.registration.mode == "open"
    assert settings.rate_limits.enabled is False
    assert settings.dsn("writer") == "host=db.example dbname=w"


def _another_value(one: Described) -> str:
    if one.choices:
        return next(choice for choice in one.choices if choice != one.default)
    if one.type is bool:
        return "off" if one.default else "on"
    if one.key.endswith("listen"):
        return "h:1"
    if one.name == "server.name":
        return "a.example"
    if one.key.endswith("networks"):
        return "10.0.0.0/8"
    if one.key.endswith("dsn"):
        return "dbname=x"
    return "7000000" if one.type in (int, float) else "/p"


@pytest.mark.parametrize("one", list(described()), ids=lambda one: one.name)
def test_each_setting_can_be_set_from_each_of_its_variables(tmp_path: Path, one: Described) -> None:
    needed = {
        "WALDEN_DATABASE_DSN": "dbname=x",
        "WALDEN_DATABASE_POOL_MAX": "7000000",
        "WALDEN_REGISTRATION_SHARED_SECRET": "s",
        "WALDEN_CLIENT_TLS_CERTIFICATE": "/p",
        "WALDEN_CLIENT_TLS_KEY": "/p",
        "WALDEN_FEDERATION_TLS_CERTIFICATE": "/p",
        "WALDEN_FEDERATION_TLS_KEY": "/p",
    }
    default = getattr(getattr(load_settings({}, tmp_path / "absent.toml"), one.section), one.key)
    for variable in one.variables:
        settings = load_settings(needed | {variable: _another_value(one)}, tmp_path / "absent.toml")
        assert getattr(getattr(settings, one.section), one.key) != default


def test_an_unknown_setting_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"unknown setting server\.nmae; the nearest known one is server\.name"
    ):
        _load(tmp_path, '[server]\nnmae = "x"\n')
    with pytest.raises(ConfigurationError, match=r"unknown section \[sever\]; the nearest known one is server"):
        _load(tmp_path, '[sever]\nname = "x"\n')
    with pytest.raises(ConfigurationError, match=r"unknown setting public_base_url; .* server\.public_base_url"):
        _load(tmp_path, 'public_base_url = "http://x"\n')


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[log]\nshards = 0\n", r"log\.shards: expected at least 1"),
        ("[log]\nshards = 1.5\n", "a whole number"),
        ("[log]\nshards = true\n", "a whole number"),
        ('[client]\nlisten = "8008"\n', "expected address:port"),
        ('[client]\nlisten = "localhost:70000"\n', "expected address:port"),
        ('[registration]\nmode = "opne"\n', "nearest known one is open"),
        ('[registration]\nmode = "shared-secret"\n', r"set registration\.shared_secret"),
        ('[rate_limits]\nenabled = "on"\n', "true or false"),
        ('[server]\nname = "ex ample"\n', "is not a server name"),
        ('[client]\ntls_key = "k.pem"\n', "need each other"),
        ('[appservices]\nfiles = "a.yaml"\n', "a list of strings"),
        ('[database]\ndsn = "nonsense nonsense"\n', "not a libpq DSN"),
        ("[database]\npool_min = 9\npool_max = 8\n", "greater than"),
        ("server = 3\n", r"write \[server\]"),
        ("[server\n", "cannot be read"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_place(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        _load(tmp_path, text)


def test_a_misspelt_environment_variable_is_a_warning_with_the_nearest_one(tmp_path: Path) -> None:
    settings = _load(tmp_path, WALDEN_CLIENT_LISTN="127.0.0.1:1", WALDEN_SOMETHING_ELSE="x")
    assert len(settings.warnings) == 1
    assert "WALDEN_CLIENT_LISTN" in settings.warnings[0]
    assert "WALDEN_CLIENT_LISTEN" in settings.warnings[0]


def test_the_file_is_in_the_data_directory_when_only_that_is_given(tmp_path: Path) -> None:
    environ = {"WALDEN_DATA_DIR": str(tmp_path)}
    assert configuration_path(environ) == tmp_path / "walden.toml"
    assert configuration_path({**environ, "WALDEN_CONFIG": "/etc/walden.toml"}) == Path("/etc/walden.toml")
    assert load_settings(environ).server.data_dir == tmp_path


def test_relative_paths_in_the_file_are_relative_to_the_file(tmp_path: Path) -> None:
    settings = _load(tmp_path, '[appservices]\nfiles = ["bridge.yaml"]\n[media]\ndirectory = "{data_dir}/m"\n')
    assert settings.appservices.files == (tmp_path / "bridge.yaml",)
    assert settings.media.directory == tmp_path / "data" / "m"


def test_a_role_without_a_dsn_uses_the_login_that_init_made(tmp_path: Path) -> None:
    settings = _load(
        tmp_path,
        '[database]\ndsn = "host=pooler dbname=w user=dba"\ndirect_dsn = "host=db dbname=w user=dba"\n'
        'reader_dsn = "host=standby dbname=w user=r"\n',
    )
    settings.server.data_dir.mkdir()
    (settings.server.data_dir / "logins.json").write_text(
        '{"writer": {"user": "walden_writer", "password": "p w"}, "replication": {"user": "repl", "password": "q"}}'
    )
    assert conninfo_to_dict(settings.dsn("owner"))["user"] == "dba"
    writer = conninfo_to_dict(settings.dsn("writer"))
    assert (writer["host"], writer["user"], writer["password"]) == ("pooler", "walden_writer", "p w")
    assert conninfo_to_dict(settings.dsn("writer", direct=True))["host"] == "db"
    replication = conninfo_to_dict(settings.dsn("replication"))
    assert (replication["host"], replication["user"]) == ("db", "repl")
    assert conninfo_to_dict(settings.dsn("reader"))["host"] == "standby"
    reader = conninfo_to_dict(settings.dsn("reader", direct=True))
    assert (reader["host"], reader["user"]) == ("db", "r")


def test_without_a_database_the_error_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="walden init"):
        _load(tmp_path).dsn("writer")

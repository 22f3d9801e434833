"""The administrator's script makes what `walden init` then needs no more rights for, on the oldest and the newest server."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from clusters import Cluster, binaries
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.dba_script import script, verifier
from bin.doctor import examine
from bin.initialise import initialise, make_ready
from bin.logins import LATER
from eventlog.configuration import ConfigurationError, Settings, load_settings

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(params=[18, 15])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if binaries(request.param) is None:
        pytest.skip(f"there is no PostgreSQL {request.param} on this machine")
    with Cluster(request.param, {"fsync": "on", "max_slot_wal_keep_size": "1GB"}) as one:
        yield one


def _settings(cluster: Cluster, folder: Path) -> Settings:
    environ = {
        "WALDEN_DATA_DIR": str(folder),
        "WALDEN_DATABASE_DSN": cluster.dsn("my walden", user="Its Owner", password="o'wner"),
        "WALDEN_SERVER_NAME": "a.example",
        "WALDEN_DATABASE_POOL_MAX": "4",
    }
    settings = load_settings(environ)
    settings.path.write_text("")
    settings.path.chmod(0o600)
    make_ready(settings)
    return settings


def _psql(cluster: Cluster, dsn: str, text: str) -> None:
    done = subprocess.run(
        [str(cluster.bin / "psql"), "--no-psqlrc", "-q", "-d", dsn, "-f", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "ERROR" in done.stderr) == (0, False), done.stderr


def test_after_the_script_init_needs_only_the_owners_rights(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path)
    text = script(settings)
    later = (tmp_path / LATER).read_text()
    assert "o'wner" not in text and not any(word.strip('",') in text for word in later.split()[2::2])
    administrator = cluster.dsn()
    if cluster.version >= 16:
        # No superuser is needed from here on.
        cluster.execute("create role dba login createdb createrole replication password 'p'")
        administrator = cluster.dsn(user="dba", password="p")
    _psql(cluster, administrator, text)
    assert script(settings) != text, "salts are new"
    _psql(cluster, administrator, script(settings))
    asyncio.run(initialise(settings, lambda _: None))
    assert not (tmp_path / LATER).exists()
    asyncio.run(initialise(settings, lambda _: None))
    assert [one for one in examine(settings) if one.level != "ok"] == []
    rights = cluster.execute(
        "select rolsuper or rolcreaterole or rolcreatedb or rolreplication from pg_roles where rolname = 'Its Owner'"
    )
    assert rights == [(False,)]
    # Nobody else gets in.
    cluster.execute("create role stranger login password 'p'")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(cluster.dsn("my walden", user="stranger", password="p"))
    replicating = cluster.execute("select rolname from pg_roles where rolreplication and not rolsuper order by rolname")
    login = conninfo_to_dict(settings.dsn("replication"))["user"]
    assert {row[0] for row in replicating} - {"dba"} == {login}


def test_a_verifier_lets_its_password_in_and_no_other(cluster: Cluster) -> None:
    cluster.execute(f"create role one login password '{verifier('right')}'")
    psycopg.connect(cluster.dsn(user="one", password="right")).close()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(cluster.dsn(user="one", password="wrong"))
    with pytest.raises(ConfigurationError):
        verifier("päss")


def test_a_dsn_that_does_not_name_what_is_to_be_made_is_refused(tmp_path: Path) -> None:
    environ = {"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": make_conninfo(host="db", user="walden")}
    with pytest.raises(ConfigurationError, match=r"\['dbname', 'password'\]"):
        script(load_settings(environ))
    with pytest.raises(ConfigurationError, match="embedded"):
        script(load_settings({"WALDEN_DATA_DIR": str(tmp_path)}))

"""The doctor finds what is wrong, says what to do about it, and is content with a fresh installation."""

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from clusters import Cluster
from psycopg.conninfo import conninfo_to_dict

from bin.doctor import examine
from bin.findings import Finding
from bin.initialise import initialise, make_ready
from eventlog.configuration import Settings, load_settings

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """With full durability, for the doctor minds."""
    with Cluster(18, {"fsync": "on", "max_slot_wal_keep_size": "1GB"}) as one:
        yield one


@pytest.fixture
def installed(cluster: Cluster, tmp_path: Path) -> Iterator[Settings]:
    """A fresh installation on a database of its own."""
    name = f"d{abs(hash(tmp_path))}"
    cluster.execute(f"create database {name} template template0 locale 'C'")
    environ = {
        "WALDEN_DATA_DIR": str(tmp_path),
        "WALDEN_DATABASE_DSN": cluster.dsn(name),
        "WALDEN_SERVER_NAME": "a.example",
        "WALDEN_DATABASE_POOL_MAX": "4",
    }
    settings = load_settings(environ)
    settings.path.write_text("")
    settings.path.chmod(0o600)
    make_ready(settings)
    asyncio.run(initialise(settings, lambda _: None))
    yield settings
    with psycopg.connect(cluster.dsn(name), autocommit=True) as connection:
        connection.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = current_database()"
        )


def _worse(settings: Settings) -> list[Finding]:
    return [one for one in examine(settings) if one.level != "ok"]


def test_a_fresh_installation_has_nothing_wrong(installed: Settings) -> None:
    assert _worse(installed) == []
    assert len(examine(installed)) > 10


@pytest.mark.parametrize(
    ("sabotage", "check", "text", "remedy"),
    [
        ("grant update on eventlog.events to walden_writer", "rights", "walden_writer may update", "revoke update"),
        (
            "revoke execute on function roomserver.commit_v1(jsonb) from walden_roomserver",
            "rights",
            "may not execute",
            "walden migrate",
        ),
        ("drop publication walden_outputs", "publications", "walden_outputs is missing", "walden init"),
        (
            "alter publication walden_outputs set (publish = 'insert, update')",
            "publications",
            "has been changed",
            "drop publication",
        ),
        (
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots"
            " where slot_name like '%outputs' and database = current_database()",
            "slots",
            "outputs is missing",
            "walden init",
        ),
        (
            "delete from public.walden_migrations where name = (select min(name) from public.walden_migrations)",
            "schema",
            "not applied: 0001",
            "walden migrate",
        ),
    ],
)
def test_what_was_broken_is_found_with_its_remedy(
    installed: Settings, sabotage: str, check: str, text: str, remedy: str
) -> None:
    with psycopg.connect(installed.dsn(), autocommit=True) as connection:
        connection.execute(sabotage.encode())
    try:
        found = [one for one in _worse(installed) if one.check == check]
        assert found
        assert text in found[0].text
        assert remedy in found[0].remedy
    finally:
        with psycopg.connect(installed.dsn(), autocommit=True) as connection:
            connection.execute("revoke update on eventlog.events from walden_writer")
            connection.execute("grant execute on function roomserver.commit_v1(jsonb) to walden_roomserver")


def test_what_is_set_and_does_nothing_yet_is_named(installed: Settings, tmp_path: Path) -> None:
    file = tmp_path / "bridge.yaml"
    file.write_text("id: bridge\n")
    early = dataclasses.replace(
        installed,
        appservices=dataclasses.replace(installed.appservices, files=(file,)),
        federation=dataclasses.replace(installed.federation, extra_ca_file=file),
    )
    assert [(one.level, one.text) for one in _worse(early)] == [
        ("warning", "appservices.files does nothing in this version"),
        ("warning", "federation.extra_ca_file does nothing in this version"),
    ]


def test_files_that_others_can_read_are_found(installed: Settings) -> None:
    installed.server.signing_key.chmod(0o644)
    (finding,) = _worse(installed)
    assert finding.level == "error"
    assert finding.remedy == f"chmod 600 {installed.server.signing_key}"


def test_a_login_that_does_not_get_in_is_found(installed: Settings) -> None:
    file = installed.server.data_dir / "logins.json"
    file.write_text(file.read_text().replace('"password": "', '"password": "x'))
    assert [one.check for one in _worse(installed)] == ["logins"] * 6


def test_a_login_that_finds_no_room_is_not_told_to_be_made_again(installed: Settings) -> None:
    login = conninfo_to_dict(installed.dsn("reader"))["user"]
    with psycopg.connect(installed.dsn(), autocommit=True) as connection:
        connection.execute(f'alter role "{login}" connection limit 0'.encode())
    (finding,) = _worse(installed)
    assert (finding.check, "raise max_connections" in finding.remedy) == ("logins", True)


def test_without_a_database_it_says_so_and_what_to_do(tmp_path: Path) -> None:
    found = examine(load_settings({"WALDEN_DATA_DIR": str(tmp_path)}))
    assert any(one.check == "database" and "walden init" in one.remedy for one in found)
    environ = {"WALDEN_DATA_DIR": str(tmp_path), "WALDEN_DATABASE_DSN": "host=/nonexistent dbname=x"}
    found = examine(load_settings(environ))
    assert any(one.check == "database" and "database.dsn" in one.remedy for one in found)

"""`walden recover`, step by step: broken off at each, and run again."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from clusters import Cluster
from psycopg.conninfo import make_conninfo

from bin.initialise import initialise, make_ready
from bin.recovery import STEPS, Options, Recovery, RecoveryError, Step, recover
from eventlog.configuration import Settings, load_settings
from eventlog.history import Restored
from eventlog.key_file import make_key

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(18, {"max_replication_slots": "40"}) as one:
        yield one


class Broken(Exception):
    """A kill."""


def breaking_off_after(number: int) -> tuple[Step, ...]:
    """The steps, of which the one after that many is never come to."""

    async def nothing(_: Recovery) -> list[str]:
        return []

    async def kill(_: Recovery) -> None:
        raise Broken

    return (*STEPS[:number], Step(nothing, kill), *STEPS[number:])


def _settings(cluster: Cluster, folder: Path, name: str) -> Settings:
    cluster.execute(f"create database {name}")
    settings = load_settings({"WALDEN_DATA_DIR": str(folder / "d"), "WALDEN_DATABASE_DSN": cluster.dsn(name)})
    make_ready(settings)
    asyncio.run(initialise(settings, lambda _: None))
    return settings


def _run(settings: Settings, **options: object) -> list[str]:
    said: list[str] = []
    asyncio.run(recover(settings, Options(**options), said.append))  # type: ignore[arg-type]
    return said


def _move(settings: Settings) -> None:
    """As a dump restored elsewhere: the epoch is another system's."""
    with psycopg.connect(settings.dsn(), autocommit=True) as connection:
        connection.execute("update eventlog.epochs set system_identifier = '7'")


def _epochs(settings: Settings) -> list[tuple[str, bool]]:
    with psycopg.connect(settings.dsn(), autocommit=True) as connection:
        return connection.execute(
            "select reason, ready_at is not null from eventlog.epochs order by ordinal"
        ).fetchall()


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_broken_off_after_any_step_it_is_run_again_to_the_same_end(
    cluster: Cluster, tmp_path: Path, number: int
) -> None:
    settings = _settings(cluster, tmp_path, f"step{number}")
    _move(settings)
    with pytest.raises(Broken):
        _run(settings, steps=breaking_off_after(number))
    with pytest.raises(Restored, match="walden recover"):
        asyncio.run(initialise(settings, lambda _: None))
    said = _run(settings)
    assert said[-1] == "recovered: start the server with `walden up`"
    assert _epochs(settings) == [("init", True), ("recover", True)]
    asyncio.run(initialise(settings, lambda _: None))
    assert any("nothing to recover" in sentence for sentence in _run(settings))
    with psycopg.connect(settings.dsn(), autocommit=True) as connection:
        slots = connection.execute(
            "select count(*) from pg_replication_slots where database = current_database() and not temporary"
        ).fetchone()
    assert slots == (2,)
    assert (settings.server.data_dir / "seen" / "shard-0.json").exists()


def test_a_dry_run_names_every_step_and_changes_nothing(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path, "dry")
    _move(settings)
    said = _run(settings, dry_run=True)
    for words in (
        "begin an epoch",
        "drop replication slot",
        "make replication slot",
        "judge 0 entries",
        "write the new",
    ):
        assert any(f"would {words}" in sentence for sentence in said), words
    assert _epochs(settings) == [("init", True)]
    assert said == _run(settings, dry_run=True)


def test_a_dump_that_was_restored_by_somebody_else_is_told_for_one(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path, "strange")
    _move(settings)
    cluster.execute("create role late login createrole replication password 'p'")
    cluster.execute("alter database strange owner to late")
    dsn = make_conninfo(settings.database.dsn, user="late", password="p")
    other = replace(settings, database=replace(settings.database, dsn=dsn))
    with pytest.raises(RecoveryError, match=r"is not late's.*--role=late"):
        _run(other, dry_run=True)


def test_it_waits_for_no_room_server_but_names_it(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path, "held")
    _move(settings)
    with psycopg.connect(settings.dsn(), autocommit=True) as other:
        other.execute("select pg_advisory_lock(1466004580, 0)")
        with pytest.raises(RecoveryError, match="somebody has shard 0"):
            _run(settings)
    assert _epochs(settings) == [("init", True)]


def test_a_login_with_the_password_of_another_time_is_renewed(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path, "passwords")
    with psycopg.connect(settings.dsn(), autocommit=True) as connection:
        (oid,) = connection.execute("select oid from pg_database where datname = current_database()").fetchone() or (0,)
        connection.execute(f"alter role walden_{oid}_reader password 'of another time'".encode())
    _move(settings)
    said = _run(settings)
    assert [sentence for sentence in said if "login" in sentence] == [f"renewed login walden_{oid}_reader"]
    psycopg.connect(settings.dsn("reader")).close()


def test_where_nothing_shows_a_restore_it_is_done_only_anyway(cluster: Cluster, tmp_path: Path) -> None:
    settings = _settings(cluster, tmp_path, "anyway")
    assert any("--anyway" in sentence for sentence in _run(settings))
    assert _epochs(settings) == [("init", True)]
    _run(settings, anyway=True)
    assert _epochs(settings) == [("init", True), ("recover", True)]


def test_where_there_is_no_walden_it_says_so(cluster: Cluster, tmp_path: Path) -> None:
    cluster.execute("create database nothing")
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path / "d"), "WALDEN_DATABASE_DSN": cluster.dsn("nothing")})
    make_key(settings.server.signing_key)
    with pytest.raises(RecoveryError, match="there is no Walden"):
        _run(settings)

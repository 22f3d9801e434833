"""Slots that hold something back are named, with the command that frees it, and nothing is dropped unasked."""

import asyncio
import json
from collections.abc import Iterator

import psycopg
import pytest
from clusters import Cluster

from bin.doctor import examine
from bin.findings import Finding
from bin.initialise import initialise, make_ready
from bin.slot_checks import CATALOG_AGE, check_slots
from bin.standbys import check_configuration
from bin.status import as_text, read_status
from eventlog.configuration import Settings, load_settings
from eventlog.slots import SlotHealth

OURS = "walden_5_roomserver_s0"


def health(**changes: object) -> SlotHealth:
    """A slot in good health, but for the changes."""
    well: dict[str, object] = {
        "slot_name": OURS,
        "plugin": "pgoutput",
        "temporary": False,
        "active_pid": 7,
        "wal_status": "reserved",
        "safe_wal_size": 4 << 30,
        "confirmed_lsn": 1,
        "restart_lag": 1 << 20,
        "confirmed_lag": 0,
        "catalog_xmin_age": 3,
        "invalidation_reason": None,
        "failover": True,
    }
    return SlotHealth(**(well | changes))  # type: ignore[arg-type]


def said(version: int = 180_000, **changes: object) -> Finding:
    (finding,) = check_slots([OURS], {OURS: health(**changes)}, version)
    return finding


def test_a_slot_in_good_health_is_fine_and_says_how_much_more_is_safe() -> None:
    assert said() == Finding("ok", "slots", f"{OURS} holds back 1024 kiB, 4096 MiB more are safe")
    assert "safe" not in said(safe_wal_size=None).text


@pytest.mark.parametrize(
    ("changes", "level", "text", "remedy"),
    [
        ({"wal_status": "unreserved"}, "error", "about to be lost", "walden status"),
        ({"safe_wal_size": 1 << 20, "restart_lag": 1 << 30}, "warning", "1 MiB more may lose it", "keep_size"),
        ({"wal_status": "lost"}, "warning", "is lost", "makes it again"),
        ({"catalog_xmin_age": CATALOG_AGE + 1}, "warning", "VACUUM", "walden up"),
        ({"failover": False}, "warning", "does not go over", f"pg_drop_replication_slot('{OURS}')"),
    ],
)
def test_what_ails_a_slot_is_said_with_its_remedy(
    changes: dict[str, object], level: str, text: str, remedy: str
) -> None:
    found = said(**changes)
    assert (found.level, text in found.text, remedy in found.remedy) == (level, True, True), found


def test_a_server_that_knows_no_failover_slots_is_not_asked_for_them() -> None:
    assert said(160_000, failover=False).level == "ok"


@pytest.mark.parametrize(
    ("rules", "safe"),
    [
        ([{"type": "logical", "database": "walden", "plugin": "pgoutput"}], True),
        ([{"database": "other"}, {"name": OURS}], True),
        ([{"type": "logical", "database": "other"}], False),
        ([{"name": "another"}], False),
        ([{"cluster_type": "main"}], False),
        ([], False),
        (None, False),
    ],
)
def test_patroni_spares_a_slot_only_if_a_rule_fits_it_wholly(rules: object, safe: bool) -> None:
    (finding,) = check_configuration({"ignore_slots": rules}, "walden", [OURS])
    assert finding.level == ("ok" if safe else "error")
    assert safe or "patronictl edit-config" in finding.remedy


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Settings]]:
    with Cluster(18, {"fsync": "on", "max_slot_wal_keep_size": "1GB"}) as cluster:
        cluster.execute("create database walden template template0 locale 'C'")
        cluster.execute("create database neighbour")
        folder = tmp_path_factory.mktemp("d")
        environ = {
            "WALDEN_DATA_DIR": str(folder),
            "WALDEN_DATABASE_DSN": cluster.dsn("walden"),
            "WALDEN_SERVER_NAME": "a.example",
            "WALDEN_DATABASE_POOL_MAX": "4",
        }
        settings = load_settings(environ)
        settings.path.write_text("")
        settings.path.chmod(0o600)
        make_ready(settings)
        asyncio.run(initialise(settings, lambda _: None))
        yield cluster, settings


@pytest.mark.postgres
@pytest.mark.slow
def test_an_abandoned_slot_is_named_with_the_command_that_frees_it(installed: tuple[Cluster, Settings]) -> None:
    cluster, settings = installed
    assert [one for one in examine(settings) if one.level != "ok"] == []
    # A shard that is no more, and a slot that somebody forgot in another database.
    cluster.execute("select pg_create_logical_replication_slot('walden_1_roomserver_s9', 'pgoutput')", "walden")
    cluster.execute("select pg_create_logical_replication_slot('forgotten', 'pgoutput')", "neighbour")
    cluster.execute("select pg_create_physical_replication_slot('fresh', true)")
    try:
        for _ in range(5):
            cluster.execute("select pg_logical_emit_message(true, 'noise', 'x'), pg_switch_wal()")
        found = [one for one in examine(settings) if one.level != "ok"]
        assert [one.check for one in found] == ["slots"] * 3
        assert {one.remedy.partition(": ")[2] for one in found} == {
            f"select pg_drop_replication_slot('{name}');" for name in ("walden_1_roomserver_s9", "forgotten", "fresh")
        }
        status = asyncio.run(read_status(settings))
        assert {one["name"]: one["database"] for one in status.abandoned} == {
            "walden_1_roomserver_s9": "walden",
            "forgotten": "neighbour",
            "fresh": None,
        }
        assert json.loads(json.dumps(status.as_json()))["abandoned"][0]["retained"] > 64 << 20
        text = as_text(status)
        for one in status.abandoned:
            assert one["command"] in text
            # Freed by whoever may replicate, in whatever database they are.
            with psycopg.connect(settings.dsn("replication"), autocommit=True) as connection:
                connection.execute(one["command"])
    finally:
        for name in ("walden_1_roomserver_s9", "forgotten", "fresh"):
            cluster.execute(
                f"select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = '{name}'"
            )
    assert [one for one in examine(settings) if one.level != "ok"] == []


@pytest.mark.postgres
@pytest.mark.slow
def test_what_runs_under_patroni_is_noticed_and_its_silence_is_a_finding(
    installed: tuple[Cluster, Settings],
) -> None:
    cluster, settings = installed
    with psycopg.connect(cluster.dsn(application_name="Patroni heartbeat")):
        found = {one.check: one for one in examine(settings) if one.level != "ok"}
    assert "database.patroni" in found["patroni"].remedy
    assert "synchronous_mode" in found["standbys"].remedy
    environ = {"WALDEN_DATABASE_DSN": cluster.dsn("walden"), "WALDEN_DATA_DIR": str(settings.server.data_dir)}
    silent = load_settings(
        environ | {"WALDEN_DATABASE_PATRONI": "http://127.0.0.1:1", "WALDEN_SERVER_NAME": "a.example"}
    )
    (finding,) = [one for one in examine(silent) if one.check == "patroni"]
    assert (finding.level, "cannot be asked" in finding.text) == ("error", True)

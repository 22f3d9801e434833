"""The supervisor's configuration, its lock, and the hunt for what an earlier run left."""

import configparser
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bin.components import components
from bin.supervision import (
    MARK,
    AlreadyRunning,
    configuration,
    end_leftovers,
    running_pid,
    take_lock,
    write_configuration,
)
from eventlog.configuration import load_settings

CHECKOUT = Path(__file__).resolve().parents[2]


def _parsed(tmp_path: Path, **environ: str) -> configparser.ConfigParser:
    settings = load_settings({"WALDEN_DATA_DIR": str(tmp_path), **environ})
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_string(configuration(tmp_path, components(settings)))
    return parser


def test_the_database_starts_first_and_stops_last_and_the_api_stops_first(tmp_path: Path) -> None:
    parsed = _parsed(tmp_path, WALDEN_LOG_SHARDS="2")
    order = sorted(
        (int(parsed[name]["priority"]), name.removeprefix("program:")) for name in parsed if name.startswith("program:")
    )
    names = [name for _, name in order]
    assert names[0] == "postgres"
    assert names[1:3] == ["roomserver-0", "roomserver-1"]
    assert names[-1] == "api"
    assert parsed["program:postgres"]["stopsignal"] == "INT"


def test_with_a_dsn_there_is_no_database_to_supervise(tmp_path: Path) -> None:
    assert "program:postgres" not in _parsed(tmp_path, WALDEN_DATABASE_DSN="dbname=w")


def test_other_servers_get_processes_of_their_own_only_for_another_certificate(tmp_path: Path) -> None:
    assert "program:federation" not in _parsed(tmp_path)
    tls = {"WALDEN_FEDERATION_TLS_CERTIFICATE": "/c", "WALDEN_FEDERATION_TLS_KEY": "/k"}
    assert "program:federation" in _parsed(tmp_path, **tls)
    assert "program:federation" not in _parsed(tmp_path, **tls, WALDEN_FEDERATION_LISTEN="")


EARLY = """
import os, signal, sys
from pathlib import Path
from bin import supervision
folder, number, become = Path(sys.argv[1]), int(sys.argv[2]), os.execve
def signalled(*arguments):
    os.kill(os.getpid(), number)
    become(*arguments)
os.execve = signalled
supervision.become_supervisor(folder, supervision.write_configuration(folder, []), os.environ)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_comes_before_the_supervisor_has_loaded_ends_it_in_order(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY, str(tmp_path), str(int(number))],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "indicating exit request" in (tmp_path / "logs" / "supervisor.log").read_text()


def test_a_percent_sign_in_the_path_is_no_expansion(tmp_path: Path) -> None:
    folder = tmp_path / "100% sure"
    settings = load_settings({"WALDEN_DATA_DIR": str(folder)})
    folder.mkdir()
    text = write_configuration(folder, components(settings)).read_text()
    assert "100%% sure" in text
    assert "100% sure" not in text.replace("%%", "")


def test_one_data_directory_has_one_supervisor(tmp_path: Path) -> None:
    assert running_pid(tmp_path) is None
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import pathlib, sys, bin.supervision as s; s.take_lock(pathlib.Path(sys.argv[1])); print('held', flush=True);"
            "sys.stdin.read()",
            str(tmp_path),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert running_pid(tmp_path) == holder.pid
    with pytest.raises(AlreadyRunning, match=str(holder.pid)):
        take_lock(tmp_path)
    holder.stdin.close()
    holder.wait(10)
    holder.stdout.close()
    assert running_pid(tmp_path) is None


@pytest.mark.processes
def test_leftovers_of_this_data_directory_are_ended_and_no_others(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    # One that does not react to being asked.
    stubborn = (
        "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    )
    sleepers = [
        subprocess.Popen([sys.executable, "-c", stubborn], env={MARK: str(folder)}, stdout=subprocess.PIPE)
        for folder in (ours, theirs)
    ]
    try:
        for sleeper in sleepers:
            assert sleeper.stdout is not None
            assert sleeper.stdout.readline() == b"up\n"
        assert len(end_leftovers(ours, 0.3)) == 1
        assert sleepers[0].poll() is not None
        assert sleepers[1].poll() is None
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait(5)
            assert sleeper.stdout is not None
            sleeper.stdout.close()

"""`walden up`: one line when it answers, an orderly stop, and up again whatever was killed."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from installations import Installation

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(300)]


def _answers(one: Installation) -> bool:
    try:
        with urllib.request.urlopen(one.url + "/_matrix/client/versions", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_it_says_where_it_answers_and_stops_in_order_leaving_nothing(tmp_path: Path) -> None:
    with Installation(tmp_path / "d") as one:
        assert _answers(one)
        assert {"postgres", "roomserver-0", "maintenance", "api"} <= {c["name"] for c in one.status()["components"]}
        second = one.walden("up")
        assert second.returncode == 1
        assert f"process {one.process.pid}" in second.stderr  # type: ignore[union-attr]
        database = one.component("postgres")
        other = one.walden("postgres")
        assert (other.returncode, "running already" in other.stderr) == (1, True)
        assert database.is_running()
        assert one.stop(signal.SIGINT) == 0
        assert one.processes() == []
        log = (tmp_path / "d" / "logs" / "supervisor.log").read_text()
        stopped = [line.split("stopped: ")[1].split()[0] for line in log.splitlines() if "stopped: " in line]
        assert stopped[0] == "api"
        assert set(stopped[1:-2]) == {"maintenance", "projections"}
        assert stopped[-2:] == ["roomserver-0", "postgres"]
        assert "database system is shut down" in (tmp_path / "d" / "logs" / "postgres.log").read_text()


def test_a_second_run_carries_on_with_the_data(tmp_path: Path) -> None:
    with Installation(tmp_path / "d") as one:
        assert one.walden("user", "add", "alice", "--password-stdin", text="secret\n").returncode == 0
        key = (tmp_path / "d" / "signing.key").read_bytes()
        assert one.stop(signal.SIGTERM) == 0
        one.start()
        assert "@alice:localhost" in one.walden("user", "list").stdout
        assert (tmp_path / "d" / "signing.key").read_bytes() == key


def test_after_kill_9_of_every_process_it_comes_up_by_itself(tmp_path: Path) -> None:
    with Installation(tmp_path / "d") as one:
        one.walden("user", "add", "alice", "--password-stdin", text="secret\n")
        assert one.kill_everything() > 8
        one.start()
        assert _answers(one)
        assert "@alice:localhost" in one.walden("user", "list").stdout


def test_who_interrupts_the_start_and_reads_to_the_end_of_its_output_gets_there(tmp_path: Path) -> None:
    """Before they ask for the exit code, too: a supervisor that has ended and was not waited for is dead."""
    one = Installation(tmp_path / "d")
    with contextlib.ExitStack() as at_end:
        at_end.callback(one.kill_everything)
        process = one.process = subprocess.Popen(
            [sys.executable, "-m", "bin.command", "up"],
            env=one.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = [process.stdout.readline()]
        while said[-1] and "made the schema" not in said[-1]:
            said.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        said.append(process.stdout.read())
        assert process.wait(60) == 0
        assert "the start failed" not in "".join(said)
        assert one.processes() == []


def test_what_a_killed_supervisor_leaves_running_is_replaced(tmp_path: Path) -> None:
    with Installation(tmp_path / "d") as one:
        assert one.process is not None
        left = psutil.Process(one.process.pid).children(recursive=True)
        one.process.kill()
        one.process.wait(10)
        one.start()
        assert _answers(one)
        assert not any(process.is_running() for process in left)


@pytest.mark.parametrize("name", ["postgres", "roomserver-0", "maintenance", "api"])
def test_a_killed_component_is_started_again(tmp_path: Path, name: str) -> None:
    with Installation(tmp_path / "d") as one:
        before = one.component(name)
        before.kill()

        def back() -> bool:
            with contextlib.suppress(StopIteration):
                now = next(c for c in one.status()["components"] if c["name"] == name)
                return now["pid"] not in (None, before.pid) and now["state"] == "running" and _answers(one)
            return False

        _until(back)


def test_installations_run_side_by_side(tmp_path: Path) -> None:
    with (
        Installation(tmp_path / "a", WALDEN_SERVER_NAME="a.example") as first,
        Installation(tmp_path / "b", WALDEN_SERVER_NAME="b.example") as second,
    ):
        for one, name in ((first, "a.example"), (second, "b.example")):
            assert one.walden("user", "add", "alice", "--password-stdin", text="secret\n").returncode == 0
            assert one.walden("user", "list").stdout.split()[0] == f"@alice:{name}"
        assert first.kill_everything()
        assert _answers(second)


def test_a_taken_port_is_said_before_anything_is_started(tmp_path: Path) -> None:
    one = Installation(tmp_path / "d")
    host, port = one.environ["WALDEN_CLIENT_LISTEN"].split(":")
    with socket.socket() as taken:
        taken.bind((host, int(port)))
        taken.listen()
        done = one.walden("up")
    assert done.returncode == 1
    assert f"cannot listen on {host}:{port}" in done.stderr
    assert "Traceback" not in done.stderr
    assert one.processes() == []


def test_a_component_that_cannot_start_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    with Installation(tmp_path / "d") as one:
        one.stop()
        one.environ["WALDEN_SERVER_NAME"] = "another.example"
        with pytest.raises(AssertionError, match="belongs to the server localhost"):
            one.start()
        assert one.process is not None
        assert one.process.returncode == 1
        assert one.processes() == []
        # The same when whoever would read the reason has gone (`bin/up | head`).
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "bin.command", "up"]
        try:
            unread = subprocess.run(command, env=one.environ, stdout=writing, stderr=writing, timeout=120, check=False)
        finally:
            os.close(writing)
        assert unread.returncode == 1
        assert one.processes() == []

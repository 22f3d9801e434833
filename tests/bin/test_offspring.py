"""Components as forks of the supervisor: what they find is what an exec would have given them."""

import signal
import time
from pathlib import Path

import psutil
import pytest
from installations import Installation

from bin.supervision import MARK

pytestmark = [pytest.mark.processes, pytest.mark.slow]


def _signals(process: psutil.Process, kind: str) -> set[signal.Signals]:
    """Those that a process ignores (SigIgn)."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = int(next(line.split()[1] for line in status.splitlines() if line.startswith(kind)), 16)
    return {signal.Signals(number) for number in range(1, 32) if mask >> (number - 1) & 1}


def test_a_fork_has_a_title_its_mark_and_signals_of_its_own_and_nothing_that_the_supervisor_has_open(
    tmp_path: Path,
) -> None:
    with Installation(tmp_path / "d") as one:
        found = {c["name"]: psutil.Process(c["pid"]) for c in one.status()["components"] if c["name"] != "postgres"}
        assert found["roomserver-0"].cmdline()[0] == "walden roomserver --shard 0"
        assert found["maintenance"].cmdline()[0] == "walden reader maintenance"
        supervisor = psutil.Process(one.process.pid)  # type: ignore[union-attr]
        for process in found.values():
            assert process.ppid() == supervisor.pid
            # The mark is what the next start finds leftovers by.
            assert process.environ()[MARK] == str((tmp_path / "d").resolve())
            assert _signals(process, "SigIgn") == {signal.SIGPIPE, signal.SIGXFSZ}  # what Python ignores
            opened = {str(link.readlink()) for link in Path(f"/proc/{process.pid}/fd").iterdir()}
            assert not any(name.endswith(("run/lock", "supervisor.sock", "supervisor.log")) for name in opened)
            assert process.memory_full_info().uss < 0.8 * process.memory_full_info().rss
        # Its own handlers do their work: told to end, it ends with 0, and the next one is a fork as well.
        found["roomserver-0"].terminate()
        end = time.monotonic() + 60
        while (pids := {c["name"]: c["pid"] for c in one.status()["components"]})["roomserver-0"] in (
            0,
            None,
            found["roomserver-0"].pid,
        ):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert psutil.Process(pids["roomserver-0"]).cmdline()[0] == "walden roomserver --shard 0"
        log = (tmp_path / "d" / "logs" / "supervisor.log").read_text()
        assert "exited: roomserver-0 (exit status 0" in log

"""Whole installations for tests: `walden up` in a folder of its own, with free ports, to be used, killed and started again.

Invariant: only processes of the installation itself are ever signalled, by process id, and none is left at the end.

    with Installation(tmp_path / "one", WALDEN_REGISTRATION="open") as one:
        urllib.request.urlopen(one.url + "/_matrix/client/versions")
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from bin.ports import free_port

START_SECONDS = 120.0
STOP_SECONDS = 60.0


class Installation:
    """One data directory and, between start and stop, the processes on it."""

    python: tuple[str, ...] = (sys.executable,)
    """The interpreter; with a command before it, to be run as somebody else."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        self.data_dir = data_dir
        self.url = f"http://127.0.0.1:{free_port()}"
        ports = {
            "WALDEN_CLIENT_LISTEN": self.url.removeprefix("http://"),
            "WALDEN_FEDERATION_LISTEN": f"127.0.0.1:{free_port()}",
            "WALDEN_RATE_LIMITS": "off",
        }
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("WALDEN_", "PG"))}
        self.environ = inherited | {"WALDEN_DATA_DIR": str(data_dir)} | ports | environ
        self.log = data_dir.with_name(f"{data_dir.name}.log")
        self.process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill_everything()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.stop()
        self.kill_everything()

    def start(self) -> str:
        """`walden up`; returns the line with the base URL once it is printed. AssertionError with what it said else."""
        offset = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.python, "-m", "bin.command", "up"],
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            said = self.log.read_text(encoding="utf-8", errors="replace")[offset:]
            if found := re.search(rf"^.*{re.escape(self.url)}$", said, re.MULTILINE):
                return found[0]
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no start (exit code {self.process.poll()}):\n{said}\n{self.logs()}")

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop; the exit code."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS)

    def walden(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """A `walden` subcommand on this installation."""
        return subprocess.run(
            [*self.python, "-m", "bin.command", *arguments],
            env=self.environ,
            input=text,
            capture_output=True,
            text=True,
            timeout=STOP_SECONDS,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        """`walden status --json`."""
        found: dict[str, Any] = json.loads(self.walden("status", "--json").stdout)
        return found

    def component(self, name: str) -> psutil.Process:
        """The supervised process of a component, once it runs."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            for one in self.status()["components"]:
                if one["name"] == name and one["pid"] and one["state"] in ("running", "starting"):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        return psutil.Process(one["pid"])
            time.sleep(0.1)
        raise AssertionError(f"{name} does not run:\n{self.logs()}")

    def processes(self) -> list[psutil.Process]:
        """Every live process of this installation, whether or not its supervisor is still there."""
        # The supervisor and what it started carry the data directory; PostgreSQL works in it.
        mark, folder = str(self.data_dir.resolve()), str(self.data_dir.resolve() / "postgres" / "data")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get("WALDEN_SUPERVISED") == mark or process.cwd() == folder
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def kill_everything(self) -> int:
        """kill -9 of every process of this installation; how many there were."""
        killed = 0
        while alive := self.processes():
            for process in alive:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
                    killed += 1
            psutil.wait_procs(alive, timeout=5)
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.wait(STOP_SECONDS)
        return killed

    def logs(self, lines: int = 15) -> str:
        """The ends of all components' logs, for a failing test's message."""
        parts = []
        for log in sorted((self.data_dir / "logs").glob("*.log")):
            text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"== {log.name}", *text]))
        return "\n".join(parts)

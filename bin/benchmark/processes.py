"""Processes that the benchmark starts, found again whatever they fork, measured from /proc and always stopped.

A server may fork, daemonise or run a supervisor; all its processes inherit a mark in their environment. Only processes that
descend from one that was started here are ever signalled. PostgreSQL's processes are counted apart.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

MARK = "WALDEN_BENCH_MARK"
Pids = Callable[[], Iterable[int]]
TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 30.0


class Group:
    """All processes that descend from one command."""

    def __init__(self, command: list[str], log: Path, environment: Mapping[str, str] | None = None) -> None:
        self.mark = f"{os.getpid()}-{uuid4().hex}"
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {}), MARK: self.mark},
                start_new_session=True,
                cwd=str(log.parent),
            )

    def pids(self) -> list[int]:
        """Every living process with the mark, in the first one's session, or descended from such a one."""
        # Three ways, because a program that sets its title writes over its environment, and a supervisor begins a session.
        wanted = f"{MARK}={self.mark}".encode()
        parents: dict[int, int] = {}
        found: set[int] = set()
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                fields = Path(entry.path, "stat").read_text().rsplit(")", 1)[1].split()
                environment = Path(entry.path, "environ").read_bytes()
            except OSError:
                continue
            pid, state, parent, session = int(entry.name), fields[0], int(fields[1]), int(fields[3])
            if state == "Z":
                continue
            parents[pid] = parent
            if session == self.process.pid or wanted in environment.split(b"\0"):
                found.add(pid)
        grown = True
        while grown:
            more = {pid for pid, parent in parents.items() if parent in found} - found
            found |= more
            grown = bool(more)
        return sorted(found)

    def running(self) -> bool:
        return self.process.poll() is None

    def stop(self, first: signal.Signals = signal.SIGTERM) -> None:
        """Asks the first process to stop, and ends whatever with the mark is there after STOP_SECONDS."""
        if self.process.poll() is None:
            self.process.send_signal(first)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            self.process.poll()
            if not self.pids():
                return
            time.sleep(0.1)
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            return

    def tail(self, lines: int = 12) -> str:
        """The end of what the processes printed, for an error message."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return ""


def program(pid: int) -> str:
    """The name of the process's program, or '' when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def memory(pids: Iterable[int]) -> int | None:
    """The proportional set size of the processes in bytes, PostgreSQL's left out; None when /proc does not say."""
    total = 0
    for pid in pids:
        if program(pid) == "postgres":
            continue
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except FileNotFoundError:
            continue
        except OSError:
            return None
        for line in rollup.splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def processor_seconds(pids: Iterable[int]) -> dict[int, float]:
    """User and system time that each living process has used so far."""
    used: dict[int, float] = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        used[pid] = (int(fields[11]) + int(fields[12])) / TICKS
    return used


def machine_seconds() -> tuple[float, float]:
    """Processor time of the whole machine so far: busy, and stolen by the host."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft) / TICKS, stolen / TICKS


@dataclass(frozen=True, slots=True)
class Usage:
    """Processor time in one interval, each as a share of ONE core: 1.0 is a core kept busy."""

    wall: float
    generator: float
    server: float
    postgres: float
    others: float
    stolen: float


class Meter:
    """Measures the interval between its making and `read`; a process born in it counts whole, one that died in it not."""

    def __init__(self, server: Pids, postgres: Pids) -> None:
        self._sources = (server, postgres)
        self._before = [processor_seconds(pids()) for pids in self._sources]
        self._busy, self._stolen = machine_seconds()
        self._own = time.process_time()
        self._start = time.perf_counter()

    def read(self) -> Usage:
        wall = max(time.perf_counter() - self._start, 1e-9)
        own = time.process_time() - self._own
        busy, stolen = machine_seconds()
        server, postgres = (
            sum(seconds - before.get(pid, 0.0) for pid, seconds in processor_seconds(pids()).items())
            for pids, before in zip(self._sources, self._before, strict=True)
        )
        others = max(0.0, busy - self._busy - own - server - postgres)
        return Usage(wall, own / wall, server / wall, postgres / wall, others / wall, (stolen - self._stolen) / wall)
